// A small sparse matrix times one vector: its entries one by one cost less than the panels of the
// kernels, which are made for many pixels.

#ifndef TFPRUNE_PRODUCTS_H_
#define TFPRUNE_PRODUCTS_H_

#include "core/engine/kernel.h"

namespace tfprune {

// Whether a call is that: a kernel of one tap on an image of one pixel.
bool is_product(const tfp_plan& plan, const tfp_call& call);

// y[k] = act(bias[k] + row k . x[the channels of k's group]), for such a call.
void multiply(const tfp_plan& plan, const tfp_call& call);

}  // namespace tfprune

#endif
