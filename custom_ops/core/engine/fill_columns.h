// Panels of convolutions whose output pixels are not the input's (strides, dilation, other padding):
// what each column of the kernel reads becomes planes of its own, once per band of tiles, which the
// taps of that column then read at distances of whole lines. Pixels are those of the output, counted
// with the lines below an image's last that its lower taps read; what lies outside the image is 0.
//
// Included by engine.h.

#ifndef TFPRUNE_FILL_COLUMNS_H_
#define TFPRUNE_FILL_COLUMNS_H_

namespace {

constexpr int64_t kMostColumnBytes = 1 << 26;
constexpr int64_t kColumnBytes = 512 * 1024;
constexpr int64_t kFewChannels = 64;  // up to here it is faster with most strides

struct Columns {
  float* planes;                    // [phases][kernel_w][in_channels][length]
  int64_t length, first;            // they begin at this pixel; length 0 where there are none
  int64_t band;                     // output pixels that they are made for at a time
  int64_t extra;                    // pixels that follow an image
  int phases;                       // kernel rows of a phase differ by whole strides
  int phase[TFP_MOST_KERNEL];       // of each kernel row
  int64_t shift[TFP_MOST_KERNEL];   // pixels from the first row of its phase
  int64_t start[TFP_MOST_KERNEL];   // of each phase, the input row of its first line
};

// The layout of planes; length 0 where they would not be faster, as kernel rows share too few lines or
// images are smaller than two vectors, and where they would be too large.
Columns columns_of(const tfp_plan& plan, const tfp_call& call) {
  const tfp_conv& c = plan.conv;
  const int64_t image = call.out_h * call.out_w;
  Columns columns{};
  if (image < 2 * L || call.out_w * c.kernel_h > kMostColumnBytes) return columns;
  for (int p = 0; p < c.kernel_h; ++p) {
    const int64_t start = p * c.dilation_h % c.stride_h - c.pad_top;
    int phase = 0;
    while (phase < columns.phases && columns.start[phase] != start) ++phase;
    if (phase == columns.phases) columns.start[columns.phases++] = start;
    columns.phase[p] = phase;
    columns.shift[p] = p * c.dilation_h / c.stride_h * call.out_w;
    columns.extra = columns.shift[p];
  }
  if (columns.phases == c.kernel_h || columns.extra > kMostColumnBytes) return columns;
  if (2 * columns.phases > c.kernel_h && c.in_channels > kFewChannels) return columns;
  const int64_t of_pixel = columns.phases * c.kernel_w * c.in_channels * 4;
  columns.band = whole_tiles(plan, call, kColumnBytes / of_pixel - columns.extra, columns.extra);
  const int64_t images = (columns.band - 1) / image + 2;
  const int64_t length = apart((columns.band + images * columns.extra + L - 1) / L * L + L);
  if (of_pixel <= kMostColumnBytes / length) columns.length = length;
  return columns;
}

int64_t columns_bytes(const tfp_plan& plan, const tfp_call& call) {
  const Columns columns = columns_of(plan, call);
  return columns.phases * plan.conv.kernel_w * plan.conv.in_channels * columns.length * 4;
}

bool in_one_image(const tfp_call& call, int64_t begin, int64_t end) {
  const int64_t image = call.out_h * call.out_w;
  return begin / image == (end - 1) / image;
}

// Index of an output pixel in planes that begin with the first pixel of the first image.
int64_t position_of(const tfp_call& call, const Columns& columns, int64_t pixel) {
  return pixel + pixel / (call.out_h * call.out_w) * columns.extra;
}

// Transposes what the pixels [begin, end) read into planes.
void make_columns(const tfp_plan& plan, const tfp_call& call, int64_t begin, int64_t end,
                  const float* zeros, Columns* columns) {
  const tfp_conv& c = plan.conv;
  const int64_t image = call.out_h * call.out_w + columns->extra;
  columns->first = position_of(call, *columns, begin);
  const int64_t last = position_of(call, *columns, end - 1) + columns->extra;
  for (int64_t at = 0; columns->first + at <= last; at += L) {
    float* plane = columns->planes + at;
    for (int phase = 0; phase < columns->phases; ++phase) {
      const float* line[L];  // null outside of the image
      int64_t column[L];
      for (int i = 0; i < L; ++i) {
        const int64_t position = columns->first + at + i, n = position / image;
        const int64_t iy = position % image / call.out_w * c.stride_h + columns->start[phase];
        column[i] = position % image % call.out_w * c.stride_w - c.pad_left;
        const bool inside = n < call.batch && iy >= 0 && iy < call.h;
        line[i] = inside ? call.x + (n * call.h + iy) * call.w * c.in_channels : nullptr;
      }
      for (int64_t q = 0; q < c.kernel_w; ++q) {
        const float* source[L];
        for (int i = 0; i < L; ++i) {
          const int64_t ix = column[i] + q * c.dilation_w;
          const bool inside = line[i] != nullptr && ix >= 0 && ix < call.w;
          source[i] = inside ? line[i] + ix * c.in_channels : zeros;
        }
        for (int64_t i = 0; i < c.in_channels; i += L, plane += L * columns->length) {
          const int count = static_cast<int>(c.in_channels - i < L ? c.in_channels - i : L);
          transpose_pixels(source, i, count, columns->length, plane);
          if (count < L) plane -= (L - count) * columns->length;
        }
      }
    }
  }
}

// The panel of a block, for one vector of the tile, whose pixels are of one image.
void fill_columns(const tfp_plan& plan, const tfp_block& block, const Columns& columns,
                  int64_t position, int j, const Scratch& s) {
  const tfp_conv& c = plan.conv;
  const int64_t pitch = int64_t{plan.vectors} * L, taps = c.kernel_h * c.kernel_w;
  const int64_t of_column = c.in_channels * columns.length;
  const float* plane = columns.planes + block.channel * columns.length + (position - columns.first);
  const float* row[TFP_MOST_KERNEL];
  for (int p = 0; p < c.kernel_h; ++p)
    row[p] = plane + columns.phase[p] * c.kernel_w * of_column + columns.shift[p];
  for (int i = 0; i < block.channels; ++i) {
    if (block.skips && plan.used[block.used + i] == 0) continue;
    const int64_t channel = i * columns.length;
    const auto tap = [&row, channel, of_column](int64_t p, int64_t q) {
      return Lanes::loadu(row[p] + channel + q * of_column);
    };
    transform(plan, tap, s.panel + i * taps * pitch + j * L, pitch);
  }
}

// As above for a whole tile; vectors that reach over the end of an image are gathered tap by tap.
void fill_columns_of_tile(const tfp_plan& plan, const tfp_call& call, const tfp_block& block,
                          const Columns& columns, int64_t begin, int64_t end, const Scratch& s) {
  int j = 0;
  for (int64_t pixel = begin; pixel < end; pixel += L, ++j) {
    if (in_one_image(call, pixel, pixel + L < end ? pixel + L : end))
      fill_columns(plan, block, columns, position_of(call, columns, pixel), j, s);
    else
      fill_any(plan, block, j, s);
  }
}

}  // namespace

#endif
