// Sixteen lanes.

#ifndef TFPRUNE_SIMD_AVX512_H_
#define TFPRUNE_SIMD_AVX512_H_

#include <immintrin.h>
#include <stdint.h>

#ifndef TFPRUNE_INLINE
#define TFPRUNE_INLINE inline __attribute__((always_inline))
#endif

namespace {

struct Lanes {
  static constexpr int L = 16;
  static constexpr int kRegisters = 32;
  using R = __m512;
  using Four = __m512;  // four weights, each read by lane()

  static R zero() { return _mm512_setzero_ps(); }
  static R set1(float x) { return _mm512_set1_ps(x); }
  static R load(const float* p) { return _mm512_load_ps(p); }
  static R loadu(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, R x) { _mm512_store_ps(p, x); }
  static void storeu(float* p, R x) { _mm512_storeu_ps(p, x); }
  static R add(R a, R b) { return _mm512_add_ps(a, b); }
  static R sub(R a, R b) { return _mm512_sub_ps(a, b); }
  static R fma(R a, R b, R c) { return _mm512_fmadd_ps(a, b, c); }
  static R fnma(R a, R b, R c) { return _mm512_fnmadd_ps(a, b, c); }
  static R mul(R a, R b) { return _mm512_mul_ps(a, b); }
  static R max(R low, R x) { return _mm512_max_ps(low, x); }  // NaN stays
  static R min(R high, R x) { return _mm512_min_ps(high, x); }
  static __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1); }
  static R load_some(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store_some(float* p, R x, int n) { _mm512_mask_storeu_ps(p, first(n), x); }
  using Mask = __mmask16;
  static Mask mask(uint32_t bits) { return static_cast<Mask>(bits); }
  static R load_kept(Mask m, const float* p) { return _mm512_maskz_loadu_ps(m, p); }
  // Lane l of the result is lane l - N, or l + N, of the two registers side by side.
  template <int N>
  static R from_left(Mask m, R before, R x) {
    return _mm512_castsi512_ps(_mm512_maskz_alignr_epi32(m, _mm512_castps_si512(x),
                                                         _mm512_castps_si512(before), 16 - N));
  }
  template <int N>
  static R from_right(Mask m, R x, R after) {
    return _mm512_castsi512_ps(_mm512_maskz_alignr_epi32(m, _mm512_castps_si512(after),
                                                         _mm512_castps_si512(x), N));
  }

  static Four four(const float* w) { return _mm512_castps128_ps512(_mm_loadu_ps(w)); }
  template <int I>
  static R lane(Four w, const float*) {
    return _mm512_permutexvar_ps(_mm512_set1_epi32(I), w);
  }

  // r[channel] = lanes of 16 pixels, from 16 pixels of 16 channels each. Quarters are assembled
  // while they are loaded, which saves half of the shuffles of transpose().
  static TFPRUNE_INLINE void load_transposed(const float* const* source, int64_t at, R r[16]) {
    for (int quarter = 0; quarter < 4; ++quarter) {
      R t[4];
      for (int i = 0; i < 4; ++i) {
        const float* const* from = source + i;
        const int64_t k = at + 4 * quarter;
        t[i] = _mm512_castps128_ps512(_mm_loadu_ps(from[0] + k));
        t[i] = _mm512_insertf32x4(t[i], _mm_loadu_ps(from[4] + k), 1);
        t[i] = _mm512_insertf32x4(t[i], _mm_loadu_ps(from[8] + k), 2);
        t[i] = _mm512_insertf32x4(t[i], _mm_loadu_ps(from[12] + k), 3);
      }
      const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(t[0], t[1]));
      const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(t[0], t[1]));
      const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(t[2], t[3]));
      const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(t[2], t[3]));
      r[4 * quarter] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
      r[4 * quarter + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
      r[4 * quarter + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
      r[4 * quarter + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
  }

  static TFPRUNE_INLINE void transpose(R r[16]) {
    R a[16], b[16];
    for (int i = 0; i < 16; i += 2) {
      a[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
      a[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
      for (int k = 0; k < 2; ++k) {
        const __m512d low = _mm512_castps_pd(a[i + k]), high = _mm512_castps_pd(a[i + 2 + k]);
        b[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
        b[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
      }
    }
    for (int i = 0; i < 4; ++i) {
      a[i] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
      a[i + 4] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
      a[i + 8] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
      a[i + 12] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
      r[i] = _mm512_shuffle_f32x4(a[i], a[i + 8], 0x88);
      r[i + 8] = _mm512_shuffle_f32x4(a[i], a[i + 8], 0xdd);
      r[i + 4] = _mm512_shuffle_f32x4(a[i + 4], a[i + 12], 0x88);
      r[i + 12] = _mm512_shuffle_f32x4(a[i + 4], a[i + 12], 0xdd);
    }
  }
};

}  // namespace

#endif
