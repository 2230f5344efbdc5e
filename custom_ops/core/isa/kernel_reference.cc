// The reference, slow and obvious: folds each row into a dense kernel of doubles, and convolves.

#include <cmath>
#include <cstring>

#include "core/engine/kernel.h"

namespace {

// Orthonormal DCT-II: row u of [n, n].
double dct(int64_t u, int64_t p, int64_t n) {
  const double scale = std::sqrt((u == 0 ? 1.0 : 2.0) / static_cast<double>(n));
  return scale * std::cos(M_PI * (2 * p + 1) * u / (2.0 * static_cast<double>(n)));
}

double activate(double value, int32_t activation) {
  if (activation != TFP_LINEAR && value < 0) return 0;
  if (activation == TFP_RELU6 && value > 6) return 6;
  return value;
}

// Row k as dense spatial kernels [channel of the group, kernel_h, kernel_w].
void fold(const tfp_plan& plan, int64_t k, double* kernel) {
  const tfp_conv& c = plan.conv;
  const int64_t taps = c.kernel_h * c.kernel_w;
  std::memset(kernel, 0, sizeof(double) * (c.in_channels / c.groups) * taps);
  for (int64_t e = plan.split[k]; e < plan.split[k + 1]; ++e) {
    const int64_t i = plan.column[e] / taps, tap = plan.column[e] % taps;
    if (c.basis == TFP_SPATIAL) {
      kernel[plan.column[e]] = plan.value[e];
      continue;
    }
    for (int64_t p = 0; p < c.kernel_h; ++p)
      for (int64_t q = 0; q < c.kernel_w; ++q)
        kernel[(i * c.kernel_h + p) * c.kernel_w + q] +=
            plan.value[e] * dct(tap / c.kernel_w, p, c.kernel_h) *
            dct(tap % c.kernel_w, q, c.kernel_w);
  }
}

double at(const tfp_plan& plan, const tfp_call& call, const double* kernel, int64_t pixel,
          int64_t first_channel) {
  const tfp_conv& c = plan.conv;
  const int64_t ox = pixel % call.out_w, oy = pixel / call.out_w % call.out_h;
  const int64_t n = pixel / call.out_w / call.out_h;
  double sum = 0;
  for (int64_t p = 0; p < c.kernel_h; ++p) {
    const int64_t iy = oy * c.stride_h + p * c.dilation_h - c.pad_top;
    if (iy < 0 || iy >= call.h) continue;
    for (int64_t q = 0; q < c.kernel_w; ++q) {
      const int64_t ix = ox * c.stride_w + q * c.dilation_w - c.pad_left;
      if (ix < 0 || ix >= call.w) continue;
      const float* x = call.x + ((n * call.h + iy) * call.w + ix) * c.in_channels + first_channel;
      for (int64_t i = 0; i < c.in_channels / c.groups; ++i)
        sum += kernel[(i * c.kernel_h + p) * c.kernel_w + q] * x[i];
    }
  }
  return sum;
}

int64_t scratch_bytes(const tfp_plan* plan, const tfp_call*) {
  const tfp_conv& c = plan->conv;
  return c.in_channels / c.groups * c.kernel_h * c.kernel_w * static_cast<int64_t>(sizeof(double));
}

void run(const tfp_plan* plan, const tfp_call* call, tfp_range range, void* scratch) {
  const tfp_conv& c = plan->conv;
  double* kernel = static_cast<double*>(scratch);
  for (int64_t k = 0; k < c.out_channels; ++k) {
    fold(*plan, k, kernel);
    const int64_t group = k / (c.out_channels / c.groups);
    for (int64_t pixel = range.begin; pixel < range.end; ++pixel) {
      const double sum = at(*plan, *call, kernel, pixel, group * (c.in_channels / c.groups));
      const double value = activate(sum + plan->bias[k], c.activation);
      call->y[pixel * c.out_channels + k] = static_cast<float>(value);
    }
  }
}

int32_t everywhere() { return 1; }

}  // namespace

extern "C" const tfp_kernel tfp_reference = {"reference", 1, everywhere, scratch_bytes, run};
