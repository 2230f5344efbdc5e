/* What packing makes and kernels read: plain data, so that it can be shared between files that are
   compiled for different instruction sets. */

#ifndef TFPRUNE_PLAN_H_
#define TFPRUNE_PLAN_H_

#include <stdint.h>

#include "core/api/sparse_conv.h"

/* Rows of a block that have equally many entries: the inner loop's length is known. A row is an
   output channel, or as many neighbours as plan.together; an entry then has a weight for each. */
typedef struct {
  int32_t entries; /* of each row */
  int32_t rows;
} tfp_run_of_rows;

/* `channels` input channels of a group. Its rows follow each other in the arrays of the plan, by
   falling number of entries; where plan.together is 1, every row is padded to a multiple of four
   entries. */
typedef struct {
  int32_t channel;  /* the first, counted in the whole input */
  int32_t channels; /* at most plan.block_channels */
  int32_t first;    /* whether it is its group's first block: rows start from the bias */
  int32_t last;     /* whether it is its group's last */
  int32_t group;
  int32_t runs;        /* number of tfp_run_of_rows */
  int64_t run, row;    /* where they start in plan.runs and plan.rows */
  int64_t entry;       /* where its entries start in plan.weights and plan.offsets */
  int64_t used;        /* where its channels start in plan.used */
  int32_t skips;       /* whether so many taps are read by no row that leaving them out pays */
} tfp_block;

typedef struct {
  tfp_conv conv;
  int32_t vectors;        /* P: vectors of pixels in a tile */
  int32_t block_channels; /* CB: input channels whose panel is in the cache at a time */
  int32_t together;       /* output channels that share their entries' places: 1 or 4 */
  int32_t blocks;
  const tfp_block* block;
  const tfp_run_of_rows* run;
  const int32_t* row;       /* (first) output channel of each row, counted in its group */
  const uint16_t* offset;   /* of each entry: channel in the block * taps + tap */
  const float* weight;      /* with the scale of the transform */
  const uint32_t* used;     /* per channel of each block, bit t: whether a row reads tap t < 32 */
  const float* bias;        /* [out_channels] */
  const float* basis_h;     /* [kernel_h, kernel_h], rows are frequencies, without the scale */
  const float* basis_w;     /* [kernel_w, kernel_w] */
  /* of kernels that are kept as a whole, by input channel; null where others are kept too */
  const int64_t* kernel_start;  /* [in_channels + 1] */
  const int32_t* kernel_row;    /* output channel, counted in its group */
  const float* kernel_weight;   /* [kernel_h * kernel_w] each, spatial */
  /* the same entries as they were given, for the reference kernel */
  const float* value;
  const int32_t* column;
  const int64_t* split;
} tfp_plan;

#endif
