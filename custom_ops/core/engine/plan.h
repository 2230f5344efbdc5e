/* What packing makes and kernels read: plain data, so that it can be shared between files that are
   compiled for different instruction sets. */

#ifndef TFPRUNE_PLAN_H_
#define TFPRUNE_PLAN_H_

#include <stdint.h>

#include "core/api/sparse_conv.h"

/* Rows of a block that have equally many nonzeros, so that the inner loop's length is constant. A row
   is an output channel, or plan.together neighbouring ones with the same columns; then each column has
   that many weights. */
typedef struct {
  int32_t nonzeros; /* of each row; columns where rows are of several channels */
  int32_t rows;
} tfp_run_of_rows;

/* `channels` input channels of a group. Its rows follow each other in the arrays of the plan, by
   falling number of nonzeros; where plan.together is 1, every row is padded with zeros to a multiple
   of four. */
typedef struct {
  int32_t channel;  /* the first, counted in the whole input */
  int32_t channels; /* at most plan.block_channels */
  int32_t first;    /* whether it is its group's first block: rows start from the bias */
  int32_t last;     /* whether it is its group's last */
  int32_t group;
  int32_t runs;        /* number of tfp_run_of_rows */
  int64_t run, row;    /* where they start in plan.runs and plan.rows */
  int64_t nonzero;     /* where its nonzeros start in plan.offset; in plan.weight times together */
  int64_t used;        /* where its channels start in plan.used */
  int32_t skips;       /* whether so few taps are read by any row that filling only these is faster */
} tfp_block;

typedef struct {
  tfp_conv conv;
  int32_t vectors;        /* P: vectors of pixels in a tile */
  int32_t block_channels; /* CB: input channels whose panel is in the cache at a time */
  int32_t together;       /* neighbouring output channels with the same columns: 1 or 4 */
  int32_t blocks;
  const tfp_block* block;
  const tfp_run_of_rows* run;
  const int32_t* row;       /* (first) output channel of each row, counted in its group */
  const uint16_t* offset;   /* of each nonzero: channel in the block * taps + tap */
  const float* weight;      /* times the scale that the transform leaves out */
  const uint32_t* used;     /* per channel of each block, bit t: whether a row reads tap t < 32 */
  const float* bias;        /* [out_channels] */
  const float* basis_h;     /* [frequency, tap] of [kernel_h, kernel_h], unscaled */
  const float* basis_w;     /* [kernel_w, kernel_w] */
  /* of kernels without a zero, by input channel; null where other kernels have weights too */
  const int64_t* kernel_start;  /* [in_channels + 1] */
  const int32_t* kernel_row;    /* output channel, counted in its group */
  const float* kernel_weight;   /* [kernel_h * kernel_w] each, spatial */
  /* the CSR matrix, for the reference kernel and for devices; spatial weights instead of coefficients
     where kernels have no zero */
  const float* value;
  const int32_t* column;
  const int64_t* split;
} tfp_plan;

#endif
