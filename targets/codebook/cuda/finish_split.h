// The end of a lookup with few vectors, in the same launch: blocks keep few candidates and leave
// them to the last block to arrive, or score what they have in double if that is more.
#ifndef EDGEKIT_CUDA_FINISH_SPLIT_H_
#define EDGEKIT_CUDA_FINISH_SPLIT_H_

#include "split_block.h"

namespace edgekit::cuda {

// Collects up to kPairRoom rows of a part, all of them, from tile i on, for vector v.
template <int vectors, typename X, typename E, typename Block>
EDGEKIT_DEVICE void collect_part(Block& block, SplitMemory<vectors>* memory,
                                 const SplitJob<X, E>& job, const Part& part, int i, int v,
                                 int64_t rows) {
  block.each([&](int t, auto&) {
    if (t >= kPairRoom || i + t / kSplitRows >= part.tiles) return;
    const int64_t place = tile_of(part, i + t / kSplitRows) * kSplitRows + t % kSplitRows;
    if (place >= rows) return;
    memory->exact.pair[take_ticket(&memory->pairs)] = Pair{v, job.packed.entry[place]};
  });
}

// Collects what the blocks' results hold that reaches the threshold, of parts `base` on.
template <int vectors, typename X, typename E, typename Block>
EDGEKIT_DEVICE void collect_results(Block& block, SplitMemory<vectors>* memory,
                                    const SplitJob<X, E>& job, int used, int base, int end) {
  const int parts = static_cast<int>(job.plan.parts);
  block.each([&](int t, auto& state) {
    const int v = t / kWarp;
    const float least = threshold(state.two, job.want_second);
    EDGEKIT_ROLLED
    for (int p = base + t % kWarp; v < used && p < end; p += kWarp) {
      const PartResult& result = job.workspace.results[v * parts + p];
      EDGEKIT_UNROLL
      for (int i = 0; i < kDeferred; ++i) {
        if (i >= result.count || !(result.upper[i] >= least)) continue;
        if (memory->sole[v] != 0) {
          job.answers.indices[v] = row_of(result.entry[i]);
        } else {
          memory->exact.pair[take_ticket(&memory->pairs)] = Pair{v, result.entry[i]};
        }
      }
    }
  });
}

// Joins what all blocks found: thresholds, exact answers, and how many candidates are left. A warp
// a vector.
template <int vectors, typename X, typename E, typename Block>
EDGEKIT_DEVICE void join_results(Block& block, SplitMemory<vectors>* memory,
                                 const SplitJob<X, E>& job, int used) {
  const int parts = static_cast<int>(job.plan.parts);
  block.each_alone([&](int t, auto& state) {
    state.top = nothing_seen();
    state.two = no_values();
    const PartResult* results = job.workspace.results + t / kWarp * parts;
    EDGEKIT_ROLLED
    for (int p = t % kWarp; t / kWarp < used && p < parts; p += kWarp) {
      merge(&state.two, results[p].lower);
      merge(&state.top, TopTwo{results[p].best, results[p].second, results[p].index});
    }
  });
  block.reduce_warps([](auto& state) -> Two& { return state.two; },
                     [](Two* own, const Two& other) { merge(own, other); });
  block.reduce_warps([](auto& state) -> TopTwo& { return state.top; },
                     [](TopTwo* own, const TopTwo& other) { merge(own, other); });
  block.each_alone([&](int t, auto& state) {
    state.left = 0;
    const float least = threshold(state.two, job.want_second);
    const PartResult* results = job.workspace.results + t / kWarp * parts;
    EDGEKIT_ROLLED
    for (int p = t % kWarp; t / kWarp < used && p < parts; p += kWarp) {
      EDGEKIT_UNROLL
      for (int i = 0; i < kDeferred; ++i) {
        state.left += i < results[p].count && results[p].upper[i] >= least ? 1 : 0;
      }
    }
  });
  block.reduce_warps([](auto& state) -> int32_t& { return state.left; },
                     [](int32_t* own, int32_t other) { *own += other; });
  const bool index_alone = job.answers.best == nullptr && !job.want_second;
  block.each([&](int t, auto& state) {
    if (t % kWarp != 0) return;
    const bool sole = index_alone && state.left == 1 && state.top.index < 0;
    memory->top[t / kWarp] = state.top;
    memory->sole[t / kWarp] = sole ? 1 : 0;
    memory->left[t / kWarp] = sole ? 0 : state.left;
  });
}

// Writes what a block found and leaves to the last one.
template <int vectors, typename X, typename E, typename Block>
EDGEKIT_DEVICE void write_results(Block& block, const SplitMemory<vectors>* memory,
                                  const SplitJob<X, E>& job, int64_t number, int used) {
  block.each_alone([&](int v, auto&) {
    if (v >= used) return;
    const Shortlist& list = memory->list[v];
    const TopTwo& top = memory->top[v];
    const int32_t count = memory->heavy != 0 ? 0 : list.count;
    PartResult result;
    result.best = top.best;
    result.second = top.second;
    result.index = top.index;
    result.lower = list.lower;
    result.count = count;
    EDGEKIT_UNROLL
    for (int i = 0; i < kDeferred; ++i) {
      result.entry[i] = i < count ? list.entry[i] : 0;
      result.upper[i] = i < count ? list.upper[i] : -kInfinity;
    }
    job.workspace.results[v * job.plan.parts + number] = result;
  });
}

// Keeps a block's candidates few with what others have so far, in disjoint sets of rows; says
// whether they are too many all the same to leave them to the last block.
template <int vectors, typename X, typename E, typename Block>
EDGEKIT_DEVICE bool compare_lowers(Block& block, SplitMemory<vectors>* memory,
                                   const SplitJob<X, E>& job, int64_t number, int used) {
  PackedHeader* header = job.packed.header;
  block.each([&](int v, auto&) {
    if (v >= used) return;
    Shortlist& list = memory->list[v];
    raise_to(&header->lowers[v][number % kSets], ordered(list.lower.first));
    if (list.spill == 0 && list.count > kDeferred) {
      Two lower = no_values();
      EDGEKIT_ROLLED
      for (int set = 0; set < kSets; ++set) {
        offer(&lower, from_ordered(load_fresh(&header->lowers[v][set])));
      }
      drop_below(&list, threshold(lower, job.want_second));
    }
    if (list.spill != 0 || list.count > kDeferred) memory->heavy = 1;
  });
  return memory->heavy != 0;
}

// The last of a block's work with few vectors: from its shortlists to what it found and, if it
// comes last, to the answers. Whatever is scored in double is scored in one place, to keep the code
// short.
template <int vectors, typename X, typename E, typename Block>
EDGEKIT_DEVICE void finish_split(Block& block, SplitMemory<vectors>* memory,
                                 const SplitJob<X, E>& job, const Part& part, int64_t number,
                                 int used, int64_t rows) {
  enum Source { kLists, kParts, kOwnDone, kResults };
  PackedHeader* header = job.packed.header;
  auto* exact = &memory->exact;
  const int parts = static_cast<int>(job.plan.parts);
  Source source = compare_lowers(block, memory, job, number, used) ? kLists : kOwnDone;
  int v = 0;
  int i = 0;
  int at_once = parts;
  for (;;) {
    if (source == kLists) {
      block.each([&](int t, auto&) {
        if (t >= used || memory->list[t].spill != 0) return;
        EDGEKIT_ROLLED
        for (int c = 0; c < memory->list[t].count; ++c) {
          exact->pair[take_ticket(&memory->pairs)] = Pair{t, memory->list[t].entry[c]};
        }
      });
      source = kParts;
    } else if (source == kParts) {
      while (v < used && (memory->list[v].spill == 0 || i >= part.tiles)) {
        ++v;
        i = 0;
      }
      if (v == used) {
        source = kOwnDone;
        continue;
      }
      collect_part(block, memory, job, part, i, v, rows);
      i += kPairRoom / kSplitRows;
    } else if (source == kOwnDone) {
      write_results(block, memory, job, number, used);
      if (!block.arrives_last(&header->arrived_rows, parts, &memory->last)) return;
      join_results(block, memory, job, used);
      int left = 0;
      EDGEKIT_ROLLED
      for (int warp = 0; warp < used; ++warp) left += memory->left[warp];
      if (left > kPairRoom) at_once = kPairRoom / (kDeferred * used);
      i = 0;
      source = kResults;
      continue;
    } else {
      if (i >= parts) break;
      collect_results(block, memory, job, used, i, i + at_once < parts ? i + at_once : parts);
      i += at_once;
    }
    const int count = memory->pairs;
    block.each([](int, auto&) {});  // all know it before it changes
    if (count == 0) continue;
    rescore(block, exact, job.exact, count, used == 1);
    merge_pairs(block, exact, count, 0, [&](int warp) { return &memory->top[warp]; });
    block.each([&](int t, auto&) {
      if (t == 0) memory->pairs = 0;
    });
  }
  block.each_alone([&](int t, auto&) {
    // As the next lookup wants to find it.
    if (t == 0) header->arrived_rows = 0;
    if (t < kFewVectors * kSets) header->lowers[t / kSets][t % kSets] = 0;
    const int own = t / kWarp;
    if (t % kWarp != 0 || own >= used || memory->sole[own] != 0) return;
    if (!answer_at_once(job.answers, header, own, memory->facts[own].kind)) {
      answer(job.answers, own, memory->top[own]);
    }
  });
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_FINISH_SPLIT_H_
