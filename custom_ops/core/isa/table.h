// The kernel that is chosen among those of the table.

#ifndef TFPRUNE_TABLE_H_
#define TFPRUNE_TABLE_H_

#include "core/engine/kernel.h"

namespace tfprune {

// The kernel that new packings run on.
const tfp_kernel* selected_kernel();

}  // namespace tfprune

#endif
