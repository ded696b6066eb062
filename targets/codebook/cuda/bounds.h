// How far a score computed in float can be from the score in double.
//
// A sum of products x_k e_k in which no product takes part in more than h roundings, in whatever
// order and with or without fused multiply-adds, differs from the real sum by at most
//
//   h u / (1 - h u) * sum |x_k e_k|  <=  h u / (1 - h u) * |x| |e|,     u = 2^-24
//
// (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; Cauchy-Schwarz), plus
// 2^-150 for every operation that may underflow. The double score's own error, d 2^-53 |x| |e|, is
// below u |x| |e| for every d <= 2^24. |x| and |e| are themselves rounded up.
#ifndef EDGEKIT_CUDA_BOUNDS_H_
#define EDGEKIT_CUDA_BOUNDS_H_

#include "portable.h"

namespace edgekit::cuda {

struct Bounds {
  float relative;  // times |x| |e|
  float absolute;  // the underflows
  float growth;    // what a computed square of a norm may lack, relative to itself
  bool l2;
};

// For sums of d products with at most `depth` roundings on the way of each.
inline Bounds make_bounds(int64_t d, int64_t depth, bool l2) {
  constexpr double kUnit = 1.0 / (1 << 24);
  // 1.05 covers 1 / (1 - h u): h u < 2^-4.9 for d <= 2^24. Ten more roundings cover the product
  // x_k e_k itself where it is not fused, the subtraction of half the square, the two ends of the
  // interval, the double score's error and the rounding of this bound's own few operations.
  const double relative = 1.05 * static_cast<double>(depth + 10) * kUnit;
  Bounds bounds;
  bounds.relative = static_cast<float>(relative * 1.000001);
  bounds.absolute = static_cast<float>(std::ldexp(static_cast<double>(d + 4), -149));
  bounds.growth = static_cast<float>(relative * 2);
  bounds.l2 = l2;
  return bounds;
}

// At least the norm whose square was computed as `square`; NaN and infinity stay what they are.
EDGEKIT_DEVICE float norm_at_most(float square, const Bounds& bounds) {
  return sqrtf(square * (1.0f + bounds.growth) + bounds.absolute) * 1.000001f;
}

struct Interval {
  float lower;
  float upper;
  bool usable;  // false when a sum may have overflowed, or a value was not finite
};

// Where the score in double lies: `dot` is the sum in float, x_norm and e_square as computed.
EDGEKIT_DEVICE Interval score_interval(float dot, float x_norm, float e_square,
                                       const Bounds& bounds) {
  const float e_norm = norm_at_most(e_square, bounds);
  const float score = bounds.l2 ? dot - e_square / 2 : dot;
  const float size = bounds.l2 ? x_norm * e_norm + e_norm * e_norm : x_norm * e_norm;
  const float error = bounds.relative * size + bounds.absolute;
  // Squares are tested too: |e|^2 may be infinite while |x| |e| is not.
  const bool usable = size < 0x1p126f && e_norm < 0x1p63f && x_norm < 0x1p63f;
  return {score - error, score + error, usable};
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_BOUNDS_H_
