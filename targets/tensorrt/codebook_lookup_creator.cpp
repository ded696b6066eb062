#include "codebook_lookup_creator.h"

#include <new>

#include "codebook_lookup_plugin.h"

namespace edgekit::tensorrt {

using nvinfer1::PluginFieldType;

CodebookLookupCreator::CodebookLookupCreator() {
  fields_[0] = nvinfer1::PluginField("metric", nullptr, PluginFieldType::kCHAR, 1);
  fields_[1] = nvinfer1::PluginField("margin", nullptr, PluginFieldType::kINT32, 1);
  collection_.nbFields = 2;
  collection_.fields = fields_;
}

nvinfer1::IPluginV3* CodebookLookupCreator::createPlugin(
    const nvinfer1::AsciiChar*, const nvinfer1::PluginFieldCollection* fields,
    nvinfer1::TensorRTPhase) noexcept {
  LookupSettings settings;
  if (!read_settings(fields, &settings)) return nullptr;
  return new (std::nothrow) CodebookLookupPlugin(settings);
}

const nvinfer1::PluginFieldCollection* CodebookLookupCreator::getFieldNames() noexcept {
  return &collection_;
}

const nvinfer1::AsciiChar* CodebookLookupCreator::getPluginName() const noexcept {
  return kPluginName;
}

const nvinfer1::AsciiChar* CodebookLookupCreator::getPluginVersion() const noexcept {
  return kPluginVersion;
}

const nvinfer1::AsciiChar* CodebookLookupCreator::getPluginNamespace() const noexcept {
  return kPluginNamespace;
}

}  // namespace edgekit::tensorrt
