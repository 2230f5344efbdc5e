// The nodes of a TFLite graph, and who writes and reads its tensors.

#ifndef TFPRUNE_TFLITE_GRAPH_H_
#define TFPRUNE_TFLITE_GRAPH_H_

#include <cstdint>
#include <vector>

#include "tflite/c_api.h"

namespace tfprune {

struct Node {
  int32_t id;    // the runtime's number
  int32_t code;  // of the builtin op
  const TfLiteNode* node;

  int32_t input(int32_t index) const {
    return index < node->inputs->size ? node->inputs->data[index] : -1;
  }
  int32_t output() const { return node->outputs->size == 1 ? node->outputs->data[0] : -1; }
};

// Valid until a node is replaced.
struct Graph {
  TfLiteContext* context = nullptr;
  std::vector<Node> nodes;                    // in the order of execution
  std::vector<int32_t> writer;                // of each tensor: index in `nodes`, or -1
  std::vector<std::vector<int32_t>> readers;  // of each tensor: indices in `nodes`
  std::vector<bool> is_output;                // whether each tensor is an output of the graph

  const TfLiteTensor& tensor(int32_t index) const { return context->tensors[index]; }
  // The node that writes a tensor, if it is of one kind; else null.
  const Node* writer_of(int32_t tensor, int32_t code) const;
  // Whether a tensor has a single reader.
  bool read_once(int32_t tensor) const;
};

TfLiteStatus read_graph(TfLiteContext* context, Graph* graph);

}  // namespace tfprune

#endif
