#ifdef __AVX2__

#include "core/isa/simd_avx2.h"

#include "core/engine/engine.h"

namespace {
int32_t here() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
}  // namespace

extern "C" const tfp_kernel tfp_avx2 = {"avx2", L, here, scratch_bytes, run};

#endif
