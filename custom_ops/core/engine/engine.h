// The fast kernel, for the `Lanes` that were included before it. Everything is in an unnamed
// namespace and free of the C++ library, so that no code for one instruction set is shared with
// files compiled for another.
//
// Tile by tile of P vectors of output pixels:
//   for each block of input channels
//     fill:  every channel's patches, transformed, as rows of a panel [channel * taps + tap][pixel]
//     rows:  sums[k] += weight * panel[offset] for each nonzero of each output channel
//   out:   sums[k][pixel] -> y[pixel][k], with the activation

#include <stdint.h>
#include <string.h>

#include "core/engine/kernel.h"

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

// Channels [channel, channel + count), count <= L, of L pixels: to[channel * step + pixel].
TFPRUNE_INLINE void transpose_pixels(const float* const* source, int64_t channel, int count,
                                     int64_t step, float* to) {
  R r[L];
  if (count == L) {
    Lanes::load_transposed(source, channel, r);
    for (int i = 0; i < L; ++i) Lanes::store(to + i * step, r[i]);
    return;
  }
  for (int i = 0; i < L; ++i) r[i] = Lanes::load_some(source[i] + channel, count);
  Lanes::transpose(r);
  for (int i = 0; i < count; ++i) Lanes::store(to + i * step, r[i]);
}

}  // namespace

#include "core/engine/fill_same.h"

namespace {

struct Scratch {
  float* panel;
  float* sums;
  float* taps;           // [taps][L channels][L pixels]
  const float** source;  // [taps][P * L], where each tap of each pixel begins
  float* zeros;          // what lies outside the image
  float* planes;         // see fill_same.h and fill_columns.h
};

int64_t columns_bytes(const tfp_plan& plan, const tfp_call& call);

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
    planes = padded(planes_bytes(plan, call) + columns_bytes(plan, call));
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

}  // namespace

#include "core/engine/fill_any.h"
#include "core/engine/fill_columns.h"
#include "core/engine/rows.h"

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

#include "core/engine/whole.h"

namespace {

// Of a convolution whose output pixels are the input's, see fill_same.h.
void run_same(const tfp_plan& plan, const tfp_call& call, tfp_range range, const Scratch& s) {
  const int64_t tile = int64_t{plan.vectors} * L, step = band_of(plan, call);
  Band band{s.planes, plane_length(plan, call), 0, halo_of(plan, call), {}};
  int64_t planes_end = range.begin;  // the planes at hand reach to this pixel
  for (int64_t begin = range.begin; begin < range.end; begin += tile) {
    const int64_t end = begin + tile < range.end ? begin + tile : range.end;
    const int vectors = static_cast<int>((end - begin + L - 1) / L);
    if (begin == planes_end) {
      planes_end = begin + step < range.end ? begin + step : range.end;
      make_planes(plan, call, begin, planes_end, s.zeros, &band);
    }
    make_masks(plan, call, begin, vectors, &band);
    if (takes_whole(plan, call)) {
      whole(plan, call, band, begin, end, vectors, s);
      continue;
    }
    for (int32_t i = 0; i < plan.blocks; ++i) {
      const tfp_block& block = plan.block[i];
      fill_same(plan, call, block, band, begin, vectors, s.panel);
      rows_of_tile(plan, block, vectors, s);
      if (block.last) out(plan, call, block.group, begin, end, s);
    }
  }
}

void run_other(const tfp_plan& plan, const tfp_call& call, tfp_range range, const Scratch& s) {
  const int64_t tile = int64_t{plan.vectors} * L;
  const bool point = plan.conv.kernel_h * plan.conv.kernel_w == 1;
  Columns columns = columns_of(plan, call);
  columns.planes = s.planes;
  const bool shared = columns.length > 0;
  int64_t planes_end = range.begin;  // the planes at hand reach to this pixel
  for (int64_t begin = range.begin; begin < range.end; begin += tile) {
    const int64_t end = begin + tile < range.end ? begin + tile : range.end;
    const int vectors = static_cast<int>((end - begin + L - 1) / L);
    if (shared && begin == planes_end) {
      planes_end = begin + columns.band < range.end ? begin + columns.band : range.end;
      make_columns(plan, call, begin, planes_end, s.zeros, &columns);
    }
    if (!shared || !in_one_image(call, begin, end)) find_sources(plan, call, begin, end, s);
    for (int32_t i = 0; i < plan.blocks; ++i) {
      const tfp_block& block = plan.block[i];
      if (shared)
        fill_columns_of_tile(plan, call, block, columns, begin, end, s);
      else if (point)
        fill_point(plan, block, vectors, s);
      else
        for (int j = 0; j < vectors; ++j) fill_any(plan, block, j, s);
      rows_of_tile(plan, block, vectors, s);
      if (block.last) out(plan, call, block.group, begin, end, s);
    }
  }
}

void run(const tfp_plan* plan, const tfp_call* call, tfp_range range, void* memory) {
  const Scratch s = lay_out(*plan, *call, memory);
  if (keeps_pixels(*plan, *call))
    run_same(*plan, *call, range, s);
  else
    run_other(*plan, *call, range, s);
}

}  // namespace
