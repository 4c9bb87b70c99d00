#include "billhook_fpga.h"

#include <math.h>
#include <string.h>

#include "host_steps.h"

enum { MAGIC = 0x50464842, VERSION = 1, HEAD = 24, IDENTIFICATION = 2, WORDS = 3, STEPS = 4, INPUT = 5, OUTPUT = 12 };
enum { CONTROL = 0x0, CYCLES = 0x4, IDENTITY = 0x8, COUNTS = 0x10, PROGRAMS = 0x8000 };

static float as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static size_t elements(const uint32_t *map) { return (size_t)map[1] * map[2] * map[3]; }

size_t billhook_input_size(const uint32_t *program) { return elements(program + INPUT); }
size_t billhook_output_size(const uint32_t *program) { return elements(program + OUTPUT); }

static int accelerate(const billhook_board *board, const uint32_t *step, size_t words, uint64_t *cycles) {
  if (words < 3) return BILLHOOK_BAD_PROGRAM;
  const uint32_t *instruction = step + 3;
  if (words != 3 + 8 * ((size_t)step[0] + step[1] + step[2])) return BILLHOOK_BAD_PROGRAM;
  for (uint32_t engine = 0; engine < 3; ++engine) {
    board->write(board->context, COUNTS + 4 * engine, step[engine]);
    for (uint32_t i = 0; i < 8 * step[engine]; ++i)
      board->write(board->context, PROGRAMS * (engine + 1) + 4 * i, *instruction++);
  }
  if (board->synchronise) board->synchronise(board->context, 1);
  board->write(board->context, CONTROL, 1);
  for (uint64_t polls = 0; board->read(board->context, CONTROL) & 1; ++polls)
    if (polls == board->timeout) return BILLHOOK_TIMEOUT;
  if (board->synchronise) board->synchronise(board->context, 0);
  *cycles = board->read(board->context, CYCLES);
  return BILLHOOK_OK;
}

int billhook_run(const billhook_board *board, const uint32_t *program, size_t words, const float *input, float *output,
                 billhook_counters *counters, billhook_observer observer, void *observer_context) {
  if (words < HEAD || program[0] != MAGIC || program[1] != VERSION || program[WORDS] != words) return BILLHOOK_BAD_PROGRAM;
  if (board->read(board->context, IDENTITY) != program[IDENTIFICATION]) return BILLHOOK_OTHER_DESIGN;
  memset(counters, 0, sizeof *counters);
  const uint32_t *map = program + INPUT;
  float scale = as_float(map[6]);
  for (uint32_t c = 0; c < map[1]; ++c)
    for (uint32_t y = 0; y < map[2]; ++y)
      for (uint32_t x = 0; x < map[3]; ++x) {
        float value = rintf(*input++ * scale);
        *billhook_at(board->memory, map, c, y, x) = (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
      }
  size_t place = HEAD;
  for (uint32_t i = 0; i < program[STEPS]; ++i) {
    if (place + 2 > words || place + 2 + program[place + 1] > words) return BILLHOOK_BAD_PROGRAM;
    uint32_t kind = program[place], size = program[place + 1];
    uint64_t cycles = 0;
    int code = kind == 0 ? accelerate(board, program + place + 2, size, &cycles)
                         : billhook_host_step(board->memory, kind, program + place + 2, size);
    if (code) return code;
    if (kind == 0)
      ++counters->steps;
    else
      ++counters->host_steps;
    counters->cycles += cycles;
    if (observer) observer(observer_context, i, kind, cycles);
    place += 2 + size;
  }
  map = program + OUTPUT;
  scale = as_float(map[6]);
  for (uint32_t c = 0; c < map[1]; ++c)
    for (uint32_t y = 0; y < map[2]; ++y)
      for (uint32_t x = 0; x < map[3]; ++x) *output++ = scale * *billhook_at(board->memory, map, c, y, x);
  return BILLHOOK_OK;
}
