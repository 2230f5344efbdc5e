#include "tflite/graph.h"

namespace tfprune {
namespace {

// TFLite does not tell delegates a graph's outputs; they are the outputs of a partition of all nodes.
TfLiteStatus find_outputs(const TfLiteIntArray* plan, Graph* graph) {
  TfLiteContext* context = graph->context;
  TfLiteDelegateParams* partitions = nullptr;
  int32_t count = 0;
  const TfLiteStatus status =
      context->PreviewDelegatePartitioning(context, plan, &partitions, &count);
  if (status != kTfLiteOk) return status;
  for (int32_t i = 0; i < count; ++i) {
    const TfLiteIntArray& outputs = *partitions[i].output_tensors;
    for (int32_t j = 0; j < outputs.size; ++j)
      if (outputs.data[j] >= 0) graph->is_output[static_cast<size_t>(outputs.data[j])] = true;
  }
  return kTfLiteOk;
}

}  // namespace

const Node* Graph::writer_of(int32_t tensor, int32_t code) const {
  const int32_t index = tensor < 0 ? -1 : writer[static_cast<size_t>(tensor)];
  const Node* node = index < 0 ? nullptr : &nodes[static_cast<size_t>(index)];
  return node != nullptr && node->code == code && node->output() == tensor ? node : nullptr;
}

bool Graph::read_once(int32_t tensor) const {
  return readers[static_cast<size_t>(tensor)].size() == 1 && !is_output[static_cast<size_t>(tensor)];
}

TfLiteStatus read_graph(TfLiteContext* context, Graph* graph) {
  graph->context = context;
  TfLiteIntArray* plan = nullptr;
  TfLiteStatus status = context->GetExecutionPlan(context, &plan);
  if (status != kTfLiteOk) return status;
  graph->writer.assign(context->tensors_size, -1);
  graph->readers.resize(context->tensors_size);
  graph->is_output.assign(context->tensors_size, false);
  for (int32_t index = 0; index < plan->size; ++index) {
    TfLiteNode* node = nullptr;
    TfLiteRegistration* registration = nullptr;
    status = context->GetNodeAndRegistration(context, plan->data[index], &node, &registration);
    if (status != kTfLiteOk) return status;
    graph->nodes.push_back({plan->data[index], registration->builtin_code, node});
    for (int32_t i = 0; i < node->inputs->size; ++i)
      if (node->inputs->data[i] >= 0)
        graph->readers[static_cast<size_t>(node->inputs->data[i])].push_back(index);
    for (int32_t i = 0; i < node->outputs->size; ++i)
      if (node->outputs->data[i] >= 0)
        graph->writer[static_cast<size_t>(node->outputs->data[i])] = index;
  }
  return plan->size > 0 ? find_outputs(plan, graph) : kTfLiteOk;
}

}  // namespace tfprune
