// One lookup through OpenVINO's CPU device, for `edgekit doctor`: importing OpenVINO's Python
// package would take too long.
#include <cstdio>
#include <exception>
#include <memory>
#include <openvino/op/constant.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/op/result.hpp>
#include <openvino/openvino.hpp>
#include <string>
#include <vector>

#include "codebook_lookup.h"

namespace {

std::string run() {
  using ov::op::v0::Constant;
  using ov::op::v0::Parameter;
  using ov::op::v0::Result;
  const auto features = std::make_shared<Parameter>(ov::element::f32, ov::PartialShape{-1, 3});
  const auto codebook =
      Constant::create(ov::element::f32, {3, 3}, std::vector<float>{1, 0, 0, 0, 1, 0, 0, 0, 1});
  const auto lookup = std::make_shared<edgekit::CodebookLookup>(features, codebook, "dot", true);
  const ov::ResultVector results{std::make_shared<Result>(lookup->output(0)),
                                 std::make_shared<Result>(lookup->output(1))};
  const auto model = std::make_shared<ov::Model>(results, ov::ParameterVector{features});

  ov::Core core;
  auto request = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32),
                                    ov::num_streams(1), ov::inference_num_threads(1))
                     .create_infer_request();
  ov::Tensor vectors(ov::element::f32, {2, 3});
  const std::vector<float> values{0.125F, 0.25F, 0.875F, 0.75F, 0.375F, 0.125F};
  std::copy(values.begin(), values.end(), vectors.data<float>());
  request.set_input_tensor(vectors);
  request.infer();
  const auto* indices = request.get_output_tensor(0).data<int64_t>();
  const auto* margins = request.get_output_tensor(1).data<float>();
  if (indices[0] != 2 || indices[1] != 0 || margins[0] != 0.625F || margins[1] != 0.375F) {
    return "a lookup gave rows " + std::to_string(indices[0]) + " and " +
           std::to_string(indices[1]) + " instead of 2 and 0";
  }
  return "";
}

}  // namespace

// Returns whether all is well; otherwise writes the fault to `buffer`, truncated to `size` bytes.
extern "C" OPENVINO_CORE_EXPORTS int edgekit_openvino_selftest(char* buffer, size_t size) {
  std::string wrong;
  try {
    wrong = run();
  } catch (const std::exception& error) {
    wrong = error.what();
  }
  std::snprintf(buffer, size, "%s", wrong.c_str());
  return wrong.empty() ? 1 : 0;
}
