// Checks of what users hand in; every failure says what must hold and what was received.

#ifndef TFPRUNE_CHECKS_H_
#define TFPRUNE_CHECKS_H_

#include "core/api/sparse_conv.h"

namespace tfprune {

// Sets tfp_last_error() and returns `status`; printf-like.
tfp_status fail(tfp_status status, const char* format, ...) __attribute__((format(printf, 2, 3)));

tfp_status check_conv(const tfp_conv* conv);
tfp_status check_csr(const tfp_conv& conv, const float* values, int64_t value_count,
                         const int32_t* columns, int64_t column_count, const int64_t* row_splits,
                         int64_t row_split_count, const float* bias, int64_t bias_count);
// Sizes of an image, the output's among them, and that they can be counted in int64.
tfp_status check_image(const tfp_conv& conv, int64_t batch, int64_t h, int64_t w, int64_t* out_h,
                       int64_t* out_w);

}  // namespace tfprune

#endif
