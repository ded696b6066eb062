// Scores in float: a tile of rows and vectors whose sums stay in registers.
#ifndef EDGEKIT_VECTOR_FP32_H_
#define EDGEKIT_VECTOR_FP32_H_

#include "vector_types.h"

namespace edgekit {
namespace {

inline float sum_lanes(const FloatRegister& v) {
  float total = 0;
  for (int i = 0; i < kLaneWidth; ++i) total += v[i];
  return total;
}

// kRows rows against kVectors vectors, all partial sums in registers.
template <int kRows, int kVectors>
inline void tile_fp32(const float* e, int64_t d, const float* x, int64_t stride, float* out) {
  FloatRegister sums[kRows * kVectors];
  unroll<kRows * kVectors>([&](auto i) EDGEKIT_INLINE { sums[i] = FloatRegister{}; });
  int64_t k = 0;
  for (; k + kLaneWidth <= d; k += kLaneWidth) {
    FloatRegister rows[kRows];
    unroll<kRows>([&](auto r) EDGEKIT_INLINE { rows[r] = load<FloatRegister>(e + r * d + k); });
    unroll<kVectors>([&](auto v) EDGEKIT_INLINE {
      const FloatRegister value = load<FloatRegister>(x + v * stride + k);
      unroll<kRows>([&](auto r) EDGEKIT_INLINE { sums[r * kVectors + v] += rows[r] * value; });
    });
  }
  if (k < d) {
    unroll<kRows>([&](auto r) EDGEKIT_INLINE {
      const FloatRegister row = load_part<FloatRegister>(e + r * d + k, d - k);
      unroll<kVectors>([&](auto v) EDGEKIT_INLINE {
        sums[r * kVectors + v] += row * load<FloatRegister>(x + v * stride + k);
      });
    });
  }
  unroll<kRows>([&](auto r) EDGEKIT_INLINE {
    unroll<kVectors>(
        [&](auto v) EDGEKIT_INLINE { out[v * kGroup + r] = sum_lanes(sums[r * kVectors + v]); });
  });
}

template <int kVectors>
inline void rows_fp32(const float* e, int64_t d, int rows, const float* x, int64_t stride,
                      float* out) {
  int r = 0;
  for (; r + kTileRows <= rows; r += kTileRows) {
    tile_fp32<kTileRows, kVectors>(e + r * d, d, x, stride, out + r);
  }
  for (; r < rows; ++r) tile_fp32<1, kVectors>(e + r * d, d, x, stride, out + r);
}

void dot_fp32(const float* e, int64_t d, int rows, const float* vectors, int64_t stride, int count,
              float* out) {
  unroll<kTileVectors>([&](auto v) EDGEKIT_INLINE {
    if (count == v + 1) rows_fp32<v + 1>(e, d, rows, vectors, stride, out);
  });
}

}  // namespace
}  // namespace edgekit

#endif  // EDGEKIT_VECTOR_FP32_H_
