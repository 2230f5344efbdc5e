// A small pool that sleeps when idle.

#ifndef TFPRUNE_THREADS_H_
#define TFPRUNE_THREADS_H_

#include <cstdint>

namespace tfprune {

// Calls task(context), which takes a piece of the work, on at most `threads` threads, this one among
// them, until it says that nothing is left. If another call is using the pool, this thread does all
// of it: never more threads than asked for. Tasks must not throw.
void parallel(int32_t threads, bool (*task)(void*), void* context);

}  // namespace tfprune

#endif
