#include "core/isa/simd_portable.h"

#include "core/engine/engine.h"

namespace {
int32_t everywhere() { return 1; }
}  // namespace

extern "C" const tfp_kernel tfp_portable = {"portable", L, everywhere, scratch_bytes, run};
