// Scores in double, by the score's definition, of several pairs of a vector and a row at a time:
// the rows are brought into the block's memory by all threads, then sixteen threads a pair add up
// the score's sixteen lanes.
#ifndef EDGEKIT_CUDA_RESCORE_H_
#define EDGEKIT_CUDA_RESCORE_H_

#include "packed.h"
#include "portable.h"
#include "prepare.h"

namespace edgekit::cuda {

constexpr int kPairRoom = 128;  // pairs that wait to be scored
constexpr int kStagePad = 16;   // spreads rows over the banks

// The best and second best score seen, and the row of the best.
struct TopTwo {
  double best;
  double second;
  int64_t index;
};

EDGEKIT_DEVICE TopTwo nothing_seen() {
  return {-static_cast<double>(kInfinity), -static_cast<double>(kInfinity), -1};
}

// Rows may come in any order; a tie goes to the lower index.
EDGEKIT_DEVICE void offer(TopTwo* top, double score, int64_t index) {
  if (score > top->best || (score == top->best && index < top->index) || top->index < 0) {
    top->second = top->best;
    top->best = score;
    top->index = index;
  } else if (score > top->second) {
    top->second = score;
  }
}

EDGEKIT_DEVICE void merge(TopTwo* top, const TopTwo& other) {
  if (other.index < 0) return;
  offer(top, other.best, other.index);
  if (other.second > top->second) top->second = other.second;
}

#ifdef __CUDACC__
EDGEKIT_DEVICE TopTwo shuffle_xor(TopTwo top, int width) {
  return {shuffle_xor(top.best, width), shuffle_xor(top.second, width),
          static_cast<int64_t>(shuffle_xor(static_cast<long long>(top.index), width))};
}
#endif

EDGEKIT_DEVICE int64_t row_of(uint32_t entry) { return entry & ~kTied; }

struct Pair {
  int64_t vector;
  uint32_t entry;  // see Packed::entry
};

struct ExactState {
  double lane;
  double row_square;  // for L2
  TopTwo top;
};

// For blocks of `threads` threads.
template <int threads_>
struct ExactMemory {
  static constexpr int threads = threads_;
  static constexpr int kPairs = threads / kLanes;  // scored at once
  static constexpr int kLoads = 8;                 // of four values, by each thread at once
  static constexpr int kRoom = threads * kLoads * 4;

  alignas(16) float stage[kRoom + 2 * kPairs * kStagePad];
  Pair pair[kPairRoom];
  double score[kPairRoom];
};

template <typename X, typename E>
struct ExactJob {
  const X* x;
  const E* codebook;
  int64_t n;
  int64_t d;
  bool x_aligned;
  bool codebook_aligned;
  bool l2;
};

// Sixteen products of a lane are fetched before they are added, one after another.
template <int threads, typename Block>
EDGEKIT_DEVICE void add_lanes(Block& block, const ExactMemory<threads>* memory, int used,
                              int stride, int first_vector, bool one_vector, int columns, bool l2) {
  block.each([&](int t, auto& state) {
    const int p = t / kLanes;
    if (p >= used) return;
    const float* row = memory->stage + p * stride;
    const float* vector = memory->stage + (first_vector + (one_vector ? 0 : p)) * stride;
    double lane = state.lane;
    double square = state.row_square;
    if (l2) {
#ifdef __CUDACC__
#pragma unroll 4
#endif
      for (int k = t % kLanes; k < columns; k += kLanes) {
        const double e = static_cast<double>(row[k]);
        lane += static_cast<double>(vector[k]) * e;
        square += e * e;
      }
    } else {
#ifdef __CUDACC__
#pragma unroll 16
#endif
      for (int k = t % kLanes; k < columns; k += kLanes) {
        lane += static_cast<double>(vector[k]) * static_cast<double>(row[k]);
      }
    }
    state.lane = lane;
    state.row_square = square;
  });
}

// Brings columns k0 on of `used` pairs into memory->stage: rows first, vectors from `slots` on,
// each `1 << shift` columns apart but for the pad. All loads are on their way before the first is
// needed.
template <int threads, typename X, typename E, typename Block>
EDGEKIT_DEVICE void stage_pairs(Block& block, ExactMemory<threads>* memory,
                                const ExactJob<X, E>& job, const Pair* pairs, int used, int slots,
                                int shift, bool one_vector, int64_t k0) {
  constexpr int kLoads = ExactMemory<threads>::kLoads;
  const auto place_of = [&](int t, int u) {
    const int i = (t + u * threads) * 4;
    return memory->stage + (i >> shift) * ((1 << shift) + kStagePad) + (i & ((1 << shift) - 1));
  };
  const int vectors = one_vector ? 1 : used;
  if (job.x_aligned && job.codebook_aligned) {
    block.each([&](int t, auto&) {
      float values[kLoads][4];
      EDGEKIT_UNROLL
      for (int u = 0; u < kLoads; ++u) {
        const int i = (t + u * threads) * 4;
        const int slot = i >> shift;
        const int64_t k = k0 + (i & ((1 << shift) - 1));
        if (slot < used) {
          load4(job.codebook + row_of(pairs[slot].entry) * job.d, k, job.d, true, values[u]);
        } else if (slot >= slots && slot < slots + vectors) {
          load4(job.x + pairs[slot - slots].vector * job.d, k, job.d, true, values[u]);
        } else {
          values[u][0] = values[u][1] = values[u][2] = values[u][3] = 0;
        }
      }
      EDGEKIT_UNROLL
      for (int u = 0; u < kLoads; ++u) {
        if ((t + u * threads) * 4 >> shift >= slots + vectors) continue;
        store_quad(place_of(t, u), Quad{{bits_of(values[u][0]), bits_of(values[u][1]),
                                         bits_of(values[u][2]), bits_of(values[u][3])}});
      }
    });
    return;
  }
  block.each([&](int t, auto&) {
#ifdef __CUDACC__
#pragma unroll 1
#endif
    for (int i = t; i < (slots + vectors) << shift; i += threads) {
      const int slot = i >> shift;
      const int64_t k = k0 + (i & ((1 << shift) - 1));
      float* place = memory->stage + slot * ((1 << shift) + kStagePad) + (i & ((1 << shift) - 1));
      if (slot < used) {
        *place = k < job.d ? to_float(job.codebook[row_of(pairs[slot].entry) * job.d + k]) : 0.0f;
      } else if (slot >= slots) {
        *place = k < job.d ? to_float(job.x[pairs[slot - slots].vector * job.d + k]) : 0.0f;
      }
    }
  });
}

// Scores memory->pair[0..count) into memory->score; `one_vector` says that all pairs have the same.
// The pairs were written before a wait; the scores are there for all threads afterward.
template <int threads, typename X, typename E, typename Block>
EDGEKIT_DEVICE void rescore(Block& block, ExactMemory<threads>* memory, const ExactJob<X, E>& job,
                            int count, bool one_vector) {
  constexpr int kPairs = ExactMemory<threads>::kPairs;
  constexpr int kRoom = ExactMemory<threads>::kRoom;
  if (count > 0) block.each_alone([&](int t, auto&) { count_exact(t == 0 ? count : 0); });
  EDGEKIT_ROLLED
  for (int first = 0; first < count; first += kPairs) {
    const int used = count - first < kPairs ? count - first : kPairs;
    int slots = 1;
    EDGEKIT_ROLLED
    while (slots < used) slots *= 2;
    int shift = 12;
    EDGEKIT_ROLLED
    while ((slots + (one_vector ? 1 : slots)) << shift > kRoom) --shift;
    const int columns = 1 << shift;
    block.each_alone([](int, auto& state) { state.lane = state.row_square = 0; });
    EDGEKIT_ROLLED
    for (int64_t k0 = 0; k0 < job.d; k0 += columns) {
      stage_pairs(block, memory, job, memory->pair + first, used, slots, shift, one_vector, k0);
      const int left = static_cast<int>(job.d - k0 < columns ? job.d - k0 : columns);
      add_lanes(block, memory, used, columns + kStagePad, slots, one_vector, left, job.l2);
    }
    block.sum_lanes([](auto& state) -> double& { return state.lane; });
    if (job.l2) block.sum_lanes([](auto& state) -> double& { return state.row_square; });
    block.each([&](int t, auto& state) {
      if (t % kLanes != 0 || t / kLanes >= used) return;
      memory->score[first + t / kLanes] = job.l2 ? state.lane - state.row_square / 2 : state.lane;
    });
  }
}

// Offers the score of a row, and once more where another row is equal.
EDGEKIT_DEVICE void offer_entry(TopTwo* top, double score, uint32_t entry) {
  offer(top, score, row_of(entry));
  if ((entry & kTied) != 0) offer(top, score, row_of(entry));
}

// Offers the scores of `count` pairs of vector v to `top`, which one lane of a warp of `v` owns: a
// warp a vector, v = v0 + the warp's number.
template <int threads, typename Block, typename Top>
EDGEKIT_DEVICE void merge_pairs(Block& block, const ExactMemory<threads>* memory, int count,
                                int64_t v0, const Top& top) {
  block.each_alone([&](int t, auto& state) {
    state.top = nothing_seen();
    EDGEKIT_ROLLED
    for (int i = t % kWarp; i < count; i += kWarp) {
      if (memory->pair[i].vector == v0 + t / kWarp) {
        offer_entry(&state.top, memory->score[i], memory->pair[i].entry);
      }
    }
  });
  block.reduce_warps([](auto& state) -> TopTwo& { return state.top; },
                     [](TopTwo* own, const TopTwo& other) { merge(own, other); });
  block.each([&](int t, auto& state) {
    if (t % kWarp == 0) merge(top(t / kWarp), state.top);
  });
}

// Where answers go.
struct AnswerJob {
  int64_t n;
  int64_t* indices;
  float* best;   // or null
  void* margin;  // or null
  bool half_margin;
  int32_t* nonfinite;  // or null
};

EDGEKIT_DEVICE void answer(const AnswerJob& job, int64_t v, int64_t index, float best,
                           float margin) {
  job.indices[v] = index;
  if (job.best != nullptr) job.best[v] = best;
  if (job.margin == nullptr) return;
  if (job.half_margin) {
    store(static_cast<Half*>(job.margin) + v, margin);
  } else {
    store(static_cast<float*>(job.margin) + v, margin);
  }
}

EDGEKIT_DEVICE void answer(const AnswerJob& job, int64_t v, const TopTwo& top) {
  answer(job, v, top.index, static_cast<float>(top.best),
         static_cast<float>(top.best - top.second));
}

// Where no score needs to be known; true if that is so.
EDGEKIT_DEVICE bool answer_at_once(const AnswerJob& job, const PackedHeader* header, int64_t v,
                                   int32_t kind) {
  if (kind == kNonfinite || header->nonfinite != 0) {
    answer(job, v, 0, kNan, kNan);
    if (job.nonfinite != nullptr) *job.nonfinite = 1;
    return true;
  }
  if (kind != kZero) return false;
  answer(job, v, 0, 0.0f, job.n > 1 ? 0.0f : kInfinity);
  return true;
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_RESCORE_H_
