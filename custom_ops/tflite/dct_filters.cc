#include "tflite/dct_filters.h"

#include <cmath>

namespace tfprune {
namespace {

constexpr double kExact = 1e-6;  // of a filter's norm
constexpr double kPi = 3.14159265358979323846;

// The basis functions of the orthonormal DCT-II, [frequency][tap].
std::vector<double> basis_functions(int64_t kernel_h, int64_t kernel_w) {
  const auto element = [](int64_t n, int64_t u, int64_t p) {
    const double norm = std::sqrt((u == 0 ? 1.0 : 2.0) / static_cast<double>(n));
    return norm * std::cos(kPi * static_cast<double>((2 * p + 1) * u) / (2.0 * n));
  };
  std::vector<double> basis;
  for (int64_t f = 0; f < kernel_h * kernel_w; ++f)
    for (int64_t t = 0; t < kernel_h * kernel_w; ++t)
      basis.push_back(element(kernel_h, f / kernel_w, t / kernel_w) *
                      element(kernel_w, f % kernel_w, t % kernel_w));
  return basis;
}

// The basis function that a filter is a multiple of; the scale is 0 if there is none.
DctFilter recognise(const std::vector<double>& filter, const std::vector<double>& basis) {
  const size_t taps = filter.size();
  size_t best = 0;
  double scale = 0;
  for (size_t f = 0; f < taps; ++f) {
    double product = 0;
    for (size_t t = 0; t < taps; ++t) product += filter[t] * basis[f * taps + t];
    if (std::fabs(product) > std::fabs(scale)) best = f, scale = product;
  }
  double error = 0;
  for (size_t t = 0; t < taps; ++t)
    error += std::pow(filter[t] - scale * basis[best * taps + t], 2);
  const bool exact = std::sqrt(error) <= kExact * std::fabs(scale);  // false for what is not a number
  return {static_cast<int32_t>(best), exact ? static_cast<float>(scale) : 0.0f};
}

}  // namespace

std::vector<DctFilter> read_dct_filters(const std::vector<float>& weights, int64_t kernel_h,
                                        int64_t kernel_w, int64_t channels, int64_t filters) {
  const std::vector<double> basis = basis_functions(kernel_h, kernel_w);
  const int64_t taps = kernel_h * kernel_w;
  std::vector<DctFilter> result;
  for (int64_t j = 0; j < filters; ++j) {
    const auto at = [&](int64_t tap, int64_t channel) {
      const int64_t index = (tap * channels + channel) * filters + j;
      return static_cast<double>(weights[static_cast<size_t>(index)]);
    };
    std::vector<double> first;
    for (int64_t t = 0; t < taps; ++t) first.push_back(at(t, 0));
    const DctFilter filter = recognise(first, basis);
    if (filter.scale == 0.0f || (j > 0 && filter.tap <= result.back().tap)) return {};
    const double most = kExact * std::fabs(filter.scale);
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t c = 1; c < channels; ++c)
        if (!(std::fabs(at(t, c) - first[static_cast<size_t>(t)]) <= most)) return {};
    result.push_back(filter);
  }
  return result;
}

}  // namespace tfprune
