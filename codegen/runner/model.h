// A compiled network in a C++ program: this header, lib/model.so and the two runtime libraries beside it are all it needs.
//
//   billhook::Model model("lib/model.so");
//   ffi::Tensor image = billhook::Empty({1, 3, 224, 224}, "float32");   // row-major, fill image.data_ptr()
//   std::vector<ffi::Tensor> outputs = model.Run({image});
//
// A Model is not safe to Run from two threads at once: give each thread its own.
#pragma once

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace billhook {

namespace ffi = tvm::ffi;

// Kernels load whole vectors: data begins at a multiple of the widest one.
struct AlignedAllocator {
  static constexpr std::size_t kAlignment = 64;

  void AllocData(DLTensor* tensor) {
    const std::size_t bytes = (ffi::GetDataSize(*tensor) / kAlignment + 1) * kAlignment;
    tensor->data = std::aligned_alloc(kAlignment, bytes);
    if (tensor->data == nullptr) throw std::bad_alloc();
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

// An uninitialised row-major tensor in main memory; dtype as numpy calls it ("float32", "int64", ...).
inline ffi::Tensor Empty(const std::vector<std::int64_t>& shape, const std::string& dtype) {
  return ffi::Tensor::FromNDAlloc(AlignedAllocator(), ffi::ShapeView(shape.data(), shape.size()),
                                  ffi::StringToDLDataType(dtype), DLDevice{kDLCPU, 0});
}

// Keeps std::cerr silent while it lives: TVM 0.27 prints a left-over debug line for every constant that it loads. What goes
// wrong is thrown, not printed.
class SilentErrorStream {
 public:
  SilentErrorStream() : buffer_(std::cerr.rdbuf(nullptr)) {}
  ~SilentErrorStream() {
    std::cerr.rdbuf(buffer_);
    std::cerr.clear();
  }
  SilentErrorStream(const SilentErrorStream&) = delete;
  SilentErrorStream& operator=(const SilentErrorStream&) = delete;

 private:
  std::streambuf* buffer_;
};

class Model {
 public:
  explicit Model(const std::filesystem::path& library) : Model(library, SilentErrorStream()) {}

  // Inputs in the order of the model's arguments; outputs in order, nested ones flattened.
  std::vector<ffi::Tensor> Run(const std::vector<ffi::Tensor>& inputs) const {
    const std::vector<ffi::AnyView> arguments(inputs.begin(), inputs.end());
    ffi::Any result;
    main_.CallPacked(arguments.data(), static_cast<std::int32_t>(arguments.size()), &result);
    std::vector<ffi::Tensor> outputs;
    Flatten(result, &outputs);
    return outputs;
  }

 private:
  Model(const std::filesystem::path& library, const SilentErrorStream&)
      : library_(ffi::Module::LoadFromFile(std::filesystem::absolute(library).string())),
        machine_(Lookup(library_, "vm_load_executable")().cast<ffi::Module>()),
        main_(Initialized()) {}

  static ffi::Function Lookup(const ffi::Module& module, const std::string& name) {
    ffi::Optional<ffi::Function> found = module->GetFunction(name);
    if (!found.has_value()) throw std::runtime_error("the library has no function " + name + "; it was not built by Billhook");
    return found.value();
  }

  // The virtual machine wants a (device, index, allocator) triple for data and one for shapes: both the CPU, memory pooled.
  ffi::Function Initialized() const {
    constexpr int kPooled = 2;
    constexpr int kCpu = kDLCPU;
    Lookup(machine_, "vm_initialization")(kCpu, 0, kPooled, kCpu, 0, kPooled);
    return Lookup(machine_, "main");
  }

  static void Flatten(const ffi::Any& value, std::vector<ffi::Tensor>* outputs) {
    if (auto tensor = value.as<ffi::Tensor>()) {
      outputs->push_back(*tensor);
      return;
    }
    for (const ffi::Any& item : value.cast<ffi::Array<ffi::Any>>()) Flatten(item, outputs);
  }

  ffi::Module library_;  // must outlive the two below, whose code it holds
  ffi::Module machine_;
  ffi::Function main_;
};

// Threads of one inference; the runtime otherwise takes one per core.
inline void SetThreads(int threads) {
  ffi::Function::GetGlobalRequired("runtime.config_threadpool")(/*mode=*/1, threads);
}

}  // namespace billhook
