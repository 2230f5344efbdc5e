#include "tflite/kernel.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "core/api/sparse_conv.h"

namespace tfprune {
namespace {

struct Deleter {
  void operator()(tfp_packed* packed) const { tfp_free(packed); }
};

// Sizes of the images that a unit sees.
struct Maps {
  int64_t batch, h, w, out_h, out_w;
};

class Convolution {
 public:
  Convolution(const Unit& unit, int32_t threads) : unit_(unit), threads_(threads) {}

  TfLiteStatus prepare(TfLiteContext* context) {
    const TfLiteTensor& x = context->tensors[unit_.input];
    tfp_conv conv = unit_.conv;
    if (x.type != kTfLiteFloat32 || !measure(x, &conv)) {
      context->ReportError(context, "tfprune: the input of %s does not fit its weights.",
                           context->tensors[unit_.output].name);
      return kTfLiteError;
    }
    if (packed_ == nullptr || std::memcmp(&conv, &packed_for_, sizeof(conv)) != 0) {
      const TfLiteStatus status = pack(context, conv);
      if (status != kTfLiteOk) return status;
    }
    return resize(context, x);
  }

  TfLiteStatus invoke(TfLiteContext* context) const {
    const TfLiteTensor& x = context->tensors[unit_.input];
    const TfLiteTensor& y = context->tensors[unit_.output];
    const float* from = static_cast<const float*>(x.data);
    float* to = static_cast<float*>(y.data);
    const Maps& m = maps_;
    if (tfp_run(packed_.get(), m.batch, m.h, m.w, from, to, threads_) == TFP_OK) return kTfLiteOk;
    context->ReportError(context, "tfprune: %s", tfp_last_error());
    return kTfLiteError;
  }

 private:
  // Sizes of the maps and their padding; false where they do not fit the weights.
  bool measure(const TfLiteTensor& x, tfp_conv* conv) {
    if (unit_.form == Form::kFullyConnected) {
      int64_t all = 1;
      for (int32_t i = 0; i < x.dims->size; ++i) all *= x.dims->data[i];
      maps_ = {all / conv->in_channels, 1, 1, 1, 1};
      const int32_t last = x.dims->size - 1;
      if (unit_.keep_dims && (last < 0 || x.dims->data[last] != conv->in_channels)) return false;
      return all % conv->in_channels == 0;
    }
    if (x.dims->size != 4 || x.dims->data[3] != conv->in_channels) return false;
    maps_ = {x.dims->data[0], x.dims->data[1], x.dims->data[2], 0, 0};
    if (unit_.same_padding) {
      pad(maps_.h, conv->kernel_h, conv->stride_h, &conv->pad_top, &conv->pad_bottom);
      pad(maps_.w, conv->kernel_w, conv->stride_w, &conv->pad_left, &conv->pad_right);
    }
    return tfp_output_size(conv, maps_.h, maps_.w, &maps_.out_h, &maps_.out_w) == TFP_OK;
  }

  // As TFLite pads for ceil(size / stride) outputs: more behind than in front.
  static void pad(int64_t size, int64_t kernel, int64_t stride, int64_t* before, int64_t* after) {
    const int64_t needed = ((size + stride - 1) / stride - 1) * stride + kernel - size;
    const int64_t total = needed > 0 ? needed : 0;
    *before = total / 2;
    *after = total - *before;
  }

  const float* bias(const TfLiteContext* context) const {
    return unit_.bias < 0 ? nullptr : static_cast<float*>(context->tensors[unit_.bias].data);
  }

  TfLiteStatus pack(TfLiteContext* context, const tfp_conv& conv) {
    const Rows rows = rows_of(*context, unit_);
    const int64_t count = static_cast<int64_t>(rows.values.size());
    tfp_packed* packed = nullptr;
    const tfp_status status =
        tfp_pack(&conv, rows.values.data(), count, rows.columns.data(), count, rows.splits.data(),
                 conv.out_channels + 1, bias(context), unit_.bias < 0 ? 0 : conv.out_channels,
                 maps_.batch * maps_.out_h * maps_.out_w, &packed);
    if (status != TFP_OK) {
      context->ReportError(context, "tfprune: %s", tfp_last_error());
      return kTfLiteError;
    }
    packed_.reset(packed);
    packed_for_ = conv;
    return kTfLiteOk;
  }

  TfLiteStatus resize(TfLiteContext* context, const TfLiteTensor& x) const {
    const int32_t rank = unit_.form != Form::kFullyConnected ? 4
                         : unit_.keep_dims                   ? x.dims->size
                                                             : 2;
    // The runtime takes it and frees it.
    auto* dims = static_cast<TfLiteIntArray*>(std::malloc(sizeof(int32_t) * (1 + rank)));
    if (dims == nullptr) return kTfLiteError;
    dims->size = rank;
    for (int32_t i = 0; i + 1 < rank; ++i) dims->data[i] = x.dims->data[i];
    if (unit_.form != Form::kFullyConnected) {
      dims->data[1] = static_cast<int32_t>(maps_.out_h);
      dims->data[2] = static_cast<int32_t>(maps_.out_w);
    } else if (!unit_.keep_dims) {
      dims->data[0] = static_cast<int32_t>(maps_.batch);
    }
    dims->data[rank - 1] = static_cast<int32_t>(unit_.conv.out_channels);
    return context->ResizeTensor(context, context->tensors + unit_.output, dims);
  }

  const Unit unit_;
  const int32_t threads_;
  Maps maps_{};
  tfp_conv packed_for_{};
  std::unique_ptr<tfp_packed, Deleter> packed_;
};

// What `init` makes a node of, while the runtime replaces nodes on this thread.
struct Replacement {
  const Unit* unit;
  int32_t threads;
};
thread_local Replacement replacement{nullptr, 1};

void* init(TfLiteContext*, const char*, size_t) {
  try {
    if (replacement.unit == nullptr) return nullptr;
    return new Convolution(*replacement.unit, replacement.threads);
  } catch (...) {
    return nullptr;  // which `prepare` refuses
  }
}

void destroy(TfLiteContext*, void* node) { delete static_cast<Convolution*>(node); }

TfLiteStatus prepare(TfLiteContext* context, TfLiteNode* node) {
  try {
    if (node->user_data != nullptr)
      return static_cast<Convolution*>(node->user_data)->prepare(context);
  } catch (...) {
  }
  context->ReportError(context, "tfprune: there is not enough memory for the packed weights.");
  return kTfLiteError;
}

TfLiteStatus invoke(TfLiteContext* context, TfLiteNode* node) {
  return static_cast<const Convolution*>(node->user_data)->invoke(context);
}

// Unpacked weights become empty, so that the runtime keeps no memory for them.
TfLiteStatus prepare_idle(TfLiteContext* context, TfLiteNode* node) {
  for (int32_t i = 0; i < node->outputs->size; ++i) {
    auto* dims = static_cast<TfLiteIntArray*>(std::malloc(2 * sizeof(int32_t)));
    if (dims == nullptr) return kTfLiteError;
    dims->size = 1;
    dims->data[0] = 0;
    TfLiteTensor* output = context->tensors + node->outputs->data[i];
    const TfLiteStatus status = context->ResizeTensor(context, output, dims);
    if (status != kTfLiteOk) return status;
  }
  return kTfLiteOk;
}

TfLiteStatus invoke_idle(TfLiteContext*, TfLiteNode*) { return kTfLiteOk; }

TfLiteStatus replace(TfLiteContext* context, TfLiteDelegate* delegate,
                     const std::vector<int32_t>& nodes, const TfLiteRegistration& registration) {
  std::vector<int32_t> array{static_cast<int32_t>(nodes.size())};
  array.insert(array.end(), nodes.begin(), nodes.end());
  return context->ReplaceNodeSubsetsWithDelegateKernels(
      context, registration, reinterpret_cast<const TfLiteIntArray*>(array.data()), delegate);
}

}  // namespace

TfLiteStatus replace_unit(TfLiteContext* context, TfLiteDelegate* delegate, const Unit& unit,
                          int32_t threads) {
  TfLiteRegistration registration{};
  registration.init = init;
  registration.free = destroy;
  registration.prepare = prepare;
  registration.invoke = invoke;
  registration.custom_name = "TfpruneSparseConv2D";
  registration.version = 1;
  replacement = {&unit, threads};
  const TfLiteStatus status = replace(context, delegate, unit.nodes, registration);
  replacement = {nullptr, 1};
  return status;
}

TfLiteStatus replace_idle(TfLiteContext* context, TfLiteDelegate* delegate,
                          const std::vector<int32_t>& nodes) {
  TfLiteRegistration registration{};
  registration.prepare = prepare_idle;
  registration.invoke = invoke_idle;
  registration.custom_name = "TfprunePackedWeights";
  registration.version = 1;
  return nodes.empty() ? kTfLiteOk : replace(context, delegate, nodes, registration);
}

}  // namespace tfprune
