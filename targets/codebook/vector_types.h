// Vectors of sixteen numbers, which the compiler maps to the registers that the instruction set
// has.
#ifndef EDGEKIT_VECTOR_TYPES_H_
#define EDGEKIT_VECTOR_TYPES_H_

#include <cstddef>
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "kernels.h"
#include "unroll.h"

namespace edgekit {
namespace {

// Floats in a hardware register, the register tile of the fp32 kernel, and how many chunks of a
// Hadamard transform fit in registers.
#if defined(__AVX512F__)
constexpr int kLaneWidth = 16;
constexpr int kTileRows = 4;
constexpr int kTileVectors = 6;
constexpr int kMaxRadix = 16;
#elif defined(__AVX2__)
constexpr int kLaneWidth = 8;
constexpr int kTileRows = 4;
constexpr int kTileVectors = 2;
constexpr int kMaxRadix = 4;
#elif defined(__aarch64__)
constexpr int kLaneWidth = 4;
constexpr int kTileRows = 4;
constexpr int kTileVectors = 4;
constexpr int kMaxRadix = 16;
#else
constexpr int kLaneWidth = 4;
constexpr int kTileRows = 4;
constexpr int kTileVectors = 2;
constexpr int kMaxRadix = 4;
#endif

typedef float F16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef int8_t B16 __attribute__((vector_size(16)));
typedef double D8 __attribute__((vector_size(64)));
typedef float F8 __attribute__((vector_size(32)));

// memcpy is a plain unaligned load or store once compiled.
template <typename V>
inline V load(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <typename V>
inline void store(void* p, const V& v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// The first `count` floats at p, the rest of the vector zero.
template <typename V>
inline V load_part(const float* p, int64_t count) {
  V v = {};
  __builtin_memcpy(&v, p, static_cast<size_t>(count) * sizeof(float));
  return v;
}

// As load_part, for a count that may exceed the vector.
template <typename V>
inline V load_up_to(const float* p, int64_t count) {
  constexpr int64_t kFloats = sizeof(V) / sizeof(float);
  return count >= kFloats ? load<V>(p) : load_part<V>(p, count);
}

inline F16 splat(float value) { return F16{} + value; }

inline F16 larger(const F16& a, const F16& b) { return a > b ? a : b; }

inline F16 smaller(const F16& a, const F16& b) { return a < b ? a : b; }

// Nearest integer of |v| < 2^22: adding 1.5 * 2^23 rounds away the fraction.
inline F16 nearest(const F16& v) {
  const F16 magic = splat(12582912.0f);
  return (v + magic) - magic;
}

// Sums are kept in several vectors, because the next addition to one has to wait for the last.
constexpr int kStreams = 4;

inline F16 join(const F16* v) { return (v[0] + v[1]) + (v[2] + v[3]); }

inline float sum(const F16& v) {
  float total[16];
  store(total, v);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) total[i] += total[i + width];
  }
  return total[0];
}

inline float largest(const F16& v) {
  float top = v[0];
  for (int i = 1; i < 16; ++i) top = v[i] > top ? v[i] : top;
  return top;
}

// One bit for each i: whether a[i] >= b[i].
inline uint64_t reaches(const F16& a, const F16& b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), _CMP_GE_OQ);
#else
  const I16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
  const I16 found = (a >= b) & bit;
  int32_t bits[16];
  store(bits, found);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) bits[i] |= bits[i + width];
  }
  return static_cast<uint64_t>(bits[0]);
#endif
}

}  // namespace
}  // namespace edgekit

#endif  // EDGEKIT_VECTOR_TYPES_H_
