#include "constants.h"

#include <algorithm>
#include <openvino/op/convert.hpp>
#include <stdexcept>

namespace edgekit {

bool is_float(const ov::element::Type& type) {
  return type == ov::element::f32 || type == ov::element::f16 || type == ov::element::bf16;
}

std::shared_ptr<ov::op::v0::Constant> constant_behind(const ov::Output<ov::Node>& input) {
  std::shared_ptr<ov::Node> node = input.get_node_shared_ptr();
  if (ov::is_type<ov::op::v0::Convert>(node)) node = node->get_input_node_shared_ptr(0);
  return ov::as_type_ptr<ov::op::v0::Constant>(node);
}

bool same_memory(const ov::op::v0::Constant& held, const ov::op::v0::Constant& other) {
  return held.get_data_ptr() == other.get_data_ptr() && held.get_shape() == other.get_shape() &&
         held.get_element_type() == other.get_element_type();
}

void check_matrix(const char* name, const ov::Tensor& tensor, size_t width) {
  const ov::Shape& shape = tensor.get_shape();
  if (shape.size() == 2 && shape[1] == width) return;
  std::string text = std::string(name) + " are [";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  throw std::runtime_error(text + "], expected rows of " + std::to_string(width));
}

const void* dense_floats(const ov::Tensor& tensor, ov::Tensor& copy) {
  const ov::Tensor* dense = &tensor;
  if (!tensor.is_continuous()) {
    copy = ov::Tensor(tensor.get_element_type(), tensor.get_shape());
    tensor.copy_to(copy);
    dense = &copy;
  }
  const ov::element::Type type = tensor.get_element_type();
  if (type == ov::element::f32) return dense->data();
  ov::Tensor floats(ov::element::f32, tensor.get_shape());
  auto* to = floats.data<float>();
  if (type == ov::element::f16) {
    std::copy_n(dense->data<const ov::float16>(), tensor.get_size(), to);
  } else if (type == ov::element::bf16) {
    std::copy_n(dense->data<const ov::bfloat16>(), tensor.get_size(), to);
  } else {
    throw std::runtime_error("expected f32, f16 or bf16, found " + type.get_type_name());
  }
  copy = floats;
  return copy.data();
}

int metric_code(const std::string& metric) {
  return metric == "l2" ? EDGEKIT_CODEBOOK_L2 : EDGEKIT_CODEBOOK_DOT;
}

std::shared_ptr<const PackedCodebook> pack_codebook(const ov::op::v0::Constant& constant,
                                                    int metric) {
  const ov::Shape& shape = constant.get_shape();
  if (constant.get_element_type() == ov::element::f32) {
    return PackedCodebook::share({constant.get_data_ptr(), shape[0], shape[1]}, metric);
  }
  const std::vector<float> floats = constant.cast_vector<float>();
  return PackedCodebook::share({floats.data(), shape[0], shape[1]}, metric);
}

}  // namespace edgekit
