#include "host_steps.h"

enum { GATHER = 1, NORM = 2, ATTENTION = 3, BAD = 1, OK = 0 };
enum { MAP = 6, NORM_BITS = 12, EXP_ENTRIES = 1024, MEAN_BITS = 8, MOST_TOKENS = 4096 };

static int8_t clamped(int64_t value) { return (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value); }

static int64_t floor_divide(int64_t a, int64_t b) { /* b > 0 */
  int64_t q = a / b;
  return a % b < 0 ? q - 1 : q;
}

static int64_t square_root(uint64_t value) { /* the largest integer whose square is not above value */
  uint64_t root = 0;
  for (uint64_t bit = 1ull << 31; bit; bit >>= 1)
    if ((root | bit) * (root | bit) <= value) root |= bit;
  return (int64_t)root;
}

static int8_t *flat(uint8_t *memory, const uint32_t *map, uint32_t i) {
  return billhook_at(memory, map, i / (map[2] * map[3]), i / map[3] % map[2], i % map[3]);
}

/* output map, source map, 64 words of the table, one word for each element of the output: place in the source, or -1 */
static int gather(uint8_t *memory, const uint32_t *words, uint32_t count) {
  const uint32_t *output = words, *source = words + MAP, *index = words + 2 * MAP + 64;
  const int8_t *table = (const int8_t *)(words + 2 * MAP);
  uint32_t elements = output[1] * output[2] * output[3];
  if (count != 2 * MAP + 64 + elements) return BAD;
  for (uint32_t i = 0; i < elements; ++i)
    if (index[i] != ~0u) *flat(memory, output, i) = table[*flat(memory, source, index[i]) + 128];
  return OK;
}

/* output map, source map, shift, epsilon (two words), for each channel gain (one word) and offset (two words) */
static int norm(uint8_t *memory, const uint32_t *words, uint32_t count) {
  const uint32_t *output = words, *source = words + MAP, *numbers = words + 2 * MAP;
  uint32_t channels = output[1], shift = numbers[0];
  if (count != 2 * MAP + 3 + 3 * channels) return BAD;
  int64_t epsilon = (int64_t)(numbers[1] | (uint64_t)numbers[2] << 32), half = (int64_t)1 << (shift - 1);
  for (uint32_t y = 0; y < output[2]; ++y)
    for (uint32_t x = 0; x < output[3]; ++x) {
      int64_t total = 0, squares = 0;
      for (uint32_t c = 0; c < channels; ++c) {
        int64_t value = *billhook_at(memory, source, c, y, x);
        total += value;
        squares += value * value;
      }
      int64_t root = square_root((uint64_t)(channels * squares - total * total + epsilon) << 16);
      for (uint32_t c = 0; c < channels; ++c) {
        const uint32_t *own = numbers + 3 + 3 * c;
        int64_t centred = *billhook_at(memory, source, c, y, x) * (int64_t)channels - total;
        int64_t normed = floor_divide(centred * (1 << (NORM_BITS + 8)) + root / 2, root);
        int64_t value = normed * (int32_t)own[0] + (int64_t)(own[1] | (uint64_t)own[2] << 32);
        *billhook_at(memory, output, c, y, x) = clamped((value + half) >> shift);
      }
    }
  return OK;
}

/* output, query, key and value map, step, its shift, multiplier, shift, then the table of exponentials */
static int attention(uint8_t *memory, const uint32_t *words, uint32_t count) {
  const uint32_t *output = words, *query = words + MAP, *key = words + 2 * MAP, *value = words + 3 * MAP, *numbers = words + 4 * MAP;
  const uint32_t *exponentials = numbers + 4;
  uint32_t tokens = key[2], width = query[3], made = value[3];
  if (count != 4 * MAP + 4 + EXP_ENTRIES || tokens > MOST_TOKENS) return BAD;
  int64_t half = (int64_t)1 << (numbers[3] - 1);
  for (uint32_t head = 0; head < query[1]; ++head)
    for (uint32_t row = 0; row < query[2]; ++row) {
      int64_t scores[MOST_TOKENS], best = INT64_MIN, sum = 0;
      for (uint32_t t = 0; t < tokens; ++t) {
        scores[t] = 0;
        for (uint32_t d = 0; d < width; ++d)
          scores[t] += *billhook_at(memory, query, head, row, d) * *billhook_at(memory, key, head, t, d);
        if (scores[t] > best) best = scores[t];
      }
      for (uint32_t t = 0; t < tokens; ++t) {
        int64_t steps = ((best - scores[t]) * numbers[0]) >> numbers[1];
        scores[t] = steps < EXP_ENTRIES ? exponentials[steps] : 0;
        sum += scores[t];
      }
      for (uint32_t d = 0; d < made; ++d) {
        int64_t mean = 0;
        for (uint32_t t = 0; t < tokens; ++t) mean += scores[t] * *billhook_at(memory, value, head, t, d);
        mean = floor_divide(mean * (1 << MEAN_BITS), sum);
        *billhook_at(memory, output, head, row, d) = clamped((mean * numbers[2] + half) >> numbers[3]);
      }
    }
  return OK;
}

int billhook_host_step(uint8_t *memory, uint32_t kind, const uint32_t *words, uint32_t count) {
  if (kind == GATHER) return gather(memory, words, count);
  if (kind == NORM) return norm(memory, words, count);
  return kind == ATTENTION ? attention(memory, words, count) : BAD;
}
