// Runs an OpenCL bundle without Python and without TVM: the test vector against its expected output, your own inputs, or a timing.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>

#include "program.h"

namespace {

constexpr char kUsage[] =
    "usage: billhook_runner BUNDLE [--device N] [--input FILE]... [--output FILE]... [--time RUNS]\n"
    "  --device   number of the OpenCL device, GPUs first (0)\n"
    "  --input    raw row-major tensors to run instead of the test vector's, in order (nothing is compared)\n"
    "  --output   where to write the raw outputs, in order\n"
    "  --time     run so many times more and print the minimum and the median\n"
    "exit status: 0 the output is as expected, 1 it is not, 2 the bundle cannot be run\n";

using Path = std::filesystem::path;

struct Options {
  Path bundle;
  std::vector<Path> inputs;
  std::vector<Path> outputs;
  unsigned device = 0;
  int runs = 0;
};

struct Vector {
  double tolerance = 0;
  std::vector<Path> inputs;
  std::vector<Path> outputs;
  std::vector<std::string> kinds;  // element types of the outputs
};

unsigned Number(const std::string& option, const std::string& text) {
  if (text.empty() || text.size() > 6 || text.find_first_not_of("0123456789") != std::string::npos) {
    throw std::invalid_argument(option + " " + text + ": not a number");
  }
  return static_cast<unsigned>(std::stoul(text));
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
    } else if (word == "--device") {
      options.device = Number(word, value);
    } else if (word == "--time") {
      options.runs = static_cast<int>(Number(word, value));
    } else {
      throw std::invalid_argument(word + ": unknown option");
    }
  }
  if (options.bundle.empty()) throw std::invalid_argument("no bundle named");
  return options;
}

Vector ReadVector(const Path& folder) {
  Vector vector;
  std::istringstream lines(billhook::ReadFile(folder / "vector.txt"));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string key, file, kind;
    words >> key;
    if (key == "tolerance") {
      words >> vector.tolerance;
    } else if (key == "input") {
      words >> file;
      vector.inputs.push_back(folder / file);
    } else if (key == "output") {
      words >> file >> kind;
      vector.outputs.push_back(folder / file);
      vector.kinds.push_back(kind);
    }
  }
  return vector;
}

// Largest absolute difference over largest absolute expected value; infinite where one of them is not a number.
double RelativeError(const std::vector<char>& actual, const std::string& expected, const std::string& kind) {
  if (actual.size() != expected.size()) return INFINITY;
  if (kind != "float32") return std::memcmp(actual.data(), expected.data(), actual.size()) == 0 ? 0.0 : INFINITY;
  double difference = 0, scale = 0;
  for (std::size_t at = 0; at + sizeof(float) <= actual.size(); at += sizeof(float)) {
    float a = 0, b = 0;
    std::memcpy(&a, actual.data() + at, sizeof a);
    std::memcpy(&b, expected.data() + at, sizeof b);
    const double here = std::abs(static_cast<double>(a) - b);
    if (!std::isfinite(here)) return INFINITY;
    difference = std::max(difference, here);
    scale = std::max(scale, static_cast<double>(std::abs(b)));
  }
  return difference == 0 ? 0 : difference / scale;
}

bool Compare(const billhook::Program& program, const Vector& vector) {
  if (program.outputs() != vector.outputs.size()) throw std::runtime_error("the program has another number of outputs");
  bool ok = true;
  for (std::size_t i = 0; i < vector.outputs.size(); ++i) {
    const double error = RelativeError(program.Output(i), billhook::ReadFile(vector.outputs[i]), vector.kinds[i]);
    const bool fits = error <= vector.tolerance;
    std::printf("output %zu: max relative error %.3g, tolerance %g: %s\n", i, error, vector.tolerance, fits ? "ok" : "DIFFERS");
    ok = ok && fits;
  }
  return ok;
}

void Time(billhook::Program& program, int runs) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> milliseconds;
  for (int i = 0; i < runs; ++i) {
    const Clock::time_point start = Clock::now();
    program.Run();
    milliseconds.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  std::printf("latency: min %.4f ms, median %.4f ms, %d runs\n", milliseconds.front(), milliseconds[milliseconds.size() / 2], runs);
}

int Run(const Options& options) {
  const Vector vector = ReadVector(options.bundle / "test");
  billhook::Program program(options.bundle / "lib", billhook::FindDevice(options.device));
  const std::vector<Path>& files = options.inputs.empty() ? vector.inputs : options.inputs;
  if (files.size() != program.inputs()) throw std::invalid_argument("--input: the model takes " + std::to_string(program.inputs()) + " inputs");
  for (std::size_t i = 0; i < files.size(); ++i) {
    const std::string data = billhook::ReadFile(files[i]);
    program.SetInput(i, data.data(), data.size());
  }
  program.Run();
  if (options.outputs.size() > program.outputs()) {
    throw std::invalid_argument("--output: the model has " + std::to_string(program.outputs()) + " outputs");
  }
  for (std::size_t i = 0; i < options.outputs.size(); ++i) {
    const std::vector<char> data = program.Output(i);
    std::ofstream stream(options.outputs[i], std::ios::binary);
    if (!stream.write(data.data(), static_cast<std::streamsize>(data.size())).flush()) {
      throw std::runtime_error(options.outputs[i].string() + ": cannot be written");
    }
  }
  const bool ok = !options.inputs.empty() || Compare(program, vector);
  if (options.runs > 0) Time(program, options.runs);
  return ok ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Run(Parse(argc, argv));
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "error: %s\n%s", error.what(), kUsage);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
  }
  return 2;
}
