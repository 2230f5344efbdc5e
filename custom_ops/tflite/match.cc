#include "tflite/match.h"

#include <algorithm>

namespace tfprune {
namespace {

// From these densities on the runtime's dense kernels are about as fast (by Form). Of coefficients it
// computes the DCT too; a dense layer of a single vector is bound by memory.
constexpr double kDenseFrom[] = {0.6, 0.5, 0.15};

// Weights, and the indices of the nodes that unpack them.
struct Source {
  Constant constant;
  std::vector<int32_t> unpacking;
};

Source source_of(const Graph& graph, int32_t tensor) {
  Source source;
  source.constant.stored = tensor;
  if (const Node* node = graph.writer_of(tensor, kTfLiteDequantize)) {
    source.unpacking.push_back(graph.writer[static_cast<size_t>(tensor)]);
    source.constant.stored = source.constant.quantized = node->input(0);
  }
  const int32_t packed = source.constant.stored;
  if (const Node* node = graph.writer_of(packed, kTfLiteDensify)) {
    source.unpacking.push_back(graph.writer[static_cast<size_t>(packed)]);
    source.constant.sparse = true;
    source.constant.stored = node->input(0);
  }
  return source;
}

bool readable(const Graph& graph, Source* source, int32_t rank) {
  const int32_t stored = source->constant.stored;
  return stored >= 0 && check(*graph.context, &source->constant) == Check::kGood &&
         graph.tensor(stored).dims->size == rank;
}

const int32_t* dims_of(const Graph& graph, const Source& source) {
  return graph.tensor(source.constant.stored).dims->data;
}

// A constant float32 vector, or none at all.
bool is_vector(const Graph& graph, int32_t tensor, int64_t count) {
  if (tensor < 0) return true;
  const TfLiteTensor& t = graph.tensor(tensor);
  return t.allocation_type == kTfLiteMmapRo && t.type == kTfLiteFloat32 && t.data != nullptr &&
         t.bytes == static_cast<size_t>(count) * 4;
}

bool is_zero(const Graph& graph, int32_t tensor) {
  if (tensor < 0) return true;
  const TfLiteTensor& t = graph.tensor(tensor);
  const char* bytes = static_cast<const char*>(t.data);
  return std::all_of(bytes, bytes + t.bytes, [](char byte) { return byte == 0; });
}

// A float32 tensor of some rank and channel count; rank 0 for any.
bool is_map(const Graph& graph, int32_t tensor, int32_t rank, int64_t channels) {
  if (tensor < 0) return false;
  const TfLiteTensor& t = graph.tensor(tensor);
  if (t.type != kTfLiteFloat32 || t.dims == nullptr) return false;
  return rank == 0 || (t.dims->size == rank && t.dims->data[rank - 1] == channels);
}

bool set_activation(int32_t activation, tfp_conv* conv) {
  conv->activation = activation == kTfLiteActRelu    ? TFP_RELU
                     : activation == kTfLiteActRelu6 ? TFP_RELU6
                                                     : TFP_LINEAR;
  return activation == kTfLiteActNone || conv->activation != TFP_LINEAR;
}

// Strides, padding and kernel from the parameters of either kind of convolution.
template <class Params>
bool set_geometry(const Params& params, int64_t kernel_h, int64_t kernel_w, Unit* unit) {
  tfp_conv& conv = unit->conv;
  conv.groups = conv.dilation_h = conv.dilation_w = 1;
  conv.kernel_h = kernel_h, conv.kernel_w = kernel_w;
  conv.stride_h = params.stride_height, conv.stride_w = params.stride_width;
  unit->same_padding = params.padding == kTfLitePaddingSame;
  if (!unit->same_padding && params.padding != kTfLitePaddingValid) return false;
  if (params.dilation_height != 1 || params.dilation_width != 1) return false;
  return kernel_h <= TFP_MOST_KERNEL && kernel_w <= TFP_MOST_KERNEL && conv.stride_h >= 1 &&
         conv.stride_w >= 1;
}

// Makes a 1x1 convolution behind a DCT of each channel a single one in the frequency domain.
bool add_dct_filters(const Graph& graph, const Node& dct, Unit* unit,
                     std::vector<int32_t>* unpacking) {
  const auto* params = static_cast<const TfLiteDepthwiseConvParams*>(dct.node->builtin_data);
  Source source = source_of(graph, dct.input(1));
  if (params == nullptr || params->activation != kTfLiteActNone || !readable(graph, &source, 4))
    return false;
  const int32_t* dims = dims_of(graph, source);
  const int64_t columns = source.constant.columns, filters = params->depth_multiplier;
  if (dims[0] != 1 || filters < 1 || columns % filters != 0 || columns != unit->weights.columns)
    return false;
  if (!set_geometry(*params, dims[1], dims[2], unit)) return false;
  if (!is_vector(graph, dct.input(2), columns) || !is_zero(graph, dct.input(2))) return false;
  std::vector<float> weights(static_cast<size_t>(source.constant.rows * columns));
  for (const Nonzero& nonzero : nonzeros(*graph.context, source.constant))
    weights[static_cast<size_t>(nonzero.row * columns + nonzero.column)] = nonzero.value;
  unit->conv.basis = TFP_DCT;
  unit->conv.in_channels = columns / filters;
  unit->filters = read_dct_filters(weights, dims[1], dims[2], columns / filters, filters);
  unit->input = dct.input(0);
  unit->nodes.insert(unit->nodes.begin(), dct.id);
  unpacking->insert(unpacking->end(), source.unpacking.begin(), source.unpacking.end());
  return !unit->filters.empty();
}

bool convolution(const Graph& graph, const Node& node, Unit* unit,
                 std::vector<int32_t>* unpacking) {
  const auto* params = static_cast<const TfLiteConvParams*>(node.node->builtin_data);
  Source source = source_of(graph, node.input(1));
  if (params == nullptr || !readable(graph, &source, 4)) return false;
  const int32_t* dims = dims_of(graph, source);
  unit->weights = source.constant;
  unit->input = node.input(0);
  unit->conv.out_channels = dims[0], unit->conv.in_channels = dims[3];
  if (!set_geometry(*params, dims[1], dims[2], unit)) return false;
  if (!set_activation(params->activation, &unit->conv)) return false;
  *unpacking = source.unpacking;
  const Node* dct = graph.writer_of(unit->input, kTfLiteDepthwiseConv2d);
  const bool pointwise = dims[1] == 1 && dims[2] == 1 && params->stride_height == 1 &&
                         params->stride_width == 1 && dct != nullptr;
  if (pointwise && graph.read_once(unit->input)) {
    Unit whole = *unit;
    whole.form = Form::kCoefficients;
    std::vector<int32_t> all_unpacking = *unpacking;
    // What unpacks weights must come before both ops, which the runtime would otherwise separate.
    const int32_t first = graph.writer[static_cast<size_t>(unit->input)];
    if (add_dct_filters(graph, *dct, &whole, &all_unpacking) &&
        std::all_of(all_unpacking.begin(), all_unpacking.end(),
                    [&](int32_t index) { return index < first; }))
      *unit = whole, *unpacking = all_unpacking;
  }
  const bool sparse = source.constant.sparse || unit->form == Form::kCoefficients;
  return sparse && is_map(graph, unit->input, 4, unit->conv.in_channels) &&
         is_map(graph, unit->output, 4, unit->conv.out_channels);
}

bool fully_connected(const Graph& graph, const Node& node, Unit* unit,
                     std::vector<int32_t>* unpacking) {
  const auto* params = static_cast<const TfLiteFullyConnectedParams*>(node.node->builtin_data);
  Source source = source_of(graph, node.input(1));
  if (params == nullptr || params->weights_format != 0 || !readable(graph, &source, 2)) return false;
  unit->form = Form::kFullyConnected;
  unit->weights = source.constant;
  unit->input = node.input(0);
  unit->keep_dims = params->keep_num_dims != 0;
  unit->conv = {source.constant.columns, source.constant.rows, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0,
                TFP_SPATIAL, TFP_LINEAR};
  *unpacking = source.unpacking;
  return source.constant.sparse && set_activation(params->activation, &unit->conv) &&
         is_map(graph, unit->input, 0, 0) && is_map(graph, unit->output, 0, 0);
}

bool match(const Graph& graph, const Node& node, Unit* unit, std::vector<int32_t>* unpacking) {
  unit->nodes = {node.id};
  unit->output = node.output();
  unit->bias = node.input(2);
  const bool matches = node.code == kTfLiteConv2d ? convolution(graph, node, unit, unpacking)
                       : node.code == kTfLiteFullyConnected
                           ? fully_connected(graph, node, unit, unpacking)
                           : false;
  const tfp_conv& conv = unit->conv;
  if (!matches || !is_vector(graph, unit->bias, conv.out_channels)) return false;
  const size_t output = static_cast<size_t>(unit->output);
  if (graph.readers[output].empty() && !graph.is_output[output]) return false;
  const double all = static_cast<double>(conv.out_channels) * static_cast<double>(conv.in_channels) *
                     static_cast<double>(conv.kernel_h * conv.kernel_w);
  unit->density = static_cast<double>(nonzeros(*graph.context, unit->weights).size()) / all;
  return unit->density < kDenseFrom[static_cast<int>(unit->form)];
}

int32_t find_damaged(const Graph& graph) {
  for (const Node& node : graph.nodes) {
    Constant packed;
    packed.sparse = true;
    packed.stored = packed.quantized = node.input(0);
    if (node.code == kTfLiteDensify && packed.stored >= 0 &&
        check(*graph.context, &packed) == Check::kDamaged)
      return packed.stored;
  }
  return -1;
}

}  // namespace

Matches find_units(const Graph& graph) {
  Matches result;
  result.damaged = find_damaged(graph);
  if (result.damaged >= 0) return result;
  std::vector<bool> taken(graph.nodes.size(), false);
  std::vector<int32_t> unpacking;
  for (size_t index = 0; index < graph.nodes.size(); ++index) {
    Unit unit;
    std::vector<int32_t> of_unit;
    if (!match(graph, graph.nodes[index], &unit, &of_unit)) continue;
    unpacking.insert(unpacking.end(), of_unit.begin(), of_unit.end());
    taken[index] = true;
    if (unit.form == Form::kCoefficients)
      taken[static_cast<size_t>(graph.writer[static_cast<size_t>(
          graph.nodes[index].input(0))])] = true;
    result.units.push_back(std::move(unit));
  }
  // From readers to writers, which come first in the graph.
  std::sort(unpacking.rbegin(), unpacking.rend());
  for (const int32_t index : unpacking) {
    const Node& node = graph.nodes[static_cast<size_t>(index)];
    const size_t output = static_cast<size_t>(node.output());
    const auto& readers = graph.readers[output];
    if (taken[static_cast<size_t>(index)] || graph.is_output[output]) continue;
    if (!std::all_of(readers.begin(), readers.end(),
                     [&](int32_t reader) { return taken[static_cast<size_t>(reader)]; }))
      continue;
    taken[static_cast<size_t>(index)] = true;
    result.idle.push_back(node.id);
  }
  return result;
}

Rows rows_of(const TfLiteContext& context, const Unit& unit) {
  const int64_t taps = unit.conv.kernel_h * unit.conv.kernel_w;
  const int64_t rows = unit.weights.rows / unit.conv.out_channels;
  const int64_t filters = static_cast<int64_t>(unit.filters.size());
  std::vector<Nonzero> elements = nonzeros(context, unit.weights);
  for (Nonzero& nonzero : elements) {
    const int64_t tap = nonzero.row % rows;
    if (filters > 0) {
      const DctFilter& filter = unit.filters[static_cast<size_t>(nonzero.column % filters)];
      nonzero.column = static_cast<int32_t>(nonzero.column / filters * taps + filter.tap);
      nonzero.value *= filter.scale;
    } else {
      nonzero.column = static_cast<int32_t>(nonzero.column * taps + tap);
    }
    nonzero.row /= rows;
  }
  std::sort(elements.begin(), elements.end(), [](const Nonzero& a, const Nonzero& b) {
    return a.row != b.row ? a.row < b.row : a.column < b.column;
  });
  Rows packed;
  packed.splits.assign(static_cast<size_t>(unit.conv.out_channels + 1), 0);
  for (const Nonzero& nonzero : elements) {
    packed.values.push_back(nonzero.value);
    packed.columns.push_back(nonzero.column);
    ++packed.splits[static_cast<size_t>(nonzero.row + 1)];
  }
  for (size_t k = 1; k < packed.splits.size(); ++k) packed.splits[k] += packed.splits[k - 1];
  return packed;
}

}  // namespace tfprune
