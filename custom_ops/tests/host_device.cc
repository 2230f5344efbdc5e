// Takes the seat of core/device/table.cc: "host" copies a plan's convolution, bias and CSR matrix and
// computes with the reference kernel, "absent" is never available, and "full" has no memory.

#include "tests/host_device.h"

#include <cstddef>
#include <new>
#include <vector>

#include "core/api/checks.h"
#include "core/device/device.h"
#include "core/isa/table.h"

std::atomic<int64_t> host_plans{0};

namespace {

using tfprune::fail;

struct HostPlan {
  std::vector<float> value, bias;
  std::vector<int32_t> column;
  std::vector<int64_t> split;
  tfp_plan plan{};  // which points to these and holds nothing else

  explicit HostPlan(const tfp_plan& from) {
    const int64_t rows = from.conv.out_channels, count = from.split[rows];
    value.assign(from.value, from.value + count);
    column.assign(from.column, from.column + count);
    split.assign(from.split, from.split + rows + 1);
    bias.assign(from.bias, from.bias + rows);
    plan.conv = from.conv;
    plan.value = value.data();
    plan.column = column.data();
    plan.split = split.data();
    plan.bias = bias.data();
    ++host_plans;
  }
  ~HostPlan() { --host_plans; }
};

int32_t always() { return 1; }
int32_t never() { return 0; }

tfp_status upload(const tfp_plan* plan, void** device_plan) {
  try {
    *device_plan = new HostPlan(*plan);
  } catch (const std::bad_alloc&) {
    return fail(TFP_NO_MEMORY, "The host has too little memory for the plan.");
  }
  return TFP_OK;
}

tfp_status upload_to_full(const tfp_plan*, void**) {
  return fail(TFP_NO_MEMORY, "The device 'full' has no memory.");
}

void release(void* device_plan) { delete static_cast<HostPlan*>(device_plan); }

tfp_status run(const void* device_plan, const tfp_call* call, void* stream) {
  const tfp_plan& plan = static_cast<const HostPlan*>(device_plan)->plan;
  std::vector<double> scratch(
      static_cast<size_t>(tfp_reference.scratch_bytes(&plan, call)) / sizeof(double) + 1);
  tfp_reference.run(&plan, call, {0, call->batch * call->out_h * call->out_w}, scratch.data());
  if (stream != nullptr) ++static_cast<HostStream*>(stream)->calls;
  return TFP_OK;
}

tfp_status run_nothing(const void*, const tfp_call*, void*) {
  return fail(TFP_UNAVAILABLE, "The device never runs.");
}

const tfp_device_kernel host = {"host", always, upload, release, run};
const tfp_device_kernel absent = {"absent", never, upload, release, run_nothing};
const tfp_device_kernel full = {"full", always, upload_to_full, release, run_nothing};

}  // namespace

extern "C" const tfp_device_kernel* const tfp_device_kernels[] = {&host, &absent, &full, nullptr};
