// A small sparse matrix times a single vector, nonzero by nonzero: panels are for many pixels and would
// cost more.

#ifndef TFPRUNE_PRODUCTS_H_
#define TFPRUNE_PRODUCTS_H_

#include "core/engine/kernel.h"

namespace tfprune {

// Whether a call is such a product: a kernel of one tap on an image of one pixel.
bool is_product(const tfp_plan& plan, const tfp_call& call);

// y[k] = act(bias[k] + row k . x[the channels of k's group]), for such a call.
void multiply(const tfp_plan& plan, const tfp_call& call);

}  // namespace tfprune

#endif
