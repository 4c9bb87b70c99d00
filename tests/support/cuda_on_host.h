// Runs generated CUDA C++ on the host: every thread of a block is a fiber, barriers and warp shuffles switch between fibers.
// What it checks: indices, guards, launch sizes and the order of accesses around barriers. What it cannot: races, speed.
#include <setjmp.h>
#include <ucontext.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>
struct dim3_ { unsigned x, y, z; };
static dim3_ threadIdx, blockIdx;
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
using std::max;
using std::min;
#define __expf(x) std::exp(x)  // the C library has a private function of this name
static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace host {
enum State { RUNNING, AT_WARP, AT_BLOCK, DONE };  // waiting for the others of its warp, or of its block
struct Fiber {
  ucontext_t context;
  jmp_buf here;
  std::vector<char> stack;
  dim3_ index;
  State state;
  bool started;
};
static std::vector<Fiber> fibers;
static jmp_buf back;
static unsigned current;
static const std::function<void()>* body;
static float exchanged[2048];

static void wait(State state) {  // setjmp, not swapcontext: that asks the kernel for the signal mask each time
  Fiber& f = fibers[current];
  f.state = state;
  if (!_setjmp(f.here)) _longjmp(back, 1);
  threadIdx = fibers[current].index;
}
static void enter() {
  (*body)();
  fibers[current].state = DONE;
  _longjmp(back, 1);
}
static void resume(unsigned i) {
  current = i;
  Fiber& f = fibers[i];
  threadIdx = f.index;
  if (_setjmp(back)) return;
  if (f.started) _longjmp(f.here, 1);
  f.started = true;
  setcontext(&f.context);
}
static bool release(unsigned first, unsigned last, State state) {  // true if some wait so and none runs
  bool some = false;
  for (unsigned i = first; i < last; ++i) some |= fibers[i].state == state;
  for (unsigned i = first; i < last; ++i) {
    if (fibers[i].state == state && some) fibers[i].state = RUNNING;
  }
  return some;
}
static void block(dim3_ size, const std::function<void()>& run) {
  body = &run;
  unsigned count = size.x * size.y * size.z;
  fibers.resize(count);
  for (unsigned i = 0; i < count; ++i) {
    Fiber& f = fibers[i];
    f.stack.resize(1 << 16);
    f.index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    f.state = RUNNING;
    f.started = false;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data();
    f.context.uc_stack.ss_size = f.stack.size();
    f.context.uc_link = nullptr;
    makecontext(&f.context, enter, 0);
  }
  for (;;) {
    for (unsigned i = 0; i < count; ++i) {
      if (fibers[i].state == RUNNING) resume(i);
    }
    bool moved = false;
    for (unsigned w = 0; w < count; w += 32) moved |= release(w, std::min(w + 32, count), AT_WARP);
    if (!moved && !release(0, count, AT_BLOCK)) return;
  }
}
static float shuffle(float value, unsigned from) {  // from: a lane of this warp; outside it the own value
  exchanged[current] = value;
  wait(AT_WARP);
  unsigned source = current - current % 32 + from;
  float result = from < 32 && source < fibers.size() ? exchanged[source] : value;
  wait(AT_WARP);
  return result;
}
}  // namespace host
static inline void __syncthreads() { host::wait(host::AT_BLOCK); }
static inline void __syncwarp() { host::wait(host::AT_WARP); }
static inline unsigned __activemask() { return 0xffffffffu; }
static inline float __shfl_down_sync(unsigned, float v, unsigned d, int = 32) { return host::shuffle(v, host::current % 32 + d); }
static inline float __shfl_up_sync(unsigned, float v, unsigned d, int = 32) { return host::shuffle(v, host::current % 32 - d); }
static inline float __shfl_sync(unsigned, float v, int s, int = 32) { return host::shuffle(v, s % 32); }
