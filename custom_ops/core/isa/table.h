// The kernels of the table, and the one that is chosen.

#ifndef TFPRUNE_TABLE_H_
#define TFPRUNE_TABLE_H_

#include "core/engine/kernel.h"

extern "C" const tfp_kernel tfp_reference, tfp_portable, tfp_avx2, tfp_avx512;

namespace tfprune {

// The kernel that new packings run on.
const tfp_kernel* selected_kernel();

}  // namespace tfprune

#endif
