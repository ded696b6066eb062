// Approximate scores for few vectors: bound by reading the codebook, which is read once.
//
// A warp takes four rows at a time. Its threads share the columns, each with its own partial sums
// for every row and vector, and the warp adds them up. The vectors come from the L1 cache.
#ifndef EDGEKIT_CUDA_COARSE_ROWS_H_
#define EDGEKIT_CUDA_COARSE_ROWS_H_

#include "plan.h"
#include "portable.h"
#include "screen.h"

namespace edgekit::cuda {

constexpr int kRowThreads = 256;
constexpr int kRowWarps = kRowThreads / kWarp;
constexpr int kRowsAtOnce = 4;                     // by one warp
constexpr int kRowStep = kRowWarps * kRowsAtOnce;  // by one block
constexpr int kRowBatch = 4 * kRowStep;            // screened at once
static_assert(kRowStep == kWarp, "make_plan cuts at multiples of this");

// Roundings on the way of a product: its thread's sum, and the warp's.
inline int64_t rows_depth(int64_t d) { return 4 * divide_up(d, 4 * kWarp) + 5; }

template <int vectors>
struct RowsState {
  // kRowsAtOnce x vectors sums, then the squares of the rows, then those of the vectors.
  static constexpr int kSums = kRowsAtOnce * vectors + kRowsAtOnce + vectors;
  float sums[kSums];
};

template <int vectors>
struct RowsMemory {
  float score[vectors][kRowBatch];
  Screen<vectors, kRowBatch, kRowThreads> screen;
};

template <typename X, typename E>
struct CoarseJob {
  const X* x;
  const E* codebook;
  int64_t m;
  int64_t n;
  int64_t d;
  Bounds bounds;
  Plan plan;
  bool want_second;
  bool x_aligned;
  bool codebook_aligned;
  Shortlist* lists;  // [m][parts]
};

template <int vectors, typename X, typename E>
EDGEKIT_DEVICE void add_rows(const CoarseJob<X, E>& job, bool aligned, int64_t v0, int used,
                             int64_t row, int64_t last, int lane, RowsState<vectors>& state) {
  float* sums = state.sums;
  EDGEKIT_UNROLL
  for (int i = 0; i < RowsState<vectors>::kSums; ++i) sums[i] = 0;
  const E* e[kRowsAtOnce];
  EDGEKIT_UNROLL
  for (int r = 0; r < kRowsAtOnce; ++r) {
    e[r] = job.codebook + (row + r < last ? row + r : last - 1) * job.d;
  }
  const X* x = job.x + v0 * job.d;
  for (int64_t k = lane * 4; k < job.d; k += 4 * kWarp) {
    float es[kRowsAtOnce][4];
    EDGEKIT_UNROLL
    for (int r = 0; r < kRowsAtOnce; ++r) load4(e[r], k, job.d, aligned, es[r]);
    EDGEKIT_UNROLL
    for (int v = 0; v < vectors; ++v) {
      float xs[4];
      load4(x + (v < used ? v : 0) * job.d, k, job.d, aligned, xs);
      EDGEKIT_UNROLL
      for (int i = 0; i < 4; ++i) {
        EDGEKIT_UNROLL
        for (int r = 0; r < kRowsAtOnce; ++r) sums[r * vectors + v] += es[r][i] * xs[i];
        sums[kRowsAtOnce * vectors + kRowsAtOnce + v] += xs[i] * xs[i];
      }
    }
    EDGEKIT_UNROLL
    for (int r = 0; r < kRowsAtOnce; ++r) {
      EDGEKIT_UNROLL
      for (int i = 0; i < 4; ++i) sums[kRowsAtOnce * vectors + r] += es[r][i] * es[r][i];
    }
  }
}

// The work of block `number` of blocks_down x parts.
template <int vectors, typename X, typename E, typename Block>
EDGEKIT_DEVICE void coarse_rows(Block& block, RowsMemory<vectors>* memory,
                                const CoarseJob<X, E>& job, int64_t number) {
  const int64_t part = number % job.plan.parts;
  const int64_t v0 = number / job.plan.parts * vectors;
  const int used = static_cast<int>(job.m - v0 < vectors ? job.m - v0 : vectors);
  const int64_t first = part * job.plan.part_rows;
  const int64_t last = first + job.plan.part_rows < job.n ? first + job.plan.part_rows : job.n;
  const bool aligned = job.x_aligned && job.codebook_aligned;
  block.each([&](int v, auto&) {
    if (v < used) clear(&memory->screen.list[v]);
  });
  for (int64_t base = first; base < last; base += kRowBatch) {
    for (int64_t step = base; step < base + kRowBatch && step < last; step += kRowStep) {
      block.each_alone([&](int t, auto& state) {
        const int64_t row = step + t / kWarp * kRowsAtOnce;
        if (aligned) {
          add_rows<vectors>(job, true, v0, used, row, last, t % kWarp, state);
        } else {
          add_rows<vectors>(job, false, v0, used, row, last, t % kWarp, state);
        }
      });
      block.template sum_warps<RowsState<vectors>::kSums>();
      block.each_alone([&](int t, auto& state) {
        if (t % kWarp != 0) return;
        const int column = static_cast<int>(step - base) + t / kWarp * kRowsAtOnce;
        EDGEKIT_UNROLL
        for (int r = 0; r < kRowsAtOnce; ++r) {
          EDGEKIT_UNROLL
          for (int v = 0; v < vectors; ++v) {
            memory->score[v][column + r] = state.sums[r * vectors + v];
          }
          memory->screen.e_square[column + r] = state.sums[kRowsAtOnce * vectors + r];
        }
        if (t == 0) {
          EDGEKIT_UNROLL
          for (int v = 0; v < vectors; ++v) {
            memory->screen.x_square[v] = state.sums[kRowsAtOnce * vectors + kRowsAtOnce + v];
          }
        }
      });
    }
    block.each([](int, auto&) {});  // the scores are there
    const int columns = static_cast<int>(last - base < kRowBatch ? last - base : kRowBatch);
    screen_batch(
        block, &memory->screen, [&](int v, int c) { return memory->score[v][c]; }, job.bounds,
        job.want_second, used, base, columns);
  }
  block.each_alone([&](int v, auto&) {
    if (v < used) job.lists[(v0 + v) * job.plan.parts + part] = memory->screen.list[v];
  });
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_COARSE_ROWS_H_
