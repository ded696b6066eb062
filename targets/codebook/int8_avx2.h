// Products of int8 codes in 256-bit registers: 32 rows against two vectors at a time.
//
// MultiplyAdd::run(sums, row_codes, vector_codes) on __m256i is the instruction set's own.
#ifndef EDGEKIT_INT8_AVX2_H_
#define EDGEKIT_INT8_AVX2_H_

#include <immintrin.h>

#include "kernels.h"
#include "unroll.h"

namespace edgekit {
namespace {

constexpr int kInt8Vectors = 2;

template <typename MultiplyAdd, int kVectors>
inline void tile_int8(const uint8_t* rows, const int8_t* vectors, int64_t stride, int64_t steps,
                      const char* next, int32_t* out) {
  __m256i sums[4 * kVectors];
  unroll<4 * kVectors>([&](auto i) EDGEKIT_INLINE { sums[i] = _mm256_setzero_si256(); });
  for (int64_t k = 0; k < steps; ++k) {
    if (k % 4 == 0) _mm_prefetch(next + k / 4 * 64, _MM_HINT_T1);
    __m256i vector_codes[kVectors];
    unroll<kVectors>([&](auto v) EDGEKIT_INLINE {
      int32_t four;
      __builtin_memcpy(&four, vectors + v * stride + k * 4, sizeof four);
      vector_codes[v] = _mm256_set1_epi32(four);
    });
    unroll<4>([&](auto r) EDGEKIT_INLINE {
      const __m256i codes =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows + k * 256 + r * 32));
      unroll<kVectors>([&](auto v) EDGEKIT_INLINE {
        MultiplyAdd::run(sums[4 * v + r], codes, vector_codes[v]);
      });
    });
  }
  unroll<kVectors>([&](auto v) EDGEKIT_INLINE {
    unroll<4>([&](auto r) EDGEKIT_INLINE {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + v * kGroup + r * 8), sums[4 * v + r]);
    });
  });
}

template <typename MultiplyAdd>
void dot_int8(const uint8_t* rows, const int8_t* vectors, int64_t stride, int count, int64_t padded,
              const char* next, int32_t* out) {
  for (int half = 0; half < 2; ++half) {  // the second half of each step's 64 rows
    const uint8_t* codes = rows + half * 128;
    const char* ahead = next + half * (padded / 16 * 64);
    int32_t* sums = out + half * 32;
    if (count == 1) tile_int8<MultiplyAdd, 1>(codes, vectors, stride, padded / 4, ahead, sums);
    if (count == 2) tile_int8<MultiplyAdd, 2>(codes, vectors, stride, padded / 4, ahead, sums);
  }
}

}  // namespace
}  // namespace edgekit

#endif  // EDGEKIT_INT8_AVX2_H_
