// From shortlists to the answer: the candidates' scores in double, by the score's definition.
//
// `slices` blocks take a vector together. Where few rows are left, the first of them does it all;
// else each takes its share, and the last to arrive compares their answers.
#ifndef EDGEKIT_CUDA_FINISH_H_
#define EDGEKIT_CUDA_FINISH_H_

#include "plan.h"
#include "portable.h"
#include "rescore.h"
#include "shortlist.h"
#include "split_block.h"

namespace edgekit::cuda {

constexpr int kFinishThreads = 128;
constexpr int64_t kAlone = 32;  // rows that one block scores by itself
static_assert(kPairRoom <= kFinishThreads);

struct FinishState : ExactState {
  Two two;
  int64_t rows;
};

struct FinishMemory {
  Two lower[kFinishThreads / kWarp];
  int64_t rows[kFinishThreads / kWarp];
  TopTwo top[kFinishThreads / kWarp];
  int32_t count;
  int32_t spilled;
  int32_t last;
  ExactMemory<kFinishThreads> exact;
};

template <typename X, typename E>
struct FinishJob {
  ExactJob<X, E> exact;
  AnswerJob answers;
  Packed packed;
  Plan plan;
  Workspace workspace;
  bool want_second;
};

// Scores the pairs that wait and keeps the best.
template <typename X, typename E, typename Block>
EDGEKIT_DEVICE void score_waiting(Block& block, FinishMemory* memory, const FinishJob<X, E>& job,
                                  int count) {
  auto* exact = &memory->exact;
  rescore(block, exact, job.exact, count, true);
  block.each_alone([&](int t, auto& state) {
    if (t < count) offer_entry(&state.top, exact->score[t], exact->pair[t].entry);
  });
  block.each([&](int t, auto&) {
    if (t == 0) memory->count = 0;
  });
}

// Collects rows of a part without a shortlist, from its row `base` on: those of this slice.
template <typename X, typename E, typename Block>
EDGEKIT_DEVICE void collect_spilled(Block& block, FinishMemory* memory, const FinishJob<X, E>& job,
                                    int64_t v, const Part& part, int64_t base, int64_t slice,
                                    int64_t slices) {
  const int64_t rows = job.packed.header->rows;
  const int64_t count = int64_t{part.tiles} * part.tile_rows;
  block.each([&](int t, auto&) {
    const int64_t i = base + t * slices + slice;
    if (t >= kPairRoom || i >= count) return;
    const auto at = static_cast<uint32_t>(i);
    const auto tile_rows = static_cast<uint32_t>(part.tile_rows);
    const int64_t place = tile_of(part, at / tile_rows) * part.tile_rows + at % tile_rows;
    if (place >= rows) return;
    memory->exact.pair[take_ticket(&memory->count)] = Pair{v, job.packed.entry[place]};
  });
}

// The work of block `number` of m x slices.
template <typename X, typename E, typename Block>
EDGEKIT_DEVICE void finish(Block& block, FinishMemory* memory, const FinishJob<X, E>& job,
                           int64_t number) {
  const auto sharing = static_cast<uint32_t>(job.plan.slices);
  const int64_t v = static_cast<uint32_t>(number) / sharing;
  const int64_t slice = static_cast<uint32_t>(number) % sharing;
  const int64_t parts = job.plan.parts;
  const Shortlist* lists = job.workspace.lists + v * parts;
  const PackedHeader* header = job.packed.header;
  const int32_t kind = job.workspace.facts[v].kind;
  if (kind != kOrdinary || header->nonfinite != 0) {
    block.each_alone([&](int t, auto&) {
      if (t == 0 && slice == 0) answer_at_once(job.answers, header, v, kind);
    });
    return;
  }
  block.each([&](int t, auto& state) {
    if (t == 0) memory->count = memory->spilled = 0;
    state.top = nothing_seen();
    state.two = no_values();
    EDGEKIT_ROLLED
    for (int64_t p = t; p < parts; p += kFinishThreads) merge(&state.two, lists[p].lower);
  });
  const auto merge_twos = [](Two* own, const Two& other) { merge(own, other); };
  block.reduce_warps([](auto& state) -> Two& { return state.two; }, merge_twos);
  block.each([&](int t, auto& state) {
    if (t % kWarp == 0) memory->lower[t / kWarp] = state.two;
  });
  Two lower = no_values();
  for (int warp = 0; warp < kFinishThreads / kWarp; ++warp) merge(&lower, memory->lower[warp]);
  const float least = threshold(lower, job.want_second);
  // How many rows are left?
  block.each_alone([&](int t, auto& state) {
    state.rows = 0;
    EDGEKIT_ROLLED
    for (int64_t p = t; p < parts; p += kFinishThreads) {
      if (lists[p].spill != 0) {
        memory->spilled = 1;  // all threads that write, write this
        state.rows += int64_t{make_part(job.plan, header->rows, p).tiles} * job.plan.tile_rows;
        continue;
      }
      EDGEKIT_ROLLED
      for (int i = 0; i < lists[p].count; ++i) state.rows += lists[p].upper[i] >= least ? 1 : 0;
    }
  });
  block.reduce_warps([](auto& state) -> int64_t& { return state.rows; },
                     [](int64_t* own, int64_t other) { *own += other; });
  block.each([&](int t, auto& state) {
    if (t % kWarp == 0) memory->rows[t / kWarp] = state.rows;
  });
  int64_t rows = 0;
  for (int warp = 0; warp < kFinishThreads / kWarp; ++warp) rows += memory->rows[warp];
  const int64_t slices = rows <= kAlone ? 1 : job.plan.slices;
  if (slice >= slices) return;
  // A part's candidates that reach the threshold, if they are this slice's; kFinishThreads parts at
  // a time could be more than there is room for.
  constexpr int kPartsAtOnce = kPairRoom / Shortlist::kRoom;
  const int64_t at_once = rows <= kPairRoom ? parts : kPartsAtOnce;
  int64_t base = 0;
  int64_t spilled_part = 0;
  int64_t spilled_base = 0;
  for (;;) {
    if (base < parts) {
      block.each([&](int t, auto&) {
        EDGEKIT_ROLLED
        for (int64_t p = base + t; p < base + at_once && p < parts; p += kFinishThreads) {
          if (lists[p].spill != 0) continue;
          EDGEKIT_ROLLED
          for (int i = 0; i < lists[p].count; ++i) {
            if (!(lists[p].upper[i] >= least)) continue;
            if (static_cast<uint32_t>(p + i) % static_cast<uint32_t>(slices) != slice) continue;
            memory->exact.pair[take_ticket(&memory->count)] = Pair{v, lists[p].entry[i]};
          }
        }
      });
      base += at_once;
      if (rows == 1 && job.answers.best == nullptr && !job.want_second) {
        block.each_alone([&](int t, auto&) {
          if (t == 0 && memory->count == 1) {
            job.answers.indices[v] = row_of(memory->exact.pair[0].entry);
          }
        });
        if (base >= parts) return;
        continue;
      }
    } else {
      while (memory->spilled != 0 && spilled_part < parts && lists[spilled_part].spill == 0) {
        ++spilled_part;
      }
      if (memory->spilled == 0 || spilled_part == parts) break;
      const Part part = make_part(job.plan, header->rows, spilled_part);
      collect_spilled(block, memory, job, v, part, spilled_base, slice, slices);
      spilled_base += kPairRoom * slices;
      if (spilled_base >= int64_t{part.tiles} * part.tile_rows) {
        spilled_base = 0;
        ++spilled_part;
      }
    }
    const int count = memory->count;
    block.each([](int, auto&) {});  // all know it before it changes
    if (count > 0) score_waiting(block, memory, job, count);
  }
  const auto merge_tops = [](TopTwo* own, const TopTwo& other) { merge(own, other); };
  block.reduce_warps([](auto& state) -> TopTwo& { return state.top; }, merge_tops);
  block.each([&](int t, auto& state) {
    if (t % kWarp == 0) memory->top[t / kWarp] = state.top;
  });
  PartResult* results = job.workspace.results + v * slices;
  block.each_alone([&](int t, auto&) {
    if (t != 0) return;
    TopTwo top = nothing_seen();
    for (int warp = 0; warp < kFinishThreads / kWarp; ++warp) merge(&top, memory->top[warp]);
    if (slices == 1) {
      answer(job.answers, v, top);
    } else {
      results[slice].best = top.best;
      results[slice].second = top.second;
      results[slice].index = top.index;
    }
  });
  if (slices == 1) return;
  if (!block.arrives_last(&job.packed.header->arrived[v], static_cast<int>(slices),
                          &memory->last)) {
    return;
  }
  block.each_alone([&](int t, auto&) {
    if (t != 0) return;
    TopTwo top = nothing_seen();
    EDGEKIT_ROLLED
    for (int64_t s = 0; s < slices; ++s) {
      merge(&top, TopTwo{results[s].best, results[s].second, results[s].index});
    }
    job.packed.header->arrived[v] = 0;
    answer(job.answers, v, top);
  });
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_FINISH_H_
