// Runs a Billhook bundle without Python: the test vector against its expected output, your own inputs, or a timing.

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <unistd.h>
#include <vector>

#include "model.h"
#include "vector.h"

namespace {

constexpr char kUsage[] =
    "usage: billhook_runner BUNDLE [--input FILE]... [--output FILE]... [--time RUNS] [--threads N]\n"
    "  --input    raw row-major tensors to run instead of the test vector's, in order (nothing is compared)\n"
    "  --output   where to write the raw outputs, in order\n"
    "  --time     run so many times more and print the minimum and the median\n"
    "exit status: 0 the output is as expected, 1 it is not, 2 the bundle cannot be run\n";

struct Options {
  std::filesystem::path bundle;
  std::vector<std::filesystem::path> inputs;
  std::vector<std::filesystem::path> outputs;
  int runs = 0;
  int threads = 0;
};

int PositiveNumber(const std::string& option, const std::string& text) {
  std::size_t end = 0;
  int number = 0;
  try {
    number = std::stoi(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  if (end == 0 || end != text.size() || number < 1) {
    throw std::invalid_argument(option + " " + text + ": not a number above zero");
  }
  return number;
}

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.rfind("--", 0) != 0) {
      if (!options.bundle.empty()) throw std::invalid_argument(word + ": one bundle at a time");
      options.bundle = word;
      continue;
    }
    if (i + 1 == argc) throw std::invalid_argument(word + ": needs a value");
    const std::string value = argv[++i];
    if (word == "--input") {
      options.inputs.emplace_back(value);
    } else if (word == "--output") {
      options.outputs.emplace_back(value);
    } else if (word == "--time") {
      options.runs = PositiveNumber(word, value);
    } else if (word == "--threads") {
      options.threads = PositiveNumber(word, value);
    } else {
      throw std::invalid_argument(word + ": unknown option");
    }
  }
  if (options.bundle.empty()) throw std::invalid_argument("no bundle named");
  return options;
}

// Only async-signal-safe calls are allowed here.
void OnIllegalInstruction(int) {
  constexpr char kMessage[] =
      "error: this processor lacks instructions that the library was built for; see target in manifest.json\n";
  [[maybe_unused]] const auto written = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
  _exit(2);
}

std::vector<billhook::ffi::Tensor> ReadInputs(const Options& options, const billhook::Vector& vector) {
  if (!options.inputs.empty() && options.inputs.size() != vector.inputs.size()) {
    throw std::invalid_argument("--input: the model takes " + std::to_string(vector.inputs.size()) + " inputs");
  }
  std::vector<billhook::ffi::Tensor> inputs;
  for (std::size_t i = 0; i < vector.inputs.size(); ++i) {
    const billhook::Entry& entry = vector.inputs[i];
    inputs.push_back(billhook::ReadTensor(entry, options.inputs.empty() ? entry.file : options.inputs[i]));
  }
  return inputs;
}

bool Compare(const std::vector<billhook::ffi::Tensor>& outputs, const billhook::Vector& vector) {
  if (outputs.size() != vector.outputs.size()) throw std::runtime_error("the model has another number of outputs");
  bool ok = true;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const billhook::Entry& entry = vector.outputs[i];
    const double error = billhook::RelativeError(outputs[i], billhook::ReadTensor(entry, entry.file));
    const bool fits = error <= vector.tolerance;
    std::printf("output %zu: max relative error %.3g, tolerance %g: %s\n", i, error, vector.tolerance, fits ? "ok" : "DIFFERS");
    ok = ok && fits;
  }
  return ok;
}

void Time(const billhook::Model& model, const std::vector<billhook::ffi::Tensor>& inputs, int runs) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> milliseconds;
  for (int i = 0; i < runs; ++i) {
    const Clock::time_point start = Clock::now();
    model.Run(inputs);
    milliseconds.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  std::printf("latency: min %.4f ms, median %.4f ms, %d runs\n", milliseconds.front(), milliseconds[milliseconds.size() / 2], runs);
}

int Run(const Options& options) {
  const billhook::Vector vector = billhook::ReadVector(options.bundle / "test");
  billhook::SetThreads(options.threads > 0 ? options.threads : vector.threads);
  const billhook::Model model(options.bundle / "lib" / "model.so");
  const std::vector<billhook::ffi::Tensor> inputs = ReadInputs(options, vector);
  const std::vector<billhook::ffi::Tensor> outputs = model.Run(inputs);
  if (options.outputs.size() > outputs.size()) {
    throw std::invalid_argument("--output: the model has " + std::to_string(outputs.size()) + " outputs");
  }
  for (std::size_t i = 0; i < options.outputs.size(); ++i) billhook::WriteTensor(outputs[i], options.outputs[i]);
  const bool ok = !options.inputs.empty() || Compare(outputs, vector);
  if (options.runs > 0) Time(model, inputs, options.runs);
  return ok ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGILL, OnIllegalInstruction);
  try {
    return Run(Parse(argc, argv));
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "error: %s\n%s", error.what(), kUsage);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
  }
  return 2;
}
