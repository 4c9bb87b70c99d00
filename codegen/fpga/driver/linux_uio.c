/* A Linux board: registers through /dev/uio0, memory through /dev/udmabuf0 (u-dma-buf), whose physical address the design around
 * the accelerator adds to the addresses of the memory port. linux_uio PROGRAM MEMORY INPUT OUTPUT */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "billhook_fpga.h"

static uint32_t read_register(void *context, uint32_t address) { return ((volatile uint32_t *)context)[address / 4]; }

static void write_register(void *context, uint32_t address, uint32_t value) { ((volatile uint32_t *)context)[address / 4] = value; }

static void *map(const char *name, size_t size) {
  int file = open(name, O_RDWR | O_SYNC);
  void *at = file < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (at == MAP_FAILED) {
    perror(name);
    exit(1);
  }
  return at;
}

static size_t size_of(const char *name) {
  struct stat found;
  if (stat(name, &found)) {
    perror(name);
    exit(1);
  }
  return (size_t)found.st_size;
}

static void read_file(const char *name, void *to, size_t size) {
  FILE *file = fopen(name, "rb");
  if (!file || fread(to, 1, size, file) != size) {
    fprintf(stderr, "%s: cannot be read\n", name);
    exit(1);
  }
  fclose(file);
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: %s PROGRAM MEMORY INPUT OUTPUT\n", argv[0]);
    return 2;
  }
  size_t words = size_of(argv[1]) / 4, bytes = size_of(argv[2]);
  uint32_t *program = malloc(words * 4);
  uint8_t *memory = map("/dev/udmabuf0", bytes);
  read_file(argv[1], program, words * 4);
  read_file(argv[2], memory, bytes);
  size_t given = billhook_input_size(program), made = billhook_output_size(program);
  float *input = malloc(given * sizeof *input), *output = malloc(made * sizeof *output);
  read_file(argv[3], input, given * sizeof *input);
  billhook_board board = {map("/dev/uio0", 0x20000), read_register, write_register, NULL, memory, 1000000000};
  billhook_counters counters;
  int code = billhook_run(&board, program, words, input, output, &counters, NULL, NULL);
  if (code) {
    fprintf(stderr, "driver: code %d\n", code);
    return 10 + code;
  }
  FILE *file = fopen(argv[4], "wb");
  if (!file || fwrite(output, sizeof *output, made, file) != made || fclose(file)) {
    perror(argv[4]);
    return 1;
  }
  printf("%llu cycles\n", (unsigned long long)counters.cycles);
  return 0;
}
