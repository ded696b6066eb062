// Sixteen numbers at a time, in as many registers of the instruction set as needed.
//
// Registers are the compiler's own vector types, of the hardware's width: GCC 12 splits wider ones
// into single numbers as soon as one is compared or converted.
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

// Floats in a register, the register tile of the fp32 kernel, and how many chunks of a Hadamard
// transform fit in registers.
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
constexpr int kMaxRadix = 4;
#else
constexpr int kLaneWidth = 4;
constexpr int kTileRows = 4;
constexpr int kTileVectors = 2;
constexpr int kMaxRadix = 2;
#endif
constexpr int kParts = 16 / kLaneWidth;

typedef float FloatRegister __attribute__((vector_size(kLaneWidth * sizeof(float))));
typedef int32_t IntRegister __attribute__((vector_size(kLaneWidth * sizeof(int32_t))));

struct F16 {
  FloatRegister part[kParts];
};

struct I16 {
  IntRegister part[kParts];
};

// memcpy compiles to a plain unaligned load or store. It is used register by register, because
// GCC 12 copies a larger struct through the stack.
template <typename V>
EDGEKIT_INLINE inline V load(const void* p) {
  V v;
  if constexpr (requires { v.part; }) {
    const char* bytes = static_cast<const char*>(p);
    unroll<kParts>([&](auto i) EDGEKIT_INLINE {
      __builtin_memcpy(&v.part[i], bytes + i * sizeof v.part[i], sizeof v.part[i]);
    });
  } else {
    __builtin_memcpy(&v, p, sizeof v);
  }
  return v;
}

template <typename V>
EDGEKIT_INLINE inline void store(void* p, const V& v) {
  if constexpr (requires { v.part; }) {
    char* bytes = static_cast<char*>(p);
    unroll<kParts>([&](auto i) EDGEKIT_INLINE {
      __builtin_memcpy(bytes + i * sizeof v.part[i], &v.part[i], sizeof v.part[i]);
    });
  } else {
    __builtin_memcpy(p, &v, sizeof v);
  }
}

// The first `count` floats at p, the rest of the vector zero.
template <typename V>
inline V load_part(const float* p, int64_t count) {
  float values[sizeof(V) / sizeof(float)] = {};
  __builtin_memcpy(values, p, static_cast<size_t>(count) * sizeof(float));
  return load<V>(values);
}

// Like load_part, for a count that may exceed the vector.
template <typename V>
inline V load_up_to(const float* p, int64_t count) {
  constexpr int64_t kFloats = sizeof(V) / sizeof(float);
  return count >= kFloats ? load<V>(p) : load_part<V>(p, count);
}

// Applies `operation` to each register of a, or of a and b.
template <typename Result, typename V, typename Operation>
EDGEKIT_INLINE inline Result map(const V& a, const Operation& operation) {
  Result r;
  unroll<kParts>([&](auto i) EDGEKIT_INLINE { r.part[i] = operation(a.part[i]); });
  return r;
}

template <typename V, typename Operation>
EDGEKIT_INLINE inline V map(const V& a, const V& b, const Operation& operation) {
  V r;
  unroll<kParts>([&](auto i) EDGEKIT_INLINE { r.part[i] = operation(a.part[i], b.part[i]); });
  return r;
}

#define EDGEKIT_BINARY(name, expression)                                                      \
  template <typename V>                                                                       \
  EDGEKIT_INLINE inline V name(const V& a, const V& b) {                                      \
    return map(a, b, [](const auto& x, const auto& y) EDGEKIT_INLINE { return expression; }); \
  }
EDGEKIT_BINARY(operator+, x + y)
EDGEKIT_BINARY(operator-, x - y)
EDGEKIT_BINARY(operator*, x* y)
EDGEKIT_BINARY(operator&, x& y)
EDGEKIT_BINARY(larger, x > y ? x : y)
EDGEKIT_BINARY(smaller, x < y ? x : y)
#undef EDGEKIT_BINARY

template <typename V>
EDGEKIT_INLINE inline V& operator+=(V& a, const V& b) {
  return a = a + b;
}

EDGEKIT_INLINE inline F16 splat(float value) {
  F16 r;
  unroll<kParts>([&](auto i) EDGEKIT_INLINE { r.part[i] = FloatRegister{} + value; });
  return r;
}

EDGEKIT_INLINE inline I16 splat_int(int32_t value) {
  I16 r;
  unroll<kParts>([&](auto i) EDGEKIT_INLINE { r.part[i] = IntRegister{} + value; });
  return r;
}

EDGEKIT_INLINE inline F16 operator*(const F16& a, float b) { return a * splat(b); }

EDGEKIT_INLINE inline F16 negative(const F16& a) {
  return map<F16>(a, [](const auto& x) EDGEKIT_INLINE { return -x; });
}

EDGEKIT_INLINE inline I16 to_int(const F16& a) {
  return map<I16>(
      a, [](const auto& x) EDGEKIT_INLINE { return __builtin_convertvector(x, IntRegister); });
}

EDGEKIT_INLINE inline F16 to_float(const I16& a) {
  return map<F16>(
      a, [](const auto& x) EDGEKIT_INLINE { return __builtin_convertvector(x, FloatRegister); });
}

// Nearest integer of |v| < 2^22: adding 1.5 * 2^23 rounds away the fraction.
EDGEKIT_INLINE inline F16 nearest(const F16& v) {
  const F16 magic = splat(12582912.0f);
  return (v + magic) - magic;
}

// Sums are kept in several vectors, because an addition to one has to wait for the previous one.
constexpr int kStreams = 4;

EDGEKIT_INLINE inline F16 join(const F16* v) { return (v[0] + v[1]) + (v[2] + v[3]); }

inline float sum(const F16& v) {
  float total[16];
  store(total, v);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) total[i] += total[i + width];
  }
  return total[0];
}

inline float largest(const F16& v) {
  float values[16];
  store(values, v);
  float top = values[0];
  for (int i = 1; i < 16; ++i) top = values[i] > top ? values[i] : top;
  return top;
}

// One bit for each i: whether a[i] >= b[i].
EDGEKIT_INLINE inline uint64_t reaches(const F16& a, const F16& b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(a.part[0], b.part[0], _CMP_GE_OQ);
#elif defined(__AVX2__)
  const int low = _mm256_movemask_ps(_mm256_cmp_ps(a.part[0], b.part[0], _CMP_GE_OQ));
  const int high = _mm256_movemask_ps(_mm256_cmp_ps(a.part[1], b.part[1], _CMP_GE_OQ));
  return static_cast<uint64_t>(low) | static_cast<uint64_t>(high) << 8;
#else
  uint64_t mask = 0;
  const IntRegister bits = {1, 2, 4, 8};
  unroll<kParts>([&](auto i) EDGEKIT_INLINE {
    int32_t reached[kLaneWidth];
    store(reached, (a.part[i] >= b.part[i]) & bits);
    mask |= static_cast<uint64_t>(reached[0] | reached[1] | reached[2] | reached[3]) << (4 * i);
  });
  return mask;
#endif
}

// Stores sixteen integers of -128..127 as bytes.
EDGEKIT_INLINE inline void store_bytes(int8_t* p, const I16& v) {
#if defined(__AVX512F__)
  typedef int8_t Bytes __attribute__((vector_size(16)));
  store(p, __builtin_convertvector(v.part[0], Bytes));
#elif defined(__aarch64__)
  const int16x8_t low = vcombine_s16(vmovn_s32(v.part[0]), vmovn_s32(v.part[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32(v.part[2]), vmovn_s32(v.part[3]));
  store(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
#elif defined(__SSE2__)
  __m128i parts[4];
  store(parts, v);
  store(p,
        _mm_packs_epi16(_mm_packs_epi32(parts[0], parts[1]), _mm_packs_epi32(parts[2], parts[3])));
#else
  int32_t values[16];
  store(values, v);
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(values[i]);
#endif
}

}  // namespace
}  // namespace edgekit

#endif  // EDGEKIT_VECTOR_TYPES_H_
