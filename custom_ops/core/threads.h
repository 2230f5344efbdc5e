// A small pool that sleeps when idle.

#ifndef TFPRUNE_THREADS_H_
#define TFPRUNE_THREADS_H_

#include <cstdint>

namespace tfprune {

// Calls task(context, i) for i in [0, count), on at most `threads` threads, this one among them.
// If another call is using the pool, this thread does all of it: never more threads than asked for.
// Tasks must not throw.
void parallel(int64_t count, int32_t threads, void (*task)(void*, int64_t), void* context);

}  // namespace tfprune

#endif
