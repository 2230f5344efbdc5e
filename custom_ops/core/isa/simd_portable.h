// Four lanes by the compiler's vector types: NEON on ARM, SSE on x86, anything elsewhere.

#ifndef TFPRUNE_SIMD_PORTABLE_H_
#define TFPRUNE_SIMD_PORTABLE_H_

#include <stdint.h>
#include <string.h>

#ifndef TFPRUNE_INLINE
#define TFPRUNE_INLINE inline __attribute__((always_inline))
#endif

#if defined(__clang__)
#define TFPRUNE_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define TFPRUNE_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, I{i, j, k, l})
#endif

namespace {

struct Lanes {
  static constexpr int L = 4;
#if defined(__aarch64__)
  static constexpr int kRegisters = 32;
#else
  static constexpr int kRegisters = 16;
#endif
  typedef float R __attribute__((vector_size(16)));
  typedef int32_t I __attribute__((vector_size(16)));
  using Four = R;

  static R zero() { return R{0, 0, 0, 0}; }
  static R set1(float x) { return R{x, x, x, x}; }
  static R load(const float* p) { return *reinterpret_cast<const R*>(p); }
  static R loadu(const float* p) {
    R x;
    memcpy(&x, p, 16);
    return x;
  }
  static void store(float* p, R x) { *reinterpret_cast<R*>(p) = x; }
  static void storeu(float* p, R x) { memcpy(p, &x, 16); }
  static R add(R a, R b) { return a + b; }
  static R sub(R a, R b) { return a - b; }
  static R fma(R a, R b, R c) { return a * b + c; }
  static R fnma(R a, R b, R c) { return c - a * b; }
  static R mul(R a, R b) { return a * b; }
  static R max(R low, R x) { return x < low ? low : x; }  // NaN stays
  static R min(R high, R x) { return x > high ? high : x; }
  static R load_some(const float* p, int n) {
    R x = zero();
    memcpy(&x, p, static_cast<size_t>(4 * n));
    return x;
  }
  static void store_some(float* p, R x, int n) { memcpy(p, &x, static_cast<size_t>(4 * n)); }
  using Mask = I;
  static Mask mask(uint32_t bits) {
    const I lane_bits = {1, 2, 4, 8}, all = {0, 0, 0, 0};
    return ((all + static_cast<int32_t>(bits)) & lane_bits) == lane_bits;
  }
  static R keep(Mask m, R x) { return reinterpret_cast<R>(reinterpret_cast<I>(x) & m); }
  static R load_kept(Mask m, const float* p) { return keep(m, loadu(p)); }
  // Lane l of the result is lane l - N, or l + N, of the two registers side by side.
  template <int N>
  static R from_left(Mask m, R before, R x) {
    return keep(m, TFPRUNE_SHUFFLE(before, x, 4 - N, 5 - N, 6 - N, 7 - N));
  }
  template <int N>
  static R from_right(Mask m, R x, R after) {
    return keep(m, TFPRUNE_SHUFFLE(x, after, N, N + 1, N + 2, N + 3));
  }

  static Four four(const float* w) { return loadu(w); }
  template <int K>
  static R lane(Four w, const float*) {
    return R{w[K], w[K], w[K], w[K]};
  }

  // r[channel] = lanes of 4 pixels, from 4 pixels of 4 channels each.
  static TFPRUNE_INLINE void load_transposed(const float* const* source, int64_t at, R r[4]) {
    for (int i = 0; i < 4; ++i) r[i] = loadu(source[i] + at);
    transpose(r);
  }

  static TFPRUNE_INLINE void transpose(R r[4]) {
    const R a = TFPRUNE_SHUFFLE(r[0], r[1], 0, 4, 1, 5);
    const R b = TFPRUNE_SHUFFLE(r[0], r[1], 2, 6, 3, 7);
    const R c = TFPRUNE_SHUFFLE(r[2], r[3], 0, 4, 1, 5);
    const R d = TFPRUNE_SHUFFLE(r[2], r[3], 2, 6, 3, 7);
    r[0] = TFPRUNE_SHUFFLE(a, c, 0, 1, 4, 5);
    r[1] = TFPRUNE_SHUFFLE(a, c, 2, 3, 6, 7);
    r[2] = TFPRUNE_SHUFFLE(b, d, 0, 1, 4, 5);
    r[3] = TFPRUNE_SHUFFLE(b, d, 2, 3, 6, 7);
  }
};

}  // namespace

#endif
