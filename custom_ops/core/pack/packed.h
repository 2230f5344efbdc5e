// Owns what a plan points to.

#ifndef TFPRUNE_PACKED_H_
#define TFPRUNE_PACKED_H_

#include <vector>

#include "core/engine/kernel.h"

namespace tfprune {

struct Packed {
  tfp_plan plan{};
  const tfp_kernel* kernel = nullptr;
  std::vector<tfp_block> blocks;
  std::vector<tfp_run_of_rows> runs;
  std::vector<int32_t> rows;
  std::vector<uint16_t> offsets;
  std::vector<uint32_t> used;
  std::vector<float> weights, bias, basis_h, basis_w, value;
  std::vector<int32_t> column, kernel_row;
  std::vector<int64_t> kernel_start;
  std::vector<float> kernel_weight;
  std::vector<int64_t> split;

  void point();  // make the plan point to the vectors
};

}  // namespace tfprune

struct tfp_packed : tfprune::Packed {};

#endif
