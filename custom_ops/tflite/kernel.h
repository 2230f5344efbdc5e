// The nodes that take the place of others: a sparse convolution, and weights that need no unpacking.

#ifndef TFPRUNE_TFLITE_KERNEL_H_
#define TFPRUNE_TFLITE_KERNEL_H_

#include "tflite/match.h"

namespace tfprune {

// Puts a native convolution in the place of a unit's nodes.
TfLiteStatus replace_unit(TfLiteContext* context, TfLiteDelegate* delegate, const Unit& unit,
                          int32_t threads);

// Puts nothing in the place of nodes whose results nobody reads any more, and frees these.
TfLiteStatus replace_idle(TfLiteContext* context, TfLiteDelegate* delegate,
                          const std::vector<int32_t>& nodes);

}  // namespace tfprune

#endif
