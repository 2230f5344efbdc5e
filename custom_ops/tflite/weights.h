// Constant weights of a TFLite graph, read where the file holds them:
//
//   constant [-> DENSIFY] [-> DEQUANTIZE]    float32, float16 or int8 with scales; dense or rows

#ifndef TFPRUNE_TFLITE_WEIGHTS_H_
#define TFPRUNE_TFLITE_WEIGHTS_H_

#include <cstdint>
#include <vector>

#include "tflite/c_api.h"

namespace tfprune {

// Where the file holds weights. Rows are all axes but the last, columns the last.
struct Constant {
  int32_t stored = -1;      // the tensor with the values
  int32_t quantized = -1;   // the tensor whose scales DEQUANTIZE applies; -1 if there is none
  bool sparse = false;      // whether DENSIFY reads it
  int64_t rows = 0, columns = 0;
};

enum class Check {
  kGood,
  kUnsupported,  // the runtime may well read it
  kDamaged,      // invalid: DENSIFY would read or write outside of its tensors
};

// Whether the weights can be read; their `rows` and `columns` are set if so.
Check check(const TfLiteContext& context, Constant* weights);

struct Nonzero {
  int64_t row;
  int32_t column;
  float value;
};

// All nonzeros of weights that are good, by rows and in them by columns.
std::vector<Nonzero> nonzeros(const TfLiteContext& context, const Constant& weights);

}  // namespace tfprune

#endif
