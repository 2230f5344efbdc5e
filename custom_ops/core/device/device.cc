// Finds devices by name, and checks what their kernels are given.

#include "core/device/device.h"

#include <cstring>
#include <new>
#include <string>

#include "core/api/checks.h"
#include "core/pack/packed.h"

struct tfp_uploaded {
  const tfp_device_kernel* kernel;
  tfp_conv conv;
  void* plan;
};

namespace {

using tfprune::fail;

const tfp_device_kernel* device_at(int32_t index) {
  if (index < 0) return nullptr;
  const tfp_device_kernel* const* kernel = tfp_device_kernels;
  while (*kernel != nullptr && index > 0) ++kernel, --index;
  return *kernel;
}

const tfp_device_kernel* device_of(const char* name) {
  for (int32_t i = 0; device_at(i) != nullptr; ++i)
    if (std::strcmp(device_at(i)->name, name) == 0) return device_at(i);
  return nullptr;
}

tfp_status unknown_device(const char* name) {
  std::string names;
  for (int32_t i = 0; device_at(i) != nullptr; ++i) names += std::string(" ") + device_at(i)->name;
  if (names.empty())
    return fail(TFP_INVALID, "This build has kernels for CPUs alone. Received: the device '%s'.",
                name);
  return fail(TFP_INVALID, "The device must be one of%s. Received: '%s'.", names.c_str(), name);
}

}  // namespace

extern "C" const char* tfp_device_kernel_name(int32_t index) {
  const tfp_device_kernel* kernel = device_at(index);
  return kernel == nullptr ? nullptr : kernel->name;
}

extern "C" int32_t tfp_device_kernel_runs(int32_t index) {
  const tfp_device_kernel* kernel = device_at(index);
  return kernel == nullptr ? 0 : kernel->available();
}

extern "C" tfp_status tfp_upload(const char* name, const tfp_packed* packed,
                                 tfp_uploaded** uploaded) {
  if (uploaded == nullptr) return fail(TFP_INVALID, "`uploaded` must be given. Received: null.");
  *uploaded = nullptr;
  if (name == nullptr || packed == nullptr)
    return fail(TFP_INVALID, "A device's name and packed weights must be given. Received: null.");
  const tfp_device_kernel* kernel = device_of(name);
  if (kernel == nullptr) return unknown_device(name);
  if (!kernel->available())
    return fail(TFP_UNAVAILABLE, "The device '%s' cannot be used here.", name);
  auto* result = new (std::nothrow) tfp_uploaded{kernel, packed->plan.conv, nullptr};
  if (result == nullptr) return fail(TFP_NO_MEMORY, "There is not enough memory for an upload.");
  const tfp_status status = kernel->upload(&packed->plan, &result->plan);
  if (status != TFP_OK) {
    delete result;
    return status;
  }
  *uploaded = result;
  return TFP_OK;
}

extern "C" tfp_status tfp_run_on_device(const tfp_uploaded* uploaded, int64_t batch, int64_t h,
                                        int64_t w, const float* x, float* y, void* stream) {
  if (uploaded == nullptr)
    return fail(TFP_INVALID, "Uploaded weights must be given. Received: null.");
  tfp_call call{batch, h, w, 0, 0, x, y};
  const tfp_status status =
      tfprune::check_image(uploaded->conv, batch, h, w, &call.out_h, &call.out_w);
  if (status != TFP_OK) return status;
  if (batch * call.out_h * call.out_w == 0) return TFP_OK;
  if (x == nullptr || y == nullptr)
    return fail(TFP_INVALID, "x and y must be given. Received: null.");
  return uploaded->kernel->run(uploaded->plan, &call, stream);
}

extern "C" void tfp_release_upload(tfp_uploaded* uploaded) {
  if (uploaded == nullptr) return;
  uploaded->kernel->release(uploaded->plan);
  delete uploaded;
}
