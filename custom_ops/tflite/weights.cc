#include "tflite/weights.h"

#include <cstring>

#include "core/api/halves.h"

namespace tfprune {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 31;  // of a tensor

const TfLiteTensor& tensor(const TfLiteContext& context, int32_t index) {
  return context.tensors[index];
}

int64_t size_of(int32_t type) {
  return type == kTfLiteFloat32 ? 4 : type == kTfLiteFloat16 ? 2 : type == kTfLiteInt8 ? 1 : 0;
}

float value_at(const TfLiteTensor& t, int64_t index) {
  const char* data = static_cast<const char*>(t.data);
  if (t.type == kTfLiteInt8) return static_cast<int8_t>(data[index]);
  if (t.type == kTfLiteFloat16) {
    uint16_t bits;
    std::memcpy(&bits, data + 2 * index, 2);
    return from_float16(bits);
  }
  float value;
  std::memcpy(&value, data + 4 * index, 4);
  return value;
}

bool count(const TfLiteIntArray* dims, int64_t* rows, int64_t* columns) {
  if (dims == nullptr || dims->size < 1) return false;
  *rows = 1;
  *columns = dims->data[dims->size - 1];
  int64_t all = 1;
  for (int32_t i = 0; i < dims->size; ++i) {
    if (dims->data[i] < 1 || (all *= dims->data[i]) >= kMostElements) return false;
    if (i + 1 < dims->size) *rows *= dims->data[i];
  }
  return true;
}

// Damaged if the axes of the sparse form are no permutation. Read is the layout in order, with the last
// axis alone compressed.
Check layout_of(const TfLiteTensor& t) {
  const TfLiteSparsity& s = *t.sparsity;
  const int32_t blocks = s.block_map == nullptr ? 0 : s.block_map->size, rank = t.dims->size;
  const TfLiteIntArray* order = s.traversal_order;
  if (order == nullptr || s.dim_metadata == nullptr || order->size != rank + blocks ||
      s.dim_metadata_size != order->size)
    return Check::kDamaged;
  std::vector<bool> seen(static_cast<size_t>(order->size), false);
  bool supported = blocks == 0;
  for (int32_t i = 0; i < order->size; ++i) {
    const int32_t axis = order->data[i], format = s.dim_metadata[i].format;
    if (axis < 0 || axis >= order->size || seen[static_cast<size_t>(axis)]) return Check::kDamaged;
    if (format != kTfLiteDimDense && format != kTfLiteDimSparseCSR) return Check::kDamaged;
    seen[static_cast<size_t>(axis)] = true;
    supported = supported && axis == i && (format == kTfLiteDimSparseCSR) == (i + 1 == rank);
  }
  return supported ? Check::kGood : Check::kUnsupported;
}

bool rows_are_valid(const TfLiteTensor& t, int64_t rows, int64_t columns) {
  const TfLiteSparsity& s = *t.sparsity;
  for (int32_t i = 0; i + 1 < t.dims->size; ++i)
    if (s.dim_metadata[i].dense_size != t.dims->data[i]) return false;
  const TfLiteIntArray* splits = s.dim_metadata[t.dims->size - 1].array_segments;
  const TfLiteIntArray* indices = s.dim_metadata[t.dims->size - 1].array_indices;
  if (splits == nullptr || indices == nullptr || splits->size != rows + 1) return false;
  const int64_t values = static_cast<int64_t>(t.bytes) / size_of(t.type);
  if (splits->data[0] != 0 || splits->data[rows] != indices->size || indices->size != values)
    return false;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t begin = splits->data[row], end = splits->data[row + 1];
    if (end < begin || end > values) return false;
    for (int64_t i = begin; i < end; ++i) {
      const int32_t least = i > begin ? indices->data[i - 1] + 1 : 0;
      if (indices->data[i] < least || indices->data[i] >= columns) return false;
    }
  }
  return true;
}

const TfLiteAffineQuantization* quantization(const TfLiteTensor& t) {
  if (t.quantization.type != kTfLiteAffineQuantization) return nullptr;
  return static_cast<const TfLiteAffineQuantization*>(t.quantization.params);
}

// Scales that keep zeros: a single one, or one per index of the first or the last axis.
bool scales_are_supported(const TfLiteTensor& quantized, const TfLiteTensor& t) {
  const TfLiteAffineQuantization* q = quantization(quantized);
  if (q == nullptr || q->scale == nullptr || q->zero_point == nullptr) return false;
  for (int32_t i = 0; i < q->zero_point->size; ++i)
    if (q->zero_point->data[i] != 0) return false;
  const int32_t last = t.dims->size - 1, axis = q->quantized_dimension;
  if (q->scale->size == 1) return true;
  return (axis == 0 || axis == last) && q->scale->size == t.dims->data[axis];
}

float scale_at(const TfLiteAffineQuantization& q, int64_t channel_rows, const Nonzero& nonzero) {
  if (q.scale->size == 1) return q.scale->data[0];
  return q.scale->data[q.quantized_dimension == 0 ? nonzero.row / channel_rows : nonzero.column];
}

}  // namespace

Check check(const TfLiteContext& context, Constant* weights) {
  const TfLiteTensor& t = tensor(context, weights->stored);
  const int64_t size = size_of(t.type);
  if (t.allocation_type != kTfLiteMmapRo || size == 0) return Check::kUnsupported;
  if (weights->sparse != (t.sparsity != nullptr)) return Check::kUnsupported;
  if (!count(t.dims, &weights->rows, &weights->columns))
    return weights->sparse ? Check::kDamaged : Check::kUnsupported;
  if (weights->sparse) {
    const Check layout = layout_of(t);
    if (layout != Check::kGood) return layout;
    if (!rows_are_valid(t, weights->rows, weights->columns)) return Check::kDamaged;
  }
  if (t.data == nullptr) return Check::kUnsupported;
  if (!weights->sparse && static_cast<int64_t>(t.bytes) != weights->rows * weights->columns * size)
    return Check::kUnsupported;
  if ((t.type == kTfLiteFloat32) != (weights->quantized < 0)) return Check::kUnsupported;
  if (weights->quantized < 0) return Check::kGood;
  const TfLiteTensor& other = tensor(context, weights->quantized);
  if (other.type != t.type) return Check::kUnsupported;
  if (t.type == kTfLiteInt8 && !scales_are_supported(other, t)) return Check::kUnsupported;
  return Check::kGood;
}

std::vector<Nonzero> nonzeros(const TfLiteContext& context, const Constant& weights) {
  const TfLiteTensor& t = tensor(context, weights.stored);
  const TfLiteAffineQuantization* scales =
      t.type == kTfLiteInt8 ? quantization(tensor(context, weights.quantized)) : nullptr;
  const int64_t channel_rows = weights.rows / t.dims->data[0];
  const TfLiteDimensionMetadata* last =
      weights.sparse ? &t.sparsity->dim_metadata[t.dims->size - 1] : nullptr;
  std::vector<Nonzero> result;
  for (int64_t row = 0; row < weights.rows; ++row) {
    const int64_t begin = last ? last->array_segments->data[row] : row * weights.columns;
    const int64_t end = last ? last->array_segments->data[row + 1] : begin + weights.columns;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = last ? last->array_indices->data[i] : i - begin;
      Nonzero nonzero{row, static_cast<int32_t>(column), value_at(t, i)};
      if (nonzero.value == 0.0f) continue;
      if (scales != nullptr) nonzero.value *= scale_at(*scales, channel_rows, nonzero);
      result.push_back(nonzero);
    }
  }
  return result;
}

}  // namespace tfprune
