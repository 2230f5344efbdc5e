#include "core/api/checks.h"

#include <cinttypes>
#include <cstdarg>
#include <cstdio>

namespace tfprune {
namespace {

constexpr int64_t kMostSize = INT32_MAX;           // of a side, a stride, a padding, channels
constexpr int64_t kMostBytes = int64_t{1} << 46;  // of a tensor
thread_local char last_error[512] = "";

bool product(int64_t a, int64_t b, int64_t* c) { return !__builtin_mul_overflow(a, b, c); }

struct Bound {
  const char* name;
  int64_t value, low, high;
};

tfp_status within(const Bound* bounds, int count) {
  for (int i = 0; i < count; ++i) {
    const Bound& b = bounds[i];
    if (b.value < b.low || b.value > b.high)
      return fail(TFP_INVALID, "%s must be in [%" PRId64 ", %" PRId64 "]. Received: %" PRId64 ".",
                  b.name, b.low, b.high, b.value);
  }
  return TFP_OK;
}

int64_t outputs(int64_t size, int64_t before, int64_t after, int64_t kernel, int64_t dilation,
                int64_t stride) {
  const int64_t padded = size + before + after, reach = (kernel - 1) * dilation + 1;
  return padded < reach || size == 0 ? 0 : (padded - reach) / stride + 1;
}

}  // namespace

tfp_status fail(tfp_status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(last_error, sizeof(last_error), format, arguments);
  va_end(arguments);
  return status;
}

tfp_status check_conv(const tfp_conv* conv) {
  if (conv == nullptr) return fail(TFP_INVALID, "The convolution must be given. Received: null.");
  const tfp_conv& c = *conv;
  const Bound bounds[] = {
      {"in_channels", c.in_channels, 1, kMostSize},
      {"out_channels", c.out_channels, 1, kMostSize},
      {"groups", c.groups, 1, kMostSize},
      {"kernel_h", c.kernel_h, 1, TFP_MOST_KERNEL},
      {"kernel_w", c.kernel_w, 1, TFP_MOST_KERNEL},
      {"stride_h", c.stride_h, 1, kMostSize},
      {"stride_w", c.stride_w, 1, kMostSize},
      {"dilation_h", c.dilation_h, 1, kMostSize},
      {"dilation_w", c.dilation_w, 1, kMostSize},
      {"pad_top", c.pad_top, 0, kMostSize},
      {"pad_bottom", c.pad_bottom, 0, kMostSize},
      {"pad_left", c.pad_left, 0, kMostSize},
      {"pad_right", c.pad_right, 0, kMostSize},
      {"basis", c.basis, TFP_SPATIAL, TFP_DCT},
      {"activation", c.activation, TFP_LINEAR, TFP_RELU6},
  };
  const tfp_status status = within(bounds, sizeof(bounds) / sizeof(bounds[0]));
  if (status != TFP_OK) return status;
  if (c.in_channels % c.groups != 0 || c.out_channels % c.groups != 0)
    return fail(TFP_INVALID,
                "in_channels and out_channels must be multiples of groups. Received: %" PRId64
                " and %" PRId64 " with %" PRId64 " groups.",
                c.in_channels, c.out_channels, c.groups);
  const int64_t columns = c.in_channels / c.groups * c.kernel_h * c.kernel_w;
  if (columns > INT32_MAX)
    return fail(TFP_INVALID,
                "A kernel must have at most 2^31 - 1 weights per output channel. Received: %" PRId64
                ".",
                columns);
  return TFP_OK;
}

tfp_status check_csr(const tfp_conv& conv, const float* values, int64_t value_count,
                         const int32_t* columns, int64_t column_count, const int64_t* row_splits,
                         int64_t row_split_count, const float* bias, int64_t bias_count) {
  if (value_count < 0 || value_count != column_count)
    return fail(TFP_INVALID,
                "There must be as many columns as values. Received: %" PRId64 " and %" PRId64 ".",
                column_count, value_count);
  if (value_count > 0 && (values == nullptr || columns == nullptr))
    return fail(TFP_INVALID, "values and columns must be given. Received: null.");
  if (row_split_count != conv.out_channels + 1 || row_splits == nullptr)
    return fail(TFP_INVALID,
                "row_splits must have out_channels + 1 = %" PRId64 " elements. Received: %" PRId64
                ".",
                conv.out_channels + 1, row_split_count);
  if ((bias == nullptr) != (bias_count == 0) || (bias_count != 0 && bias_count != conv.out_channels))
    return fail(TFP_INVALID,
                "bias must have out_channels = %" PRId64 " elements, or none. Received: %" PRId64 ".",
                conv.out_channels, bias_count);
  if (row_splits[0] != 0 || row_splits[conv.out_channels] != value_count)
    return fail(TFP_INVALID,
                "row_splits must begin with 0 and end with the number of values, %" PRId64
                ". Received: %" PRId64 " and %" PRId64 ".",
                value_count, row_splits[0], row_splits[conv.out_channels]);
  const int64_t most = conv.in_channels / conv.groups * conv.kernel_h * conv.kernel_w;
  for (int64_t k = 0; k < conv.out_channels; ++k) {
    const int64_t begin = row_splits[k], end = row_splits[k + 1];
    if (begin > end || begin < 0 || end > value_count)
      return fail(TFP_INVALID,
                  "row_splits must not decrease. Received: %" PRId64 " before %" PRId64
                  " at row %" PRId64 ".",
                  begin, end, k);
    int64_t before = -1;
    for (int64_t e = begin; e < end; ++e) {
      if (columns[e] < 0 || columns[e] >= most)
        return fail(TFP_INVALID, "columns must be in [0, %" PRId64 "). Received: %d in row %" PRId64
                                 ".",
                    most, columns[e], k);
      if (columns[e] <= before)
        return fail(TFP_INVALID,
                    "columns must grow within a row, without duplicates. Received: %d after %" PRId64
                    " in row %" PRId64 ".",
                    columns[e], before, k);
      before = columns[e];
    }
  }
  return TFP_OK;
}

tfp_status check_image(const tfp_conv& conv, int64_t batch, int64_t h, int64_t w, int64_t* out_h,
                       int64_t* out_w) {
  const Bound bounds[] = {
      {"batch", batch, 0, kMostSize}, {"height", h, 0, kMostSize}, {"width", w, 0, kMostSize}};
  const tfp_status status = within(bounds, 3);
  if (status != TFP_OK) return status;
  *out_h = outputs(h, conv.pad_top, conv.pad_bottom, conv.kernel_h, conv.dilation_h, conv.stride_h);
  *out_w = outputs(w, conv.pad_left, conv.pad_right, conv.kernel_w, conv.dilation_w, conv.stride_w);
  int64_t in = 0, out = 0;
  const bool fits = product(h, w, &in) && product(in, batch, &in) &&
                    product(in, conv.in_channels, &in) && product(*out_h, *out_w, &out) &&
                    product(out, batch, &out) && product(out, conv.out_channels, &out) &&
                    in <= kMostBytes / 4 && out <= kMostBytes / 4;
  if (!fits)
    return fail(TFP_INVALID,
                "Input and output must be smaller than 2^46 bytes. Received: a batch of %" PRId64
                " images of %" PRId64 " x %" PRId64 ".",
                batch, h, w);
  return TFP_OK;
}

}  // namespace tfprune

extern "C" tfp_status tfp_output_size(const tfp_conv* conv, int64_t h, int64_t w, int64_t* out_h,
                                      int64_t* out_w) {
  const tfp_status status = tfprune::check_conv(conv);
  if (status != TFP_OK) return status;
  if (out_h == nullptr || out_w == nullptr)
    return tfprune::fail(TFP_INVALID, "out_h and out_w must be given. Received: null.");
  return tfprune::check_image(*conv, 1, h, w, out_h, out_w);
}

extern "C" const char* tfp_last_error(void) { return tfprune::last_error; }
