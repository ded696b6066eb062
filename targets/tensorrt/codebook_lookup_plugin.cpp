#include "codebook_lookup_plugin.h"

#include <cstdio>
#include <cstring>
#include <new>

#include "edgekit_codebook_cuda.h"

namespace edgekit::tensorrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::PluginFieldType;

nvinfer1::ILoggerFinder* logger_finder = nullptr;

constexpr const char* kMetricNames[] = {"dot", "l2"};  // by edgekit_codebook_cuda_metric

// A text field's length may or may not count a closing NUL.
bool read_metric(const nvinfer1::PluginField& field, int32_t* metric) {
  if (field.type != PluginFieldType::kCHAR || field.data == nullptr || field.length < 1) {
    return false;
  }
  const char* text = static_cast<const char*>(field.data);
  const size_t length = strnlen(text, static_cast<size_t>(field.length));
  for (int32_t i = 0; i < 2; ++i) {
    if (length == std::strlen(kMetricNames[i]) && std::memcmp(text, kMetricNames[i], length) == 0) {
      *metric = i;
      return true;
    }
  }
  return false;
}

bool read_flag(const nvinfer1::PluginField& field, bool* flag) {
  if (field.data == nullptr || field.length != 1) return false;
  int64_t value = -1;
  if (field.type == PluginFieldType::kINT32) {
    int32_t narrow;
    std::memcpy(&narrow, field.data, sizeof narrow);
    value = narrow;
  } else if (field.type == PluginFieldType::kINT64) {
    std::memcpy(&value, field.data, sizeof value);
  }
  *flag = value == 1;
  return value == 0 || value == 1;
}

bool is_float(DataType type) { return type == DataType::kFLOAT || type == DataType::kHALF; }

int32_t cuda_type(DataType type) {
  return type == DataType::kHALF ? EDGEKIT_CODEBOOK_CUDA_HALF : EDGEKIT_CODEBOOK_CUDA_FLOAT;
}

// A width that is unknown until run time is -1.
bool widths_agree(const nvinfer1::Dims& features, const nvinfer1::Dims& codebook) {
  if (features.nbDims != 2 || codebook.nbDims != 2) {
    log_error("edgekit::CodebookLookup: features and codebook must be matrices [M, D] and [N, D]");
    return false;
  }
  if (features.d[1] != codebook.d[1] && features.d[1] >= 0 && codebook.d[1] >= 0) {
    char text[160];
    std::snprintf(text, sizeof text,
                  "edgekit::CodebookLookup: features have %lld columns, the codebook has %lld",
                  static_cast<long long>(features.d[1]), static_cast<long long>(codebook.d[1]));
    log_error(text);
    return false;
  }
  return true;
}

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) { logger_finder = finder; }

void log_error(const char* message) {
  nvinfer1::ILogger* logger = logger_finder != nullptr ? logger_finder->findLogger() : nullptr;
  if (logger != nullptr) logger->log(nvinfer1::ILogger::Severity::kERROR, message);
}

bool read_settings(const nvinfer1::PluginFieldCollection* fields, LookupSettings* settings) {
  const int32_t count = fields != nullptr ? fields->nbFields : 0;
  for (int32_t i = 0; i < count; ++i) {
    const nvinfer1::PluginField& field = fields->fields[i];
    if (field.name == nullptr) continue;
    if (std::strcmp(field.name, "metric") == 0 && !read_metric(field, &settings->metric)) {
      log_error("edgekit::CodebookLookup: attribute 'metric' must be the string 'dot' or 'l2'");
      return false;
    }
    if (std::strcmp(field.name, "margin") == 0 && !read_flag(field, &settings->margin)) {
      log_error("edgekit::CodebookLookup: attribute 'margin' must be 0 or 1");
      return false;
    }
  }
  return true;
}

CodebookLookupPlugin::CodebookLookupPlugin(const LookupSettings& settings)
    : settings_(settings), margin_field_(settings.margin ? 1 : 0) {
  const char* metric = kMetricNames[settings_.metric];
  fields_[0] = nvinfer1::PluginField("metric", metric, PluginFieldType::kCHAR,
                                     static_cast<int32_t>(std::strlen(metric)));
  fields_[1] = nvinfer1::PluginField("margin", &margin_field_, PluginFieldType::kINT32, 1);
  collection_.nbFields = 2;
  collection_.fields = fields_;
  std::snprintf(timing_cache_id_, sizeof timing_cache_id_, "edgekit-%d-%s-%d",
                EDGEKIT_CODEBOOK_CUDA_ABI_VERSION, metric, margin_field_);
}

CodebookLookupPlugin::CodebookLookupPlugin(const CodebookLookupPlugin& other)
    : CodebookLookupPlugin(other.settings_) {}

nvinfer1::IPluginCapability* CodebookLookupPlugin::getCapabilityInterface(
    nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

nvinfer1::IPluginV3* CodebookLookupPlugin::clone() noexcept {
  return new (std::nothrow) CodebookLookupPlugin(*this);
}

const nvinfer1::AsciiChar* CodebookLookupPlugin::getPluginName() const noexcept {
  return kPluginName;
}

const nvinfer1::AsciiChar* CodebookLookupPlugin::getPluginVersion() const noexcept {
  return kPluginVersion;
}

const nvinfer1::AsciiChar* CodebookLookupPlugin::getPluginNamespace() const noexcept {
  return kPluginNamespace;
}

int32_t CodebookLookupPlugin::getNbOutputs() const noexcept { return settings_.margin ? 2 : 1; }

int32_t CodebookLookupPlugin::getOutputDataTypes(DataType* output_types, int32_t output_count,
                                                 const DataType* input_types,
                                                 int32_t input_count) const noexcept {
  if (input_count != 2 || output_count != getNbOutputs()) return 1;
  output_types[0] = DataType::kINT64;  // the type that ONNX declares; INT32 fails to parse
  if (settings_.margin) output_types[1] = input_types[0];
  return 0;
}

int32_t CodebookLookupPlugin::getOutputShapes(const nvinfer1::DimsExprs* inputs,
                                              int32_t input_count, const nvinfer1::DimsExprs*,
                                              int32_t, nvinfer1::DimsExprs* outputs,
                                              int32_t output_count,
                                              nvinfer1::IExprBuilder&) noexcept {
  if (input_count != 2 || output_count != getNbOutputs()) {
    log_error("edgekit::CodebookLookup: the node needs two inputs, and 1 + margin outputs");
    return 1;
  }
  if (inputs[0].nbDims != 2 || inputs[1].nbDims != 2) {
    log_error("edgekit::CodebookLookup: features and codebook must be matrices [M, D] and [N, D]");
    return 1;
  }
  for (int32_t i = 0; i < output_count; ++i) {
    outputs[i].nbDims = 1;
    outputs[i].d[0] = inputs[0].d[0];
  }
  return 0;
}

bool CodebookLookupPlugin::supportsFormatCombination(
    int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors, int32_t input_count,
    int32_t output_count) noexcept {
  if (input_count != 2 || output_count != getNbOutputs()) return false;
  const nvinfer1::PluginTensorDesc& tensor = tensors[position].desc;
  if (tensor.format != nvinfer1::TensorFormat::kLINEAR) return false;
  const DataType features = tensors[0].desc.type;
  switch (position) {
    case 0:
      return is_float(tensor.type);
    case 1:
      return tensor.type == DataType::kFLOAT || tensor.type == features;
    case 2:
      return tensor.type == DataType::kINT64;
    default:
      return tensor.type == features;
  }
}

int32_t CodebookLookupPlugin::configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs,
                                              int32_t input_count,
                                              const nvinfer1::DynamicPluginTensorDesc*,
                                              int32_t) noexcept {
  return input_count == 2 && widths_agree(inputs[0].desc.dims, inputs[1].desc.dims) ? 0 : 1;
}

size_t CodebookLookupPlugin::getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs,
                                              int32_t input_count,
                                              const nvinfer1::DynamicPluginTensorDesc*,
                                              int32_t) const noexcept {
  if (input_count != 2) return 0;
  return edgekit_codebook_cuda_workspace(inputs[0].max.d[0], inputs[1].max.d[0],
                                         inputs[1].max.d[1]);
}

const char* CodebookLookupPlugin::getTimingCacheID() noexcept { return timing_cache_id_; }

int32_t CodebookLookupPlugin::onShapeChange(const nvinfer1::PluginTensorDesc* inputs,
                                            int32_t input_count, const nvinfer1::PluginTensorDesc*,
                                            int32_t) noexcept {
  packed_.forget();
  return input_count == 2 && widths_agree(inputs[0].dims, inputs[1].dims) ? 0 : 1;
}

int32_t CodebookLookupPlugin::enqueue(const nvinfer1::PluginTensorDesc* input_descs,
                                      const nvinfer1::PluginTensorDesc*, const void* const* inputs,
                                      void* const* outputs, void* workspace,
                                      cudaStream_t stream) noexcept {
  edgekit_codebook_cuda_request request = {};
  request.x = inputs[0];
  request.codebook = inputs[1];
  request.m = input_descs[0].dims.d[0];
  request.n = input_descs[1].dims.d[0];
  request.d = input_descs[1].dims.d[1];
  request.x_type = cuda_type(input_descs[0].type);
  request.codebook_type = cuda_type(input_descs[1].type);
  request.metric = settings_.metric;
  request.indices = static_cast<int64_t*>(outputs[0]);
  if (settings_.margin) {
    request.margin = outputs[1];
    request.margin_type = request.x_type;
  }
  request.workspace = workspace;
  request.workspace_bytes = edgekit_codebook_cuda_workspace(request.m, request.n, request.d);
  int status = packed_.provide(&request, stream);
  if (status == EDGEKIT_CODEBOOK_CUDA_OK) status = edgekit_codebook_cuda_lookup(&request, stream);
  if (status != EDGEKIT_CODEBOOK_CUDA_OK) {
    char text[200];
    std::snprintf(text, sizeof text, "edgekit::CodebookLookup: %s",
                  edgekit_codebook_cuda_status_text(status));
    log_error(text);
  }
  return status;
}

nvinfer1::IPluginV3* CodebookLookupPlugin::attachToContext(
    nvinfer1::IPluginResourceContext*) noexcept {
  return clone();
}

const nvinfer1::PluginFieldCollection* CodebookLookupPlugin::getFieldsToSerialize() noexcept {
  return &collection_;
}

}  // namespace edgekit::tensorrt
