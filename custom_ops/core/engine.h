// The fast kernel, for the `Lanes` that were included before it. Everything is in an unnamed
// namespace and free of the C++ library, so that no code for one instruction set is shared with
// files compiled for another.
//
// Tile by tile of P vectors of output pixels:
//   for each block of input channels
//     fill:  every channel's patches, transformed, as rows of a panel [channel * taps + tap][pixel]
//     rows:  sums[k] += weight * panel[offset] for each entry of each output channel
//   out:   sums[k][pixel] -> y[pixel][k], with the activation

#include <stdint.h>
#include <string.h>

#include "core/plan.h"

namespace {

constexpr int L = Lanes::L;
using R = Lanes::R;

// Three taps to three frequencies, without scale.
TFPRUNE_INLINE void dct3(R a, R b, R c, R* y) {
  const R sum = Lanes::add(a, c);
  y[0] = Lanes::add(sum, b);
  y[1] = Lanes::sub(a, c);
  y[2] = Lanes::fnma(Lanes::set1(2.0f), b, sum);
}

// L pixels of up to L channels, turned: to[channel * step + pixel].
TFPRUNE_INLINE void turn(const float* const* source, int64_t channel, int count, int64_t step,
                         float* to) {
  R r[L];
  if (count == L) {
    Lanes::load_turned(source, channel, r);
    for (int i = 0; i < L; ++i) Lanes::store(to + i * step, r[i]);
    return;
  }
  for (int i = 0; i < L; ++i) r[i] = Lanes::load_some(source[i] + channel, count);
  Lanes::transpose(r);
  for (int i = 0; i < count; ++i) Lanes::store(to + i * step, r[i]);
}

}  // namespace

#include "core/fill_same.h"

namespace {

struct Scratch {
  float* panel;
  float* sums;
  float* taps;           // [taps][L channels][L pixels]
  const float** source;  // [taps][P * L], where each tap of each pixel begins
  float* zeros;          // what lies outside the image
  float* planes;         // see fill_same.h
};

int64_t padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

struct Sizes {
  int64_t panel, sums, taps, source, zeros, planes;
  Sizes(const tfp_plan& plan, const tfp_call& call) {
    const tfp_conv& c = plan.conv;
    const int64_t k = c.kernel_h * c.kernel_w, pixels = int64_t{plan.vectors} * L;
    panel = padded(plan.block_channels * k * pixels * 4);
    sums = padded((c.out_channels / c.groups + L) * pixels * 4);
    taps = padded(k * L * L * 4);
    source = padded(k * pixels * static_cast<int64_t>(sizeof(float*)));
    zeros = padded((c.in_channels + L) * 4);
    planes = padded(planes_bytes(plan, call));
  }
  int64_t all() const { return panel + sums + taps + source + zeros + planes; }
};

int64_t scratch_bytes(const tfp_plan* plan, const tfp_call* call) {
  return Sizes(*plan, *call).all();
}

Scratch lay_out(const tfp_plan& plan, const tfp_call& call, void* memory) {
  const Sizes sizes(plan, call);
  char* at = static_cast<char*>(memory);
  Scratch s;
  s.panel = reinterpret_cast<float*>(at);
  s.sums = reinterpret_cast<float*>(at += sizes.panel);
  s.taps = reinterpret_cast<float*>(at += sizes.sums);
  s.source = reinterpret_cast<const float**>(at += sizes.taps);
  s.zeros = reinterpret_cast<float*>(at += sizes.source);
  s.planes = reinterpret_cast<float*>(at += sizes.zeros);
  memset(s.zeros, 0, static_cast<size_t>(sizes.zeros));
  return s;
}

// Where the taps of the tile's pixels begin; pixels past the end repeat nothing and read zeros.
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

// One channel's taps of L pixels, at t[tap * step], into panel rows `pitch` apart.
TFPRUNE_INLINE void transform3x3(const float* t, int64_t step, float* panel, int64_t pitch) {
  R v[3][3];
  for (int q = 0; q < 3; ++q) {
    R y[3];
    dct3(Lanes::load(t + q * step), Lanes::load(t + (3 + q) * step), Lanes::load(t + (6 + q) * step),
         y);
    for (int u = 0; u < 3; ++u) v[u][q] = y[u];
  }
  for (int u = 0; u < 3; ++u) {
    R y[3];
    dct3(v[u][0], v[u][1], v[u][2], y);
    for (int w = 0; w < 3; ++w) Lanes::store(panel + (u * 3 + w) * pitch, y[w]);
  }
}

void transform_any(const tfp_plan& plan, const float* t, int64_t step, float* panel,
                   int64_t pitch) {
  const int kh = static_cast<int>(plan.conv.kernel_h), kw = static_cast<int>(plan.conv.kernel_w);
  R half[TFP_MOST_TAPS];
  for (int q = 0; q < kw; ++q) {
    for (int u = 0; u < kh; ++u) {
      R sum = Lanes::zero();
      for (int p = 0; p < kh; ++p)
        sum = Lanes::fma(Lanes::set1(plan.basis_h[u * kh + p]),
                         Lanes::load(t + (p * kw + q) * step), sum);
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

// The panel of a block by turning every tap: any stride, dilation, padding and kernel.
void fill_any(const tfp_plan& plan, const tfp_block& block, int vectors, const Scratch& s) {
  const tfp_conv& c = plan.conv;
  const int64_t taps = c.kernel_h * c.kernel_w, pitch = int64_t{plan.vectors} * L;
  const bool three = c.basis == TFP_DCT && c.kernel_h == 3 && c.kernel_w == 3;
  for (int j = 0; j < vectors; ++j) {
    for (int i0 = 0; i0 < block.channels; i0 += L) {
      const int count = block.channels - i0 < L ? block.channels - i0 : L;
      for (int64_t tap = 0; tap < taps; ++tap)
        turn(s.source + tap * pitch + j * L, block.channel + i0, count, L, s.taps + tap * L * L);
      for (int i = 0; i < count; ++i) {
        float* panel = s.panel + (i0 + i) * taps * pitch + j * L;
        const float* t = s.taps + i * L;
        if (three) {
          transform3x3(t, L * L, panel, pitch);
        } else if (c.basis == TFP_DCT && taps > 1) {
          transform_any(plan, t, L * L, panel, pitch);
        } else {
          for (int64_t tap = 0; tap < taps; ++tap)
            Lanes::store(panel + tap * pitch, Lanes::load(t + tap * L * L));
        }
      }
    }
  }
}

}  // namespace

#include "core/rows.h"

namespace {

// sums[k][pixel] to y[pixel][k] of a group.
void out(const tfp_plan& plan, const tfp_call& call, int32_t group, int64_t begin, int64_t end,
         const Scratch& s) {
  const tfp_conv& c = plan.conv;
  const int64_t count = c.out_channels / c.groups, pitch = int64_t{plan.vectors} * L;
  const R zero = Lanes::zero(), six = Lanes::set1(6.0f);
  for (int64_t k = 0; k < count; k += L) {
    const int channels = static_cast<int>(count - k < L ? count - k : L);
    for (int64_t pixel = begin; pixel < end; pixel += L) {
      R r[L];
      for (int i = 0; i < L; ++i) r[i] = Lanes::load(s.sums + (k + i) * pitch + (pixel - begin));
      Lanes::transpose(r);
      const int pixels = static_cast<int>(end - pixel < L ? end - pixel : L);
      float* y = call.y + pixel * c.out_channels + group * count + k;
      for (int i = 0; i < pixels; ++i, y += c.out_channels) {
        R value = r[i];
        if (c.activation != TFP_LINEAR) value = Lanes::max(zero, value);
        if (c.activation == TFP_RELU6) value = Lanes::min(six, value);
        if (channels == L)
          Lanes::storeu(y, value);
        else
          Lanes::store_some(y, value, channels);
      }
    }
  }
}

}  // namespace

#include "core/whole.h"

namespace {

void run(const tfp_plan* plan, const tfp_call* call, tfp_range range, void* memory) {
  const Scratch s = lay_out(*plan, *call, memory);
  const int64_t tile = int64_t{plan->vectors} * L;
  const bool same = keeps_pixels(*plan, *call);
  const int64_t step = same ? band_of(*plan, *call) : 0;
  Band band{s.planes, same ? plane_length(*plan, *call) : 0, 0, halo_of(*plan, *call), {}};
  int64_t made = range.begin;  // planes reach to this pixel
  for (int64_t begin = range.begin; begin < range.end; begin += tile) {
    const int64_t end = begin + tile < range.end ? begin + tile : range.end;
    const int vectors = static_cast<int>((end - begin + L - 1) / L);
    if (same && begin == made) {
      made = begin + step < range.end ? begin + step : range.end;
      make_planes(*plan, *call, begin, made, s.zeros, &band);
    }
    if (same)
      make_masks(*plan, *call, begin, vectors, &band);
    else
      find_sources(*plan, *call, begin, end, s);
    if (takes_whole(*plan, *call)) {
      whole(*plan, *call, band, begin, end, vectors, s);
      continue;
    }
    for (int32_t i = 0; i < plan->blocks; ++i) {
      const tfp_block& block = plan->block[i];
      if (same)
        fill_same(*plan, *call, block, band, begin, vectors, s.panel);
      else
        fill_any(*plan, block, vectors, s);
      rows_of_tile(*plan, block, vectors, s);
      if (block.last) out(*plan, *call, block.group, begin, end, s);
    }
  }
}

}  // namespace
