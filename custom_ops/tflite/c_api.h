/* What a delegate uses of TFLite's C structs, declared here so that it builds without TensorFlow or
   LiteRT and one build loads under their versions (1.2 to 2.3 of LiteRT were run). Fields lie where
   tensorflow/lite/core/c/common.h and c_api_types.h put them; those whose type does not matter here are
   untyped pointers of the same size. TFLite adds fields at the end only. */

#ifndef TFPRUNE_TFLITE_C_API_H_
#define TFPRUNE_TFLITE_C_API_H_

#include <stddef.h>
#include <stdint.h>

typedef enum { kTfLiteOk = 0, kTfLiteError = 1 } TfLiteStatus;
enum { kTfLiteFloat32 = 1, kTfLiteInt8 = 9, kTfLiteFloat16 = 10 };           /* types */
enum { kTfLiteMmapRo = 1 };                                                  /* allocations */
enum { kTfLiteAffineQuantization = 1 };                                      /* quantizations */
enum { kTfLiteDimDense = 0, kTfLiteDimSparseCSR = 1 };                       /* dimensions */
enum { kTfLitePaddingSame = 1, kTfLitePaddingValid = 2 };                    /* paddings */
enum { kTfLiteActNone = 0, kTfLiteActRelu = 1, kTfLiteActRelu6 = 3 };        /* activations */
enum { kTfLiteDelegateFlagsAllowDynamicTensors = 1 };                        /* delegate flags */
enum {                                                                       /* builtin ops */
  kTfLiteConv2d = 3,
  kTfLiteDepthwiseConv2d = 4,
  kTfLiteDequantize = 6,
  kTfLiteFullyConnected = 9,
  kTfLiteDensify = 124
};

typedef struct {
  int32_t size;
  int32_t data[1]; /* of `size` elements */
} TfLiteIntArray;

typedef struct {
  int32_t size;
  float data[1];
} TfLiteFloatArray;

typedef struct {
  TfLiteFloatArray* scale;
  TfLiteIntArray* zero_point;
  int32_t quantized_dimension;
} TfLiteAffineQuantization;

typedef struct {
  int32_t type;
  void* params;
} TfLiteQuantization;

typedef struct {
  int32_t format;
  int32_t dense_size;
  TfLiteIntArray* array_segments;
  TfLiteIntArray* array_indices;
} TfLiteDimensionMetadata;

typedef struct {
  TfLiteIntArray* traversal_order;
  TfLiteIntArray* block_map;
  TfLiteDimensionMetadata* dim_metadata;
  int32_t dim_metadata_size;
} TfLiteSparsity;

struct TfLiteContext;
struct TfLiteDelegate;

typedef struct {
  int32_t type;
  void* data;
  TfLiteIntArray* dims;
  float scale;
  int32_t zero_point;
  int32_t allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  struct TfLiteDelegate* delegate;
  int32_t buffer_handle;
  uint8_t data_is_stale;
  uint8_t is_variable;
  TfLiteQuantization quantization;
  TfLiteSparsity* sparsity;
  const TfLiteIntArray* dims_signature;
} TfLiteTensor;

typedef struct {
  TfLiteIntArray* inputs;
  TfLiteIntArray* outputs;
  TfLiteIntArray* intermediates;
  TfLiteIntArray* temporaries;
  void* user_data;
  void* builtin_data;
} TfLiteNode; /* and more */

typedef struct {
  void* (*init)(struct TfLiteContext* context, const char* buffer, size_t length);
  void (*free)(struct TfLiteContext* context, void* user_data);
  TfLiteStatus (*prepare)(struct TfLiteContext* context, TfLiteNode* node);
  TfLiteStatus (*invoke)(struct TfLiteContext* context, TfLiteNode* node);
  const char* (*profiling_string)(const struct TfLiteContext* context, const TfLiteNode* node);
  int32_t builtin_code;
  const char* custom_name;
  int32_t version;
  void* registration_external;
  void* async_kernel;
  uint64_t inplace_operator;
  uint64_t later[4]; /* zero, where a later version has more fields: it goes by value */
} TfLiteRegistration;

typedef struct {
  struct TfLiteDelegate* delegate;
  TfLiteIntArray* nodes_to_replace;
  TfLiteIntArray* input_tensors;
  TfLiteIntArray* output_tensors;
} TfLiteDelegateParams;

typedef struct TfLiteContext {
  size_t tensors_size;
  TfLiteStatus (*GetExecutionPlan)(struct TfLiteContext*, TfLiteIntArray** plan);
  TfLiteTensor* tensors;
  void* impl;
  TfLiteStatus (*ResizeTensor)(struct TfLiteContext*, TfLiteTensor*, TfLiteIntArray* new_size);
  void (*ReportError)(struct TfLiteContext*, const char* message, ...);
  TfLiteStatus (*AddTensors)(struct TfLiteContext*, int32_t count, int32_t* first);
  TfLiteStatus (*GetNodeAndRegistration)(struct TfLiteContext*, int32_t index, TfLiteNode** node,
                                         TfLiteRegistration** registration);
  TfLiteStatus (*ReplaceNodeSubsetsWithDelegateKernels)(struct TfLiteContext*, TfLiteRegistration,
                                                        const TfLiteIntArray* nodes,
                                                        struct TfLiteDelegate*);
  int32_t recommended_num_threads;
  void* GetExternalContext;
  void* SetExternalContext;
  uint8_t allow_fp32_relax_to_fp16;
  void* profiler;
  void* AllocatePersistentBuffer;
  void* AllocateBufferForEval;
  void* RequestScratchBufferInArena;
  void* GetScratchBuffer;
  void* ResizeTensorExplicit;
  TfLiteStatus (*PreviewDelegatePartitioning)(struct TfLiteContext*, const TfLiteIntArray* nodes,
                                              TfLiteDelegateParams** partitions, int32_t* count);
} TfLiteContext; /* and more */

typedef struct TfLiteDelegate {
  void* data;
  TfLiteStatus (*Prepare)(TfLiteContext*, struct TfLiteDelegate*);
  void* CopyFromBufferHandle;
  void* CopyToBufferHandle;
  void* FreeBufferHandle;
  int64_t flags;
  void* opaque_delegate_builder;
} TfLiteDelegate;

typedef struct {
  int32_t padding, stride_width, stride_height, activation;
  int32_t dilation_width, dilation_height;
} TfLiteConvParams; /* and more */

typedef struct {
  int32_t padding, stride_width, stride_height, depth_multiplier, activation;
  int32_t dilation_width, dilation_height;
} TfLiteDepthwiseConvParams;

typedef struct {
  int32_t activation, weights_format;
  uint8_t keep_num_dims;
} TfLiteFullyConnectedParams; /* and more */

#endif
