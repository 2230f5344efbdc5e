// Finds what tfprune's export writes of a sparse convolution in a TFLite graph:
//
//   coefficients      DEPTHWISE_CONV_2D with DCT filters, CONV_2D 1x1 with coefficients
//   convolution       CONV_2D whose weights DENSIFY unpacks
//   fully connected   FULLY_CONNECTED whose weights DENSIFY unpacks

#ifndef TFPRUNE_TFLITE_MATCH_H_
#define TFPRUNE_TFLITE_MATCH_H_

#include <cstdint>
#include <vector>

#include "core/api/sparse_conv.h"
#include "tflite/dct_filters.h"
#include "tflite/graph.h"
#include "tflite/weights.h"

namespace tfprune {

enum class Form { kCoefficients, kConvolution, kFullyConnected };

// What one native convolution replaces.
struct Unit {
  Form form = Form::kConvolution;
  std::vector<int32_t> nodes;       // the runtime's numbers
  int32_t input = -1, output = -1, bias = -1;
  Constant weights;
  std::vector<DctFilter> filters;   // of coefficients alone
  tfp_conv conv{};                  // paddings are not set yet
  bool same_padding = false, keep_dims = false;
  double density = 0;
};

struct Matches {
  std::vector<Unit> units;
  std::vector<int32_t> idle;  // nodes that unpack weights for the units alone
  int32_t damaged = -1;       // a tensor whose rows are invalid, so that nothing may run
};

Matches find_units(const Graph& graph);

// Weights, [out_channels, columns] in rows as tfp_pack takes them.
struct Rows {
  std::vector<float> values;
  std::vector<int32_t> columns;
  std::vector<int64_t> splits;
};

Rows rows_of(const TfLiteContext& context, const Unit& unit);

}  // namespace tfprune

#endif
