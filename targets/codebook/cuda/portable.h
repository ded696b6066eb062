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
#include <type_traits>
#include <vector>

#include "values.h"

namespace edgekit::cuda {

#ifdef __CUDACC__

template <typename T>
EDGEKIT_DEVICE T shuffle_xor(T value, int width) {
  return __shfl_xor_sync(0xffffffffu, value, width);
}

EDGEKIT_DEVICE int take_ticket(int32_t* counter) { return atomicAdd(counter, 1); }
EDGEKIT_DEVICE void raise_to(uint32_t* place, uint32_t value) { atomicMax(place, value); }
EDGEKIT_DEVICE void lower_to(uint32_t* place, uint32_t value) { atomicMin(place, value); }
EDGEKIT_DEVICE uint64_t exchange_if(uint64_t* place, uint64_t expected, uint64_t value) {
  return atomicCAS(reinterpret_cast<unsigned long long*>(place), expected, value);
}

// What other blocks of the same launch wrote.
template <typename T>
EDGEKIT_DEVICE T load_fresh(const T* place) {
  return *static_cast<const volatile T*>(place);
}

EDGEKIT_DEVICE void count_exact(int) {}

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

  // The same where what follows also reads what the other threads of its warp wrote.
  template <typename Phase>
  __device__ __forceinline__ void each_warp(const Phase& phase) {
    phase(static_cast<int>(threadIdx.x), state_);
    __syncwarp();
  }

  // Merges value(state) with those of the lanes at distances 1, 2, 4, ... below `lanes`, so that
  // each so many lanes hold the same.
  template <int lanes = kWarp, typename Value, typename Merge>
  __device__ __forceinline__ void reduce_warps(const Value& value, const Merge& merge) {
    EDGEKIT_UNROLL
    for (int width = 1; width < lanes; width *= 2) {
      merge(&value(state_), shuffle_xor(value(state_), width));
    }
  }

  // Adds value(state), a double, over each sixteen threads in the score's order; the first of them
  // has the sum.
  template <typename Value>
  __device__ __forceinline__ void sum_lanes(const Value& value) {
    EDGEKIT_UNROLL
    for (int width = kLanes / 2; width > 0; width /= 2) {
      value(state_) += __shfl_down_sync(0xffffffffu, value(state_), width, kLanes);
    }
  }

  // phase(warp, states) for each warp; on a device `states` is the calling thread's own.
  template <typename Phase>
  __device__ __forceinline__ void each_together(const Phase& phase) {
    phase(static_cast<int>(threadIdx.x) / kWarp, &state_);
  }

  // Copies in flight: those of all but the last `newest` phases are there, for all threads.
  template <int newest>
  __device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(newest) : "memory");
#endif
    __syncthreads();
  }

  __device__ __forceinline__ void end_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
  }

  // Whether this is the last of `count` blocks to come here: it then sees what all of them wrote.
  __device__ __forceinline__ bool arrives_last(int32_t* counter, int count, int32_t* place) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) *place = atomicAdd(counter, 1) == count - 1 ? 1 : 0;
    __syncthreads();
    __threadfence();
    return *place != 0;
  }

 private:
  State state_;
};

#else

template <typename T>
T load_fresh(const T* place) {
  return *place;
}

inline int take_ticket(int32_t* counter) { return (*counter)++; }
inline void raise_to(uint32_t* place, uint32_t value) {
  if (value > *place) *place = value;
}
inline void lower_to(uint32_t* place, uint32_t value) {
  if (value < *place) *place = value;
}
inline uint64_t exchange_if(uint64_t* place, uint64_t expected, uint64_t value) {
  const uint64_t old = *place;
  if (old == expected) *place = value;
  return old;
}

// Scores that were computed in double: what tests compare with what they expect.
inline int64_t exact_scores = 0;
inline void count_exact(int count) { exact_scores += count; }

// The order in which a block's threads run a phase: no answer may depend on it.
inline bool last_thread_first = false;

// All threads of a block, one after another.
template <typename State>
class HostBlock {
 public:
  explicit HostBlock(int threads) : states_(static_cast<size_t>(threads)) {}

  template <typename Phase>
  void each(const Phase& phase) {
    for (size_t i = 0; i < states_.size(); ++i) {
      const size_t t = last_thread_first ? states_.size() - 1 - i : i;
      phase(static_cast<int>(t), states_[t]);
    }
  }

  template <typename Phase>
  void each_alone(const Phase& phase) {
    each(phase);
  }

  template <typename Phase>
  void each_warp(const Phase& phase) {
    each(phase);
  }

  template <int lanes = kWarp, typename Value, typename Merge>
  void reduce_warps(const Value& value, const Merge& merge) {
    using T = std::decay_t<decltype(value(states_[0]))>;
    for (size_t warp = 0; warp < states_.size(); warp += kWarp) {
      for (size_t width = 1; width < lanes; width *= 2) {
        std::vector<T> before;
        for (size_t t = 0; t < kWarp; ++t) before.push_back(value(states_[warp + t]));
        for (size_t t = 0; t < kWarp; ++t) merge(&value(states_[warp + t]), before[t ^ width]);
      }
    }
  }

  template <typename Value>
  void sum_lanes(const Value& value) {
    for (size_t first = 0; first < states_.size(); first += kLanes) {
      for (size_t width = kLanes / 2; width > 0; width /= 2) {
        for (size_t t = 0; t < width; ++t) {
          value(states_[first + t]) += value(states_[first + t + width]);
        }
      }
    }
  }

  template <typename Phase>
  void each_together(const Phase& phase) {
    for (size_t first = 0; first < states_.size(); first += kWarp) {
      phase(static_cast<int>(first / kWarp), &states_[first]);
    }
  }

  template <int newest>
  void wait_for_copies() {}
  void end_copies() {}

  bool arrives_last(int32_t* counter, int count, int32_t* place) {
    *place = (*counter)++ == count - 1 ? 1 : 0;
    return *place != 0;
  }

 private:
  std::vector<State> states_;
};

#endif

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_PORTABLE_H_
