// The exact score: sixteen lanes of double.
#ifndef EDGEKIT_VECTOR_EXACT_H_
#define EDGEKIT_VECTOR_EXACT_H_

#include "vector_types.h"

namespace edgekit {
namespace {

constexpr int kDoubles = kLaneWidth / 2;  // in a register

typedef double Doubles __attribute__((vector_size(kDoubles * sizeof(double))));
typedef float Halves __attribute__((vector_size(kDoubles * sizeof(float))));

constexpr int kLaneVectors = 16 / kDoubles;  // that hold the sixteen lanes

inline Doubles widen(const float* p) { return __builtin_convertvector(load<Halves>(p), Doubles); }

// Adds up the lanes in the order that edgekit_codebook.h fixes.
inline double join_lanes(const Doubles* v) {
  double lanes[16];
  __builtin_memcpy(lanes, v, sizeof lanes);
  for (int width = 8; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  }
  return lanes[0];
}

// One step of sixteen columns, for kRows rows. A fused multiply-add is the same as its two parts
// here, because a product of two floats is exact in double.
template <int kRows>
EDGEKIT_INLINE inline void add_products(const float* x, const float* const* e, int64_t k,
                                        Doubles* lanes) {
  unroll<kLaneVectors>([&](auto i) EDGEKIT_INLINE {
    const Doubles value = widen(x + i * kDoubles);
    unroll<kRows>([&](auto r) EDGEKIT_INLINE {
      lanes[r * kLaneVectors + i] += value * widen(e[r] + k + i * kDoubles);
    });
  });
}

template <int kRows>
inline void exact_dots(const float* x, const float* const* e, int64_t d, double* out) {
  Doubles lanes[kRows * kLaneVectors];
  unroll<kRows * kLaneVectors>([&](auto i) EDGEKIT_INLINE { lanes[i] = Doubles{}; });
  int64_t k = 0;
  for (; k + 16 <= d; k += 16) add_products<kRows>(x + k, e, k, lanes);
  if (k < d) {
    float tails[kRows + 1][16];
    const float* rows[kRows];
    store(tails[kRows], load_part<F16>(x + k, d - k));
    for (int r = 0; r < kRows; ++r) {
      store(tails[r], load_part<F16>(e[r] + k, d - k));
      rows[r] = tails[r];
    }
    add_products<kRows>(tails[kRows], rows, 0, lanes);
  }
  unroll<kRows>([&](auto r) EDGEKIT_INLINE { out[r] = join_lanes(lanes + r * kLaneVectors); });
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
