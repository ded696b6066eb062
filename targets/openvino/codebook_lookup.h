// The operator edgekit::CodebookLookup for OpenVINO.
#ifndef EDGEKIT_OPENVINO_CODEBOOK_LOOKUP_H_
#define EDGEKIT_OPENVINO_CODEBOOK_LOOKUP_H_

#include <cstdint>
#include <memory>
#include <openvino/op/constant.hpp>
#include <openvino/op/op.hpp>
#include <string>

#include "packed_codebook.h"

namespace edgekit {

// (features [M, D], codebook [N, D]) -> indices [M] i64 and, with margin = 1, margins [M] f32: the
// row of the codebook with the best score, exactly (edgekit_codebook.h has the definition).
//
// A constant codebook is packed when the operator is validated, before the model is compiled, and
// shared with every other operator in this process that has the same numbers.
class CodebookLookup : public ov::op::Op {
 public:
  OPENVINO_OP("CodebookLookup", "edgekit");

  CodebookLookup() = default;
  CodebookLookup(const ov::Output<ov::Node>& features, const ov::Output<ov::Node>& codebook,
                 const std::string& metric, bool margin);

  void validate_and_infer_types() override;
  bool visit_attributes(ov::AttributeVisitor& visitor) override;
  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
  bool has_evaluate() const override;
  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

 private:
  void pack_constant();

  // TensorRT finds its plugin by these; here they are only passed on.
  std::string plugin_namespace_ = "edgekit";
  std::string plugin_version_ = "1";
  std::string metric_ = "dot";
  int64_t margin_ = 0;

  // The constant codebook and its packed form; both null where the codebook is not constant.
  std::shared_ptr<const ov::op::v0::Constant> constant_;
  std::shared_ptr<const PackedCodebook> packed_;
};

}  // namespace edgekit

#endif  // EDGEKIT_OPENVINO_CODEBOOK_LOOKUP_H_
