#include "tflite/products.h"

#include <algorithm>

#include "core/sparse_conv.h"

namespace tfprune {
namespace {

// Four sums, as each addition waits for the one before it.
float dot(const float* values, const int32_t* columns, int64_t count, const float* x) {
  float sums[4] = {0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 4 <= count; i += 4)
    for (int j = 0; j < 4; ++j) sums[j] += values[i + j] * x[columns[i + j]];
  for (; i < count; ++i) sums[0] += values[i] * x[columns[i]];
  return sums[0] + sums[1] + (sums[2] + sums[3]);
}

}  // namespace

void multiply(const Rows& rows, const float* bias, int32_t activation, int64_t batch,
              int64_t columns, const float* x, float* y) {
  const size_t outputs = rows.splits.size() - 1;
  for (int64_t n = 0; n < batch; ++n, x += columns) {
    for (size_t k = 0; k < outputs; ++k) {
      const int64_t begin = rows.splits[k], count = rows.splits[k + 1] - begin;
      float sum = dot(rows.values.data() + begin, rows.columns.data() + begin, count, x);
      if (bias != nullptr) sum += bias[k];
      if (activation != TFP_LINEAR) sum = sum < 0.0f ? 0.0f : sum;  // which keeps NaN
      *y++ = activation == TFP_RELU6 ? std::min(sum, 6.0f) : sum;
    }
  }
}

}  // namespace tfprune
