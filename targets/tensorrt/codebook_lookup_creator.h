// Makes CodebookLookup plugins: from a node's attributes, or from an engine's serialized fields.
#ifndef EDGEKIT_CODEBOOK_LOOKUP_CREATOR_H_
#define EDGEKIT_CODEBOOK_LOOKUP_CREATOR_H_

#include <NvInferRuntime.h>

namespace edgekit::tensorrt {

class CodebookLookupCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  CodebookLookupCreator();

  nvinfer1::IPluginV3* createPlugin(const nvinfer1::AsciiChar* name,
                                    const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override;
  const nvinfer1::AsciiChar* getPluginName() const noexcept override;
  const nvinfer1::AsciiChar* getPluginVersion() const noexcept override;
  const nvinfer1::AsciiChar* getPluginNamespace() const noexcept override;

 private:
  nvinfer1::PluginField fields_[2];
  nvinfer1::PluginFieldCollection collection_;
};

}  // namespace edgekit::tensorrt

#endif  // EDGEKIT_CODEBOOK_LOOKUP_CREATOR_H_
