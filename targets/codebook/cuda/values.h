// Numbers and how they are read and written, on the device and on the host.
#ifndef EDGEKIT_CUDA_VALUES_H_
#define EDGEKIT_CUDA_VALUES_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define EDGEKIT_DEVICE __device__ __forceinline__
#define EDGEKIT_HOST_DEVICE __host__ __device__ __forceinline__
#define EDGEKIT_UNROLL _Pragma("unroll")
// For what is seldom run: short code is fetched sooner.
#define EDGEKIT_ROLLED _Pragma("unroll 1")
#else
#define EDGEKIT_DEVICE inline
#define EDGEKIT_HOST_DEVICE inline
#define EDGEKIT_UNROLL
#define EDGEKIT_ROLLED
#endif

namespace edgekit::cuda {

constexpr int kWarp = 32;
// Number of partial sums in the score's fixed order of additions.
constexpr int kLanes = 16;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// An IEEE half as it is stored.
struct Half {
  uint16_t bits;
};

// Sixteen bytes: eight halves of a row, what a thread loads at once.
struct alignas(16) Quad {
  uint32_t word[4];
};

EDGEKIT_DEVICE float to_float(float value) { return value; }

EDGEKIT_DEVICE float to_float(Half value) {
#ifdef __CUDACC__
  return __half2float(__ushort_as_half(value.bits));
#else
  const float sign = (value.bits & 0x8000) != 0 ? -1.0f : 1.0f;
  const int exponent = (value.bits >> 10) & 0x1f;
  const int fraction = value.bits & 0x3ff;
  if (exponent == 0x1f) {
    return fraction != 0 ? kNan : sign * kInfinity;
  }
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(fraction + 0x400), exponent - 25);
#endif
}

// The nearest half, ties to even.
EDGEKIT_DEVICE Half to_half(float value) {
#ifdef __CUDACC__
  return Half{__half_as_ushort(__float2half_rn(value))};
#else
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float size = std::fabs(value);
  if (!(size == size)) return Half{0x7e00};
  if (size >= 65520.0f) return Half{static_cast<uint16_t>(sign | 0x7c00)};
  if (size == 0) return Half{sign};
  // A half's last place is 2^-10 of its power of two, and 2^-24 at least.
  const int exponent = std::ilogb(size) < -14 ? -14 : std::ilogb(size);
  const auto steps = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  return Half{static_cast<uint16_t>(sign + ((exponent + 14) << 10) + steps)};
#endif
}

EDGEKIT_DEVICE uint32_t bits_of(float value) {
#ifdef __CUDACC__
  return __float_as_uint(value);
#else
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

EDGEKIT_DEVICE float float_of(uint32_t bits) {
#ifdef __CUDACC__
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

// Floats as unsigned numbers of the same order; 0 is below all of them.
EDGEKIT_DEVICE uint32_t ordered(float value) {
  const uint32_t bits = bits_of(value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

EDGEKIT_DEVICE float from_ordered(uint32_t order) {
  if (order == 0) return -kInfinity;
  return float_of((order & 0x80000000u) != 0 ? order & 0x7fffffffu : ~order);
}

// 2^exponent, from 2^-126 to 2^127.
EDGEKIT_DEVICE float power_of_two(int exponent) {
  return float_of(static_cast<uint32_t>(exponent + 127) << 23);
}

// The least e with value < 2^e, of a float that is at least 2^-149 and finite.
EDGEKIT_DEVICE int exponent_above(float value) {
  const int shift = value < 0x1p-126f ? 64 : 0;
  const float normal = shift != 0 ? value * 0x1p64f : value;
  return static_cast<int>((bits_of(normal) >> 23) & 0xff) - 126 - shift;
}

EDGEKIT_DEVICE void store(float* place, float value) { *place = value; }
EDGEKIT_DEVICE void store(Half* place, float value) { *place = to_half(value); }

EDGEKIT_DEVICE Quad load_quad(const void* place) {
#ifdef __CUDACC__
  const uint4 four = *static_cast<const uint4*>(place);
  return Quad{{four.x, four.y, four.z, four.w}};
#else
  Quad quad;
  std::memcpy(&quad, place, sizeof quad);
  return quad;
#endif
}

// The same from memory that no thread writes during the launch.
EDGEKIT_DEVICE Quad load_quad_once(const void* place) {
#ifdef __CUDACC__
  const uint4 four = __ldg(static_cast<const uint4*>(place));
  return Quad{{four.x, four.y, four.z, four.w}};
#else
  return load_quad(place);
#endif
}

EDGEKIT_DEVICE void store_quad(void* place, const Quad& quad) {
#ifdef __CUDACC__
  *static_cast<uint4*>(place) = make_uint4(quad.word[0], quad.word[1], quad.word[2], quad.word[3]);
#else
  std::memcpy(place, &quad, sizeof quad);
#endif
}

// Sixteen bytes into the block's memory, without waiting for them where the device can.
EDGEKIT_DEVICE void copy_quad(void* to, const void* from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const auto place = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(place), "l"(from) : "memory");
#else
  store_quad(to, load_quad(from));
#endif
}

EDGEKIT_DEVICE Quad pack_halves(const Half* halves) {
  Quad quad;
  EDGEKIT_UNROLL
  for (int i = 0; i < 4; ++i) {
    quad.word[i] = halves[2 * i].bits | static_cast<uint32_t>(halves[2 * i + 1].bits) << 16;
  }
  return quad;
}

// Four consecutive values of a row from index k on, zeros past its end. `aligned` promises that
// rows start at multiples of four values, in memory aligned for one wide load.
template <typename T>
EDGEKIT_DEVICE void load4(const T* row, int64_t k, int64_t d, bool aligned, float* out) {
#ifdef __CUDACC__
  if (aligned) {
    if (k >= d) {
      EDGEKIT_UNROLL
      for (int i = 0; i < 4; ++i) out[i] = 0;
      return;
    }
    if constexpr (sizeof(T) == 4) {
      const float4 four = __ldg(reinterpret_cast<const float4*>(row + k));
      out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
    } else {
      const uint2 four = __ldg(reinterpret_cast<const uint2*>(row + k));
      out[0] = to_float(Half{static_cast<uint16_t>(four.x & 0xffff)});
      out[1] = to_float(Half{static_cast<uint16_t>(four.x >> 16)});
      out[2] = to_float(Half{static_cast<uint16_t>(four.y & 0xffff)});
      out[3] = to_float(Half{static_cast<uint16_t>(four.y >> 16)});
    }
    return;
  }
#else
  (void)aligned;
#endif
  EDGEKIT_UNROLL
  for (int i = 0; i < 4; ++i) out[i] = k + i < d ? to_float(row[k + i]) : 0.0f;
}

// Calls use(k, values) for columns k, k + 8, ... of the thread's share of a row: eight values from
// `first` on, then from first + step, up to `width` columns. Code that is short matters more than
// speed where loads are narrow.
template <typename T, typename Use>
EDGEKIT_DEVICE void for_eights(const T* row, int64_t first, int64_t step, int64_t width, int64_t d,
                               bool aligned, const Use& use) {
  if (aligned) {
#ifdef __CUDACC__
#pragma unroll 2
#endif
    for (int64_t k = first; k < width; k += step) {
      float values[8];
      load4(row, k, d, true, values);
      load4(row, k + 4, d, true, values + 4);
      use(k, values);
    }
  } else {
#ifdef __CUDACC__
#pragma unroll 1
#endif
    for (int64_t k = first; k < width; k += step) {
      float values[8];
      load4(row, k, d, false, values);
      load4(row, k + 4, d, false, values + 4);
      use(k, values);
    }
  }
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_VALUES_H_
