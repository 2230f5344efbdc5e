// Holds core/device to what device.h says, with the devices of host_device.cc.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/device/device.h"
#include "tests/host_device.h"

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "devices: %s; last error: %s\n", what, tfp_last_error());
  std::exit(1);
}

#define REQUIRE(condition) require(condition, #condition)

bool fails(tfp_status status, tfp_status expected, const char* message) {
  return status == expected && std::strstr(tfp_last_error(), message) != nullptr;
}

// One input channel, one output channel, y = 3 x + 0.5.
tfp_packed* packing() {
  const tfp_conv conv{1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, TFP_SPATIAL, TFP_LINEAR};
  const float value = 3, bias = 0.5f;
  const int32_t column = 0;
  const int64_t splits[2] = {0, 1};
  tfp_packed* packed = nullptr;
  REQUIRE(tfp_pack(&conv, &value, 1, &column, 1, splits, 2, &bias, 1, 0, &packed) == TFP_OK);
  return packed;
}

void table() {
  REQUIRE(std::string(tfp_device_kernel_name(0)) == "host" && tfp_device_kernel_runs(0) == 1);
  REQUIRE(std::string(tfp_device_kernel_name(1)) == "absent" && tfp_device_kernel_runs(1) == 0);
  REQUIRE(std::string(tfp_device_kernel_name(2)) == "full");
  for (const int32_t index : {-1, 3, 4, 1000})
    REQUIRE(tfp_device_kernel_name(index) == nullptr && tfp_device_kernel_runs(index) == 0);
}

void uploads_that_fail(const tfp_packed* packed) {
  auto* const stale = reinterpret_cast<tfp_uploaded*>(1);
  tfp_uploaded* uploaded = stale;
  REQUIRE(fails(tfp_upload("host", packed, nullptr), TFP_INVALID, "`uploaded` must be given"));
  REQUIRE(fails(tfp_upload(nullptr, packed, &uploaded), TFP_INVALID, "must be given") && !uploaded);
  uploaded = stale;
  REQUIRE(fails(tfp_upload("host", nullptr, &uploaded), TFP_INVALID, "must be given") && !uploaded);
  uploaded = stale;
  REQUIRE(fails(tfp_upload("hos", packed, &uploaded), TFP_INVALID,
                "one of host absent full. Received: 'hos'") && !uploaded);
  uploaded = stale;
  REQUIRE(fails(tfp_upload("absent", packed, &uploaded), TFP_UNAVAILABLE,
                "'absent' cannot be used here") && !uploaded);
  uploaded = stale;
  REQUIRE(fails(tfp_upload("full", packed, &uploaded), TFP_NO_MEMORY, "'full' has no memory") &&
          !uploaded);
  REQUIRE(host_plans == 0);
}

void runs(tfp_packed* packed) {
  tfp_uploaded* uploaded = nullptr;
  REQUIRE(tfp_upload("host", packed, &uploaded) == TFP_OK && host_plans == 1);
  tfp_free(packed);
  const float x[2] = {1, -2};
  float y[2] = {0, 0};
  HostStream stream;
  REQUIRE(fails(tfp_run_on_device(nullptr, 1, 1, 2, x, y, &stream), TFP_INVALID, "Uploaded weights"));
  REQUIRE(fails(tfp_run_on_device(uploaded, 1, 1, -2, x, y, &stream), TFP_INVALID, "width must be"));
  REQUIRE(fails(tfp_run_on_device(uploaded, 1, 1, 2, nullptr, y, &stream), TFP_INVALID, "x and y"));
  REQUIRE(fails(tfp_run_on_device(uploaded, 1, 1, 2, x, nullptr, &stream), TFP_INVALID, "x and y"));
  REQUIRE(tfp_run_on_device(uploaded, 0, 1, 2, nullptr, nullptr, &stream) == TFP_OK);
  REQUIRE(stream.calls == 0);
  REQUIRE(tfp_run_on_device(uploaded, 1, 1, 2, x, y, &stream) == TFP_OK && stream.calls == 1);
  REQUIRE(y[0] == 3.5f && y[1] == -5.5f);
  REQUIRE(tfp_run_on_device(uploaded, 2, 1, 1, x, y, nullptr) == TFP_OK && stream.calls == 1);
  tfp_release_upload(uploaded);
  tfp_release_upload(nullptr);
  REQUIRE(host_plans == 0);
}

}  // namespace

int main() {
  tfp_packed* packed = packing();
  table();
  uploads_that_fail(packed);
  runs(packed);
  std::printf("devices: as documented\n");
}
