// Eight lanes.

#ifndef TFPRUNE_SIMD_AVX2_H_
#define TFPRUNE_SIMD_AVX2_H_

#include <immintrin.h>
#include <stdint.h>

#ifndef TFPRUNE_INLINE
#define TFPRUNE_INLINE inline __attribute__((always_inline))
#endif

namespace {

struct Lanes {
  static constexpr int L = 8;
  static constexpr int kRegisters = 16;
  using R = __m256;
  using Four = int;  // a broadcast from memory is as cheap as one from a register

  static R zero() { return _mm256_setzero_ps(); }
  static R set1(float x) { return _mm256_set1_ps(x); }
  static R load(const float* p) { return _mm256_load_ps(p); }
  static R loadu(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, R x) { _mm256_store_ps(p, x); }
  static void storeu(float* p, R x) { _mm256_storeu_ps(p, x); }
  static R add(R a, R b) { return _mm256_add_ps(a, b); }
  static R sub(R a, R b) { return _mm256_sub_ps(a, b); }
  static R fma(R a, R b, R c) { return _mm256_fmadd_ps(a, b, c); }
  static R fnma(R a, R b, R c) { return _mm256_fnmadd_ps(a, b, c); }
  static R mul(R a, R b) { return _mm256_mul_ps(a, b); }
  static R max(R low, R x) { return _mm256_max_ps(low, x); }  // NaN stays
  static R min(R high, R x) { return _mm256_min_ps(high, x); }
  using Mask = __m256i;
  static Mask mask(uint32_t bits) {
    const __m256i lane_bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i all = _mm256_set1_epi32(static_cast<int>(bits));
    return _mm256_cmpeq_epi32(_mm256_and_si256(all, lane_bits), lane_bits);
  }
  static __m256i first(int n) { return mask((1u << n) - 1); }
  static R load_some(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
  static void store_some(float* p, R x, int n) { _mm256_maskstore_ps(p, first(n), x); }
  static R keep(Mask m, R x) { return _mm256_and_ps(x, _mm256_castsi256_ps(m)); }
  static R load_kept(Mask m, const float* p) { return keep(m, loadu(p)); }
  // Lane l of the result is lane l - N, or l + N, of the two registers side by side.
  template <int N>
  static R from_left(Mask m, R before, R x) {
    return keep(m, across<8 - N>(before, x));
  }
  template <int N>
  static R from_right(Mask m, R x, R after) {
    return keep(m, across<N>(x, after));
  }
  // Lanes N to N + 7 of the sixteen in a, b.
  template <int N>
  static R across(R a, R b) {
    const __m256i low = _mm256_castps_si256(a), high = _mm256_castps_si256(b);
    const __m256i middle = _mm256_permute2x128_si256(low, high, 0x21);
    if constexpr (N < 4)
      return _mm256_castsi256_ps(_mm256_alignr_epi8(middle, low, 4 * N));
    else if constexpr (N == 4)
      return _mm256_castsi256_ps(middle);
    else
      return _mm256_castsi256_ps(_mm256_alignr_epi8(high, middle, 4 * (N - 4)));
  }

  static Four four(const float*) { return 0; }
  template <int I>
  static R lane(Four, const float* w) {
    return _mm256_broadcast_ss(w + I);
  }

  // r[channel] = lanes of 8 pixels, from 8 pixels of 8 channels each.
  static TFPRUNE_INLINE void load_transposed(const float* const* source, int64_t at, R r[8]) {
    for (int i = 0; i < 8; ++i) r[i] = loadu(source[i] + at);
    transpose(r);
  }

  static TFPRUNE_INLINE void transpose(R r[8]) {
    R a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
      a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
      a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      for (int k = 0; k < 2; ++k) {
        const __m256d low = _mm256_castps_pd(a[i + k]), high = _mm256_castps_pd(a[i + 2 + k]);
        b[i + 2 * k] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
        b[i + 2 * k + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
      }
    }
    for (int i = 0; i < 4; ++i) {
      r[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
      r[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
  }
};

}  // namespace

#endif
