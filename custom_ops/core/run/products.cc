#include "core/run/products.h"

namespace tfprune {
namespace {

constexpr int64_t kFewNonzeros = 20000;  // from where on panels, which read fewer bytes, are faster

// Four sums, as each addition waits for the one before it.
float dot(const float* values, const int32_t* columns, int64_t count, const float* x) {
  float sums[4] = {0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 4 <= count; i += 4)
    for (int j = 0; j < 4; ++j) sums[j] += values[i + j] * x[columns[i + j]];
  for (; i < count; ++i) sums[0] += values[i] * x[columns[i]];
  return sums[0] + sums[1] + (sums[2] + sums[3]);
}

// Keeps NaN.
float activate(float value, int32_t activation) {
  if (activation != TFP_LINEAR && value < 0) return 0;
  return activation == TFP_RELU6 && value > 6 ? 6 : value;
}

}  // namespace

bool is_product(const tfp_plan& plan, const tfp_call& call) {
  const tfp_conv& c = plan.conv;
  const bool no_zeros = c.pad_top == 0 && c.pad_bottom == 0 && c.pad_left == 0 && c.pad_right == 0;
  return c.kernel_h == 1 && c.kernel_w == 1 && no_zeros && call.batch == 1 && call.h == 1 &&
         call.w == 1 && plan.split[c.out_channels] <= kFewNonzeros;
}

void multiply(const tfp_plan& plan, const tfp_call& call) {
  const tfp_conv& c = plan.conv;
  const int64_t inputs = c.in_channels / c.groups, outputs = c.out_channels / c.groups;
  for (int64_t k = 0; k < c.out_channels; ++k) {
    const int64_t begin = plan.split[k], count = plan.split[k + 1] - begin;
    const float* x = call.x + k / outputs * inputs;
    const float sum = dot(plan.value + begin, plan.column + begin, count, x);
    call.y[k] = activate(sum + plan.bias[k], c.activation);
  }
}

}  // namespace tfprune
