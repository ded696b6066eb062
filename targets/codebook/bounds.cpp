#include "bounds.h"

#include <cmath>
#include <limits>

namespace edgekit {
namespace bounds {

namespace {

// The relative error that `count` roundings of one part in 1 / unit can add up to.
double accumulated(int64_t count, double unit) {
  const double roundings = static_cast<double>(count) * unit;
  return roundings / (1 - roundings);
}

}  // namespace

double norm_factor(int64_t d) { return 1 + chunked_product_error(d); }

double product_error(int64_t d) { return accumulated(d / 4 + 24, kUnit); }

double chunked_product_error(int64_t d) { return accumulated(d / 16 + 10, kUnit); }

double exact_error(int64_t d) { return accumulated(d / 16 + 10, 0x1p-53); }

}  // namespace bounds

void bound_int8(const VectorNorms& norms, int64_t d, VectorState* state) {
  using namespace bounds;
  const double factor = norm_factor(d);
  const double scaled = norms.scaled * factor + kTinyNorm;
  const double rotated = norms.rotated * factor + kTinyNorm;
  const double center = std::fabs(norms.alpha) * norms.mean;
  const double measured = norms.error * factor + kTinyNorm;
  const double missed = measured + kQuantize * (rotated + measured);
  const double codes = rotated + missed;  // upper bound of the norm of what the codes stand for
  const double error = missed + kRotation * (scaled + center);
  state->norm_error = float_above(
      kInflate * (error + kProduct * codes + kCenter * center + exact_error(d) * scaled));
  state->residual_error = float_above(kInflate * (codes + kProduct * codes));
  state->half_error = float_above(kInflate * kHalf * static_cast<double>(state->lambda));
  state->constant_error =
      float_above(kInflate * (exact_error(d) * scaled * norms.mean + kTinyScore));
}

void bound_fp32(double scaled_norm, int64_t d, VectorState* state) {
  using namespace bounds;
  const double scaled = scaled_norm * norm_factor(d) + kTinyNorm;
  state->norm_error = float_above(kInflate * scaled * (product_error(d) + exact_error(d)));
  state->residual_error = 0;
  state->half_error = float_above(kInflate * kHalf * static_cast<double>(state->lambda));
  state->constant_error = float_above(kInflate * kTinyScore);
}

double product_slack(const VectorNorms& norms, int64_t d) {
  const double scaled = norms.scaled * bounds::norm_factor(d) + bounds::kTinyNorm;
  return bounds::chunked_product_error(d) * scaled * norms.mean + bounds::kTinyScore;
}

float float_above(double value) {
  const float rounded = static_cast<float>(value);
  if (static_cast<double>(rounded) >= value) return rounded;
  return std::nextafter(rounded, std::numeric_limits<float>::infinity());
}

float float_below(double value) { return -float_above(-value); }

}  // namespace edgekit
