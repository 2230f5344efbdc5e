// sums[k] += weight * panel[offset]: the inner loops over the nonzeros of output channels.
//
// Included by engine.h.

#ifndef TFPRUNE_ROWS_H_
#define TFPRUNE_ROWS_H_

namespace {

// Adds weight I of four, times its panel row, to P sums.
template <int P, int I>
TFPRUNE_INLINE void multiply_add(const char* panel, uint64_t offsets, int shift, Lanes::Four four,
                                 const float* weights, R* sums) {
  const uint64_t offset = (offsets >> (16 * I)) & 0xffff;
  const float* row = reinterpret_cast<const float*>(panel + (offset << shift));
  const R w = Lanes::lane<I>(four, weights);
  for (int j = 0; j < P; ++j) sums[j] = Lanes::fma(w, Lanes::load(row + j * L), sums[j]);
}

// Rows of 4 n + Tail nonzeros each. Several sets of sums hide the latency of the FMA.
template <int P, int Tail>
void rows_of(const tfp_plan& plan, const tfp_block& block, int n, int count, const int32_t* row,
             const uint16_t* offset, const float* weight, const Scratch& s, int shift) {
  constexpr int kSets = P >= 8 ? 1 : P == 4 || 4 * P + 3 > Lanes::kRegisters ? 2 : 4;
  const int64_t pitch = int64_t{plan.vectors} * L;
  const int64_t group_rows = plan.conv.out_channels / plan.conv.groups;
  const float* bias = plan.bias + block.group * group_rows;
  const char* panel = reinterpret_cast<const char*>(s.panel);
  for (int r = 0; r < count; ++r) {
    float* to = s.sums + row[r] * pitch;
    R sums[kSets][P];
    for (int j = 0; j < P; ++j) {
      sums[0][j] = block.first ? Lanes::set1(bias[row[r]]) : Lanes::load(to + j * L);
      for (int k = 1; k < kSets; ++k) sums[k][j] = Lanes::zero();
    }
    for (int i = 0; i < n; ++i, offset += 4, weight += 4) {
      uint64_t four;
      memcpy(&four, offset, 8);
      const Lanes::Four w = Lanes::four(weight);
      multiply_add<P, 0>(panel, four, shift, w, weight, sums[0]);
      multiply_add<P, 1>(panel, four, shift, w, weight, sums[1 % kSets]);
      multiply_add<P, 2>(panel, four, shift, w, weight, sums[2 % kSets]);
      multiply_add<P, 3>(panel, four, shift, w, weight, sums[3 % kSets]);
    }
    if (Tail > 0) {
      uint64_t four;
      memcpy(&four, offset, 8);
      const Lanes::Four w = Lanes::four(weight);
      multiply_add<P, 0>(panel, four, shift, w, weight, sums[0]);
      if (Tail > 1) multiply_add<P, 1>(panel, four, shift, w, weight, sums[1 % kSets]);
      if (Tail > 2) multiply_add<P, 2>(panel, four, shift, w, weight, sums[2 % kSets]);
      offset += 4;
      weight += 4;
    }
    for (int j = 0; j < P; ++j) {
      R sum = sums[0][j];
      if (kSets == 2) sum = Lanes::add(sum, sums[1 % kSets][j]);
      if (kSets == 4)
        sum = Lanes::add(Lanes::add(sum, sums[1 % kSets][j]),
                         Lanes::add(sums[2 % kSets][j], sums[3 % kSets][j]));
      Lanes::store(to + j * L, sum);
    }
  }
}

template <int P>
void rows(const tfp_plan& plan, const tfp_block& block, const Scratch& s) {
  const int32_t* row = plan.row + block.row;
  const uint16_t* offset = plan.offset + block.nonzero;
  const float* weight = plan.weight + block.nonzero;
  const int shift = __builtin_ctzll(static_cast<uint64_t>(plan.vectors) * L * 4);
  for (int32_t i = 0; i < block.runs; ++i) {
    const tfp_run_of_rows& run = plan.run[block.run + i];
    const int n = run.nonzeros / 4;
    const int64_t padded_nonzeros = int64_t{run.rows} * ((run.nonzeros + 3) / 4 * 4);
    switch (run.nonzeros % 4) {
      case 0: rows_of<P, 0>(plan, block, n, run.rows, row, offset, weight, s, shift); break;
      case 1: rows_of<P, 1>(plan, block, n, run.rows, row, offset, weight, s, shift); break;
      case 2: rows_of<P, 2>(plan, block, n, run.rows, row, offset, weight, s, shift); break;
      default: rows_of<P, 3>(plan, block, n, run.rows, row, offset, weight, s, shift);
    }
    row += run.rows;
    offset += padded_nonzeros;
    weight += padded_nonzeros;
  }
}

// Four output channels that read the same panel rows: each is loaded once for all of them.
template <int P>
void rows4(const tfp_plan& plan, const tfp_block& block, const Scratch& s) {
  const int32_t* row = plan.row + block.row;
  const uint16_t* offset = plan.offset + block.nonzero;
  const float* weight = plan.weight + 4 * block.nonzero;
  const int64_t pitch = int64_t{plan.vectors} * L;
  const float* bias = plan.bias + block.group * (plan.conv.out_channels / plan.conv.groups);
  for (int32_t i = 0; i < block.runs; ++i) {
    const tfp_run_of_rows& run = plan.run[block.run + i];
    for (int32_t r = 0; r < run.rows; ++r, ++row) {
      float* to = s.sums + *row * pitch;
      R sums[4][P];
      for (int k = 0; k < 4; ++k)
        for (int j = 0; j < P; ++j)
          sums[k][j] = block.first ? Lanes::set1(bias[*row + k]) : Lanes::load(to + k * pitch + j * L);
      for (int32_t e = 0; e < run.nonzeros; ++e, ++offset, weight += 4) {
        const float* from = s.panel + *offset * pitch;
        R x[P];
        for (int j = 0; j < P; ++j) x[j] = Lanes::load(from + j * L);
        for (int k = 0; k < 4; ++k)
          for (int j = 0; j < P; ++j)
            sums[k][j] = Lanes::fma(Lanes::set1(weight[k]), x[j], sums[k][j]);
      }
      for (int k = 0; k < 4; ++k)
        for (int j = 0; j < P; ++j) Lanes::store(to + k * pitch + j * L, sums[k][j]);
    }
  }
}

void rows4_of_tile(const tfp_plan& plan, const tfp_block& block, int vectors, const Scratch& s) {
  switch (vectors) {
    case 1: return rows4<1>(plan, block, s);
    case 2: return rows4<2>(plan, block, s);
    case 3: return rows4<3>(plan, block, s);
    default: return rows4<4>(plan, block, s);
  }
}

void rows_of_tile(const tfp_plan& plan, const tfp_block& block, int vectors, const Scratch& s) {
  if (plan.together == 4) return rows4_of_tile(plan, block, vectors, s);
  switch (vectors) {
    case 1: return rows<1>(plan, block, s);
    case 2: return rows<2>(plan, block, s);
    case 3: return rows<3>(plan, block, s);
    case 4: return rows<4>(plan, block, s);
    case 5: return rows<5>(plan, block, s);
    case 6: return rows<6>(plan, block, s);
    case 7: return rows<7>(plan, block, s);
    default: return rows<8>(plan, block, s);
  }
}

}  // namespace

#endif
