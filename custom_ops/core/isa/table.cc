// The table of kernels, best first, which of them this CPU runs, and which is used.

#include "core/isa/table.h"

#include <atomic>
#include <cstring>
#include <string>

#include "core/api/checks.h"

namespace {

const tfp_kernel* const kTable[] = {
#if defined(__x86_64__)
    &tfp_avx512, &tfp_avx2,
#endif
    &tfp_portable, &tfp_reference};
constexpr int32_t kKernels = sizeof(kTable) / sizeof(kTable[0]);
std::atomic<const tfp_kernel*> chosen{nullptr};

const tfp_kernel* best() {
  for (const tfp_kernel* kernel : kTable)
    if (kernel->runs_here()) return kernel;
  return &tfp_reference;
}

}  // namespace

namespace tfprune {

const tfp_kernel* selected_kernel() {
  const tfp_kernel* kernel = chosen.load();
  return kernel == nullptr ? best() : kernel;
}

}  // namespace tfprune

extern "C" const char* tfp_kernel_name(int32_t index) {
  return index < 0 || index >= kKernels ? nullptr : kTable[index]->name;
}

extern "C" int32_t tfp_kernel_runs(int32_t index) {
  return index < 0 || index >= kKernels ? 0 : kTable[index]->runs_here();
}

extern "C" tfp_status tfp_select_kernel(const char* name) {
  if (name == nullptr) {
    chosen.store(nullptr);
    return TFP_OK;
  }
  for (const tfp_kernel* kernel : kTable) {
    if (std::strcmp(kernel->name, name) != 0) continue;
    if (!kernel->runs_here())
      return tfprune::fail(TFP_UNAVAILABLE, "This CPU cannot run the kernel '%s'.", name);
    chosen.store(kernel);
    return TFP_OK;
  }
  std::string names;
  for (const tfp_kernel* kernel : kTable) names += std::string(" ") + kernel->name;
  return tfprune::fail(TFP_INVALID, "The kernel must be one of%s. Received: '%s'.", names.c_str(),
                       name);
}
