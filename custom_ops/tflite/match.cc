#include "tflite/match.h"

#include <algorithm>

namespace tfprune {
namespace {

// From these densities on the runtime's dense kernels are about as fast (by Form). Of coefficients it
// computes the bank too; a dense layer of one row is bound by memory.
constexpr double kDenseFrom[] = {0.6, 0.5, 0.15};

// Weights, and the places of the nodes that unpack them.
struct Source {
  Constant constant;
  std::vector<int32_t> places;
};

Source source_of(const Graph& graph, int32_t tensor) {
  Source found;
  found.constant.stored = tensor;
  if (const Node* node = graph.writer_of(tensor, kTfLiteDequantize)) {
    found.places.push_back(graph.writer[static_cast<size_t>(tensor)]);
    found.constant.stored = found.constant.quantized = node->input(0);
  }
  const int32_t packed = found.constant.stored;
  if (const Node* node = graph.writer_of(packed, kTfLiteDensify)) {
    found.places.push_back(graph.writer[static_cast<size_t>(packed)]);
    found.constant.sparse = true;
    found.constant.stored = node->input(0);
  }
  return found;
}

bool good(const Graph& graph, Source* source, int32_t rank) {
  const int32_t stored = source->constant.stored;
  return stored >= 0 && check(*graph.context, &source->constant) == Check::kGood &&
         graph.tensor(stored).dims->size == rank;
}

const int32_t* dims_of(const Graph& graph, const Source& source) {
  return graph.tensor(source.constant.stored).dims->data;
}

// A constant float32 vector, or none at all.
bool is_vector(const Graph& graph, int32_t number, int64_t count) {
  if (number < 0) return true;
  const TfLiteTensor& t = graph.tensor(number);
  return t.allocation_type == kTfLiteMmapRo && t.type == kTfLiteFloat32 && t.data != nullptr &&
         t.bytes == static_cast<size_t>(count) * 4;
}

bool is_zero(const Graph& graph, int32_t number) {
  if (number < 0) return true;
  const TfLiteTensor& t = graph.tensor(number);
  const char* bytes = static_cast<const char*>(t.data);
  return std::all_of(bytes, bytes + t.bytes, [](char byte) { return byte == 0; });
}

// Tensors of float32 and of a rank, 0 for any; a channel count that is known already must fit.
bool is_map(const Graph& graph, int32_t number, int32_t rank, int64_t channels) {
  if (number < 0) return false;
  const TfLiteTensor& t = graph.tensor(number);
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

// The bank of filters in front of a 1x1 convolution, which then are one in the frequency domain.
bool add_bank(const Graph& graph, const Node& wave, Unit* unit, std::vector<int32_t>* places) {
  const auto* params = static_cast<const TfLiteDepthwiseConvParams*>(wave.node->builtin_data);
  Source source = source_of(graph, wave.input(1));
  if (params == nullptr || params->activation != kTfLiteActNone || !good(graph, &source, 4))
    return false;
  const int32_t* dims = dims_of(graph, source);
  const int64_t columns = source.constant.columns, filters = params->depth_multiplier;
  if (dims[0] != 1 || filters < 1 || columns % filters != 0 || columns != unit->weights.columns)
    return false;
  if (!set_geometry(*params, dims[1], dims[2], unit)) return false;
  if (!is_vector(graph, wave.input(2), columns) || !is_zero(graph, wave.input(2))) return false;
  std::vector<float> bank(static_cast<size_t>(source.constant.rows * columns));
  for (const Entry& entry : entries(*graph.context, source.constant))
    bank[static_cast<size_t>(entry.row * columns + entry.column)] = entry.value;
  unit->conv.basis = TFP_DCT;
  unit->conv.in_channels = columns / filters;
  unit->bank = read_bank(bank, dims[1], dims[2], columns / filters, filters);
  unit->input = wave.input(0);
  unit->nodes.insert(unit->nodes.begin(), wave.number);
  places->insert(places->end(), source.places.begin(), source.places.end());
  return !unit->bank.empty();
}

bool convolution(const Graph& graph, const Node& node, Unit* unit, std::vector<int32_t>* places) {
  const auto* params = static_cast<const TfLiteConvParams*>(node.node->builtin_data);
  Source source = source_of(graph, node.input(1));
  if (params == nullptr || !good(graph, &source, 4)) return false;
  const int32_t* dims = dims_of(graph, source);
  unit->weights = source.constant;
  unit->input = node.input(0);
  unit->conv.out_channels = dims[0], unit->conv.in_channels = dims[3];
  if (!set_geometry(*params, dims[1], dims[2], unit)) return false;
  if (!set_activation(params->activation, &unit->conv)) return false;
  *places = source.places;
  const Node* wave = graph.writer_of(unit->input, kTfLiteDepthwiseConv2d);
  const bool pointwise = dims[1] == 1 && dims[2] == 1 && params->stride_height == 1 &&
                         params->stride_width == 1 && wave != nullptr;
  if (pointwise && graph.read_once(unit->input)) {
    Unit whole = *unit;
    whole.form = Form::kCoefficients;
    std::vector<int32_t> of_both = *places;
    // What unpacks weights must stand in front of both ops, which the runtime would part otherwise.
    const int32_t first = graph.writer[static_cast<size_t>(unit->input)];
    if (add_bank(graph, *wave, &whole, &of_both) &&
        std::all_of(of_both.begin(), of_both.end(), [&](int32_t place) { return place < first; }))
      *unit = whole, *places = of_both;
  }
  const bool known = source.constant.sparse || unit->form == Form::kCoefficients;
  return known && is_map(graph, unit->input, 4, unit->conv.in_channels) &&
         is_map(graph, unit->output, 4, unit->conv.out_channels);
}

bool fully_connected(const Graph& graph, const Node& node, Unit* unit,
                     std::vector<int32_t>* places) {
  const auto* params = static_cast<const TfLiteFullyConnectedParams*>(node.node->builtin_data);
  Source source = source_of(graph, node.input(1));
  if (params == nullptr || params->weights_format != 0 || !good(graph, &source, 2)) return false;
  unit->form = Form::kFullyConnected;
  unit->weights = source.constant;
  unit->input = node.input(0);
  unit->keep_dims = params->keep_num_dims != 0;
  unit->conv = {source.constant.columns, source.constant.rows, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0,
                TFP_SPATIAL, TFP_LINEAR};
  *places = source.places;
  return source.constant.sparse && set_activation(params->activation, &unit->conv) &&
         is_map(graph, unit->input, 0, 0) && is_map(graph, unit->output, 0, 0);
}

bool match(const Graph& graph, const Node& node, Unit* unit, std::vector<int32_t>* places) {
  unit->nodes = {node.number};
  unit->output = node.output();
  unit->bias = node.input(2);
  const bool found = node.code == kTfLiteConv2d ? convolution(graph, node, unit, places)
                     : node.code == kTfLiteFullyConnected
                         ? fully_connected(graph, node, unit, places)
                         : false;
  const tfp_conv& conv = unit->conv;
  if (!found || !is_vector(graph, unit->bias, conv.out_channels)) return false;
  const size_t output = static_cast<size_t>(unit->output);
  if (graph.readers[output].empty() && !graph.result[output]) return false;
  const double all = static_cast<double>(conv.out_channels) * static_cast<double>(conv.in_channels) *
                     static_cast<double>(conv.kernel_h * conv.kernel_w);
  unit->density = static_cast<double>(entries(*graph.context, unit->weights).size()) / all;
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
  Matches found;
  found.damaged = find_damaged(graph);
  if (found.damaged >= 0) return found;
  std::vector<bool> taken(graph.nodes.size(), false);
  std::vector<int32_t> unpacking;
  for (size_t place = 0; place < graph.nodes.size(); ++place) {
    Unit unit;
    std::vector<int32_t> places;
    if (!match(graph, graph.nodes[place], &unit, &places)) continue;
    unpacking.insert(unpacking.end(), places.begin(), places.end());
    taken[place] = true;
    if (unit.form == Form::kCoefficients)
      taken[static_cast<size_t>(graph.writer[static_cast<size_t>(
          graph.nodes[place].input(0))])] = true;
    found.units.push_back(std::move(unit));
  }
  // From readers to writers, as these stand in front of them.
  std::sort(unpacking.rbegin(), unpacking.rend());
  for (const int32_t place : unpacking) {
    const Node& node = graph.nodes[static_cast<size_t>(place)];
    const size_t output = static_cast<size_t>(node.output());
    const auto& readers = graph.readers[output];
    if (taken[static_cast<size_t>(place)] || graph.result[output]) continue;
    if (!std::all_of(readers.begin(), readers.end(),
                     [&](int32_t reader) { return taken[static_cast<size_t>(reader)]; }))
      continue;
    taken[static_cast<size_t>(place)] = true;
    found.idle.push_back(node.number);
  }
  return found;
}

Rows rows_of(const TfLiteContext& context, const Unit& unit) {
  const int64_t taps = unit.conv.kernel_h * unit.conv.kernel_w;
  const int64_t rows = unit.weights.rows / unit.conv.out_channels;
  const int64_t filters = static_cast<int64_t>(unit.bank.size());
  std::vector<Entry> found = entries(context, unit.weights);
  for (Entry& entry : found) {
    const int64_t tap = entry.row % rows;
    if (filters > 0) {
      const Filter& filter = unit.bank[static_cast<size_t>(entry.column % filters)];
      entry.column = static_cast<int32_t>(entry.column / filters * taps + filter.tap);
      entry.value *= filter.scale;
    } else {
      entry.column = static_cast<int32_t>(entry.column * taps + tap);
    }
    entry.row /= rows;
  }
  std::sort(found.begin(), found.end(), [](const Entry& a, const Entry& b) {
    return a.row != b.row ? a.row < b.row : a.column < b.column;
  });
  Rows packed;
  packed.splits.assign(static_cast<size_t>(unit.conv.out_channels + 1), 0);
  for (const Entry& entry : found) {
    packed.values.push_back(entry.value);
    packed.columns.push_back(entry.column);
    ++packed.splits[static_cast<size_t>(entry.row + 1)];
  }
  for (size_t k = 1; k < packed.splits.size(); ++k) packed.splits[k] += packed.splits[k - 1];
  return packed;
}

}  // namespace tfprune
