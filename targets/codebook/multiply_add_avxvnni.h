// Four-way int8 multiply-add with the VNNI instruction in 256-bit registers.
#ifndef EDGEKIT_MULTIPLY_ADD_AVXVNNI_H_
#define EDGEKIT_MULTIPLY_ADD_AVXVNNI_H_

#include <immintrin.h>

#include "unroll.h"

namespace edgekit {
namespace {

struct MultiplyAddAvxVnni {
  static constexpr float kLevels = 127;

  // In assembly because GCC 12 copies the accumulator around the intrinsic, and because the prefix
  // chooses between the two encodings of one operation: AVX-VNNI's, or AVX-512's, which lets the
  // tests run this file on machines that have only the latter.
  EDGEKIT_INLINE static void run(__m256i& sums, const __m256i& row_codes,
                                 const __m256i& vector_codes) {
#ifdef EDGEKIT_VNNI_IN_EVEX
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(row_codes), "v"(vector_codes));
#else
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(row_codes), "x"(vector_codes));
#endif
  }
};

}  // namespace
}  // namespace edgekit

#endif  // EDGEKIT_MULTIPLY_ADD_AVXVNNI_H_
