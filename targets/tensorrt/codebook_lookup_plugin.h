// edgekit::CodebookLookup as a TensorRT plugin (IPluginV3: TensorRT 10 and later).
//
//   indices [M] INT64, margin [M] = CodebookLookup(features [M, D], codebook [N, D])
//
// The margin is there when the node's attribute `margin` is 1. Features are FLOAT or HALF, the
// codebook is FLOAT or, with HALF features, HALF; the margin has the features' type. TensorRT has
// no way to report a bad value from a running plugin: where a vector or the codebook holds NaN or
// infinity the index is 0 and the margin is NaN.
//
// Each context packs the codebook when it first runs and after a change of shapes, and keeps that
// in memory of its own (a little over half of the codebook's size). In between, the codebook's
// values must not change while it stays at its place: those of an engine's constants never do.
#ifndef EDGEKIT_CODEBOOK_LOOKUP_PLUGIN_H_
#define EDGEKIT_CODEBOOK_LOOKUP_PLUGIN_H_

#include <NvInferRuntime.h>

#include <cstdint>

#include "packed_memory.h"

namespace edgekit::tensorrt {

inline constexpr char kPluginName[] = "CodebookLookup";
inline constexpr char kPluginVersion[] = "1";
inline constexpr char kPluginNamespace[] = "edgekit";

// Where messages go; null leaves only return codes.
void set_logger_finder(nvinfer1::ILoggerFinder* finder);
void log_error(const char* message);

// The node's attributes.
struct LookupSettings {
  int32_t metric = 0;  // edgekit_codebook_cuda_metric
  bool margin = false;
};

// Fills the settings from a node's or an engine's fields; false, with a message, if they are wrong.
bool read_settings(const nvinfer1::PluginFieldCollection* fields, LookupSettings* settings);

class CodebookLookupPlugin final : public nvinfer1::IPluginV3,
                                   public nvinfer1::IPluginV3OneCore,
                                   public nvinfer1::IPluginV3OneBuild,
                                   public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit CodebookLookupPlugin(const LookupSettings& settings);
  CodebookLookupPlugin(const CodebookLookupPlugin& other);
  CodebookLookupPlugin& operator=(const CodebookLookupPlugin&) = delete;

  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

  const nvinfer1::AsciiChar* getPluginName() const noexcept override;
  const nvinfer1::AsciiChar* getPluginVersion() const noexcept override;
  const nvinfer1::AsciiChar* getPluginNamespace() const noexcept override;

  int32_t getNbOutputs() const noexcept override;
  int32_t getOutputDataTypes(nvinfer1::DataType* output_types, int32_t output_count,
                             const nvinfer1::DataType* input_types,
                             int32_t input_count) const noexcept override;
  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count,
                          const nvinfer1::DimsExprs* shape_inputs, int32_t shape_input_count,
                          nvinfer1::DimsExprs* outputs, int32_t output_count,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                 int32_t input_count, int32_t output_count) noexcept override;
  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc* outputs,
                          int32_t output_count) noexcept override;
  size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc* outputs,
                          int32_t output_count) const noexcept override;
  const char* getTimingCacheID() noexcept override;

  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                        const nvinfer1::PluginTensorDesc* outputs,
                        int32_t output_count) noexcept override;
  int32_t enqueue(const nvinfer1::PluginTensorDesc* input_descs,
                  const nvinfer1::PluginTensorDesc* output_descs, const void* const* inputs,
                  void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

 private:
  LookupSettings settings_;
  int32_t margin_field_;  // what the field's pointer points to
  nvinfer1::PluginField fields_[2];
  nvinfer1::PluginFieldCollection collection_;
  char timing_cache_id_[32];
  PackedMemory packed_;
};

}  // namespace edgekit::tensorrt

#endif  // EDGEKIT_CODEBOOK_LOOKUP_PLUGIN_H_
