// Panels of convolutions whose output pixels are the input's (stride 1, dilation 1, "same" padding,
// square kernels of odd size): the input is transposed into planes once per band of tiles, and patches
// are made by shifting vectors within registers. Pixels are counted over all images; what would
// cross the border of an image is masked.
//
// Included by engine.h.

#ifndef TFPRUNE_FILL_SAME_H_
#define TFPRUNE_FILL_SAME_H_

namespace {

constexpr int kMostRadius = 2;
constexpr int kMostVectors = 8;
constexpr int64_t kBandBytes = 256 * 1024;

// Which lanes of a vector of pixels have a neighbour in each direction.
struct Bits {
  uint32_t above[kMostRadius], below[kMostRadius], left[kMostRadius], right[kMostRadius];
};

struct Masks {
  Lanes::Mask above[kMostRadius], below[kMostRadius], left[kMostRadius], right[kMostRadius];
};

struct Band {
  float* planes;          // [in_channels][length], of pixels [first, first + length)
  int64_t length, first, halo;
  Masks masks[kMostVectors + 2];  // of the vector before the tile, the tile's, and the one after
};

bool keeps_pixels(const tfp_plan& plan, const tfp_call& call) {
  const tfp_conv& c = plan.conv;
  return c.kernel_h == c.kernel_w && (c.kernel_h == 3 || c.kernel_h == 5) && c.stride_h == 1 &&
         c.stride_w == 1 && c.dilation_h == 1 && c.dilation_w == 1 &&
         c.pad_top == c.kernel_h / 2 && c.pad_left == c.kernel_w / 2 && call.out_h == call.h &&
         call.out_w == call.w;
}

int64_t halo_of(const tfp_plan& plan, const tfp_call& call) {
  const int64_t reach = (plan.conv.kernel_h / 2) * call.w + plan.conv.kernel_w / 2;
  return (reach + L - 1) / L * L + L;
}

// Pixels of a band, a multiple of a tile: as many as `fits`, but at least two halos and at most all.
int64_t whole_tiles(const tfp_plan& plan, const tfp_call& call, int64_t fits, int64_t halo) {
  const int64_t tile = int64_t{plan.vectors} * L;
  const int64_t all = (call.batch * call.out_h * call.out_w + tile - 1) / tile;
  const int64_t tiles = (fits < 2 * halo ? 2 * halo : fits) / tile;
  return tile * (tiles < 1 ? 1 : tiles < all ? tiles : all);
}

// A length whose planes do not begin in the same cache sets, which would be slow.
int64_t apart(int64_t length) { return length * 4 % 4096 == 0 ? length + L : length; }

// Pixels of a band whose planes stay in the L2 cache.
int64_t band_of(const tfp_plan& plan, const tfp_call& call) {
  const int64_t halo = halo_of(plan, call);
  return whole_tiles(plan, call, kBandBytes / 4 / plan.conv.in_channels - 2 * halo, halo);
}

int64_t plane_length(const tfp_plan& plan, const tfp_call& call) {
  return apart(band_of(plan, call) + 2 * halo_of(plan, call));
}

int64_t planes_bytes(const tfp_plan& plan, const tfp_call& call) {
  return keeps_pixels(plan, call) ? plan.conv.in_channels * plane_length(plan, call) * 4 : 0;
}

// Transposes the pixels around [begin, end) into planes; what lies before and after all images is 0.
void make_planes(const tfp_plan& plan, const tfp_call& call, int64_t begin, int64_t end,
                 const float* zeros, Band* band) {
  const int64_t channels = plan.conv.in_channels, all = call.batch * call.h * call.w;
  band->first = begin - band->halo;
  const int64_t needed = (end - begin + L - 1) / L * L + 2 * band->halo;
  for (int64_t at = 0; at < needed; at += L) {
    const float* source[L];
    for (int i = 0; i < L; ++i) {
      const int64_t pixel = band->first + at + i;
      source[i] = pixel >= 0 && pixel < all ? call.x + pixel * channels : zeros;
    }
    for (int64_t c = 0; c < channels; c += L) {
      const int count = static_cast<int>(channels - c < L ? channels - c : L);
      transpose_pixels(source, c, count, band->length, band->planes + c * band->length + at);
    }
  }
}

// Clears the bits of pixels [from, to), counted from the first lane of bits[0].
template <class Field>
void clear(Bits* bits, int64_t from, int64_t to, int64_t end, Field field) {
  if (from < 0) from = 0;
  if (to > end) to = end;
  for (int64_t i = from; i < to; ++i) field(bits[i / L]) &= ~(1u << (i % L));
}

// The masks of the vectors around a tile, row by row of the images.
void make_masks(const tfp_plan& plan, const tfp_call& call, int64_t begin, int vectors,
                Band* band) {
  const int radius = static_cast<int>(plan.conv.kernel_h / 2);
  const int64_t first = begin - L, end = int64_t{vectors + 2} * L;
  Bits bits[kMostVectors + 2];
  memset(bits, 0xff, sizeof(bits));
  int64_t row = first >= 0 ? first / call.w : 0;
  for (; row * call.w < first + end; ++row) {
    const int64_t from = row * call.w - first, to = from + call.w, y = row % call.h;
    for (int d = 1; d <= radius; ++d) {
      const int k = d - 1;
      if (y < d) clear(bits, from, to, end, [k](Bits& m) -> uint32_t& { return m.above[k]; });
      if (y + d >= call.h)
        clear(bits, from, to, end, [k](Bits& m) -> uint32_t& { return m.below[k]; });
      const int64_t edge = d < call.w ? d : call.w;
      clear(bits, from, from + edge, end, [k](Bits& m) -> uint32_t& { return m.left[k]; });
      clear(bits, to - edge, to, end, [k](Bits& m) -> uint32_t& { return m.right[k]; });
    }
  }
  for (int j = 0; j < vectors + 2; ++j) {
    for (int k = 0; k < radius; ++k) {
      band->masks[j].above[k] = Lanes::mask(bits[j].above[k]);
      band->masks[j].below[k] = Lanes::mask(bits[j].below[k]);
      band->masks[j].left[k] = Lanes::mask(bits[j].left[k]);
      band->masks[j].right[k] = Lanes::mask(bits[j].right[k]);
    }
  }
}

// K taps to K frequencies by their even and odd parts, as `basis` scales them; three without scale.
template <int K>
TFPRUNE_INLINE void dct(const float* basis, const R* t, R* y) {
  if constexpr (K == 3) {
    dct3(t[0], t[1], t[2], y);
  } else {
    R even[K / 2], odd[K / 2];
    for (int p = 0; p < K / 2; ++p) {
      even[p] = Lanes::add(t[p], t[K - 1 - p]);
      odd[p] = Lanes::sub(t[p], t[K - 1 - p]);
    }
    for (int u = 0; u < K; ++u) {
      const float* row = basis + u * K;
      R sum = u % 2 ? Lanes::mul(Lanes::set1(row[0]), odd[0])
                    : Lanes::mul(Lanes::set1(row[K / 2]), t[K / 2]);
      for (int p = u % 2; p < K / 2; ++p)
        sum = Lanes::fma(Lanes::set1(row[p]), u % 2 ? odd[p] : even[p], sum);
      y[u] = sum;
    }
  }
}

// The rows of one vector of pixels, masked, and transformed down the column.
template <int K, bool Dct>
TFPRUNE_INLINE void column(const float* basis, const float* plane, int64_t w, const Masks& m,
                           R* to) {
  constexpr int kRadius = K / 2;
  R t[K];
  for (int d = 1; d <= kRadius; ++d) {
    t[kRadius - d] = Lanes::load_kept(m.above[d - 1], plane - d * w);
    t[kRadius + d] = Lanes::load_kept(m.below[d - 1], plane + d * w);
  }
  t[kRadius] = Lanes::load(plane);
  if constexpr (Dct) {
    dct<K>(basis, t, to);
  } else {
    for (int u = 0; u < K; ++u) to[u] = t[u];
  }
}

template <int K, bool Dct, int D>
TFPRUNE_INLINE void neighbours(const Masks& m, R before, R x, R after, R* t) {
  if constexpr (D > 0) {
    t[K / 2 - D] = Lanes::template from_left<D>(m.left[D - 1], before, x);
    t[K / 2 + D] = Lanes::template from_right<D>(m.right[D - 1], x, after);
    neighbours<K, Dct, D - 1>(m, before, x, after, t);
  } else {
    t[K / 2] = x;
  }
}

// The panel rows of one channel of a tile; with Skip only those that are `used`, by bits of taps.
template <int K, bool Dct, bool Skip>
TFPRUNE_INLINE void channel_of_tile(const tfp_plan& plan, const float* plane, int64_t w,
                                    const Masks* masks, int vectors, uint32_t used, float* panel,
                                    int64_t pitch) {
  R before[K], x[K], after[K];
  column<K, Dct>(plan.basis_h, plane - L, w, masks[0], before);
  column<K, Dct>(plan.basis_h, plane, w, masks[1], x);
  for (int j = 0; j < vectors; ++j) {
    column<K, Dct>(plan.basis_h, plane + (j + 1) * L, w, masks[j + 2], after);
    for (int u = 0; u < K; ++u) {
      if (Skip && (used >> (u * K) & ((1u << K) - 1)) == 0) continue;
      R t[K], y[K];
      neighbours<K, Dct, K / 2>(masks[j + 1], before[u], x[u], after[u], t);
      if constexpr (Dct) {
        dct<K>(plan.basis_w, t, y);
      } else {
        for (int v = 0; v < K; ++v) y[v] = t[v];
      }
      for (int v = 0; v < K; ++v)
        if (!Skip || (used >> (u * K + v) & 1))
          Lanes::store(panel + (u * K + v) * pitch + j * L, y[v]);
    }
    for (int u = 0; u < K; ++u) {
      before[u] = x[u];
      x[u] = after[u];
    }
  }
}

template <int K, bool Dct>
void fill_tile(const tfp_plan& plan, const tfp_call& call, const tfp_block& block,
               const Band& band, int64_t begin, int vectors, float* panel) {
  const int64_t pitch = int64_t{plan.vectors} * L;
  const uint32_t* used = plan.used + block.used;
  for (int i = 0; i < block.channels; ++i, panel += K * K * pitch) {
    const float* plane = band.planes + (block.channel + i) * band.length + (begin - band.first);
    if (!block.skips)
      channel_of_tile<K, Dct, false>(plan, plane, call.w, band.masks, vectors, 0, panel, pitch);
    else if (used[i] != 0)
      channel_of_tile<K, Dct, true>(plan, plane, call.w, band.masks, vectors, used[i], panel, pitch);
  }
}

void fill_same(const tfp_plan& plan, const tfp_call& call, const tfp_block& block,
               const Band& band, int64_t begin, int vectors, float* panel) {
  const bool dct = plan.conv.basis == TFP_DCT;
  if (plan.conv.kernel_h == 3) {
    if (dct)
      fill_tile<3, true>(plan, call, block, band, begin, vectors, panel);
    else
      fill_tile<3, false>(plan, call, block, band, begin, vectors, panel);
  } else {
    if (dct)
      fill_tile<5, true>(plan, call, block, band, begin, vectors, panel);
    else
      fill_tile<5, false>(plan, call, block, band, begin, vectors, panel);
  }
}

}  // namespace

#endif
