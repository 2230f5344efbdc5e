// Holds every kernel that runs here, and the test device "host" where it is linked in, against the
// reference kernel, without Python:
//   compare CASES [SEED]

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/api/sparse_conv.h"
#include "core/device/device.h"

namespace {

struct Case {
  tfp_conv conv{};
  int64_t batch, h, w;
  std::vector<float> values, bias, x;
  std::vector<int32_t> columns;
  std::vector<int64_t> splits{0};
};

Case draw(std::mt19937_64* random) {
  const auto below = [&](int64_t n) { return static_cast<int64_t>((*random)() % n); };
  const auto normal = [&] { return static_cast<float>(std::normal_distribution<double>()(*random)); };
  Case c;
  tfp_conv& v = c.conv;
  v.groups = 1 + below(3) / 2;
  v.in_channels = v.groups * (1 + below(40));
  v.out_channels = v.groups * 4 * (1 + below(10));
  v.kernel_h = 1 + below(5);
  v.kernel_w = 1 + below(5);
  v.stride_h = v.stride_w = v.dilation_h = v.dilation_w = 1;
  if (below(2) == 0) {
    v.kernel_h = v.kernel_w = below(3) == 0 ? 5 : 3;
    v.pad_top = v.pad_bottom = v.pad_left = v.pad_right = v.kernel_h / 2;
  } else {
    v.stride_h = 1 + below(2), v.stride_w = 1 + below(2);
    v.dilation_h = 1 + below(2), v.dilation_w = 1 + below(2);
    v.pad_top = below(3), v.pad_bottom = below(3), v.pad_left = below(3), v.pad_right = below(3);
  }
  v.basis = static_cast<int32_t>(below(2));
  v.activation = static_cast<int32_t>(below(3));
  const int64_t taps = v.kernel_h * v.kernel_w, columns = v.in_channels / v.groups * taps;
  const int64_t structure = below(3), density = 1 + below(50);
  std::vector<bool> kept(static_cast<size_t>(columns));
  for (int64_t k = 0; k < v.out_channels; ++k) {
    for (int64_t e = 0; e < columns; ++e) {
      if (structure == 1 && e % taps != 0)
        kept[e] = kept[e - 1];  // whole kernels
      else if (structure != 2 || k % 4 == 0)
        kept[e] = below(100) < density;  // else blocks of four
      if (!kept[e]) continue;
      c.columns.push_back(static_cast<int32_t>(e));
      c.values.push_back(normal());
    }
    c.splits.push_back(static_cast<int64_t>(c.columns.size()));
    c.bias.push_back(normal());
  }
  c.batch = 1 + below(3), c.h = 1 + below(18), c.w = 1 + below(18);
  c.x.resize(static_cast<size_t>(c.batch * c.h * c.w * v.in_channels));
  for (float& value : c.x) value = normal();
  return c;
}

void require(tfp_status status, const char* kernel) {
  if (status == TFP_OK) return;
  std::fprintf(stderr, "%s: %s\n", kernel, tfp_last_error());
  std::exit(1);
}

tfp_packed* pack(const Case& c, const char* kernel) {
  tfp_packed* packed = nullptr;
  const int64_t count = static_cast<int64_t>(c.values.size());
  require(tfp_select_kernel(kernel), kernel);
  require(tfp_pack(&c.conv, c.values.data(), count, c.columns.data(), count, c.splits.data(),
                   static_cast<int64_t>(c.splits.size()), c.bias.data(), c.conv.out_channels, 0,
                   &packed),
          kernel);
  return packed;
}

std::vector<float> output_of(const Case& c) {
  int64_t out_h = 0, out_w = 0;
  require(tfp_output_size(&c.conv, c.h, c.w, &out_h, &out_w), "sizes");
  return std::vector<float>(static_cast<size_t>(c.batch * out_h * out_w * c.conv.out_channels), NAN);
}

std::vector<float> run(const Case& c, const char* kernel, int32_t threads) {
  tfp_packed* packed = pack(c, kernel);
  std::vector<float> y = output_of(c);
  require(tfp_run(packed, c.batch, c.h, c.w, c.x.data(), y.data(), threads), kernel);
  tfp_free(packed);
  return y;
}

// On a device whose memory is the host's, as that of host_device.cc.
std::vector<float> run_on_device(const Case& c, const char* device) {
  tfp_packed* packed = pack(c, nullptr);
  tfp_uploaded* uploaded = nullptr;
  require(tfp_upload(device, packed, &uploaded), device);
  tfp_free(packed);  // which the upload must not need
  std::vector<float> y = output_of(c);
  require(tfp_run_on_device(uploaded, c.batch, c.h, c.w, c.x.data(), y.data(), nullptr), device);
  tfp_release_upload(uploaded);
  return y;
}

// Whether the values differ by at most 1e-5 of the largest expected one.
bool agree(int case_index, const char* kernel, const std::vector<float>& values,
           const std::vector<float>& expected) {
  float scale = 1e-3f;
  for (const float value : expected) scale = std::fmax(scale, std::fabs(value));
  for (size_t j = 0; j < values.size(); ++j) {
    if (std::fabs(values[j] - expected[j]) <= 1e-5f * scale) continue;
    std::fprintf(stderr, "case %d, kernel %s, element %zu: %g instead of %g\n", case_index, kernel, j,
                 values[j], expected[j]);
    return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const int cases = argc > 1 ? std::atoi(argv[1]) : 100;
  std::mt19937_64 random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0);
  std::string names;
  for (int i = 0; i < cases; ++i) {
    const Case c = draw(&random);
    const std::vector<float> expected = run(c, "reference", 1);
    for (int32_t k = 0; tfp_kernel_name(k) != nullptr; ++k) {
      const char* name = tfp_kernel_name(k);
      if (!tfp_kernel_runs(k)) continue;
      if (!agree(i, name, run(c, name, 1 + i % 3), expected)) return 1;
      if (i == 0) names += std::string(" ") + name;
    }
    for (int32_t k = 0; tfp_device_kernel_name(k) != nullptr; ++k) {
      const char* name = tfp_device_kernel_name(k);
      if (!tfp_device_kernel_runs(k) || std::strcmp(name, "host") != 0) continue;
      if (!agree(i, name, run_on_device(c, name), expected)) return 1;
      if (i == 0) names += std::string(" ") + name;
    }
  }
  std::printf("%d cases agree:%s\n", cases, names.c_str());
}
