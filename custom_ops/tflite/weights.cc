#include "tflite/weights.h"

#include <cstring>

#include "core/api/halves.h"

namespace tfprune {
namespace {

constexpr int64_t kMostEntries = int64_t{1} << 31;  // of a tensor

const TfLiteTensor& tensor(const TfLiteContext& context, int32_t number) {
  return context.tensors[number];
}

int64_t size_of(int32_t type) {
  return type == kTfLiteFloat32 ? 4 : type == kTfLiteFloat16 ? 2 : type == kTfLiteInt8 ? 1 : 0;
}

float number_at(const TfLiteTensor& t, int64_t place) {
  const char* data = static_cast<const char*>(t.data);
  if (t.type == kTfLiteInt8) return static_cast<int8_t>(data[place]);
  if (t.type == kTfLiteFloat16) {
    uint16_t bits;
    std::memcpy(&bits, data + 2 * place, 2);
    return from_float16(bits);
  }
  float value;
  std::memcpy(&value, data + 4 * place, 4);
  return value;
}

bool count(const TfLiteIntArray* dims, int64_t* rows, int64_t* columns) {
  if (dims == nullptr || dims->size < 1) return false;
  *rows = 1;
  *columns = dims->data[dims->size - 1];
  int64_t all = 1;
  for (int32_t i = 0; i < dims->size; ++i) {
    if (dims->data[i] < 1 || (all *= dims->data[i]) >= kMostEntries) return false;
    if (i + 1 < dims->size) *rows *= dims->data[i];
  }
  return true;
}

// Axes of the sparse form that make sense at all; those in order, with the last alone compressed, are
// the one layout that is read here.
Check layout_of(const TfLiteTensor& t) {
  const TfLiteSparsity& s = *t.sparsity;
  const int32_t blocks = s.block_map == nullptr ? 0 : s.block_map->size, rank = t.dims->size;
  const TfLiteIntArray* order = s.traversal_order;
  if (order == nullptr || s.dim_metadata == nullptr || order->size != rank + blocks ||
      s.dim_metadata_size != order->size)
    return Check::kDamaged;
  std::vector<bool> seen(static_cast<size_t>(order->size), false);
  bool known = blocks == 0;
  for (int32_t i = 0; i < order->size; ++i) {
    const int32_t axis = order->data[i], format = s.dim_metadata[i].format;
    if (axis < 0 || axis >= order->size || seen[static_cast<size_t>(axis)]) return Check::kDamaged;
    if (format != kTfLiteDimDense && format != kTfLiteDimSparseCSR) return Check::kDamaged;
    seen[static_cast<size_t>(axis)] = true;
    known = known && axis == i && (format == kTfLiteDimSparseCSR) == (i + 1 == rank);
  }
  return known ? Check::kGood : Check::kUnknown;
}

bool rows_are_right(const TfLiteTensor& t, int64_t rows, int64_t columns) {
  const TfLiteSparsity& s = *t.sparsity;
  for (int32_t i = 0; i + 1 < t.dims->size; ++i)
    if (s.dim_metadata[i].dense_size != t.dims->data[i]) return false;
  const TfLiteIntArray* splits = s.dim_metadata[t.dims->size - 1].array_segments;
  const TfLiteIntArray* places = s.dim_metadata[t.dims->size - 1].array_indices;
  if (splits == nullptr || places == nullptr || splits->size != rows + 1) return false;
  const int64_t values = static_cast<int64_t>(t.bytes) / size_of(t.type);
  if (splits->data[0] != 0 || splits->data[rows] != places->size || places->size != values)
    return false;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t begin = splits->data[row], end = splits->data[row + 1];
    if (end < begin || end > values) return false;
    for (int64_t i = begin; i < end; ++i) {
      const int32_t least = i > begin ? places->data[i - 1] + 1 : 0;
      if (places->data[i] < least || places->data[i] >= columns) return false;
    }
  }
  return true;
}

const TfLiteAffineQuantization* quantization(const TfLiteTensor& t) {
  if (t.quantization.type != kTfLiteAffineQuantization) return nullptr;
  return static_cast<const TfLiteAffineQuantization*>(t.quantization.params);
}

// Scales, one or one for each entry of the first or the last axis, that keep zeros.
bool scales_are_known(const TfLiteTensor& quantized, const TfLiteTensor& t) {
  const TfLiteAffineQuantization* q = quantization(quantized);
  if (q == nullptr || q->scale == nullptr || q->zero_point == nullptr) return false;
  for (int32_t i = 0; i < q->zero_point->size; ++i)
    if (q->zero_point->data[i] != 0) return false;
  const int32_t last = t.dims->size - 1, axis = q->quantized_dimension;
  if (q->scale->size == 1) return true;
  return (axis == 0 || axis == last) && q->scale->size == t.dims->data[axis];
}

float scale_at(const TfLiteAffineQuantization& q, int64_t channel_rows, const Entry& entry) {
  if (q.scale->size == 1) return q.scale->data[0];
  return q.scale->data[q.quantized_dimension == 0 ? entry.row / channel_rows : entry.column];
}

}  // namespace

Check check(const TfLiteContext& context, Constant* weights) {
  const TfLiteTensor& t = tensor(context, weights->stored);
  const int64_t size = size_of(t.type);
  if (t.allocation_type != kTfLiteMmapRo || size == 0) return Check::kUnknown;
  if (weights->sparse != (t.sparsity != nullptr)) return Check::kUnknown;
  if (!count(t.dims, &weights->rows, &weights->columns))
    return weights->sparse ? Check::kDamaged : Check::kUnknown;
  if (weights->sparse) {
    const Check layout = layout_of(t);
    if (layout != Check::kGood) return layout;
    if (!rows_are_right(t, weights->rows, weights->columns)) return Check::kDamaged;
  }
  if (t.data == nullptr) return Check::kUnknown;
  if (!weights->sparse && static_cast<int64_t>(t.bytes) != weights->rows * weights->columns * size)
    return Check::kUnknown;
  if ((t.type == kTfLiteFloat32) != (weights->quantized < 0)) return Check::kUnknown;
  if (weights->quantized < 0) return Check::kGood;
  const TfLiteTensor& other = tensor(context, weights->quantized);
  if (other.type != t.type) return Check::kUnknown;
  return t.type == kTfLiteFloat16 || scales_are_known(other, t) ? Check::kGood : Check::kUnknown;
}

std::vector<Entry> entries(const TfLiteContext& context, const Constant& weights) {
  const TfLiteTensor& t = tensor(context, weights.stored);
  const TfLiteAffineQuantization* scales =
      t.type == kTfLiteInt8 ? quantization(tensor(context, weights.quantized)) : nullptr;
  const int64_t channel_rows = weights.rows / t.dims->data[0];
  const TfLiteDimensionMetadata* last =
      weights.sparse ? &t.sparsity->dim_metadata[t.dims->size - 1] : nullptr;
  std::vector<Entry> found;
  for (int64_t row = 0; row < weights.rows; ++row) {
    const int64_t begin = last ? last->array_segments->data[row] : row * weights.columns;
    const int64_t end = last ? last->array_segments->data[row + 1] : begin + weights.columns;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = last ? last->array_indices->data[i] : i - begin;
      Entry entry{row, static_cast<int32_t>(column), number_at(t, i)};
      if (entry.value == 0.0f) continue;
      if (scales != nullptr) entry.value *= scale_at(*scales, channel_rows, entry);
      found.push_back(entry);
    }
  }
  return found;
}

}  // namespace tfprune
