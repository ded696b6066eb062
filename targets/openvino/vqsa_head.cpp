#include "vqsa_head.h"

#include <cstring>
#include <stdexcept>

#include "constants.h"
#include "failure.h"
#include "stream.h"

namespace edgekit {
namespace {

enum Input : size_t {
  kFeatures,
  kCodebook,
  kNorm,
  kTable,
  kTableSteps,
  kProjection,
  kProjectionSteps,
  kClassifier,
  kClassifierSteps,
  kClassifierBias,
  kInputs,
};

bool holds_bytes(size_t input) {
  return input == kTable || input == kProjection || input == kClassifier;
}

std::vector<float> floats_of(const ov::op::v0::Constant& constant) {
  return constant.cast_vector<float>();
}

const int8_t* bytes_of(const ov::op::v0::Constant& constant) {
  return static_cast<const int8_t*>(constant.get_data_ptr());
}

}  // namespace

void VQSAHead::check_inputs() const {
  NODE_VALIDATION_CHECK(this, get_input_size() == kInputs, "expected ", kInputs, " inputs, found ",
                        get_input_size());
  NODE_VALIDATION_CHECK(this, version_ == "1", "the model needs version ", version_,
                        " of this operator, this extension is version 1: update edgekit");
  NODE_VALIDATION_CHECK(this, metric_ == "dot" || metric_ == "l2", "metric '", metric_,
                        "' is neither 'dot' nor 'l2'");
  NODE_VALIDATION_CHECK(this, rest_step_ > 0 && fused_step_ > 0, "steps must be positive");
  for (const int64_t zero : {rest_zero_, fused_zero_}) {
    NODE_VALIDATION_CHECK(this, zero >= -128 && zero <= 255, "zero ", zero, " is no 8-bit number");
  }
  const ov::element::Type features = get_input_element_type(kFeatures);
  NODE_VALIDATION_CHECK(this, features.is_dynamic() || is_float(features),
                        "features must be f32, f16 or bf16, not ", features);
  for (size_t i = kCodebook; i < kInputs; ++i) {
    NODE_VALIDATION_CHECK(this, constant_behind(input_value(i)), "input ", i, " must be constant");
    const ov::element::Type type = get_input_element_type(i);
    NODE_VALIDATION_CHECK(this, holds_bytes(i) ? type == ov::element::i8 : is_float(type), "input ",
                          i, " cannot be ", type);
    // Bytes are read as stored, before any conversion: with four bits there would be half as many.
    const ov::element::Type stored = constant_behind(input_value(i))->get_element_type();
    NODE_VALIDATION_CHECK(this, !holds_bytes(i) || stored == ov::element::i8, "input ", i,
                          " cannot be stored as ", stored);
    NODE_VALIDATION_CHECK(this, get_input_partial_shape(i).is_static(), "input ", i,
                          " must have a fixed shape");
  }
  const ov::Shape codebook = get_input_shape(kCodebook);
  NODE_VALIDATION_CHECK(this, codebook.size() == 2 && ov::shape_size(codebook) > 0,
                        "the codebook cannot be ", codebook);
  const size_t rows = codebook[0];
  const size_t width = codebook[1];
  const size_t classes = ov::shape_size(get_input_shape(kClassifierBias));
  NODE_VALIDATION_CHECK(this, classes > 0, "there are no classes");
  const ov::PartialShape expected[kInputs] = {
      {-1, static_cast<int64_t>(width)},
      codebook,
      ov::Shape{rows, 1},
      ov::Shape{rows, 4 * width},
      ov::Shape{rows, 2},
      ov::Shape{3 * width, width},
      ov::Shape{3 * width},
      ov::Shape{classes, width},
      ov::Shape{classes},
      ov::Shape{classes},
  };
  for (size_t i = 0; i < kInputs; ++i) {
    NODE_VALIDATION_CHECK(this, get_input_partial_shape(i).compatible(expected[i]), "input ", i,
                          " is ", get_input_partial_shape(i), ", expected ", expected[i]);
  }
}

void VQSAHead::validate_and_infer_types() {
  check_inputs();
  const ov::PartialShape& features = get_input_partial_shape(kFeatures);
  const ov::Dimension count = features.rank().is_static() ? features[0] : ov::Dimension::dynamic();
  set_output_size(margin_ == 1 ? 3 : 2);
  set_output_type(0, ov::element::f32,
                  {count, static_cast<int64_t>(ov::shape_size(get_input_shape(kClassifierBias)))});
  set_output_type(1, ov::element::i64, {count});
  if (margin_ == 1) set_output_type(2, ov::element::f32, {count});
  pack_constants();
}

// Like CodebookLookup: a model is validated many times while it is compiled.
void VQSAHead::pack_constants() {
  std::vector<std::shared_ptr<const ov::op::v0::Constant>> current;
  for (size_t i = kCodebook; i < kInputs; ++i) {
    current.push_back(constant_behind(input_value(i)));
    input(i).get_rt_info()["precision_sensitive_0"] = true;  // never stored in f16
  }
  bool same = constants_.size() == current.size();
  for (size_t i = 0; same && i < current.size(); ++i)
    same = same_memory(*constants_[i], *current[i]);
  if (same) return;
  const auto constant = [&](Input input) -> const ov::op::v0::Constant& {
    return *current[input - kCodebook];
  };
  const ov::Shape& shape = constant(kCodebook).get_shape();
  const size_t width = shape[1];
  try {
    packed_ = pack_codebook(constant(kCodebook), metric_code(metric_));
    CodeTables tables{std::vector<int16_t>(2 * shape[0] * width), floats_of(constant(kTableSteps))};
    std::memcpy(tables.rows.data(), bytes_of(constant(kTable)), 4 * shape[0] * width);
    head_ = std::make_shared<const FoldedHead>(
        width, floats_of(constant(kNorm)), std::move(tables),
        QuantizedLayer(bytes_of(constant(kProjection)), floats_of(constant(kProjectionSteps)),
                       width),
        Quantization{rest_step_, static_cast<int>(rest_zero_), rest_signed_ == 1},
        QuantizedLayer(bytes_of(constant(kClassifier)), floats_of(constant(kClassifierSteps)),
                       width),
        floats_of(constant(kClassifierBias)),
        Quantization{fused_step_, static_cast<int>(fused_zero_), fused_signed_ == 1},
        residual_ == 1);
  } catch (const std::runtime_error& error) {
    NODE_VALIDATION_CHECK(this, false, error.what());
  }
  constants_ = std::move(current);
}

bool VQSAHead::visit_attributes(ov::AttributeVisitor& visitor) {
  visitor.on_attribute("plugin_version", version_);
  visitor.on_attribute("metric", metric_);
  visitor.on_attribute("margin", margin_);
  visitor.on_attribute("residual", residual_);
  visitor.on_attribute("rest_step", rest_step_);
  visitor.on_attribute("rest_zero", rest_zero_);
  visitor.on_attribute("rest_signed", rest_signed_);
  visitor.on_attribute("fused_step", fused_step_);
  visitor.on_attribute("fused_zero", fused_zero_);
  visitor.on_attribute("fused_signed", fused_signed_);
  return true;
}

std::shared_ptr<ov::Node> VQSAHead::clone_with_new_inputs(const ov::OutputVector& inputs) const {
  auto clone = std::make_shared<VQSAHead>();
  clone->version_ = version_;
  clone->metric_ = metric_;
  clone->margin_ = margin_;
  clone->residual_ = residual_;
  clone->rest_step_ = rest_step_;
  clone->rest_zero_ = rest_zero_;
  clone->rest_signed_ = rest_signed_;
  clone->fused_step_ = fused_step_;
  clone->fused_zero_ = fused_zero_;
  clone->fused_signed_ = fused_signed_;
  clone->constants_ = constants_;
  clone->packed_ = packed_;
  clone->head_ = head_;
  clone->set_arguments(inputs);
  clone->constructor_validate_and_infer_types();
  return clone;
}

bool VQSAHead::has_evaluate() const { return true; }

bool VQSAHead::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
  try {
    // The input may differ from what was validated: see check_matrix.
    check_matrix("features", inputs[kFeatures], packed_->width());
    if (inputs[kCodebook].get_shape() != constants_[0]->get_shape()) {
      throw std::runtime_error("the codebook is not the one that was packed");
    }
    const size_t count = inputs[kFeatures].get_shape()[0];
    const auto& bias = *constants_[kClassifierBias - kCodebook];
    outputs[0].set_shape({count, ov::shape_size(bias.get_shape())});
    for (size_t i = 1; i < outputs.size(); ++i) outputs[i].set_shape({count});
    if (count == 0) return true;
    ov::Tensor features_copy;
    ov::Tensor codebook_copy;
    const void* features = dense_floats(inputs[kFeatures], features_copy);
    const void* codebook = dense_floats(inputs[kCodebook], codebook_copy);
    auto* codes = outputs[1].data<int64_t>();
    float* margins = margin_ == 1 ? outputs[2].data<float>() : nullptr;
    const int threads = stream_threads();
    packed_->lookup(features, count, codes, margins, threads, stream_crew);
    head_->run(static_cast<const float*>(features), codes, codebook, count, threads,
               {.run = stream_crew}, outputs[0].data<float>());
  } catch (const std::runtime_error& error) {
    fail(outputs, "edgekit::VQSAHead '" + get_friendly_name() + "'", error);
  }
  return true;
}

}  // namespace edgekit
