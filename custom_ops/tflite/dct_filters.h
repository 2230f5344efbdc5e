// Recognises a bank of filters as functions of the DCT.

#ifndef TFPRUNE_TFLITE_BANK_H_
#define TFPRUNE_TFLITE_BANK_H_

#include <cstdint>
#include <vector>

namespace tfprune {

// A filter of a bank: a function of the DCT, scaled.
struct Filter {
  int32_t tap;  // u * kernel_w + v
  float scale;
};

// The filters of a bank [kernel_h, kernel_w, channels, filters] that is the same for all channels, in
// the order of rising frequencies; none if it is anything else. They must fit as float32 does, so that
// a bank that lost precision stays with the runtime, which computes with it as it is.
std::vector<Filter> read_bank(const std::vector<float>& bank, int64_t kernel_h, int64_t kernel_w,
                              int64_t channels, int64_t filters);

}  // namespace tfprune

#endif
