/* The interface of a kernel for CPUs, which the table in isa/ lists. */

#ifndef TFPRUNE_KERNEL_H_
#define TFPRUNE_KERNEL_H_

#include <stdint.h>

#include "core/engine/plan.h"

typedef struct {
  int64_t batch, h, w, out_h, out_w;
  const float* x;
  float* y;
} tfp_call;

/* Output pixels of a call, counted over all images; a range begins at a multiple of the vectors'
   length. */
typedef struct {
  int64_t begin, end;
} tfp_range;

/* `scratch`: 64-byte aligned memory of at least scratch_bytes(plan, call) bytes. */
typedef struct {
  const char* name;
  int32_t lanes;
  int32_t (*runs_here)(void);
  int64_t (*scratch_bytes)(const tfp_plan* plan, const tfp_call* call);
  void (*run)(const tfp_plan* plan, const tfp_call* call, tfp_range range, void* scratch);
} tfp_kernel;

#endif
