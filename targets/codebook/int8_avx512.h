// Products of int8 codes with AVX-512 VNNI: 64 rows against up to six vectors, 24 registers of
// sums.
#ifndef EDGEKIT_INT8_AVX512_H_
#define EDGEKIT_INT8_AVX512_H_

#include <immintrin.h>

#include "kernels.h"
#include "unroll.h"

namespace edgekit {
namespace {

constexpr int kInt8Vectors = 6;

// In assembly because GCC 12 copies the accumulator around the intrinsic.
EDGEKIT_INLINE inline void multiply_add(__m512i& sums, const __m512i& row_codes,
                                        const __m512i& vector_codes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(row_codes), "v"(vector_codes));
}

template <int kVectors>
inline void tile_int8(const uint8_t* rows, const int8_t* vectors, int64_t stride, int64_t steps,
                      const char* next, int32_t* out) {
  __m512i sums[4 * kVectors];
  unroll<4 * kVectors>([&](auto i) EDGEKIT_INLINE { sums[i] = _mm512_setzero_si512(); });
  for (int64_t k = 0; k < steps; ++k) {
    // One line in four steps: six vectors need sixteen passes for a group, which then covers it.
    if (k % 4 == 0) _mm_prefetch(next + k / 4 * 64, _MM_HINT_T1);
    __m512i codes[4];
    unroll<4>([&](auto r)
                  EDGEKIT_INLINE { codes[r] = _mm512_loadu_si512(rows + k * 256 + r * 64); });
    unroll<kVectors>([&](auto v) EDGEKIT_INLINE {
      int32_t four;
      __builtin_memcpy(&four, vectors + v * stride + k * 4, sizeof four);
      const __m512i vector_codes = _mm512_set1_epi32(four);
      unroll<4>([&](auto r)
                    EDGEKIT_INLINE { multiply_add(sums[4 * v + r], codes[r], vector_codes); });
    });
  }
  unroll<kVectors>([&](auto v) EDGEKIT_INLINE {
    unroll<4>([&](auto r) EDGEKIT_INLINE {
      _mm512_storeu_si512(out + v * kGroup + r * 16, sums[4 * v + r]);
    });
  });
}

void dot_int8(const uint8_t* rows, const int8_t* vectors, int64_t stride, int count, int64_t padded,
              const char* next, int32_t* out) {
  unroll<kInt8Vectors>([&](auto v) EDGEKIT_INLINE {
    if (count == v + 1) tile_int8<v + 1>(rows, vectors, stride, padded / 4, next, out);
  });
}

}  // namespace
}  // namespace edgekit

#endif  // EDGEKIT_INT8_AVX512_H_
