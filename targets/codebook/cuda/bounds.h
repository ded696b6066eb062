// How far a score from half-precision codes can be from the score in double: docs/exact-lookup.md,
// "On a GPU", derives every constant here.
#ifndef EDGEKIT_CUDA_BOUNDS_H_
#define EDGEKIT_CUDA_BOUNDS_H_

#include "values.h"

namespace edgekit::cuda {

namespace bounds {

constexpr double kUnit = 0x1p-24;               // rounding error of one operation in float
constexpr double kTensor = 0x1p-18;             // of 16 columns' products and their addition
constexpr double kProduct = 24 * kUnit;         // from those sums to a score
constexpr float kHalf = 0x1p-21f;               // the part that comes from half the squared norm
constexpr float kInflate = 1 + 0x1p-18f;        // evaluating the bounds themselves in float
constexpr float kTinyNorm = 0x1p-60f;           // underflow in a norm
constexpr float kTinyScore = 0x1p-70f;          // underflow in a score
constexpr double kDoubleInflate = 1 + 0x1p-30;  // norms that were computed in double
constexpr double kDoubleError = 0x1p-40;

}  // namespace bounds

constexpr int kVectorShift = 13;  // a vector's codes are its scaled values times 2^13
constexpr int kRowShift = 14;     // a row's greatest code is below 2^14

// What the width alone decides, rounded up.
struct WidthBounds {
  float product;  // sums of products, per unit of the norms' product
  float exact;    // the definition's own rounding, likewise
  float growth;   // a norm summed in float by a warp, times this, is at least the true one
};

// For sums of d products that are joined from shares of at most `steps` instructions of 16 columns.
inline WidthBounds make_bounds(int64_t d, int64_t steps) {
  using namespace bounds;
  const auto columns = static_cast<double>(d);
  const double product = static_cast<double>(steps) * kTensor + kProduct;
  const double roundings = (columns / 16 + 10) * 0x1p-53;
  WidthBounds width;
  width.product = static_cast<float>(product * (1 + 0x1p-20));
  width.exact = static_cast<float>(roundings / (1 - roundings) * (1 + 0x1p-20));
  width.growth = static_cast<float>(1 + (columns / 32 + 24) * kUnit * 1.05 + 0x1p-20);
  return width;
}

// At least `value`, which is not negative.
EDGEKIT_DEVICE float float_above(double value) { return static_cast<float>(value * (1 + 0x1p-22)); }

// What the scores need to know of a row of the packed codebook.
struct alignas(16) RowFacts {
  float scale;     // of its codes and the vectors' codes together: a power of two
  float norm;      // at least the norm of the row less the center
  float residual;  // at least the norm of what its codes miss
  float half;      // about half the row's squared norm
};

enum VectorKind : int32_t {
  kOrdinary = 0,
  kZero = 1,       // every score is zero: nothing to compute
  kNonfinite = 2,  // there is no answer
};

// The same of a vector.
struct VectorFacts {
  float norm_error;
  float residual_error;
  float half_error;
  float constant_error;
  float lambda;  // weight of half a row's squared norm; 0 for dot products
  int32_t kind;
};

// From the squared norms of a scaled vector and of what its codes miss, as summed in float.
EDGEKIT_DEVICE VectorFacts bound_vector(float square, float missed_square, float lambda,
                                        float center_norm, const WidthBounds& width) {
  using namespace bounds;
  const float norm = sqrtf(square) * width.growth + kTinyNorm;
  const float missed = sqrtf(missed_square) * width.growth + kTinyNorm;
  const float codes = (norm + missed) * kInflate;
  VectorFacts facts;
  facts.norm_error = kInflate * (missed + width.product * codes + width.exact * norm);
  facts.residual_error = kInflate * (codes + width.product * codes);
  facts.half_error = kInflate * kHalf * lambda;
  facts.constant_error = kInflate * (width.exact * norm * center_norm + kTinyScore);
  facts.lambda = lambda;
  facts.kind = kOrdinary;
  return facts;
}

struct Interval {
  float lower;
  float upper;
};

// Where the scaled score in double lies, less what is the same for all rows.
EDGEKIT_DEVICE Interval score_interval(float sum, const RowFacts& row, const VectorFacts& vector) {
  const float score = sum * row.scale - vector.lambda * row.half;
  const float error =
      bounds::kInflate * (vector.norm_error * row.norm + vector.residual_error * row.residual +
                          vector.half_error * row.half + vector.constant_error);
  return {score - error, score + error};
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_BOUNDS_H_
