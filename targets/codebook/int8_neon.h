// Products of int8 codes with the NEON dot-product instruction: 32 rows against two vectors.
#ifndef EDGEKIT_INT8_NEON_H_
#define EDGEKIT_INT8_NEON_H_

#include <arm_neon.h>

#include "kernels.h"
#include "unroll.h"

namespace edgekit {
namespace {

constexpr int kInt8Vectors = 2;

template <int kVectors>
inline void tile_int8(const uint8_t* rows, const int8_t* vectors, int64_t stride, int64_t steps,
                      const char* next, int32_t* out) {
  int32x4_t sums[8 * kVectors];
  unroll<8 * kVectors>([&](auto i) EDGEKIT_INLINE { sums[i] = vdupq_n_s32(0); });
  for (int64_t k = 0; k < steps; ++k) {
    if (k % 4 == 0) __builtin_prefetch(next + k / 4 * 64, 0, 2);
    int8x16_t vector_codes[kVectors];
    unroll<kVectors>([&](auto v) EDGEKIT_INLINE {
      int32_t four;
      __builtin_memcpy(&four, vectors + v * stride + k * 4, sizeof four);
      vector_codes[v] = vreinterpretq_s8_s32(vdupq_n_s32(four));
    });
    unroll<8>([&](auto r) EDGEKIT_INLINE {
      const int8x16_t codes = vreinterpretq_s8_u8(vld1q_u8(rows + k * 256 + r * 16));
      unroll<kVectors>([&](auto v) EDGEKIT_INLINE {
        sums[8 * v + r] = vdotq_s32(sums[8 * v + r], codes, vector_codes[v]);
      });
    });
  }
  unroll<kVectors>([&](auto v) EDGEKIT_INLINE {
    unroll<8>([&](auto r) EDGEKIT_INLINE { vst1q_s32(out + v * kGroup + r * 4, sums[8 * v + r]); });
  });
}

void dot_int8(const uint8_t* rows, const int8_t* vectors, int64_t stride, int count, int64_t padded,
              const char* next, int32_t* out) {
  for (int half = 0; half < 2; ++half) {  // the second half of each step's 64 rows
    const uint8_t* codes = rows + half * 128;
    const char* ahead = next + half * (padded / 16 * 64);
    if (count == 1) tile_int8<1>(codes, vectors, stride, padded / 4, ahead, out + half * 32);
    if (count == 2) tile_int8<2>(codes, vectors, stride, padded / 4, ahead, out + half * 32);
  }
}

}  // namespace
}  // namespace edgekit

#endif  // EDGEKIT_INT8_NEON_H_
