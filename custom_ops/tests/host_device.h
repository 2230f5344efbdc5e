// Devices for tests, whose memory is the host's.

#ifndef TFPRUNE_HOST_DEVICE_H_
#define TFPRUNE_HOST_DEVICE_H_

#include <atomic>
#include <cstdint>

// What the stream handle of the device "host" points to.
struct HostStream {
  int64_t calls = 0;
};

// Device plans that were uploaded and not released yet.
extern std::atomic<int64_t> host_plans;

#endif
