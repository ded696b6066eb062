// What TensorRT looks for in a plugin library: the one place that names its creators.
#include <cstdint>

#include "codebook_lookup_creator.h"
#include "codebook_lookup_plugin.h"

#define EDGEKIT_EXPORT extern "C" __attribute__((visibility("default")))

EDGEKIT_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
EDGEKIT_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);
EDGEKIT_EXPORT const char* edgekit_tensorrt_built_with();

void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  edgekit::tensorrt::set_logger_finder(finder);
}

nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static edgekit::tensorrt::CodebookLookupCreator lookup;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&lookup};
  count = 1;
  return creators;
}

#define EDGEKIT_TEXT(value) #value
#define EDGEKIT_VALUE(macro) EDGEKIT_TEXT(macro)

// The release whose headers this library was compiled with.
const char* edgekit_tensorrt_built_with() {
  return EDGEKIT_VALUE(NV_TENSORRT_MAJOR) "." EDGEKIT_VALUE(NV_TENSORRT_MINOR) "." EDGEKIT_VALUE(
      NV_TENSORRT_PATCH);
}
