// Four-way int8 multiply-add for processors without VNNI.
#ifndef EDGEKIT_MULTIPLY_ADD_AVX2_H_
#define EDGEKIT_MULTIPLY_ADD_AVX2_H_

#include <immintrin.h>

#include "unroll.h"

namespace edgekit {
namespace {

struct MultiplyAddAvx2 {
  // The 16-bit sums of two products saturate at 32767: with codes of the vector in -64..64 they
  // reach at most 2 * 255 * 64 = 32640.
  static constexpr float kLevels = 64;

  EDGEKIT_INLINE static void run(__m256i& sums, const __m256i& row_codes,
                                 const __m256i& vector_codes) {
    const __m256i pairs = _mm256_maddubs_epi16(row_codes, vector_codes);
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};

}  // namespace
}  // namespace edgekit

#endif  // EDGEKIT_MULTIPLY_ADD_AVX2_H_
