// Runs a packing on an image: checks, scratch memory, threads.

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "core/api/checks.h"
#include "core/isa/table.h"
#include "core/pack/packed.h"
#include "core/run/products.h"
#include "core/run/threads.h"

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
  int64_t pixels;
  int64_t least, step;  // pixels of the smallest piece, and what pieces are multiples of
  int32_t threads;      // 1 where there is too little to share
  std::atomic<int64_t> next{0};
  std::atomic<bool> starved{false};

  // Half of a thread's share of what is left: large pieces first, as they repeat less at their
  // borders, and small ones at last, as a thread that slept comes late.
  int64_t piece(int64_t left) const {
    if (threads == 1) return left;
    const int64_t share = std::max(left / (2 * threads), least);
    return std::min((share + step - 1) / step * step, left);
  }
};

bool run_piece(void* context) {
  Work* work = static_cast<Work*>(context);
  thread_local Memory memory;
  int64_t begin = work->next.load(), end = 0;
  do {
    if (begin == work->pixels) return false;
    end = begin + work->piece(work->pixels - begin);
  } while (!work->next.compare_exchange_weak(begin, end));
  const tfp_plan& plan = work->packed->plan;
  void* scratch = memory.at_least(work->packed->kernel->scratch_bytes(&plan, &work->call));
  if (scratch == nullptr)
    work->starved.store(true);
  else
    work->packed->kernel->run(&plan, &work->call, {begin, end}, scratch);
  return true;
}

// Fused multiply-adds of a vector of output pixels, with what filling its panel takes.
int64_t cost_of_vector(const tfp_packed& packed) {
  const tfp_conv& c = packed.plan.conv;
  return static_cast<int64_t>(packed.value.size()) +
         c.in_channels * (3 * c.kernel_h * c.kernel_w + 2) + 2 * c.out_channels;
}

// Pieces are whole tiles, or vectors where there are few tiles, with enough work to wake a thread for.
void share(int64_t lanes, Work* work) {
  constexpr int64_t kWorkOfAThread = 50000;
  const int64_t cost = cost_of_vector(*work->packed), vectors = (work->pixels + lanes - 1) / lanes;
  const int64_t tile = work->packed->plan.vectors, tiles = (vectors + tile - 1) / tile;
  const int64_t least = std::min((kWorkOfAThread + cost - 1) / cost, vectors);
  work->step = (tiles < work->threads ? 1 : tile) * lanes;
  work->least = least * lanes;
  const int64_t pieces = (vectors + least - 1) / least;
  if (pieces < work->threads) work->threads = static_cast<int32_t>(pieces);
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
  work.threads = threads;
  share(packed->kernel->lanes, &work);
  tfprune::parallel(work.threads, run_piece, &work);
  if (work.starved.load()) return fail(TFP_NO_MEMORY, "There is not enough memory to work in.");
  return TFP_OK;
}
