// Runs a packing on an image: checks, scratch memory, threads.

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "core/checks.h"
#include "core/packed.h"
#include "core/products.h"
#include "core/threads.h"

namespace {

// A thread's working memory, kept between calls.
class Memory {
 public:
  ~Memory() { std::free(memory_); }
  void* at_least(int64_t bytes) {
    if (bytes <= size_) return memory_;
    std::free(memory_);
    size_ = 0;
    const size_t rounded = (static_cast<size_t>(bytes) + 63) / 64 * 64;
    memory_ = std::aligned_alloc(64, rounded);
    if (memory_ != nullptr) size_ = bytes;
    return memory_;
  }

 private:
  void* memory_ = nullptr;
  int64_t size_ = 0;
};

struct Work {
  const tfp_packed* packed;
  tfp_call call;
  int64_t pixels, step;
  std::atomic<bool> starved{false};
};

void part(void* context, int64_t index) {
  Work* work = static_cast<Work*>(context);
  thread_local Memory memory;
  const tfp_plan& plan = work->packed->plan;
  void* scratch = memory.at_least(work->packed->kernel->scratch_bytes(&plan, &work->call));
  if (scratch == nullptr) {
    work->starved.store(true);
    return;
  }
  const int64_t begin = index * work->step;
  const int64_t end = begin + work->step < work->pixels ? begin + work->step : work->pixels;
  work->packed->kernel->run(&plan, &work->call, {begin, end}, scratch);
}

// Fused multiply-adds of a vector of output pixels, with what filling its panel takes.
int64_t cost_of_vector(const tfp_packed& packed) {
  const tfp_conv& c = packed.plan.conv;
  return static_cast<int64_t>(packed.value.size()) +
         c.in_channels * (3 * c.kernel_h * c.kernel_w + 2) + 2 * c.out_channels;
}

// Vectors of pixels that a thread takes at a time: all where there is too little to share, else
// whole tiles, several for each thread, as one that sleeps comes late.
int64_t vectors_at_a_time(const tfp_packed& packed, int64_t vectors, int32_t threads) {
  constexpr int64_t kWorthAThread = 50000, kPartsOfAThread = 4;
  const int64_t cost = cost_of_vector(packed);
  int64_t parts = cost > kWorthAThread ? vectors : vectors * cost / kWorthAThread + 1;
  parts = std::min(parts, kPartsOfAThread * threads);
  const int64_t tile = packed.plan.vectors, tiles = (vectors + tile - 1) / tile;
  if (threads < 2 || parts < 2) return vectors;
  if (tiles < threads) return (vectors + parts - 1) / parts;
  return (tiles + parts - 1) / parts * tile;
}

}  // namespace

extern "C" tfp_status tfp_run(const tfp_packed* packed, int64_t batch, int64_t h, int64_t w,
                              const float* x, float* y, int32_t threads) {
  using tfprune::fail;
  if (packed == nullptr) return fail(TFP_INVALID, "Packed weights must be given. Received: null.");
  Work work;
  work.packed = packed;
  work.call = {batch, h, w, 0, 0, x, y};
  const tfp_status status = tfprune::check_image(packed->plan.conv, batch, h, w, &work.call.out_h,
                                                 &work.call.out_w);
  if (status != TFP_OK) return status;
  if (threads < 1) return fail(TFP_INVALID, "threads must be at least 1. Received: %d.", threads);
  work.pixels = batch * work.call.out_h * work.call.out_w;
  if (work.pixels == 0) return TFP_OK;
  if (x == nullptr || y == nullptr)
    return fail(TFP_INVALID, "x and y must be given. Received: null.");
  if (packed->kernel != &tfp_reference && tfprune::is_product(packed->plan, work.call)) {
    tfprune::multiply(packed->plan, work.call);
    return TFP_OK;
  }
  const int64_t lanes = packed->kernel->lanes, vectors = (work.pixels + lanes - 1) / lanes;
  work.step = vectors_at_a_time(*packed, vectors, threads) * lanes;
  tfprune::parallel((work.pixels + work.step - 1) / work.step, threads, part, &work);
  if (work.starved.load()) return fail(TFP_NO_MEMORY, "There is not enough memory to work in.");
  return TFP_OK;
}
