// A sparse matrix times single vectors, whose entries one by one cost less than the panels of the core,
// which are made for many pixels.

#ifndef TFPRUNE_TFLITE_PRODUCTS_H_
#define TFPRUNE_TFLITE_PRODUCTS_H_

#include <cstdint>
#include <vector>

namespace tfprune {

// Weights, [out_channels, columns] in rows as tfp_pack takes them.
struct Rows {
  std::vector<float> values;
  std::vector<int32_t> columns;
  std::vector<int64_t> splits;
};

// y[n, k] = act(bias[k] + row k . x[n]); `bias` may be null, `activation` is that of tfp_conv.
void multiply(const Rows& rows, const float* bias, int32_t activation, int64_t batch,
              int64_t columns, const float* x, float* y);

}  // namespace tfprune

#endif
