/* Kernels for devices that have memory and queues of their own, beside those for CPUs in isa/.

   The author of a device fills in a tfp_device_kernel and adds it to the list in table.cc. Callers
   use the functions at the end, which check what they are given before the kernel sees it:

     tfp_upload(name, packed, &uploaded)   weights go to the device, once; then `packed` may be freed
     tfp_run_on_device(uploaded, ...)      any number of times, on any stream
     tfp_release_upload(uploaded)          after the streams that it was run on are done with it */

#ifndef TFPRUNE_DEVICE_H_
#define TFPRUNE_DEVICE_H_

#include <stdint.h>

#include "core/api/sparse_conv.h"
#include "core/engine/kernel.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All functions may be called at once from several threads, `run` also with the same device plan.
   Where one fails, it returns tfprune::fail(...) of core/api/checks.h, which keeps the message. */
typedef struct {
  const char* name; /* differs from all others of the table; static memory */

  /* Whether this process can use the device now. The others are called only where it can. */
  int32_t (*available)(void);

  /* Copies to the device what `run` reads, and sets *device_plan, which the caller owns until
     `release`. `plan` is the host's and is freed after the call. Its conv, bias and CSR matrix (value,
     column, split, with split[out_channels] nonzeros) are the whole convolution; the rest is laid out
     for CPUs. On failure, TFP_NO_MEMORY where the device has too little, nothing is left behind and
     *device_plan is not read. */
  tfp_status (*upload)(const tfp_plan* plan, void** device_plan);
  /* Called once for each upload, when no stream uses it any more. */
  void (*release)(void* device_plan);

  /* Queues a whole call on `stream`, the device's own handle (of CUDA a cudaStream_t; null: the default
     one), and may return before it is done: errors that come up later are those of the stream. call->x
     and call->y are the caller's device memory, contiguous, not overlapping, aligned to 4 bytes; a
     kernel that loads wider vectors has to check the addresses itself. There is at least one output
     pixel. */
  tfp_status (*run)(const void* device_plan, const tfp_call* call, void* stream);
} tfp_device_kernel;

/* The table, which ends with null. */
extern const tfp_device_kernel* const tfp_device_kernels[];

/* The devices of this build, and whether they can be used now; null past the end. */
const char* tfp_device_kernel_name(int32_t index);
int32_t tfp_device_kernel_runs(int32_t index);

typedef struct tfp_uploaded tfp_uploaded;

/* TFP_INVALID where there is no device of that name, TFP_UNAVAILABLE where it cannot be used now, or
   what the device's upload returned. *uploaded is null unless the status is TFP_OK. */
tfp_status tfp_upload(const char* name, const tfp_packed* packed, tfp_uploaded** uploaded);
/* As tfp_run, with x and y in the device's memory. */
tfp_status tfp_run_on_device(const tfp_uploaded* uploaded, int64_t batch, int64_t h, int64_t w,
                             const float* x, float* y, void* stream);
void tfp_release_upload(tfp_uploaded* uploaded);

#ifdef __cplusplus
}
#endif

#endif
