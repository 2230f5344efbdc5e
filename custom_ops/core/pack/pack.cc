// Brings CSR weights into blocks of input channels whose rows are sorted by length.

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#include "core/api/checks.h"
#include "core/isa/table.h"
#include "core/pack/packed.h"

namespace tfprune {
namespace {

constexpr int64_t kMostWhole = 1 << 20;  // input channels that are listed singly
constexpr double kFewTaps = 0.85;  // below this fraction, taps that no row reads are left out

// Row u of the transform without its scale: whole numbers where that is exact, so that the
// hand-written transforms and this table agree.
void basis_rows(int64_t n, bool dct, std::vector<float>* rows, std::vector<double>* scale) {
  rows->assign(static_cast<size_t>(n * n), 0.0f);
  scale->assign(static_cast<size_t>(n), 1.0);
  for (int64_t u = 0; u < n; ++u) {
    for (int64_t p = 0; p < n; ++p) {
      const double norm = std::sqrt((u == 0 ? 1.0 : 2.0) / static_cast<double>(n));
      const double element = norm * std::cos(M_PI * (2 * p + 1) * u / (2.0 * n));
      (*rows)[static_cast<size_t>(u * n + p)] = static_cast<float>(dct ? element : u == p);
    }
  }
  if (!dct || n != 3) return;
  const float whole[9] = {1, 1, 1, 1, 0, -1, 1, -2, 1};
  rows->assign(whole, whole + 9);
  *scale = {1 / std::sqrt(3.0), 1 / std::sqrt(2.0), 1 / std::sqrt(6.0)};
}

// Tile of P vectors of pixels and CB input channels whose transformed panel stays near the L1 cache.
// Sparser kernels have shorter rows, for which more channels at a time are worth a larger panel.
void choose_tile(const tfp_conv& c, int64_t count, int64_t pixels, int lanes, tfp_plan* plan) {
  const int64_t taps = c.kernel_h * c.kernel_w, channels = c.in_channels / c.groups;
  const double cells = static_cast<double>(c.out_channels) * channels * taps;
  const double density = count / std::max(cells, 1.0);
  const int64_t panel = 1024 * (density > 0.15 ? 36 : density > 0.07 ? 54 : 72);
  int64_t vectors = channels <= 64 || lanes <= 8 ? 8 : channels >= 256 && density < 0.15 ? 2 : 4;
  if (plan->together == 4) vectors = lanes > 8 ? 4 : 2;
  if (pixels > 0) {
    const int64_t all = (pixels + lanes - 1) / lanes;
    while (vectors > 1 && all <= vectors / 2) vectors /= 2;
  }
  int64_t block = std::max<int64_t>(panel / (vectors * lanes * 4 * taps), 1);
  if (taps == 1) block = (block + lanes - 1) / lanes * lanes;  // transposed by whole vectors
  plan->vectors = static_cast<int32_t>(vectors);
  plan->block_channels = static_cast<int32_t>(std::min(block, channels));
}

// Whether all rows come in fours that have the same columns.
bool in_fours(const Packed& packed) {
  const tfp_conv& c = packed.plan.conv;
  if (c.out_channels / c.groups % 4 != 0 || packed.column.empty()) return false;
  for (int64_t k = 0; k < c.out_channels; k += 4) {
    const int32_t* first = packed.column.data() + packed.split[k];
    const int64_t count = packed.split[k + 1] - packed.split[k];
    for (int64_t j = k + 1; j < k + 4; ++j) {
      if (packed.split[j + 1] - packed.split[j] != count) return false;
      if (!std::equal(first, first + count, packed.column.data() + packed.split[j])) return false;
    }
  }
  return true;
}

struct Filler {
  Packed* packed;
  std::vector<double> scale_h, scale_w;
  std::vector<int64_t> next;            // per row of the group, its first nonzero not packed yet
  std::vector<int64_t> taken;           // per row, nonzeros in the block at hand
  std::vector<int32_t> order;
  size_t first = 0;  // block of the group at hand

  void group(int64_t g);
  int64_t next_channel(int64_t g) const;
  void block(int64_t g, int64_t channel, int64_t channels);
  void rows(tfp_block* block, int64_t g);
};

void Filler::group(int64_t g) {
  const tfp_conv& c = packed->plan.conv;
  const int64_t rows = c.out_channels / c.groups, channels = c.in_channels / c.groups;
  for (int64_t k = 0; k < rows; ++k) next[k] = packed->split[g * rows + k];
  const int64_t step = packed->plan.block_channels;
  first = packed->blocks.size();
  for (int64_t i = next_channel(g); i < channels; i = next_channel(g))
    block(g, i, std::min(step, channels - i));
  if (packed->blocks.size() == first) block(g, 0, 0);  // for the bias alone
  packed->blocks.back().last = 1;
}

// The first channel of a group with nonzeros that are not packed yet, or the end of the group.
int64_t Filler::next_channel(int64_t g) const {
  const tfp_conv& c = packed->plan.conv;
  const int64_t rows = c.out_channels / c.groups, taps = c.kernel_h * c.kernel_w;
  int64_t first_channel = c.in_channels / c.groups;
  for (int64_t k = 0; k < rows; ++k)
    if (next[k] < packed->split[g * rows + k + 1])
      first_channel = std::min(first_channel, packed->column[next[k]] / taps);
  return first_channel;
}

void Filler::block(int64_t g, int64_t channel, int64_t channels) {
  const tfp_conv& c = packed->plan.conv;
  const int64_t taps = c.kernel_h * c.kernel_w, rows_of = c.out_channels / c.groups;
  const int64_t end = (channel + channels) * taps;
  for (int64_t k = 0; k < rows_of; ++k) {
    const int64_t last = packed->split[g * rows_of + k + 1];
    int64_t e = next[k];
    while (e < last && packed->column[e] < end) ++e;
    taken[k] = e - next[k];
  }
  tfp_block b{};
  b.channel = static_cast<int32_t>(g * (c.in_channels / c.groups) + channel);
  b.channels = static_cast<int32_t>(channels);
  b.first = packed->blocks.size() == first;
  b.group = static_cast<int32_t>(g);
  b.run = static_cast<int64_t>(packed->runs.size());
  b.row = static_cast<int64_t>(packed->rows.size());
  b.nonzero = static_cast<int64_t>(packed->offsets.size());
  b.used = static_cast<int64_t>(packed->used.size());
  packed->used.resize(packed->used.size() + static_cast<size_t>(channels), 0);
  rows(&b, g);
  if (taps < 32) {
    int64_t read = 0;
    for (int64_t i = 0; i < channels; ++i) read += __builtin_popcount(packed->used[b.used + i]);
    b.skips = read < kFewTaps * static_cast<double>(channels * taps);
  }
  packed->blocks.push_back(b);
}

void Filler::rows(tfp_block* b, int64_t g) {
  const tfp_conv& c = packed->plan.conv;
  const int64_t taps = c.kernel_h * c.kernel_w, rows_of = c.out_channels / c.groups;
  const int64_t base = (b->channel - g * (c.in_channels / c.groups)) * taps;
  order.clear();
  const int64_t together = packed->plan.together;
  for (int64_t k = 0; k < rows_of; k += together)
    if (taken[k] > 0 || b->first) order.push_back(static_cast<int32_t>(k));
  std::stable_sort(order.begin(), order.end(),
                   [this](int32_t i, int32_t j) { return taken[i] > taken[j]; });
  for (const int32_t k : order) {
    const int32_t count = static_cast<int32_t>(taken[k]);
    if (packed->runs.size() == static_cast<size_t>(b->run) || packed->runs.back().nonzeros != count)
      packed->runs.push_back({count, 0});
    packed->runs.back().rows += 1;
    packed->rows.push_back(k);
    for (int64_t e = next[k]; e < next[k] + count; ++e) {
      const int64_t tap = packed->column[e] % taps;
      const double scale = scale_h[tap / c.kernel_w] * scale_w[tap % c.kernel_w];
      for (int64_t j = 0; j < together; ++j) {
        const float value = packed->value[e - next[k] + next[k + j]];
        packed->weights.push_back(static_cast<float>(value * scale));
      }
      packed->offsets.push_back(static_cast<uint16_t>(packed->column[e] - base));
      if (tap < 32) packed->used[b->used + (packed->column[e] - base) / taps] |= 1u << tap;
    }
    while (together == 1 && packed->offsets.size() % 4 != 0) {
      packed->weights.push_back(0);
      packed->offsets.push_back(0);
    }
    for (int64_t j = 0; j < together; ++j) next[k + j] += count;
  }
  b->runs = static_cast<int32_t>(packed->runs.size() - b->run);
}

// Whether every row holds all weights of an input channel or none.
bool is_whole(const Packed& packed) {
  const tfp_conv& c = packed.plan.conv;
  const int64_t taps = c.kernel_h * c.kernel_w;
  if (taps == 1 || packed.column.empty() || c.in_channels > kMostWhole) return false;
  for (int64_t k = 0; k < c.out_channels; ++k) {
    const int64_t begin = packed.split[k], count = packed.split[k + 1] - begin;
    if (count % taps != 0) return false;
    for (int64_t e = 0; e < count; e += taps) {
      const int32_t* column = packed.column.data() + begin + e;  // they grow
      if (column[0] % taps != 0 || column[taps - 1] != column[0] + taps - 1) return false;
    }
  }
  return true;
}

// Coefficients of whole kernels to spatial weights, as many and with the same columns.
void to_spatial(Packed* packed) {
  tfp_conv& c = packed->plan.conv;
  if (c.basis == TFP_SPATIAL) return;
  const int64_t kh = c.kernel_h, kw = c.kernel_w, taps = kh * kw;
  std::vector<float> vertical, horizontal;
  std::vector<double> scale_h, scale_w;
  basis_rows(kh, true, &vertical, &scale_h);
  basis_rows(kw, true, &horizontal, &scale_w);
  std::vector<double> basis(static_cast<size_t>(taps * taps));  // [frequency][tap]
  for (int64_t u = 0; u < kh; ++u)
    for (int64_t v = 0; v < kw; ++v)
      for (int64_t tap = 0; tap < taps; ++tap)
        basis[(u * kw + v) * taps + tap] = scale_h[u] * vertical[u * kh + tap / kw] * scale_w[v] *
                                          horizontal[v * kw + tap % kw];
  std::vector<double> spatial(static_cast<size_t>(taps));
  for (size_t e = 0; e < packed->value.size(); e += static_cast<size_t>(taps)) {
    std::fill(spatial.begin(), spatial.end(), 0.0);
    for (int64_t f = 0; f < taps; ++f)
      for (int64_t tap = 0; tap < taps; ++tap)
        spatial[tap] += packed->value[e + f] * basis[f * taps + tap];
    for (int64_t tap = 0; tap < taps; ++tap)
      packed->value[e + tap] = static_cast<float>(spatial[tap]);
  }
  c.basis = TFP_SPATIAL;
}

// Whole kernels by input channel.
void fill_whole(Packed* packed) {
  const tfp_conv& c = packed->plan.conv;
  const int64_t taps = c.kernel_h * c.kernel_w;
  const int64_t rows = c.out_channels / c.groups, inputs = c.in_channels / c.groups;
  std::vector<int64_t>& start = packed->kernel_start;
  start.assign(static_cast<size_t>(c.in_channels + 1), 0);
  const auto channel_of = [&](int64_t k, int64_t e) {
    return k / rows * inputs + packed->column[e] / taps;
  };
  for (int64_t k = 0; k < c.out_channels; ++k)
    for (int64_t e = packed->split[k]; e < packed->split[k + 1]; e += taps)
      ++start[channel_of(k, e) + 1];
  for (int64_t i = 0; i < c.in_channels; ++i) start[i + 1] += start[i];
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  packed->kernel_row.resize(static_cast<size_t>(start.back()));
  packed->kernel_weight.resize(static_cast<size_t>(start.back() * taps));
  for (int64_t k = 0; k < c.out_channels; ++k) {
    for (int64_t e = packed->split[k]; e < packed->split[k + 1]; e += taps) {
      const int64_t index = next[channel_of(k, e)]++;
      packed->kernel_row[index] = static_cast<int32_t>(k % rows);
      std::copy_n(packed->value.begin() + e, taps, packed->kernel_weight.begin() + index * taps);
    }
  }
}

void fill(Packed* packed) {
  tfp_plan& plan = packed->plan;
  const tfp_conv& c = plan.conv;
  Filler filler;
  filler.packed = packed;
  basis_rows(c.kernel_h, c.basis == TFP_DCT, &packed->basis_h, &filler.scale_h);
  basis_rows(c.kernel_w, c.basis == TFP_DCT, &packed->basis_w, &filler.scale_w);
  const size_t rows = static_cast<size_t>(c.out_channels / c.groups);
  filler.next.resize(rows);
  filler.taken.resize(rows);
  for (int64_t g = 0; g < c.groups; ++g) filler.group(g);
  packed->point();
}

}  // namespace

void Packed::point() {
  plan.blocks = static_cast<int32_t>(blocks.size());
  plan.block = blocks.data();
  plan.run = runs.data();
  plan.row = rows.data();
  plan.offset = offsets.data();
  plan.used = used.data();
  plan.weight = weights.data();
  plan.bias = bias.data();
  plan.basis_h = basis_h.data();
  plan.basis_w = basis_w.data();
  plan.kernel_start = kernel_start.empty() ? nullptr : kernel_start.data();
  plan.kernel_row = kernel_row.data();
  plan.kernel_weight = kernel_weight.data();
  plan.value = value.data();
  plan.column = column.data();
  plan.split = split.data();
}

}  // namespace tfprune

extern "C" tfp_status tfp_pack(const tfp_conv* conv, const float* values, int64_t value_count,
                               const int32_t* columns, int64_t column_count,
                               const int64_t* row_splits, int64_t row_split_count,
                               const float* bias, int64_t bias_count, int64_t pixels,
                               tfp_packed** packed) {
  using tfprune::fail;
  if (packed == nullptr) return fail(TFP_INVALID, "`packed` must be given. Received: null.");
  *packed = nullptr;
  tfp_status status = tfprune::check_conv(conv);
  if (status != TFP_OK) return status;
  status = tfprune::check_csr(*conv, values, value_count, columns, column_count, row_splits,
                                  row_split_count, bias, bias_count);
  if (status != TFP_OK) return status;
  try {
    auto result = std::make_unique<tfp_packed>();
    result->plan.conv = *conv;
    result->kernel = tfprune::selected_kernel();
    result->value.assign(values, values + value_count);
    result->column.assign(columns, columns + column_count);
    result->split.assign(row_splits, row_splits + row_split_count);
    result->bias.assign(static_cast<size_t>(conv->out_channels), 0.0f);
    if (bias != nullptr) std::copy(bias, bias + bias_count, result->bias.begin());
    if (tfprune::is_whole(*result)) {
      tfprune::to_spatial(result.get());
      tfprune::fill_whole(result.get());
    }
    result->plan.together = tfprune::in_fours(*result) ? 4 : 1;
    tfprune::choose_tile(*conv, value_count, pixels, result->kernel->lanes, &result->plan);
    tfprune::fill(result.get());
    *packed = result.release();
  } catch (const std::bad_alloc&) {
    return fail(TFP_NO_MEMORY, "There is not enough memory for the packed weights.");
  }
  return TFP_OK;
}

extern "C" void tfp_free(tfp_packed* packed) { delete packed; }
