/* Driver of the accelerator: the same for the simulator and for a board. It needs a way to reach the registers, and the memory
 * that the accelerator sees (byte 0 of it is address 0 of the program). Functions return 0, or a BILLHOOK_* code. */
#ifndef BILLHOOK_FPGA_H
#define BILLHOOK_FPGA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  BILLHOOK_OK = 0,
  BILLHOOK_BAD_PROGRAM = 1,  /* not a program, damaged, or of another version */
  BILLHOOK_OTHER_DESIGN = 2, /* the program was made for an accelerator of another shape */
  BILLHOOK_TIMEOUT = 3       /* the accelerator does not finish */
};

typedef struct {
  void *context;
  uint32_t (*read)(void *context, uint32_t address);
  void (*write)(void *context, uint32_t address, uint32_t value);
  void (*synchronise)(void *context, int to_device); /* caches, where the memory is not coherent; may be NULL */
  uint8_t *memory;
  uint64_t timeout; /* register reads before a step counts as hung */
} billhook_board;

typedef struct {
  uint64_t cycles; /* of the accelerator, all steps */
  uint32_t steps, host_steps;
} billhook_counters;

/* Called after each step, for profiles; may be NULL. kind: 0 accelerator, else the host's operation. */
typedef void (*billhook_observer)(void *context, uint32_t index, uint32_t kind, uint64_t cycles);

size_t billhook_input_size(const uint32_t *program);
size_t billhook_output_size(const uint32_t *program);

/* input: float32 in torch's order; output likewise. */
int billhook_run(const billhook_board *board, const uint32_t *program, size_t words, const float *input, float *output,
                 billhook_counters *counters, billhook_observer observer, void *observer_context);

#ifdef __cplusplus
}
#endif
#endif
