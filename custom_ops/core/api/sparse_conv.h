/* Sparse convolution on the CPU, in the frequency or the spatial domain: the C interface.

   out[n, y, x, k] = act(bias[k] + sum over nonzeros of row k: value * T(patch)[u, v, i])

   T is the orthonormal two-dimensional DCT-II of the kernel_h x kernel_w patch of input channel i
   under output pixel (y, x), or the patch itself. Tensors are NHWC float32. Weights are a CSR
   matrix [out_channels, channels of a group * kernel_h * kernel_w]; the column of coefficient
   (i, u, v) is (i * kernel_h + u) * kernel_w + v, and columns grow strictly within a row.

   Every function that returns a tfp_status checks all it is given before it uses it, in int64 with
   overflow checks; tfp_last_error() then says what must hold and what was received. */

#ifndef TFPRUNE_SPARSE_CONV_H_
#define TFPRUNE_SPARSE_CONV_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { TFP_OK = 0, TFP_INVALID = 1, TFP_NO_MEMORY = 2, TFP_UNAVAILABLE = 3 } tfp_status;
enum { TFP_SPATIAL = 0, TFP_DCT = 1 };
/* The largest side of a kernel. tfprune/sparse_weights.py repeats it, which a test compares. */
enum { TFP_MOST_KERNEL = 11 };
enum { TFP_LINEAR = 0, TFP_RELU = 1, TFP_RELU6 = 2 };

/* What a convolution is, without its weights and without the size of an image. */
typedef struct {
  int64_t in_channels, out_channels, groups;
  int64_t kernel_h, kernel_w; /* 1 to TFP_MOST_KERNEL */
  int64_t stride_h, stride_w, dilation_h, dilation_w;
  int64_t pad_top, pad_bottom, pad_left, pad_right;
  int32_t basis, activation;
} tfp_conv;

typedef struct tfp_packed tfp_packed;

/* Size of the output of a h x w image; 0 where it is smaller than the kernel. */
tfp_status tfp_output_size(const tfp_conv* conv, int64_t h, int64_t w, int64_t* out_h,
                           int64_t* out_w);

/* Bring weights into the form that the kernels read. `bias` may be null (and then bias_count 0).
   `pixels` is the usual number of output pixels of a call, which only guides the tile size; 0 if
   it is not known. The result is freed with tfp_free. */
tfp_status tfp_pack(const tfp_conv* conv, const float* values, int64_t value_count,
                    const int32_t* columns, int64_t column_count, const int64_t* row_splits,
                    int64_t row_split_count, const float* bias, int64_t bias_count,
                    int64_t pixels, tfp_packed** packed);
void tfp_free(tfp_packed* packed);

/* x: [batch, h, w, in_channels], y: [batch, out_h, out_w, out_channels], not overlapping.
   `threads`: at most so many work at once, the caller's among them. Safe to call at once from
   several threads with one tfp_packed. */
tfp_status tfp_run(const tfp_packed* packed, int64_t batch, int64_t h, int64_t w, const float* x,
                   float* y, int32_t threads);

/* The kernels of this build, best first, and whether this CPU can run them; null past the end. */
const char* tfp_kernel_name(int32_t index);
int32_t tfp_kernel_runs(int32_t index);
/* Use one kernel by name, or with null the best that runs here; for packings made after it. */
tfp_status tfp_select_kernel(const char* name);

/* The message of the calling thread's last call that did not return TFP_OK. */
const char* tfp_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
