#include "exact_score.h"

#include <cstring>

namespace edgekit {
namespace {

// Adds the sixteen products of one step. The products are exact (24 + 24 bits fit in 53, and the
// exponents fit as well), so it makes no difference whether the compiler fuses the multiply-add.
inline void add_products(double* lanes, const float* x, const float* e) {
  for (int j = 0; j < kLanes; ++j) {
    lanes[j] += static_cast<double>(x[j]) * static_cast<double>(e[j]);
  }
}

}  // namespace

double exact_dot(const float* x, const float* e, int64_t d) {
  double lanes[kLanes] = {};
  float xs[kLanes];
  float es[kLanes];
  int64_t k = 0;
  for (; k + kLanes <= d; k += kLanes) {
    std::memcpy(xs, x + k, sizeof xs);
    std::memcpy(es, e + k, sizeof es);
    add_products(lanes, xs, es);
  }
  if (k < d) {
    std::memset(xs, 0, sizeof xs);
    std::memset(es, 0, sizeof es);
    std::memcpy(xs, x + k, static_cast<size_t>(d - k) * sizeof(float));
    std::memcpy(es, e + k, static_cast<size_t>(d - k) * sizeof(float));
    add_products(lanes, xs, es);
  }
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  }
  return lanes[0];
}

}  // namespace edgekit
