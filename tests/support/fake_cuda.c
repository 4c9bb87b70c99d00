// A stand-in for the CUDA driver: device memory is host memory, launches are written to a log, "add" kernels do something visible.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int capturing, live;
static char names[64][64];
static int known;
static char log_[1 << 16];
static int recordings;
const char* fake_log(void) { return log_; }
int fake_live(void) { return live; }
void fake_reset(void) { log_[0] = 0; known = capturing = live = recordings = 0; }
static void note(const char* text) { strncat(log_, text, sizeof log_ - strlen(log_) - 1); }
int cuGetErrorName(int code, const char** text) { *text = code == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_NOT_FOUND"; return 0; }
int cuInit(unsigned flags) { return getenv("FAKE_CUDA_NO_DEVICE") ? 100 : 0; }
int cuDriverGetVersion(int* number) { *number = 13000; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return ordinal ? 100 : 0; }
int cuDeviceGetName(char* text, int size, int device) { snprintf(text, size, "Fake GPU"); return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) { *value = attribute == 75 ? (getenv("FAKE_CUDA_OLD") ? 7 : 9) : 0; return 0; }
static void* object(void) { ++live; return malloc(8); }
static int freed(void* p) { --live; free(p); return 0; }
int cuDevicePrimaryCtxRetain(void** context, int device) { *context = object(); return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { --live; return 0; }
int cuCtxSetCurrent(void* context) { return 0; }
int cuModuleLoadData(void** module, const void* image) { *module = object(); return 0; }
int cuModuleUnload(void* module) { return freed(module); }
int cuModuleGetFunction(void** function, void* module, const char* name) {
  if (!strncmp(name, "missing", 7)) return 500;
  snprintf(names[known], 64, "%s", name);
  *function = (void*)(uintptr_t)(++known);
  return 0;
}
int cuFuncSetAttribute(void* function, int attribute, int value) { char t[64]; snprintf(t, 64, "shared %d\n", value); note(t); return 0; }
int cuMemAlloc_v2(uint64_t* address, size_t size) { *address = (uint64_t)(uintptr_t)malloc(size); ++live; return 0; }
int cuMemFree_v2(uint64_t address) { return freed((void*)(uintptr_t)address); }
int cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t size) { memcpy((void*)(uintptr_t)to, from, size); return 0; }
int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t size) { memcpy(to, (void*)(uintptr_t)from, size); return 0; }
int cuMemsetD8_v2(uint64_t to, unsigned char value, size_t size) { memset((void*)(uintptr_t)to, value, size); return 0; }
int cuStreamCreate(void** stream, unsigned flags) { *stream = object(); note(flags ? "unordered\n" : ""); return 0; }
int cuStreamDestroy_v2(void* stream) { return freed(stream); }
int cuStreamSynchronize(void* stream) { return 0; }
int cuStreamBeginCapture_v2(void* stream, int mode) { capturing = 1; note("capture\n"); return 0; }
int cuStreamEndCapture(void* stream, void** graph) { capturing = 0; *graph = object(); return 0; }
int cuGraphInstantiateWithFlags(void** exec, void* graph, unsigned long long flags) { *exec = object(); return 0; }
int cuGraphExecDestroy(void* exec) { return freed(exec); }
int cuGraphDestroy(void* graph) { return freed(graph); }
int cuEventCreate(void** event, unsigned flags) { *event = object(); return 0; }
int cuEventRecord(void* event, void* stream) { return 0; }
int cuEventSynchronize(void* event) { return 0; }
int cuEventElapsedTime(float* ms, void* start, void* end) { *ms = 1.5f; return 0; }
int cuEventDestroy_v2(void* event) { return freed(event); }
static struct { float *out, *a, *b; unsigned count; } recorded[16];
static void add(float* out, const float* a, const float* b, unsigned count) {
  for (unsigned i = 0; i < count; ++i) out[i] = a[i] + b[i];
}
int cuGraphLaunch(void* exec, void* stream) {
  note("graph\n");
  for (int i = 0; i < recordings; ++i) add(recorded[i].out, recorded[i].a, recorded[i].b, recorded[i].count);
  return 0;
}
int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void* stream,
                   void** arguments, void** extra) {
  char t[160];
  snprintf(t, sizeof t, "%s%s %u,%u,%u %u,%u,%u %u\n", capturing ? "captured " : "", names[(uintptr_t)f - 1], gx, gy, gz, bx, by, bz, shared);
  note(t);
  float *out = *(float**)arguments[0], *a = *(float**)arguments[1], *b = *(float**)arguments[2];
  if (!capturing) add(out, a, b, bx);
  if (capturing) recorded[recordings].out = out, recorded[recordings].a = a, recorded[recordings].b = b, recorded[recordings++].count = bx;
  return 0;
}
