// The board as Verilator simulates it: registers by clocking the model, memory by memory.h.
// simulator PROGRAM MEMORY INPUT OUTPUT MEMORY_AFTER BUS TIMING: files, bytes per beat, the ten numbers of the memory's timing.
// Prints index, kind and simulated cycles of every step.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include "Vaccelerator.h"
#include "billhook_fpga.h"
#include "memory.h"
#include "verilated.h"

double sc_time_stamp() { return 0; }

struct Simulation {
  Vaccelerator top;
  Memory memory;
  Port port{};
  unsigned bus;
  Simulation(MemoryTiming timing, unsigned bus) : memory(timing, bus), bus(bus) {}

  void tick() {
    top.clk = 0;
    top.eval();
    port.read_valid = top.read_valid;
    port.read_address = top.read_address;
    port.read_beats = top.read_beats;
    port.write_valid = top.write_valid;
    port.write_address = top.write_address;
    port.write_beats = top.write_beats;
    port.data_valid = top.write_data_valid;
    port.write_data = reinterpret_cast<const uint8_t *>(&top.write_data);
    memory.step(port);
    top.clk = 1;
    top.eval();
    top.read_ready = port.read_ready;
    top.read_data_valid = port.read_data_valid;
    if (port.read_data_valid) std::memcpy(&top.read_data, port.read_data, bus);
    top.write_ready = port.write_ready;
    top.write_data_ready = port.data_ready;
    top.write_acknowledged = port.acknowledged;
  }
};

static uint32_t read_register(void *context, uint32_t address) {
  auto *s = static_cast<Simulation *>(context);
  s->top.reg_address = address;
  s->tick();
  s->tick();
  return s->top.reg_result;
}

static void write_register(void *context, uint32_t address, uint32_t value) {
  auto *s = static_cast<Simulation *>(context);
  s->top.reg_write = 1;
  s->top.reg_address = address;
  s->top.reg_data = value;
  s->tick();
  s->top.reg_write = 0;
}

static std::vector<uint8_t> read_file(const char *name) {
  std::ifstream file(name, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "%s: cannot be read\n", name);
    std::exit(2);
  }
  return std::vector<uint8_t>(std::istreambuf_iterator<char>(file), {});
}

static void write_file(const char *name, const void *data, size_t size) {
  std::ofstream file(name, std::ios::binary);
  file.write(static_cast<const char *>(data), size);
}

static void observe(void *, uint32_t index, uint32_t kind, uint64_t cycles) {
  std::printf("%u %u %llu\n", index, kind, (unsigned long long)cycles);
}

int main(int argc, char **argv) {
  if (argc != 17) {
    std::fprintf(stderr, "usage: %s PROGRAM MEMORY INPUT OUTPUT MEMORY_AFTER BUS TIMING...\n", argv[0]);
    return 2;
  }
  long number[11];
  for (int i = 0; i < 11; ++i) number[i] = std::atol(argv[6 + i]);
  MemoryTiming timing{number[1], number[2], number[3], number[4], number[5], number[6], number[7], number[8], number[9], number[10]};
  auto program = read_file(argv[1]), input = read_file(argv[3]);
  auto simulation = std::make_unique<Simulation>(timing, static_cast<unsigned>(number[0]));
  simulation->memory.bytes = read_file(argv[2]);
  simulation->top.rst = 1;
  for (int i = 0; i < 4; ++i) simulation->tick();
  simulation->top.rst = 0;
  simulation->tick();
  auto *words = reinterpret_cast<const uint32_t *>(program.data());
  if (program.size() < 64 || input.size() % (billhook_input_size(words) * 4)) {
    std::fprintf(stderr, "the program is damaged, or the input has another size\n");
    return 2;
  }
  size_t images = input.size() / (billhook_input_size(words) * 4), size = billhook_output_size(words);
  std::vector<float> output(images * size);
  billhook_board board{simulation.get(), read_register, write_register, nullptr, simulation->memory.bytes.data(), 1u << 30};
  for (size_t i = 0; i < images; ++i) {
    billhook_counters counters;
    auto *from = reinterpret_cast<const float *>(input.data()) + i * billhook_input_size(words);
    int code = billhook_run(&board, words, program.size() / 4, from, output.data() + i * size, &counters, observe, nullptr);
    if (code) {
      std::fprintf(stderr, "driver: code %d\n", code);
      return 10 + code;
    }
  }
  write_file(argv[4], output.data(), output.size() * 4);
  write_file(argv[5], simulation->memory.bytes.data(), simulation->memory.bytes.size());
}
