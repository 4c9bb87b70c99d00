// A compiled network on an OpenCL device: this header, the files in lib/ and an OpenCL library are all it needs.
//
//   billhook::Program program("lib", billhook::FindDevice(0));
//   program.SetInput(0, image.data(), image.size() * sizeof(float));
//   program.Run();
//   std::vector<char> output = program.Output(0);
//
// lib/launches.txt lists values by number, a line each in this order, then the launches and the outputs:
//   input BYTES | constant OFFSET BYTES (in weights.bin) | value OFFSET (in one arena)
//   launch KERNEL global x y z, local x y z, value...
//   output VALUE BYTES
#pragma once

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace billhook {

inline void Check(cl_int code, const std::string& what) {
  if (code == CL_SUCCESS) return;
  const bool gone = code == CL_DEVICE_NOT_AVAILABLE || code == CL_DEVICE_NOT_FOUND || code == CL_INVALID_DEVICE;
  throw std::runtime_error(what + ": OpenCL error " + std::to_string(code) + (gone ? ", the device is gone" : ""));
}

// The device of this number, counted over all platforms: GPUs first.
inline cl_device_id FindDevice(unsigned number) {
  cl_uint platforms = 0;
  if (clGetPlatformIDs(0, nullptr, &platforms) != CL_SUCCESS || platforms == 0) {
    throw std::runtime_error("no OpenCL platform; install the GPU's driver");
  }
  std::vector<cl_platform_id> ids(platforms);
  Check(clGetPlatformIDs(platforms, ids.data(), nullptr), "listing platforms");
  std::vector<cl_device_id> found;
  for (const cl_device_type kind : {cl_device_type{CL_DEVICE_TYPE_GPU}, cl_device_type{CL_DEVICE_TYPE_ALL & ~CL_DEVICE_TYPE_GPU}}) {
    for (cl_platform_id platform : ids) {
      cl_uint count = 0;
      if (clGetDeviceIDs(platform, kind, 0, nullptr, &count) != CL_SUCCESS || count == 0) continue;
      std::vector<cl_device_id> here(count);
      Check(clGetDeviceIDs(platform, kind, count, here.data(), nullptr), "listing devices");
      found.insert(found.end(), here.begin(), here.end());
    }
  }
  if (number >= found.size()) throw std::runtime_error("there are only " + std::to_string(found.size()) + " OpenCL devices");
  return found[number];
}

template <typename T>
T DeviceInfo(cl_device_id device, cl_device_info what) {
  T value{};
  Check(clGetDeviceInfo(device, what, sizeof(T), &value, nullptr), "asking the device");
  return value;
}

inline std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error(path.string() + ": cannot be read; is the bundle whole?");
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

class Program {
 public:
  Program(const std::filesystem::path& folder, cl_device_id device) : device_(device) {
    cl_int code = CL_SUCCESS;
    context_ = clCreateContext(nullptr, 1, &device, nullptr, nullptr, &code);
    Check(code, "creating a context");
    queue_ = clCreateCommandQueue(context_, device, CL_QUEUE_PROFILING_ENABLE, &code);
    Check(code, "creating a queue");
    Compile(ReadFile(folder / "kernels.cl"));
    const std::string weights = ReadFile(folder / "weights.bin");
    std::istringstream lines(ReadFile(folder / "launches.txt"));
    for (std::string line; std::getline(lines, line);) Read(line, weights);
    Check(clFinish(queue_), "uploading the weights");
  }

  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  ~Program() {
    for (const Launch& launch : launches_) clReleaseKernel(launch.kernel);
    for (cl_mem value : values_) clReleaseMemObject(value);
    if (arena_ != nullptr) clReleaseMemObject(arena_);
    if (program_ != nullptr) clReleaseProgram(program_);
    if (queue_ != nullptr) clReleaseCommandQueue(queue_);
    if (context_ != nullptr) clReleaseContext(context_);
  }

  std::size_t inputs() const { return inputs_.size(); }
  std::size_t outputs() const { return outputs_.size(); }

  void SetInput(std::size_t index, const void* data, std::size_t bytes) {
    if (index >= inputs_.size() || inputs_[index] != bytes) throw std::runtime_error("input " + std::to_string(index) + " has another size");
    Check(clEnqueueWriteBuffer(queue_, values_[index], CL_TRUE, 0, bytes, data, 0, nullptr, nullptr), "copying an input");
  }

  void Run() {
    for (const Launch& l : launches_) {
      Check(clEnqueueNDRangeKernel(queue_, l.kernel, 3, nullptr, l.global, l.local, 0, nullptr, nullptr), "launching " + l.name);
    }
    Check(clFinish(queue_), "running the network");
  }

  std::vector<char> Output(std::size_t index) const {
    const auto [value, bytes] = outputs_.at(index);
    std::vector<char> result(bytes);
    Check(clEnqueueReadBuffer(queue_, values_[value], CL_TRUE, 0, bytes, result.data(), 0, nullptr, nullptr), "reading an output");
    return result;
  }

 private:
  struct Launch {
    std::string name;
    cl_kernel kernel;
    std::size_t global[3];
    std::size_t local[3];
  };
  struct Result {
    std::size_t value;
    std::size_t bytes;
  };

  void Compile(const std::string& source) {
    cl_int code = CL_SUCCESS;
    const char* text = source.c_str();
    const std::size_t length = source.size();
    program_ = clCreateProgramWithSource(context_, 1, &text, &length, &code);
    Check(code, "creating the program");
    if (clBuildProgram(program_, 1, &device_, "", nullptr, nullptr) == CL_SUCCESS) return;
    std::size_t size = 0;
    clGetProgramBuildInfo(program_, device_, CL_PROGRAM_BUILD_LOG, 0, nullptr, &size);
    std::string log(size, '\0');
    clGetProgramBuildInfo(program_, device_, CL_PROGRAM_BUILD_LOG, size, log.data(), nullptr);
    throw std::runtime_error("kernels.cl does not build: " + log.substr(0, log.find('\n')));
  }

  cl_mem Buffer(std::size_t bytes) {
    const auto most = DeviceInfo<cl_ulong>(device_, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
    if (bytes > most) {
      throw std::runtime_error("a buffer of " + std::to_string(bytes) + " bytes, the device allows " + std::to_string(most));
    }
    cl_int code = CL_SUCCESS;
    cl_mem made = clCreateBuffer(context_, CL_MEM_READ_WRITE, bytes > 0 ? bytes : 1, nullptr, &code);
    Check(code, "allocating " + std::to_string(bytes) + " bytes");
    return made;
  }

  void Read(const std::string& line, const std::string& weights) {
    std::istringstream words(line);
    std::string key;
    words >> key;
    std::size_t first = 0, second = 0;
    if (key == "billhook-opencl") {
      words >> first;
      if (first != 1) throw std::runtime_error("launches.txt: version " + std::to_string(first) + ", this runner reads 1");
    } else if (key == "arena") {
      words >> arena_bytes_;
      arena_ = Buffer(arena_bytes_);
    } else if (key == "input") {
      words >> first;
      inputs_.push_back(first);
      values_.push_back(Buffer(first));
    } else if (key == "constant") {
      words >> first >> second;
      if (first + second > weights.size()) throw std::runtime_error("weights.bin is too short; is the bundle whole?");
      values_.push_back(Buffer(second));
      const char* data = weights.data() + first;
      if (second > 0) Check(clEnqueueWriteBuffer(queue_, values_.back(), CL_TRUE, 0, second, data, 0, nullptr, nullptr), "copying weights");
    } else if (key == "value") {
      words >> first;
      cl_int code = CL_SUCCESS;
      const cl_buffer_region region{first, arena_bytes_ - first};
      values_.push_back(clCreateSubBuffer(arena_, CL_MEM_READ_WRITE, CL_BUFFER_CREATE_TYPE_REGION, &region, &code));
      Check(code, "placing an intermediate value");
    } else if (key == "launch") {
      ReadLaunch(words);
    } else if (key == "output") {
      words >> first >> second;
      outputs_.push_back({first, second});
    } else {
      throw std::runtime_error("launches.txt: unknown line: " + line);
    }
  }

  void ReadLaunch(std::istringstream& words) {
    Launch launch{};
    words >> launch.name;
    for (std::size_t& size : launch.global) words >> size;
    for (std::size_t& size : launch.local) words >> size;
    const std::size_t items = launch.local[0] * launch.local[1] * launch.local[2];
    const auto most = DeviceInfo<std::size_t>(device_, CL_DEVICE_MAX_WORK_GROUP_SIZE);
    if (items > most) {
      throw std::runtime_error(launch.name + " has work-groups of " + std::to_string(items) + " work-items, the device allows " +
                               std::to_string(most) + "; compile the network for this device");
    }
    cl_int code = CL_SUCCESS;
    launch.kernel = clCreateKernel(program_, launch.name.c_str(), &code);
    Check(code, "finding kernel " + launch.name);
    launches_.push_back(launch);
    cl_uint place = 0;
    for (std::size_t value; words >> value; ++place) {
      Check(clSetKernelArg(launch.kernel, place, sizeof(cl_mem), &values_.at(value)), "arguments of " + launch.name);
    }
  }

  cl_device_id device_;
  cl_context context_ = nullptr;
  cl_command_queue queue_ = nullptr;
  cl_program program_ = nullptr;
  cl_mem arena_ = nullptr;
  std::size_t arena_bytes_ = 0;
  std::vector<cl_mem> values_;
  std::vector<std::size_t> inputs_;
  std::vector<Result> outputs_;
  std::vector<Launch> launches_;
};

}  // namespace billhook
