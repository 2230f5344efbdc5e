// Recognises the filters of a depthwise convolution as basis functions of the DCT.

#ifndef TFPRUNE_TFLITE_DCT_FILTERS_H_
#define TFPRUNE_TFLITE_DCT_FILTERS_H_

#include <cstdint>
#include <vector>

namespace tfprune {

// A filter that is a basis function of the DCT, scaled.
struct DctFilter {
  int32_t tap;  // u * kernel_w + v
  float scale;
};

// The filters of weights [kernel_h, kernel_w, channels, filters] that are the same for all channels, in
// the order of rising frequencies; none if they are anything else. They must be as
// exact as float32: weights that lost precision stay with the runtime, which computes with them as they
// are.
std::vector<DctFilter> read_dct_filters(const std::vector<float>& weights, int64_t kernel_h,
                                        int64_t kernel_w, int64_t channels, int64_t filters);

}  // namespace tfprune

#endif
