// The two functions by which TFLite loads a delegate from a library, and one for tests.

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "tflite/kernel.h"

#define TFPRUNE_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr long kMostThreads = 256;

struct Delegate {
  TfLiteDelegate base{};  // first: the runtime holds a pointer to it
  int32_t threads = 1;
  bool verbose = false;
  std::atomic<int32_t> claimed{0};
};

const char* name_of(tfprune::Form form) {
  return form == tfprune::Form::kCoefficients   ? "coefficients"
         : form == tfprune::Form::kConvolution ? "convolution"
                                                : "fully connected";
}

void print_unit(const TfLiteContext& context, const tfprune::Unit& unit) {
  std::fprintf(stderr, "tfprune: %s, nodes", context.tensors[unit.output].name);
  for (const int32_t node : unit.nodes) std::fprintf(stderr, " %d", node);
  const tfp_conv& c = unit.conv;
  std::fprintf(stderr, ": %s %lldx%lld, %lld -> %lld channels, density %.4f\n", name_of(unit.form),
               static_cast<long long>(c.kernel_h), static_cast<long long>(c.kernel_w),
               static_cast<long long>(c.in_channels), static_cast<long long>(c.out_channels),
               unit.density);
}

TfLiteStatus replace_all(TfLiteContext* context, Delegate* delegate) {
  tfprune::Graph graph;
  TfLiteStatus status = tfprune::read_graph(context, &graph);
  if (status != kTfLiteOk) return status;
  const tfprune::Matches matches = tfprune::find_units(graph);
  if (matches.damaged >= 0) {
    context->ReportError(context,
                         "tfprune: the sparse weights %s are damaged: rows must grow within their "
                         "tensor. Export the file again.",
                         context->tensors[matches.damaged].name);
    return kTfLiteError;
  }
  for (const tfprune::Unit& unit : matches.units) {
    status = tfprune::replace_unit(context, &delegate->base, unit, delegate->threads);
    if (status != kTfLiteOk) return status;
    if (delegate->verbose) print_unit(*context, unit);
    delegate->claimed += 1;
  }
  if (delegate->verbose)
    std::fprintf(stderr, "tfprune: %zu sparse convolutions run natively on %d threads\n",
                 matches.units.size(), delegate->threads);
  return tfprune::replace_idle(context, &delegate->base, matches.idle);
}

TfLiteStatus prepare(TfLiteContext* context, TfLiteDelegate* delegate) {
  try {
    return replace_all(context, static_cast<Delegate*>(delegate->data));
  } catch (...) {
    context->ReportError(context, "tfprune: there is not enough memory to read the graph.");
    return kTfLiteError;
  }
}

bool set_option(const char* key, const char* value, Delegate* delegate) {
  char* end = nullptr;
  const long integer = std::strtol(value, &end, 10);
  if (end == value || *end != '\0') return false;
  if (std::strcmp(key, "num_threads") == 0 && integer >= 1 && integer <= kMostThreads) {
    delegate->threads = static_cast<int32_t>(integer);
    return true;
  }
  delegate->verbose = integer == 1;
  return std::strcmp(key, "verbose") == 0 && (integer == 0 || integer == 1);
}

}  // namespace

// Options: num_threads, 1 to 256; verbose, 0 or 1: print on stderr what is replaced. Null if there are
// others.
TFPRUNE_EXPORT TfLiteDelegate* tflite_plugin_create_delegate(char** keys, char** values,
                                                             size_t count,
                                                             void (*report_error)(const char*)) {
  std::unique_ptr<Delegate> result(new (std::nothrow) Delegate);
  if (result == nullptr) return nullptr;
  for (size_t i = 0; i < count; ++i) {
    if (set_option(keys[i], values[i], result.get())) continue;
    char message[300];
    std::snprintf(message, sizeof(message),
                  "tfprune's delegate takes num_threads (1 to %ld) and verbose (0 or 1). "
                  "Received: %.100s = %.100s.",
                  kMostThreads, keys[i], values[i]);
    if (report_error != nullptr) report_error(message);
    return nullptr;
  }
  const char* kernel = std::getenv("TFPRUNE_KERNEL");  // as tfprune.ops reads it
  if (tfp_select_kernel(kernel != nullptr && *kernel != '\0' ? kernel : nullptr) != TFP_OK) {
    if (report_error != nullptr) report_error(tfp_last_error());
    return nullptr;
  }
  result->base.data = result.get();
  result->base.Prepare = prepare;
  result->base.flags = kTfLiteDelegateFlagsAllowDynamicTensors;
  return &result.release()->base;
}

TFPRUNE_EXPORT void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate) {
  if (delegate != nullptr) delete static_cast<Delegate*>(delegate->data);
}

// How many convolutions a delegate has taken over so far, in all interpreters that use it.
TFPRUNE_EXPORT int32_t tfprune_delegate_claimed(const TfLiteDelegate* delegate) {
  return static_cast<const Delegate*>(delegate->data)->claimed.load();
}
