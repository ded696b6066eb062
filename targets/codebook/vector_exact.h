// The exact score: sixteen lanes of double, in two vectors.
#ifndef EDGEKIT_VECTOR_EXACT_H_
#define EDGEKIT_VECTOR_EXACT_H_

#include "vector_types.h"

namespace edgekit {
namespace {

inline D8 widen(const float* p) { return __builtin_convertvector(load<F8>(p), D8); }

// Joins the lanes in the order that edgekit_codebook.h fixes.
inline double join_lanes(const D8& low, const D8& high) {
  double lanes[8];
  store(lanes, low + high);
  for (int width = 4; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  }
  return lanes[0];
}

template <int kRows>
inline void exact_dots(const float* x, const float* const* e, int64_t d, double* out) {
  D8 low[kRows];
  D8 high[kRows];
  unroll<kRows>([&](auto r) EDGEKIT_INLINE { low[r] = high[r] = D8{}; });
  int64_t k = 0;
  for (; k + 16 <= d; k += 16) {
    const D8 x_low = widen(x + k);
    const D8 x_high = widen(x + k + 8);
    unroll<kRows>([&](auto r) EDGEKIT_INLINE {
      low[r] += x_low * widen(e[r] + k);
      high[r] += x_high * widen(e[r] + k + 8);
    });
  }
  if (k < d) {
    float tail[16];
    store(tail, load_part<F16>(x + k, d - k));
    const D8 x_low = widen(tail);
    const D8 x_high = widen(tail + 8);
    unroll<kRows>([&](auto r) EDGEKIT_INLINE {
      store(tail, load_part<F16>(e[r] + k, d - k));
      low[r] += x_low * widen(tail);
      high[r] += x_high * widen(tail + 8);
    });
  }
  unroll<kRows>([&](auto r) EDGEKIT_INLINE { out[r] = join_lanes(low[r], high[r]); });
}

double exact_dot(const float* x, const float* e, int64_t d) {
  double out;
  exact_dots<1>(x, &e, d, &out);
  return out;
}

void exact_dot4(const float* x, const float* const* e, int64_t d, double* out) {
  exact_dots<4>(x, e, d, out);
}

}  // namespace
}  // namespace edgekit

#endif  // EDGEKIT_VECTOR_EXACT_H_
