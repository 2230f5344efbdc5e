#ifdef __AVX512F__

#include "core/isa/simd_avx512.h"

#include "core/engine/engine.h"

namespace {
int32_t here() { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"); }
}  // namespace

extern "C" const tfp_kernel tfp_avx512 = {"avx512", L, here, scratch_bytes, run};

#endif
