// The nodes that replace others: a sparse convolution, and weights that need no unpacking.

#ifndef TFPRUNE_TFLITE_KERNEL_H_
#define TFPRUNE_TFLITE_KERNEL_H_

#include "tflite/match.h"

namespace tfprune {

// Replaces a unit's nodes by a native convolution.
TfLiteStatus replace_unit(TfLiteContext* context, TfLiteDelegate* delegate, const Unit& unit,
                          int32_t threads);

// Replaces nodes whose outputs nobody reads any more by nothing, and frees these.
TfLiteStatus replace_idle(TfLiteContext* context, TfLiteDelegate* delegate,
                          const std::vector<int32_t>& nodes);

}  // namespace tfprune

#endif
