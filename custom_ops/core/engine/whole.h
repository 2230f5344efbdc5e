// Kernels that are there as a whole or not at all: no transform and no panel. The taps of an input
// channel stay in registers while every output channel that reads it takes them.
//
// Included by engine.h.

#ifndef TFPRUNE_WHOLE_H_
#define TFPRUNE_WHOLE_H_

namespace {

// Vectors of pixels whose taps fit into the registers.
template <int K>
constexpr int whole_vectors() {
  return K * K * 2 + 6 <= Lanes::kRegisters ? 2 : 1;
}

// With sixteen registers a panel is faster: there a sum would be loaded and stored for nine FMAs.
bool takes_whole(const tfp_plan& plan, const tfp_call& call) {
  return plan.kernel_start != nullptr && keeps_pixels(plan, call) && Lanes::kRegisters > 16;
}

// sums[k] += the kernels that read channel `channel`, over V vectors from `at` of the tile.
template <int K, int V>
TFPRUNE_INLINE void whole_channel(const tfp_plan& plan, const float* plane, int64_t w,
                                  const Masks* masks, int64_t channel, float* sums,
                                  int64_t pitch) {
  R t[V][K * K];
  for (int j = 0; j < V; ++j) {
    R before[K], x[K], after[K];
    column<K, false>(nullptr, plane + (j - 1) * L, w, masks[j], before);
    column<K, false>(nullptr, plane + j * L, w, masks[j + 1], x);
    column<K, false>(nullptr, plane + (j + 1) * L, w, masks[j + 2], after);
    for (int u = 0; u < K; ++u)
      neighbours<K, false, K / 2>(masks[j + 1], before[u], x[u], after[u], t[j] + u * K);
  }
  const float* weight = plan.kernel_weight + plan.kernel_start[channel] * K * K;
  for (int64_t i = plan.kernel_start[channel]; i < plan.kernel_start[channel + 1]; ++i) {
    float* to = sums + plan.kernel_row[i] * pitch;
    R sum[2];  // of one vector in two parts, which hides the latency of the FMA
    sum[0] = Lanes::load(to);
    sum[1] = V == 2 ? Lanes::load(to + L) : Lanes::zero();
    for (int tap = 0; tap < K * K; ++tap, ++weight) {
      const R value = Lanes::set1(*weight);
      if (V == 1)
        sum[tap % 2] = Lanes::fma(value, t[0][tap], sum[tap % 2]);
      else
        for (int j = 0; j < V; ++j) sum[j] = Lanes::fma(value, t[j][tap], sum[j]);
    }
    if (V == 1) sum[0] = Lanes::add(sum[0], sum[1]);
    for (int j = 0; j < V; ++j) Lanes::store(to + j * L, sum[j]);
  }
}

template <int K>
void whole_tile(const tfp_plan& plan, const tfp_call& call, int32_t group, const Band& band,
                int64_t begin, int vectors, const Scratch& s) {
  const tfp_conv& c = plan.conv;
  const int64_t pitch = int64_t{plan.vectors} * L, rows = c.out_channels / c.groups;
  const int64_t inputs = c.in_channels / c.groups;
  constexpr int V = whole_vectors<K>();
  for (int64_t k = 0; k < rows; ++k)
    for (int j = 0; j < vectors; ++j)
      Lanes::store(s.sums + k * pitch + j * L, Lanes::set1(plan.bias[group * rows + k]));
  for (int64_t i = group * inputs; i < (group + 1) * inputs; ++i) {
    if (plan.kernel_start[i] == plan.kernel_start[i + 1]) continue;
    const float* plane = band.planes + i * band.length + (begin - band.first);
    int j = 0;
    for (; j + V <= vectors; j += V)
      whole_channel<K, V>(plan, plane + j * L, call.w, band.masks + j, i, s.sums + j * L, pitch);
    for (; j < vectors; ++j)
      whole_channel<K, 1>(plan, plane + j * L, call.w, band.masks + j, i, s.sums + j * L, pitch);
  }
}

void whole(const tfp_plan& plan, const tfp_call& call, const Band& band, int64_t begin,
           int64_t end, int vectors, const Scratch& s) {
  for (int32_t group = 0; group < plan.conv.groups; ++group) {
    if (plan.conv.kernel_h == 3)
      whole_tile<3>(plan, call, group, band, begin, vectors, s);
    else
      whole_tile<5>(plan, call, group, band, begin, vectors, s);
    out(plan, call, group, begin, end, s);
  }
}

}  // namespace

#endif
