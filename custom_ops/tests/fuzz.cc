// A fuzz target over packing and running, for libFuzzer (clang++ -fsanitize=fuzzer,address,undefined)
// or, with -DTFPRUNE_OWN_MAIN, a program of its own that draws inputs at random:
//   fuzz SECONDS [SEED]
//
// An input chooses the kernel, threads and image; then either a blob follows as it is, but for its
// mark and version, or CSR weights are made of the bytes, valid and nearly valid ones.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/api/blob.h"
#include "core/api/sparse_conv.h"

namespace {

constexpr int64_t kMostFloats = 1 << 16;  // of an input or output; larger ones are only packed

struct Bytes {
  const uint8_t* at;
  size_t left;
  uint8_t next() { return left == 0 ? 0 : (--left, *at++); }
  int64_t below(int64_t bound) { return next() % bound; }
  // Mostly small; now and then anything.
  int64_t integer(int64_t bound) {
    if (next() < 250) return below(bound);
    int64_t value = 0;
    for (int i = 0; i < 8; ++i) value = static_cast<int64_t>(static_cast<uint64_t>(value) << 8 | next());
    return value;
  }
};

void run(tfp_packed* packed, const tfp_conv& conv, Bytes* bytes) {
  const int64_t batch = bytes->integer(3), h = bytes->integer(20), w = bytes->integer(20);
  const int32_t threads = static_cast<int32_t>(1 + bytes->below(3));
  int64_t out_h = 0, out_w = 0;
  if (tfp_output_size(&conv, h, w, &out_h, &out_w) != TFP_OK) return;
  __int128 in = static_cast<__int128>(batch) * h * w * conv.in_channels;
  __int128 out = static_cast<__int128>(batch) * out_h * out_w * conv.out_channels;
  if (in > kMostFloats || out > kMostFloats || in < 0 || out < 0) {
    tfp_run(packed, batch < 0 ? batch : 0, h, w, nullptr, nullptr, threads);
    return;
  }
  // Exact sizes on the heap, so that a step outside is seen.
  std::vector<float> x(static_cast<size_t>(in)), y(static_cast<size_t>(out));
  for (float& value : x) value = static_cast<float>(bytes->next()) - 100.0f;
  tfp_run(packed, batch, h, w, x.data(), y.data(), threads);
}

void from_blob(Bytes* bytes) {
  std::vector<uint8_t> blob(bytes->at, bytes->at + bytes->left);
  if (blob.size() > 12) std::memcpy(blob.data(), "TFPRCONV\1\0\0\0", 12);
  tfp_packed* packed = nullptr;
  tfp_conv conv;
  uint8_t key[16];
  if (tfp_pack_blob(blob.data(), static_cast<int64_t>(blob.size()), 0, &packed) == TFP_OK &&
      tfp_read_blob(blob.data(), static_cast<int64_t>(blob.size()), &conv, key) == TFP_OK)
    run(packed, conv, bytes);
  tfp_free(packed);
}

void from_csr(Bytes* bytes) {
  tfp_conv conv{};
  const int64_t fits = 1 + bytes->below(3);
  conv.groups = bytes->below(32) != 0 ? fits : bytes->integer(3);
  conv.in_channels = bytes->below(32) != 0 ? fits * (1 + bytes->below(40)) : bytes->integer(99);
  conv.out_channels = fits * (1 + bytes->below(40));
  int64_t* const fields[] = {&conv.kernel_h,   &conv.kernel_w,   &conv.stride_h, &conv.stride_w,
                             &conv.dilation_h, &conv.dilation_w, &conv.pad_top,  &conv.pad_bottom,
                             &conv.pad_left,   &conv.pad_right};
  const bool same = bytes->below(2) != 0;
  for (int i = 0; i < 10; ++i) *fields[i] = i < 2 ? 1 + bytes->below(5) : i < 6 ? 1 : 0;
  if (bytes->below(32) == 0) *fields[bytes->below(2)] = bytes->integer(99);
  if (same) {
    conv.kernel_w = conv.kernel_h;
    conv.pad_top = conv.pad_bottom = conv.pad_left = conv.pad_right = conv.kernel_h / 2;
  } else {
    for (int i = 2; i < 10; ++i) *fields[i] = bytes->integer(4);
  }
  conv.basis = static_cast<int32_t>(bytes->integer(2));
  conv.activation = static_cast<int32_t>(bytes->integer(3));
  const bool whole = bytes->below(4) == 0, fours = bytes->below(4) == 0;
  const int64_t density = bytes->below(256);
  const bool small = conv.kernel_h > 0 && conv.kernel_h <= TFP_MOST_KERNEL && conv.kernel_w > 0 &&
                     conv.kernel_w <= TFP_MOST_KERNEL && conv.in_channels > 0 && conv.in_channels < 200;
  const int64_t taps = small ? conv.kernel_h * conv.kernel_w : 1;
  const int64_t columns = small ? conv.in_channels / fits * taps : 50;
  std::vector<int32_t> column;
  std::vector<int64_t> splits{0};
  uint32_t state = 1 + bytes->next();
  for (int64_t k = 0; k < conv.out_channels; ++k) {
    uint32_t row = fours ? static_cast<uint32_t>(k / 4) * 977 + 13 : state;
    for (int64_t e = 0; e < columns; ++e) {
      if (!whole || e % taps == 0) row = row * 1664525 + 1013904223;
      if ((row >> 16) % 256 < static_cast<uint32_t>(density)) column.push_back(static_cast<int32_t>(e));
    }
    state = row;
    splits.push_back(static_cast<int64_t>(column.size()));
  }
  for (int64_t wrong = bytes->below(8) == 0 ? 1 : 0; wrong > 0; --wrong) {
    if (!column.empty()) column[bytes->below(256) % column.size()] = static_cast<int32_t>(bytes->integer(99));
    splits[bytes->below(256) % splits.size()] = bytes->integer(99);
  }
  std::vector<float> values(column.size(), 0.5f), bias(static_cast<size_t>(conv.out_channels), 1.0f);
  tfp_packed* packed = nullptr;
  const int64_t count = static_cast<int64_t>(column.size());
  if (tfp_pack(&conv, values.data(), count, column.data(), count, splits.data(),
               static_cast<int64_t>(splits.size()), bias.data(), conv.out_channels, bytes->below(256),
               &packed) == TFP_OK)
    run(packed, conv, bytes);
  tfp_free(packed);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes{data, size};
  const int32_t index = static_cast<int32_t>(bytes.below(4));
  const char* name = tfp_kernel_name(index);
  tfp_select_kernel(name != nullptr && tfp_kernel_runs(index) ? name : nullptr);
  if (bytes.below(4) == 0)
    from_blob(&bytes);
  else
    from_csr(&bytes);
  return 0;
}

#ifdef TFPRUNE_OWN_MAIN
#include <chrono>
#include <random>

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 10;
  std::mt19937_64 random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0);
  const auto start = std::chrono::steady_clock::now();
  long inputs = 0;
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds) {
    std::vector<uint8_t> data(20 + random() % 600);
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
    LLVMFuzzerTestOneInput(data.data(), data.size());
    ++inputs;
  }
  std::printf("%ld inputs without a finding\n", inputs);
}
#endif
