/* Weights and geometry of a convolution in one piece of memory that means the same on every machine:
   what a saved model holds. It is packed for the CPU at hand when it is first used.

   Little-endian:
     char magic[8] = "TFPRCONV"; uint32 version = 1; uint32 value_type; uint8 key[16];
     tfp_conv; int64 value_count; int64 bias_count;
     int64 row_splits[out_channels + 1]; float32 bias[bias_count]; int32 columns[value_count];
     values[value_count], float32, bfloat16 or float16
   `key` is a hash of all that follows it: equal keys mean equal weights. */

#ifndef TFPRUNE_BLOB_H_
#define TFPRUNE_BLOB_H_

#include "core/api/sparse_conv.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TFP_FLOAT32 = 0, TFP_BFLOAT16 = 1, TFP_FLOAT16 = 2 };

/* As tfp_pack, from a blob. All of it is checked. */
tfp_status tfp_pack_blob(const void* blob, int64_t bytes, int64_t pixels, tfp_packed** packed);

/* The geometry and the key of a blob; its weights are not read. */
tfp_status tfp_read_blob(const void* blob, int64_t bytes, tfp_conv* conv, uint8_t key[16]);

#ifdef __cplusplus
}
#endif

#endif
