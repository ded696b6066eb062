// The error bounds of approximate scores. docs/exact-lookup.md derives every constant here.
#ifndef EDGEKIT_BOUNDS_H_
#define EDGEKIT_BOUNDS_H_

#include <cstdint>

#include "kernels.h"

namespace edgekit {

// Greatest width of the int8 path: keeps integer sums below 2^31 and the constants below valid.
constexpr int64_t kMaxInt8Width = 32768;

namespace bounds {

constexpr double kUnit = 0x1p-24;         // rounding error of one operation in float
constexpr double kRotation = 32 * kUnit;  // centering and rotating a vector
constexpr double kQuantize = 5 * kUnit;   // computing what the codes miss
constexpr double kProduct = 24 * kUnit;   // from integer products to a score
constexpr double kCenter = 8 * kUnit;     // the part that comes from the mean row
constexpr double kHalf = 8 * kUnit;       // the part that comes from half the squared norm
constexpr double kInflate = 1 + 0x1p-20;  // evaluating the bound itself in float
constexpr double kTinyNorm = 0x1p-60;     // underflow in a norm
constexpr double kTinyScore = 0x1p-70;    // underflow in a score

// A norm of d floats, computed in float, times this is an upper bound of the true norm.
double norm_factor(int64_t d);

// How much a product of two vectors of d floats can be off, in units of the product of their norms:
// summed in float in at least four lanes, in float in sixteen lanes, and as the exact score is.
double product_error(int64_t d);
double chunked_product_error(int64_t d);
double exact_error(int64_t d);

}  // namespace bounds

// What is known about a feature vector after it was scaled, rotated and quantized.
struct VectorNorms {
  double scaled;   // norm of the scaled vector, computed in float
  double rotated;  // norm of the rotated vector, computed in float
  double error;    // norm of what the codes miss, computed in float
  double alpha;    // multiple of the mean row that was subtracted
  double mean;     // upper bound of the mean row's norm
};

// Fills in the state's error weights for scores from int8 products.
void bound_int8(const VectorNorms& norms, int64_t d, VectorState* state);

// The same for scores from float products; `scaled_norm` was computed in float.
void bound_fp32(double scaled_norm, int64_t d, VectorState* state);

// How much the product of the scaled vector with the mean row, computed in float, can be off.
double product_slack(const VectorNorms& norms, int64_t d);

// The nearest float at or above, and at or below.
float float_above(double value);
float float_below(double value);

}  // namespace edgekit

#endif  // EDGEKIT_BOUNDS_H_
