// The table of devices: none today. A kernel for a device is declared here and put before the null.

#include "core/device/device.h"

extern "C" const tfp_device_kernel* const tfp_device_kernels[] = {nullptr};
