// The operator edgekit::VQSAHead for OpenVINO: a whole INT8 head, lookup included.
#ifndef EDGEKIT_OPENVINO_VQSA_HEAD_H_
#define EDGEKIT_OPENVINO_VQSA_HEAD_H_

#include <cstdint>
#include <memory>
#include <openvino/op/constant.hpp>
#include <openvino/op/op.hpp>
#include <string>
#include <vector>

#include "folded_head.h"
#include "packed_codebook.h"

namespace edgekit {

// The node that replaces a calibrated, folded head (edgekit/graph/fused_head.py).
//
//   features           [B, D]      float
//   codebook           [N, D]      float, as for CodebookLookup
//   norm               [N, 1]      float: gives codewords their length
//   table              [N, 4D]     i8: key and base of each codeword, as 16-bit integers,
//                                  little-endian (OpenVINO's CPU device widens every i16 to i32)
//   table_steps        [N, 2]      float
//   projection         [3D, D]     i8: U, P1, P2
//   projection_steps   [3D]        float
//   classifier         [C, D]      i8
//   classifier_steps   [C]         float
//   classifier_bias    [C]         float
//
// -> logits [B, C] f32, code [B] i64 and, with margin = 1, margin [B] f32. All but the features
// must be constant; they are packed once, when the operator is validated.
class VQSAHead : public ov::op::Op {
 public:
  OPENVINO_OP("VQSAHead", "edgekit");

  VQSAHead() = default;

  void validate_and_infer_types() override;
  bool visit_attributes(ov::AttributeVisitor& visitor) override;
  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
  bool has_evaluate() const override;
  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

 private:
  void check_inputs() const;
  void pack_constants();

  std::string version_ = "1";
  std::string metric_ = "dot";
  int64_t margin_ = 0;
  int64_t residual_ = 0;
  float rest_step_ = 1;
  int64_t rest_zero_ = 0;
  int64_t rest_signed_ = 1;
  float fused_step_ = 1;
  int64_t fused_zero_ = 0;
  int64_t fused_signed_ = 0;

  std::vector<std::shared_ptr<const ov::op::v0::Constant>> constants_;
  std::shared_ptr<const PackedCodebook> packed_;
  std::shared_ptr<const FoldedHead> head_;
};

}  // namespace edgekit

#endif  // EDGEKIT_OPENVINO_VQSA_HEAD_H_
