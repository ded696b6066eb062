// One source for the device and for the host.
//
// A kernel's work is written for a block of threads, as phases: `block.each(f)` runs f(thread,
// state) for every thread and then waits for all of them. On a device each thread runs its own f;
// on a host a loop runs them one after another, which is how the algorithm is tested without a GPU.
#ifndef EDGEKIT_CUDA_PORTABLE_H_
#define EDGEKIT_CUDA_PORTABLE_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define EDGEKIT_DEVICE __device__ __forceinline__
#define EDGEKIT_UNROLL _Pragma("unroll")
#else
#define EDGEKIT_DEVICE inline
#define EDGEKIT_UNROLL
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

EDGEKIT_DEVICE void store(float* place, float value) { *place = value; }

#ifdef __CUDACC__
EDGEKIT_DEVICE void store(Half* place, float value) {
  place->bits = __half_as_ushort(__float2half_rn(value));
}
#endif

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

#ifdef __CUDACC__

// The block that the calling thread belongs to.
template <typename State>
class DeviceBlock {
 public:
  template <typename Phase>
  __device__ __forceinline__ void each(const Phase& phase) {
    phase(static_cast<int>(threadIdx.x), state_);
    __syncthreads();
  }

  // A phase whose threads need not wait: what follows only reads what its own thread wrote.
  template <typename Phase>
  __device__ __forceinline__ void each_alone(const Phase& phase) {
    phase(static_cast<int>(threadIdx.x), state_);
  }

  // Gives every thread the sums of `count` values, state.sums, over its warp.
  template <int count>
  __device__ __forceinline__ void sum_warps() {
    EDGEKIT_UNROLL
    for (int i = 0; i < count; ++i) {
      EDGEKIT_UNROLL
      for (int width = kWarp / 2; width > 0; width /= 2) {
        state_.sums[i] += __shfl_xor_sync(0xffffffffu, state_.sums[i], width);
      }
    }
  }

  // Adds state.lane over each sixteen threads in the score's order; the first of them has the sum.
  __device__ __forceinline__ void sum_lanes() {
    EDGEKIT_UNROLL
    for (int width = kLanes / 2; width > 0; width /= 2) {
      state_.lane += __shfl_down_sync(0xffffffffu, state_.lane, width, kLanes);
    }
  }

 private:
  State state_;
};

EDGEKIT_DEVICE int take_ticket(int* counter) { return atomicAdd(counter, 1); }

#else

// All threads of a block, one after another.
template <typename State>
class HostBlock {
 public:
  explicit HostBlock(int threads) : states_(static_cast<size_t>(threads)) {}

  template <typename Phase>
  void each(const Phase& phase) {
    for (size_t t = 0; t < states_.size(); ++t) phase(static_cast<int>(t), states_[t]);
  }

  template <typename Phase>
  void each_alone(const Phase& phase) {
    each(phase);
  }

  template <int count>
  void sum_warps() {
    for (size_t warp = 0; warp < states_.size(); warp += kWarp) {
      for (int i = 0; i < count; ++i) {
        for (size_t width = kWarp / 2; width > 0; width /= 2) {
          float before[kWarp];
          for (size_t t = 0; t < kWarp; ++t) before[t] = states_[warp + t].sums[i];
          for (size_t t = 0; t < kWarp; ++t) {
            states_[warp + t].sums[i] = before[t] + before[t ^ width];
          }
        }
      }
    }
  }

  void sum_lanes() {
    for (size_t first = 0; first < states_.size(); first += kLanes) {
      for (size_t width = kLanes / 2; width > 0; width /= 2) {
        for (size_t t = 0; t < width; ++t) {
          states_[first + t].lane += states_[first + t + width].lane;
        }
      }
    }
  }

 private:
  std::vector<State> states_;
};

inline int take_ticket(int* counter) { return (*counter)++; }

#endif

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_PORTABLE_H_
