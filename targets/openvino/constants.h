// How operators read their inputs: constants and float tensors, in any form.
#ifndef EDGEKIT_OPENVINO_CONSTANTS_H_
#define EDGEKIT_OPENVINO_CONSTANTS_H_

#include <memory>
#include <openvino/core/node_output.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/runtime/tensor.hpp>
#include <string>

#include "packed_codebook.h"

namespace edgekit {

bool is_float(const ov::element::Type& type);

// The constant behind an input, even through the conversion that a compressed model adds.
std::shared_ptr<ov::op::v0::Constant> constant_behind(const ov::Output<ov::Node>& input);

// Whether two constants are views of the same memory. Comparing addresses is sound because `held`
// is alive, so nothing else can have taken its place.
bool same_memory(const ov::op::v0::Constant& held, const ov::op::v0::Constant& other);

// Refuses (std::runtime_error) a tensor that is not a matrix of that width. OpenVINO's CPU device
// respects the validated shapes, but ov::Model::evaluate passes on anything.
void check_matrix(const char* name, const ov::Tensor& tensor, size_t width);

// A tensor's numbers as contiguous floats: its own memory, or a copy in `copy`.
const void* dense_floats(const ov::Tensor& tensor, ov::Tensor& copy);

// A metric's name in edgekit_codebook.h's numbers.
int metric_code(const std::string& metric);

// The packed form of a constant codebook [N, D], shared with all who packed the same numbers.
std::shared_ptr<const PackedCodebook> pack_codebook(const ov::op::v0::Constant& constant,
                                                    int metric);

}  // namespace edgekit

#endif  // EDGEKIT_OPENVINO_CONSTANTS_H_
