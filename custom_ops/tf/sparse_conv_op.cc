// The ops TfpruneSparseConv2D, whose weights are tensors, and TfprunePackedConv2D, whose weights are
// one constant blob, for TensorFlow's CPU.

#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "core/api/blob.h"
#include "core/api/sparse_conv.h"
#include "tf/c_api.h"

namespace {

std::atomic<int32_t> all_threads{1};

struct Status {
  TF_Status* status = TF_NewStatus();
  ~Status() { TF_DeleteStatus(status); }
  operator TF_Status*() const { return status; }
  bool ok() const { return TF_GetCode(status) == TF_OK; }
  bool invalid(const char* message) {
    TF_SetStatus(status, TF_INVALID_ARGUMENT, message);
    return false;
  }
  bool from(tfp_status result) {
    if (result == TFP_OK) return true;
    const TF_Code code = result == TFP_NO_MEMORY ? TF_RESOURCE_EXHAUSTED : TF_INVALID_ARGUMENT;
    TF_SetStatus(status, code, tfp_last_error());
    return false;
  }
};

struct Tensor {
  TF_Tensor* tensor = nullptr;
  ~Tensor() {
    if (tensor != nullptr) TF_DeleteTensor(tensor);
  }
  bool get(TF_OpKernelContext* context, int index, Status* status) {
    TF_GetInput(context, index, &tensor, *status);
    return status->ok();
  }
  int rank() const { return TF_NumDims(tensor); }
  int64_t size(int axis) const { return TF_Dim(tensor, axis); }
  int64_t bytes() const { return static_cast<int64_t>(TF_TensorByteSize(tensor)); }
  template <class T>
  const T* data() const {
    return static_cast<const T*>(TF_TensorData(tensor));
  }
};

struct Deleter {
  void operator()(tfp_packed* packed) const { tfp_free(packed); }
};
using Shared = std::shared_ptr<tfp_packed>;

int32_t threads_of(int64_t requested) {
  const int64_t most = all_threads.load();
  return static_cast<int32_t>(requested > 0 && requested < most ? requested : most);
}

// Runs packed weights on input 0 into output 0.
bool convolve(TF_OpKernelContext* context, const Tensor& x, const tfp_conv& conv,
              const tfp_packed* packed, int64_t threads, Status* status) {
  int64_t h = 0, w = 0;
  if (!status->from(tfp_output_size(&conv, x.size(1), x.size(2), &h, &w))) return false;
  const int64_t sizes[4] = {x.size(0), h, w, conv.out_channels};
  size_t bytes = 4;
  for (const int64_t size : sizes) {
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(size), &bytes))
      return status->invalid("The output must have fewer than 2^64 bytes.");
  }
  Tensor y;
  y.tensor = TF_AllocateOutput(context, 0, TF_FLOAT, sizes, 4, bytes, *status);
  if (!status->ok()) return false;
  return status->from(tfp_run(packed, x.size(0), x.size(1), x.size(2), x.data<float>(),
                              static_cast<float*>(TF_TensorData(y.tensor)), threads_of(threads)));
}

bool check_input(const Tensor& x, int64_t channels, Status* status) {
  if (x.rank() == 4 && x.size(3) == channels) return true;
  char message[200];
  std::snprintf(message, sizeof(message),
                "The input must be [batch, height, width, %lld]. Received: rank %d, %lld channels.",
                static_cast<long long>(channels), x.rank(),
                static_cast<long long>(x.rank() > 0 ? x.size(x.rank() - 1) : 0));
  return status->invalid(message);
}

int64_t pixels_of(const tfp_conv& conv, const Tensor& x) {
  int64_t h = 0, w = 0;
  return tfp_output_size(&conv, x.size(1), x.size(2), &h, &w) == TFP_OK ? x.size(0) * h * w : 0;
}

void attribute(TF_OpKernelConstruction* context, const char* name, int64_t* value, Status* status) {
  if (status->ok()) TF_OpKernelConstruction_GetAttrInt64(context, name, value, *status);
}

void attributes(TF_OpKernelConstruction* context, const char* name, int64_t* values, int count,
          Status* status) {
  if (!status->ok()) return;
  int32_t length = 0, bytes = 0;
  TF_OpKernelConstruction_GetAttrSize(context, name, &length, &bytes, *status);
  if (status->ok() && length != count) {
    char message[120];
    std::snprintf(message, sizeof(message), "%s must have %d elements. Received: %d.", name, count,
                  length);
    status->invalid(message);
  }
  if (status->ok())
    TF_OpKernelConstruction_GetAttrInt64List(context, name, values, count, *status);
}

// Weights in a blob: packed when a key is seen for the first time.
class PackedConv {
 public:
  explicit PackedConv(TF_OpKernelConstruction* context) {
    Status status;
    int64_t fields[15] = {};
    attributes(context, "conv", fields, 15, &status);
    attribute(context, "threads", &threads_, &status);
    std::memcpy(&conv_, fields, 13 * sizeof(int64_t));  // those that come first in tfp_conv
    conv_.basis = static_cast<int32_t>(fields[13]);
    conv_.activation = static_cast<int32_t>(fields[14]);
    if (!status.ok()) TF_OpKernelConstruction_Failure(context, status);
  }

  bool compute(TF_OpKernelContext* context, Status* status) {
    Tensor x, blob;
    if (!x.get(context, 0, status) || !blob.get(context, 1, status)) return false;
    tfp_conv conv;
    uint8_t key[16];
    if (!status->from(tfp_read_blob(blob.data<char>(), blob.bytes(), &conv, key))) return false;
    if (std::memcmp(&conv, &conv_, sizeof(conv)) != 0)
      return status->invalid("The packed weights must be those of the attribute `conv`.");
    if (!check_input(x, conv.in_channels, status)) return false;
    const Shared packed = find(blob, key, pixels_of(conv, x), status);
    return packed != nullptr && convolve(context, x, conv, packed.get(), threads_, status);
  }

 private:
  Shared find(const Tensor& blob, const uint8_t key[16], int64_t pixels, Status* status) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (packed_ != nullptr && std::memcmp(key, key_, 16) == 0) return packed_;
    tfp_packed* packed = nullptr;
    if (!status->from(tfp_pack_blob(blob.data<char>(), blob.bytes(), pixels, &packed)))
      return nullptr;
    packed_ = Shared(packed, Deleter());
    std::memcpy(key_, key, 16);
    return packed_;
  }

  tfp_conv conv_{};
  int64_t threads_ = 0;
  std::mutex mutex_;
  Shared packed_;
  uint8_t key_[16];
};

// Weights in tensors: packed anew when they are others than before.
class SparseConv {
 public:
  explicit SparseConv(TF_OpKernelConstruction* context) {
    Status status;
    int64_t strides[2] = {1, 1}, dilations[2] = {1, 1}, padding[4] = {0, 0, 0, 0};
    int64_t kernel[2] = {1, 1}, basis = 0, activation = 0;
    attributes(context, "kernel_size", kernel, 2, &status);
    attributes(context, "strides", strides, 2, &status);
    attributes(context, "dilations", dilations, 2, &status);
    attributes(context, "padding", padding, 4, &status);
    attribute(context, "groups", &conv_.groups, &status);
    attribute(context, "basis", &basis, &status);
    attribute(context, "activation", &activation, &status);
    attribute(context, "threads", &threads_, &status);
    conv_.kernel_h = kernel[0], conv_.kernel_w = kernel[1];
    conv_.stride_h = strides[0], conv_.stride_w = strides[1];
    conv_.dilation_h = dilations[0], conv_.dilation_w = dilations[1];
    conv_.pad_top = padding[0], conv_.pad_bottom = padding[1];
    conv_.pad_left = padding[2], conv_.pad_right = padding[3];
    conv_.basis = basis == TFP_SPATIAL || basis == TFP_DCT ? static_cast<int32_t>(basis) : -1;
    const bool supported = activation >= TFP_LINEAR && activation <= TFP_RELU6;
    conv_.activation = supported ? static_cast<int32_t>(activation) : -1;
    if (!status.ok()) TF_OpKernelConstruction_Failure(context, status);
  }

  bool compute(TF_OpKernelContext* context, Status* status) {
    Tensor x, in[4];
    if (!x.get(context, 0, status)) return false;
    for (int i = 0; i < 4; ++i) {
      if (!in[i].get(context, i + 1, status)) return false;
      if (in[i].rank() != 1)
        return status->invalid("values, columns, row_splits and bias must be vectors.");
    }
    if (x.rank() != 4) return check_input(x, -1, status);
    tfp_conv conv = conv_;
    conv.in_channels = x.size(3);
    conv.out_channels = in[2].size(0) - 1;
    const Shared packed = find(conv, in, pixels_of(conv, x), status);
    return packed != nullptr && convolve(context, x, conv, packed.get(), threads_, status);
  }

 private:
  Shared find(const tfp_conv& conv, const Tensor* in, int64_t pixels, Status* status) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (packed_ != nullptr && std::memcmp(&conv, &last_conv_, sizeof(conv)) == 0 && same(in))
      return packed_;
    packed_ = nullptr;
    tfp_packed* packed = nullptr;
    const float* bias = in[3].size(0) > 0 ? in[3].data<float>() : nullptr;
    if (!status->from(tfp_pack(&conv, in[0].data<float>(), in[0].size(0), in[1].data<int32_t>(),
                               in[1].size(0), in[2].data<int64_t>(), in[2].size(0), bias,
                               in[3].size(0), pixels, &packed)))
      return nullptr;
    packed_ = Shared(packed, Deleter());
    last_conv_ = conv;
    for (int i = 0; i < 4; ++i)
      last_[i].assign(in[i].data<char>(), in[i].data<char>() + in[i].bytes());
    return packed_;
  }

  bool same(const Tensor* in) const {
    for (int i = 0; i < 4; ++i) {
      const size_t bytes = static_cast<size_t>(in[i].bytes());
      if (last_[i].size() != bytes) return false;
      if (bytes > 0 && std::memcmp(last_[i].data(), in[i].data<char>(), bytes) != 0) return false;
    }
    return true;
  }

  tfp_conv conv_{}, last_conv_{};
  int64_t threads_ = 0;
  std::mutex mutex_;
  Shared packed_;
  std::vector<char> last_[4];
};

template <class Op>
void* create(TF_OpKernelConstruction* context) {
  return new Op(context);
}

template <class Op>
void compute(void* op, TF_OpKernelContext* context) {
  Status status;
  if (!static_cast<Op*>(op)->compute(context, &status)) TF_OpKernelContext_Failure(context, status);
}

template <class Op>
void destroy(void* op) {
  delete static_cast<Op*>(op);
}

// The input has rank 4; the Python face sets the sizes, which need attributes that the C API does
// not show to shape functions.
void shape(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeHandle* x = TF_NewShapeHandle();
  TF_ShapeInferenceContextGetInput(context, 0, x, status);
  if (TF_GetCode(status) == TF_OK) TF_ShapeInferenceContextWithRank(context, x, 4, x, status);
  TF_DeleteShapeHandle(x);
  if (TF_GetCode(status) == TF_OK) TF_ShapeInferenceContextSetUnknownShape(context, status);
}

void report(const char* what, TF_Status* status) {
  if (TF_GetCode(status) != TF_OK)
    std::fprintf(stderr, "tfprune: %s: %s\n", what, TF_Message(status));
}

template <class Op>
void register_op(const char* name, std::initializer_list<const char*> inputs,
                 std::initializer_list<const char*> attributes) {
  Status status;
  TF_OpDefinitionBuilder* builder = TF_NewOpDefinitionBuilder(name);
  for (const char* input : inputs) TF_OpDefinitionBuilderAddInput(builder, input);
  for (const char* attribute : attributes) TF_OpDefinitionBuilderAddAttr(builder, attribute);
  TF_OpDefinitionBuilderAddOutput(builder, "y: float");
  TF_OpDefinitionBuilderSetShapeInferenceFunction(builder, shape);
  TF_RegisterOpDefinition(builder, status);
  report(name, status);
  TF_KernelBuilder* kernel =
      TF_NewKernelBuilder(name, "CPU", create<Op>, compute<Op>, destroy<Op>);
  TF_RegisterKernelBuilder(name, kernel, status);
  report(name, status);
}

const bool registered = [] {
  register_op<PackedConv>("TfprunePackedConv2D", {"x: float", "weights: uint8"},
                          {"conv: list(int)", "threads: int = 0"});
  register_op<SparseConv>(
      "TfpruneSparseConv2D",
      {"x: float", "values: float", "columns: int32", "row_splits: int64", "bias: float"},
      {"kernel_size: list(int)", "strides: list(int) = [1, 1]", "dilations: list(int) = [1, 1]",
       "padding: list(int) = [0, 0, 0, 0]", "groups: int = 1", "basis: int = 0",
       "activation: int = 0", "threads: int = 0"});
  return true;
}();

}  // namespace

// How many threads an op may use at most; tfprune.ops sets it to TensorFlow's intra-op setting.
extern "C" void tfp_set_threads(int32_t threads) { all_threads.store(threads < 1 ? 1 : threads); }
