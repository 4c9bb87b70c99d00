// The bundle's test vector: test/vector.txt lists the tensors, one raw row-major file each.
//
//   tolerance 0.0001
//   threads 1
//   input input0.bin float32 1 3 224 224
//   output output0.bin float32 1 1000
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "model.h"

namespace billhook {

struct Entry {
  std::filesystem::path file;
  std::string dtype;
  std::vector<std::int64_t> shape;
};

struct Vector {
  double tolerance = 0;
  int threads = 1;
  std::vector<Entry> inputs;
  std::vector<Entry> outputs;
};

inline Vector ReadVector(const std::filesystem::path& folder) {
  std::ifstream stream(folder / "vector.txt");
  if (!stream) throw std::runtime_error((folder / "vector.txt").string() + ": cannot be read; is this a bundle folder?");
  Vector vector;
  std::string line;
  while (std::getline(stream, line)) {
    std::istringstream words(line);
    std::string key, file;
    words >> key;
    if (key == "tolerance") {
      words >> vector.tolerance;
    } else if (key == "threads") {
      words >> vector.threads;
    } else if (key == "input" || key == "output") {
      Entry entry;
      words >> file >> entry.dtype;
      entry.file = folder / file;
      for (std::int64_t size; words >> size;) entry.shape.push_back(size);
      (key == "input" ? vector.inputs : vector.outputs).push_back(entry);
    } else {
      throw std::runtime_error((folder / "vector.txt").string() + ": unknown line: " + line);
    }
  }
  return vector;
}

// The file's content as a tensor of the entry's shape and element type.
inline ffi::Tensor ReadTensor(const Entry& entry, const std::filesystem::path& file) {
  ffi::Tensor tensor = Empty(entry.shape, entry.dtype);
  const std::size_t bytes = ffi::GetDataSize(tensor);
  std::error_code error;
  const std::uintmax_t found = std::filesystem::file_size(file, error);
  if (error || found != bytes) {
    throw std::runtime_error(file.string() + ": expected a file of " + std::to_string(bytes) + " bytes" +
                             (error ? ", " + error.message() : ", found " + std::to_string(found)));
  }
  std::ifstream stream(file, std::ios::binary);
  if (!stream.read(static_cast<char*>(tensor.data_ptr()), static_cast<std::streamsize>(bytes))) {
    throw std::runtime_error(file.string() + ": cannot be read");
  }
  return tensor;
}

inline void WriteTensor(const ffi::Tensor& tensor, const std::filesystem::path& file) {
  std::ofstream stream(file, std::ios::binary);
  const auto bytes = static_cast<std::streamsize>(ffi::GetDataSize(tensor));
  if (!stream.write(static_cast<const char*>(tensor.data_ptr()), bytes) || !stream.flush()) {
    throw std::runtime_error(file.string() + ": cannot be written");
  }
}

// Largest absolute difference over largest absolute expected value; infinite where one of them is not a number.
inline double RelativeError(const ffi::Tensor& actual, const ffi::Tensor& expected) {
  if (actual.dtype() != expected.dtype() || actual.numel() != expected.numel()) {
    throw std::runtime_error("an output has another shape or element type than its expected value");
  }
  if (expected.dtype() != ffi::StringToDLDataType("float32")) {
    const bool equal = std::memcmp(actual.data_ptr(), expected.data_ptr(), ffi::GetDataSize(expected)) == 0;
    return equal ? 0.0 : INFINITY;
  }
  const auto* a = static_cast<const float*>(actual.data_ptr());
  const auto* b = static_cast<const float*>(expected.data_ptr());
  double difference = 0, scale = 0;
  for (std::int64_t i = 0; i < expected.numel(); ++i) {
    const double here = std::abs(static_cast<double>(a[i]) - b[i]);
    if (!std::isfinite(here)) return INFINITY;
    difference = std::max(difference, here);
    scale = std::max(scale, static_cast<double>(std::abs(b[i])));
  }
  return difference == 0 ? 0 : difference / scale;
}

}  // namespace billhook
