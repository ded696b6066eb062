#include "codebook_lookup.h"

#include <stdexcept>
#include <vector>

#include "constants.h"
#include "failure.h"
#include "stream.h"

namespace edgekit {
CodebookLookup::CodebookLookup(const ov::Output<ov::Node>& features,
                               const ov::Output<ov::Node>& codebook, const std::string& metric,
                               bool margin)
    : Op({features, codebook}), metric_(metric), margin_(margin ? 1 : 0) {
  constructor_validate_and_infer_types();
}

void CodebookLookup::validate_and_infer_types() {
  NODE_VALIDATION_CHECK(this, get_input_size() == 2, "expected features and codebook, found ",
                        get_input_size(), " inputs");
  NODE_VALIDATION_CHECK(this, metric_ == "dot" || metric_ == "l2", "metric '", metric_,
                        "' is neither 'dot' nor 'l2'");
  NODE_VALIDATION_CHECK(this, margin_ == 0 || margin_ == 1, "margin must be 0 or 1, not ", margin_);
  NODE_VALIDATION_CHECK(this, plugin_version_ == "1", "the model needs version ", plugin_version_,
                        " of this operator, this extension is version 1: update edgekit");
  for (size_t i = 0; i < 2; ++i) {
    const ov::element::Type type = get_input_element_type(i);
    NODE_VALIDATION_CHECK(this, type.is_dynamic() || is_float(type), "input ", i,
                          " must be f32, f16 or bf16, not ", type);
    const ov::Rank rank = get_input_partial_shape(i).rank();
    NODE_VALIDATION_CHECK(this, rank.is_dynamic() || rank.get_length() == 2, "input ", i,
                          " must have two dimensions, found ", get_input_partial_shape(i));
  }
  const ov::PartialShape& features = get_input_partial_shape(0);
  const ov::PartialShape& codebook = get_input_partial_shape(1);
  if (features.rank().is_static() && codebook.rank().is_static()) {
    NODE_VALIDATION_CHECK(this, features[1].compatible(codebook[1]), "features are ", features[1],
                          " wide, the codebook's rows ", codebook[1]);
  }
  const ov::Dimension count = features.rank().is_static() ? features[0] : ov::Dimension::dynamic();
  set_output_size(margin_ == 1 ? 2 : 1);
  set_output_type(0, ov::element::i64, {count});
  if (margin_ == 1) set_output_type(1, ov::element::f32, {count});
  pack_constant();
}

// An operator is validated dozens of times while a model is compiled, and a copy of it again at
// every change of the input's shape: the codebook is packed only the first time.
void CodebookLookup::pack_constant() {
  const auto constant = constant_behind(input_value(1));
  if (!constant) {
    constant_.reset();
    packed_.reset();
    return;
  }
  // Otherwise saving a model rounds its codebook to f16, as ov::save_model does by default with
  // all weights, and the lookup would be exact for a codebook other than the trained one.
  input(1).get_rt_info()["precision_sensitive_0"] = true;
  if (constant_ && same_memory(*constant_, *constant)) return;
  NODE_VALIDATION_CHECK(this, ov::shape_size(constant->get_shape()) > 0,
                        "the codebook is empty: ", constant->get_shape());
  try {
    packed_ = pack_codebook(*constant, metric_code(metric_));
  } catch (const std::runtime_error& error) {
    NODE_VALIDATION_CHECK(this, false, error.what());
  }
  constant_ = constant;
}

bool CodebookLookup::visit_attributes(ov::AttributeVisitor& visitor) {
  visitor.on_attribute("plugin_namespace", plugin_namespace_);
  visitor.on_attribute("plugin_version", plugin_version_);
  visitor.on_attribute("metric", metric_);
  visitor.on_attribute("margin", margin_);
  return true;
}

std::shared_ptr<ov::Node> CodebookLookup::clone_with_new_inputs(
    const ov::OutputVector& inputs) const {
  auto clone = std::make_shared<CodebookLookup>();
  clone->plugin_namespace_ = plugin_namespace_;
  clone->plugin_version_ = plugin_version_;
  clone->metric_ = metric_;
  clone->margin_ = margin_;
  clone->constant_ = constant_;
  clone->packed_ = packed_;
  clone->set_arguments(inputs);
  clone->constructor_validate_and_infer_types();
  return clone;
}

bool CodebookLookup::has_evaluate() const { return true; }

bool CodebookLookup::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
  try {
    const ov::Shape codebook_shape = inputs[1].get_shape();
    check_matrix("the codebook's rows", inputs[1],
                 packed_                  ? packed_->width()
                 : codebook_shape.empty() ? 0
                                          : codebook_shape.back());
    check_matrix("features", inputs[0], codebook_shape[1]);
    const size_t count = inputs[0].get_shape()[0];
    for (ov::Tensor& output : outputs) output.set_shape({count});
    if (count == 0) return true;

    std::shared_ptr<const PackedCodebook> packed = packed_;
    if (!packed) {
      ov::Tensor copy;
      const CodebookView codebook{dense_floats(inputs[1], copy), codebook_shape[0],
                                  codebook_shape[1]};
      packed = std::make_shared<const PackedCodebook>(codebook, metric_code(metric_));
    }
    ov::Tensor features_copy;
    const void* features = dense_floats(inputs[0], features_copy);
    float* margins = margin_ == 1 ? outputs[1].data<float>() : nullptr;
    packed->lookup(features, count, outputs[0].data<int64_t>(), margins, stream_threads(),
                   stream_crew);
  } catch (const std::runtime_error& error) {
    fail(outputs, "edgekit::CodebookLookup '" + get_friendly_name() + "'", error);
  }
  return true;
}

}  // namespace edgekit
