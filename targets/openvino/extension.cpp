// Registers the operators with OpenVINO, for models in ONNX and in OpenVINO's own format.
#include <openvino/core/core.hpp>
#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/core/version.hpp>
#include <openvino/frontend/onnx/extension/op.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "codebook_lookup.h"
#include "vqsa_head.h"

#define EDGEKIT_TEXT_(number) #number
#define EDGEKIT_TEXT(number) EDGEKIT_TEXT_(number)
#define EDGEKIT_OPENVINO_RELEASE       \
  EDGEKIT_TEXT(OPENVINO_VERSION_MAJOR) \
  "." EDGEKIT_TEXT(OPENVINO_VERSION_MINOR) "." EDGEKIT_TEXT(OPENVINO_VERSION_PATCH)

// Found by searching the file for its first word: this tells which OpenVINO the file needs without
// loading it, which fails with any other OpenVINO.
extern "C" OPENVINO_CORE_EXPORTS const char edgekit_openvino_version[] =
    "EDGEKIT_EXTENSION_FOR_OPENVINO=" EDGEKIT_OPENVINO_RELEASE ";";

// Likewise, the operators that models may use from this file.
extern "C" OPENVINO_CORE_EXPORTS const char edgekit_openvino_operators[] =
    "EDGEKIT_EXTENSION_OPERATORS=CodebookLookup,VQSAHead;";

namespace {

std::vector<ov::Extension::Ptr> extensions() {
  const std::string running = ov::get_openvino_version().buildNumber;
  const std::string release = EDGEKIT_OPENVINO_RELEASE;
  // A build number is the release, a dash, and more.
  if (running.substr(0, running.find('-')) != release) {
    throw std::runtime_error("edgekit's extension was built for OpenVINO " + release +
                             ", this is " + running + ": pip install openvino==" + release);
  }
  using edgekit::CodebookLookup;
  using edgekit::VQSAHead;
  return {
      std::make_shared<ov::OpExtension<CodebookLookup>>(),
      std::make_shared<ov::frontend::onnx::OpExtension<CodebookLookup>>("CodebookLookup",
                                                                        "edgekit"),
      std::make_shared<ov::OpExtension<VQSAHead>>(),
      std::make_shared<ov::frontend::onnx::OpExtension<VQSAHead>>("VQSAHead", "edgekit"),
  };
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(extensions())
