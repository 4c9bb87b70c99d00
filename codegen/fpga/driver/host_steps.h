/* What the host computes between steps of the accelerator, in integers only, on the maps in memory. */
#ifndef BILLHOOK_HOST_STEPS_H
#define BILLHOOK_HOST_STEPS_H

#include <stdint.h>

/* A map: address, channels, height, width, border, columns (the channels of a block). */
static inline int8_t *billhook_at(uint8_t *memory, const uint32_t *map, uint32_t c, uint32_t y, uint32_t x) {
  uint64_t height = map[2] + 2 * map[4], width = map[3] + 2 * map[4], columns = map[5];
  uint64_t pixel = (c / columns * height + y + map[4]) * width + x + map[4];
  return (int8_t *)memory + map[0] + pixel * columns + c % columns;
}

/* 0, or BILLHOOK_BAD_PROGRAM for a step that it does not know or whose length is wrong */
int billhook_host_step(uint8_t *memory, uint32_t kind, const uint32_t *words, uint32_t count);

#endif
