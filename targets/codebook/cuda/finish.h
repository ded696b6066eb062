// From shortlists to the answer: the candidates' scores in double, by the score's definition.
#ifndef EDGEKIT_CUDA_FINISH_H_
#define EDGEKIT_CUDA_FINISH_H_

#include "plan.h"
#include "portable.h"
#include "shortlist.h"

namespace edgekit::cuda {

constexpr int kFinishThreads = 128;
constexpr int kGroups = kFinishThreads / kLanes;  // rows scored at once
constexpr int kFinishRoom = 512;                  // candidates of one vector

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

struct FinishState {
  double lane;
  double square;  // of the row, for L2
  TopTwo top;
};

struct FinishMemory {
  Two lower[kFinishThreads];
  TopTwo top[kGroups];
  int32_t spill;
  int32_t nonfinite;
  int32_t nonzero;
  int count;
  int32_t candidate[kFinishRoom];
};

template <typename X, typename E, typename Margin>
struct FinishJob {
  const X* x;
  const E* codebook;
  int64_t n;
  int64_t d;
  Plan plan;
  bool l2;
  const Shortlist* lists;  // [m][parts]
  int64_t* indices;
  float* best;         // or null
  Margin* margin;      // or null
  int32_t* nonfinite;  // or null
};

// Adds up thread t's lane of the score's sixteen.
template <typename X, typename E>
EDGEKIT_DEVICE double sum_lane(const X* x, const E* e, int64_t d, int lane) {
  double sum = 0;
#ifdef __CUDACC__
#pragma unroll 16
#endif
  for (int64_t k = lane; k < d; k += kLanes) {
    sum += static_cast<double>(to_float(x[k])) * static_cast<double>(to_float(e[k]));
  }
  return sum;
}

// Scores `count` rows, kGroups at a time; `row(i)` names them.
template <typename X, typename E, typename Margin, typename Block, typename Row>
EDGEKIT_DEVICE void score_rows(Block& block, FinishMemory* memory,
                               const FinishJob<X, E, Margin>& job, const X* x, int64_t count,
                               const Row& row) {
  for (int64_t i = 0; i < count; i += kGroups) {
    if (job.l2) {
      block.each_alone([&](int t, auto& state) {
        const int64_t at = i + t / kLanes;
        const E* e = job.codebook + row(at < count ? at : count - 1) * job.d;
        state.lane = sum_lane(e, e, job.d, t % kLanes);
      });
      block.sum_lanes();
      block.each_alone([](int, auto& state) { state.square = state.lane; });
    }
    block.each_alone([&](int t, auto& state) {
      const int64_t at = i + t / kLanes;
      const E* e = job.codebook + row(at < count ? at : count - 1) * job.d;
      state.lane = sum_lane(x, e, job.d, t % kLanes);
    });
    block.sum_lanes();
    block.each_alone([&](int t, auto& state) {
      const int64_t at = i + t / kLanes;
      if (t % kLanes != 0 || at >= count) return;
      const double score = job.l2 ? state.lane - state.square / 2 : state.lane;
      // Products of floats and their sums cannot overflow a double.
      if (score - score == 0) {
        offer(&state.top, score, row(at));
      } else {
        memory->nonfinite = 1;
      }
    });
  }
}

template <typename Job>
EDGEKIT_DEVICE void answer(const Job& job, int64_t v, int64_t index, float best, float margin) {
  job.indices[v] = index;
  if (job.best != nullptr) job.best[v] = best;
  if (job.margin != nullptr) store(job.margin + v, margin);
}

// The work of block v: the answer for vector v.
template <typename X, typename E, typename Margin, typename Block>
EDGEKIT_DEVICE void finish(Block& block, FinishMemory* memory, const FinishJob<X, E, Margin>& job,
                           int64_t v) {
  const X* x = job.x + v * job.d;
  const Shortlist* lists = job.lists + v * job.plan.parts;
  const int64_t parts = job.plan.parts;
  const bool want_second = job.margin != nullptr;
  block.each([&](int t, auto& state) {
    if (t == 0) memory->spill = memory->nonfinite = memory->nonzero = memory->count = 0;
    state.top = nothing_seen();
  });
  // The greatest lower bounds over all parts.
  block.each([&](int t, auto&) {
    Two lower = no_values();
    for (int64_t part = t; part < parts; part += kFinishThreads) {
      merge(&lower, lists[part].lower);
      if (lists[part].spill != 0) memory->spill = 1;
    }
    memory->lower[t] = lower;
  });
  for (int width = kFinishThreads / 2; width > 0; width /= 2) {
    block.each([&](int t, auto&) {
      if (t < width) merge(&memory->lower[t], memory->lower[t + width]);
    });
  }
  if (memory->spill != 0) {
    // Rare: many rows tie, or a value is not finite, zero throughout, or out of the bound's range.
    block.each([&](int t, auto&) {
      for (int64_t k = t; k < job.d; k += kFinishThreads) {
        const float value = to_float(x[k]);
        if (!(value - value == 0)) memory->nonfinite = 1;
        if (value != 0) memory->nonzero = 1;
      }
      for (int64_t part = t; part < parts; part += kFinishThreads) {
        if ((lists[part].spill & kUnusable) != 0) memory->nonzero = 1;
      }
    });
    if (memory->nonfinite == 0 && memory->nonzero == 0 && !job.l2) {
      // Every score of a zero vector is zero (a spatial map after ReLU has such vectors).
      block.each_alone([&](int t, auto&) {
        const float margin = job.n > 1 ? 0.0f : kInfinity;
        if (t == 0) answer(job, v, 0, 0.0f, margin);
      });
      return;
    }
  }
  const float least = threshold(memory->lower[0], want_second);
  if (memory->nonfinite == 0) {
    block.each([&](int t, auto&) {
      for (int64_t part = t; part < parts; part += kFinishThreads) {
        if (lists[part].spill != 0) continue;
        for (int i = 0; i < lists[part].count; ++i) {
          if (!(lists[part].upper[i] >= least)) continue;
          const int place = take_ticket(&memory->count);
          if (place < kFinishRoom) memory->candidate[place] = lists[part].index[i];
        }
      }
    });
    const int count = memory->count;
    if (count == 1 && memory->spill == 0 && job.best == nullptr && !want_second) {
      block.each_alone([&](int t, auto&) {
        if (t == 0) job.indices[v] = memory->candidate[0];
      });
      return;
    }
    const bool all = count > kFinishRoom;
    if (!all && count > 0) {
      score_rows(block, memory, job, x, count,
                 [&](int64_t i) { return static_cast<int64_t>(memory->candidate[i]); });
    }
    for (int64_t part = 0; part < parts && (all || memory->spill != 0); ++part) {
      if (!all && lists[part].spill == 0) continue;
      const int64_t first = part * job.plan.part_rows;
      const int64_t left = job.n - first;
      score_rows(block, memory, job, x, left < job.plan.part_rows ? left : job.plan.part_rows,
                 [&](int64_t i) { return first + i; });
    }
  }
  block.each([&](int t, auto& state) {
    if (t % kLanes == 0) memory->top[t / kLanes] = state.top;
  });
  block.each_alone([&](int t, auto&) {
    if (t != 0) return;
    if (memory->nonfinite != 0) {
      answer(job, v, 0, kNan, kNan);
      if (job.nonfinite != nullptr) *job.nonfinite = 1;
      return;
    }
    TopTwo top = nothing_seen();
    for (int group = 0; group < kGroups; ++group) {
      const TopTwo& other = memory->top[group];
      if (other.index < 0) continue;
      offer(&top, other.best, other.index);
      if (other.second > top.second) top.second = other.second;
    }
    answer(job, v, top.index, static_cast<float>(top.best),
           static_cast<float>(top.best - top.second));
  });
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_FINISH_H_
