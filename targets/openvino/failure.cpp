#include "failure.h"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace edgekit {

void fail(ov::TensorVector& outputs, const std::string& node, const std::runtime_error& error) {
  for (ov::Tensor& output : outputs) {
    if (!output) continue;
    if (output.get_element_type() == ov::element::f32) {
      std::fill_n(output.data<float>(), output.get_size(), std::numeric_limits<float>::quiet_NaN());
    } else if (output.get_element_type() == ov::element::i64) {
      std::fill_n(output.data<int64_t>(), output.get_size(), int64_t{-1});
    }
  }
  throw std::runtime_error(node + ": " + error.what());
}

}  // namespace edgekit
