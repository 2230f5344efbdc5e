// Panels of any convolution, by transposing every tap of the NHWC input: any stride, dilation,
// padding and kernel. Also the transforms that are shared with fill_columns.h.
//
// Included by engine.h.

#ifndef TFPRUNE_FILL_ANY_H_
#define TFPRUNE_FILL_ANY_H_

namespace {

// Where the taps of the tile's pixels begin; pixels past the end read zeros.
void find_sources(const tfp_plan& plan, const tfp_call& call, int64_t begin, int64_t end,
                  const Scratch& s) {
  const tfp_conv& c = plan.conv;
  const int64_t pixels = int64_t{plan.vectors} * L;
  int64_t ox = begin % call.out_w, oy = begin / call.out_w % call.out_h;
  int64_t n = begin / call.out_w / call.out_h;
  for (int64_t i = 0; i < pixels; ++i) {
    const float** source = s.source + i;
    for (int64_t p = 0; p < c.kernel_h; ++p) {
      const int64_t iy = oy * c.stride_h + p * c.dilation_h - c.pad_top;
      const bool row = begin + i < end && iy >= 0 && iy < call.h;
      const float* line = call.x + (n * call.h + iy) * call.w * c.in_channels;
      for (int64_t q = 0; q < c.kernel_w; ++q, source += pixels) {
        const int64_t ix = ox * c.stride_w + q * c.dilation_w - c.pad_left;
        *source = row && ix >= 0 && ix < call.w ? line + ix * c.in_channels : s.zeros;
      }
    }
    if (++ox == call.out_w) {
      ox = 0;
      if (++oy == call.out_h) oy = 0, ++n;
    }
  }
}

// One channel's taps of a vector of pixels, as `tap(p, q)` gives them, into panel rows `pitch` apart.
template <int K, class Tap>
TFPRUNE_INLINE void transform_square(const tfp_plan& plan, Tap tap, float* panel, int64_t pitch) {
  R v[K][K];
  for (int q = 0; q < K; ++q) {
    R t[K], y[K];
    for (int p = 0; p < K; ++p) t[p] = tap(p, q);
    dct<K>(plan.basis_h, t, y);
    for (int u = 0; u < K; ++u) v[u][q] = y[u];
  }
  for (int u = 0; u < K; ++u) {
    R y[K];
    dct<K>(plan.basis_w, v[u], y);
    for (int w = 0; w < K; ++w) Lanes::store(panel + (u * K + w) * pitch, y[w]);
  }
}

template <class Tap>
void transform_any(const tfp_plan& plan, Tap tap, float* panel, int64_t pitch) {
  const int kh = static_cast<int>(plan.conv.kernel_h), kw = static_cast<int>(plan.conv.kernel_w);
  R half[TFP_MOST_KERNEL * TFP_MOST_KERNEL];
  for (int q = 0; q < kw; ++q) {
    for (int u = 0; u < kh; ++u) {
      R sum = Lanes::zero();
      for (int p = 0; p < kh; ++p)
        sum = Lanes::fma(Lanes::set1(plan.basis_h[u * kh + p]), tap(p, q), sum);
      half[u * kw + q] = sum;
    }
  }
  for (int u = 0; u < kh; ++u) {
    for (int v = 0; v < kw; ++v) {
      R sum = Lanes::zero();
      for (int q = 0; q < kw; ++q)
        sum = Lanes::fma(Lanes::set1(plan.basis_w[v * kw + q]), half[u * kw + q], sum);
      Lanes::store(panel + (u * kw + v) * pitch, sum);
    }
  }
}

template <class Tap>
TFPRUNE_INLINE void transform(const tfp_plan& plan, Tap tap, float* panel, int64_t pitch) {
  const tfp_conv& c = plan.conv;
  if (c.basis == TFP_DCT) {
    if (c.kernel_h == 3 && c.kernel_w == 3) return transform_square<3>(plan, tap, panel, pitch);
    if (c.kernel_h == 5 && c.kernel_w == 5) return transform_square<5>(plan, tap, panel, pitch);
    return transform_any(plan, tap, panel, pitch);
  }
  for (int p = 0; p < c.kernel_h; ++p)
    for (int q = 0; q < c.kernel_w; ++q, panel += pitch) Lanes::store(panel, tap(p, q));
}

// The panel of a block of 1x1 kernels, whose transform is the identity: transposed straight into it.
void fill_point(const tfp_plan& plan, const tfp_block& block, int vectors, const Scratch& s) {
  const int64_t pitch = int64_t{plan.vectors} * L;
  for (int j = 0; j < vectors; ++j)
    for (int i = 0; i < block.channels; i += L)
      transpose_pixels(s.source + j * L, block.channel + i,
                       block.channels - i < L ? block.channels - i : L, pitch,
                       s.panel + i * pitch + j * L);
}

// The panel of a block, for one vector of the tile.
void fill_any(const tfp_plan& plan, const tfp_block& block, int j, const Scratch& s) {
  const tfp_conv& c = plan.conv;
  const int64_t kw = c.kernel_w, taps = c.kernel_h * kw, pitch = int64_t{plan.vectors} * L;
  for (int i0 = 0; i0 < block.channels; i0 += L) {
    const int count = block.channels - i0 < L ? block.channels - i0 : L;
    for (int64_t tap = 0; tap < taps; ++tap)
      transpose_pixels(s.source + tap * pitch + j * L, block.channel + i0, count, L,
                       s.taps + tap * L * L);
    for (int i = 0; i < count; ++i) {
      const float* t = s.taps + i * L;
      const auto tap = [t, kw](int64_t p, int64_t q) {
        return Lanes::load(t + (p * kw + q) * L * L);
      };
      transform(plan, tap, s.panel + (i0 + i) * taps * pitch + j * L, pitch);
    }
  }
}

}  // namespace

#endif
