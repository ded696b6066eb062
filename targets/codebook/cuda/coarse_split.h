// Approximate scores for few vectors: bound by reading the codebook, which is read once.
//
// A block takes 16 rows at a time with 8 or 32 vectors; its warps share the columns, load their
// part of the next rows before they sort out the last ones, and add up in the block's memory. With
// up to eight vectors the block goes on to the end: it scores its candidates in double, and the
// last block to arrive compares the blocks' answers.
#ifndef EDGEKIT_CUDA_COARSE_SPLIT_H_
#define EDGEKIT_CUDA_COARSE_SPLIT_H_

#include "plan.h"
#include "portable.h"
#include "prepare.h"
#include "rescore.h"

namespace edgekit::cuda {

constexpr int kSplitThreads = 256;
constexpr int kSplitWarps = kSplitThreads / kWarp;
constexpr int kSplitRows = 2 * kBlockRows;
constexpr int kAhead = 8;  // chunks of its rows that a warp loads at once
static_assert(kSplitThreads == kPrepareThreads && kSplitThreads >= kPairRoom);
static_assert(kSplitWarps == kFewVectors, "a warp a vector");

// `vectors` are multiples of eight.
template <int vectors>
struct SplitState : PrepareState, ExactState {
  Quad low[kAhead];
  Quad high[kAhead];
  Quad b[vectors / 8];
  float c[2][vectors / 8][4];  // of the two steps of a product
  RowFacts row;
  uint32_t entry;
  Two two;
  int32_t left;  // candidates
};

template <int vectors>
struct SplitMemory {
  float partial[kSplitWarps][kSplitRows][vectors + 1];
  float upper[vectors][kSplitRows];
  VectorFacts facts[vectors];
  Shortlist list[vectors];
  TopTwo top[kSplitWarps];
  int32_t left[kSplitWarps];
  int32_t sole[kSplitWarps];  // 1: the vector has its answer
  int32_t pairs;
  int32_t heavy;
  int32_t last;
  PrepareMemory prepare;
  std::conditional_t<vectors == kFewVectors, ExactMemory<kSplitThreads>, char> exact;
};

template <typename X, typename E>
struct SplitJob {
  VectorJob<X> vectors;
  ExactJob<X, E> exact;
  AnswerJob answers;
  Packed packed;
  Plan plan;
  Workspace workspace;
  bool want_second;
};

// The rows that part `part` has: tiles part, part + parts, ... of `tile_rows` rows each.
struct Part {
  int first;
  int step;
  int tiles;
  int tile_rows;
};

EDGEKIT_DEVICE Part make_part(const Plan& plan, int64_t rows, int64_t part) {
  const auto tile_rows = static_cast<uint32_t>(plan.tile_rows);
  const int tiles = static_cast<int>((static_cast<uint32_t>(rows) + tile_rows - 1) / tile_rows);
  Part found;
  found.first = static_cast<int>(part);
  found.step = static_cast<int>(plan.parts);
  found.tiles = found.first < tiles ? (tiles - found.first + found.step - 1) / found.step : 0;
  found.tile_rows = plan.tile_rows;
  return found;
}

EDGEKIT_DEVICE int64_t tile_of(const Part& part, int64_t i) { return part.first + i * part.step; }

// Loads chunk `u` of a warp's share of a tile's rows, from chunk `start` on.
template <typename Block>
EDGEKIT_DEVICE void load_chunk(Block& block, const Packed& packed, int64_t tile, int64_t start,
                               int u) {
  if (2 * tile >= packed.row_blocks) return;
  block.each_alone([&](int t, auto& state) {
    const int64_t chunk = start + u * kSplitWarps + t / kWarp;
    if (chunk >= packed.chunks) return;
    constexpr int64_t kBytes = kBlockRows * kChunkBytes;
    const unsigned char* codes =
        packed.codes + (2 * tile * packed.stride + chunk) * kBytes + t % kWarp * 16;
    state.low[u] = load_quad_once(codes);
    state.high[u] = load_quad_once(codes + packed.stride * kBytes);
  });
}

// Loads what the bounds need of the rows of tile i: lane l has that of row l.
template <int vectors, typename Block>
EDGEKIT_DEVICE void load_facts(Block& block, const Packed& packed, const Part& part, int i,
                               int64_t n) {
  block.each_alone([&](int t, auto& state) {
    const int64_t place = tile_of(part, i) * kSplitRows + t % kWarp;
    if (t % kWarp >= kSplitRows || place >= n) return;
    state.row = packed.facts[place];
    state.entry = packed.entry[place];
  });
}

// Where the vectors' codes lie: chunk by chunk, `stride` vectors side by side, `used` of them real.
struct VectorCodes {
  const unsigned char* codes;
  int64_t group;  // bytes from eight vectors to the next eight
  int stride;
  int used;
};

// Adds a warp's products from chunk `start` on, and loads chunks of the next tile (or of this one)
// in the place of those that are done.
template <int vectors, typename Block>
EDGEKIT_DEVICE void add_products(Block& block, const Packed& packed, const VectorCodes& from,
                                 int64_t start, int64_t next_tile, int64_t next_start) {
  EDGEKIT_UNROLL
  for (int u = 0; u < kAhead; ++u) {
    block.each_alone([&](int t, auto& state) {
      const int64_t chunk = start + u * kSplitWarps + t / kWarp;
      if (chunk >= packed.chunks) return;
      const int v = t % kWarp / 4;
      EDGEKIT_UNROLL
      for (int j = 0; j < vectors / 8; ++j) {
        state.b[j] = Quad{};
        if (j * 8 + v >= from.used) continue;
        state.b[j] = load_quad(from.codes + j * from.group +
                               (chunk * from.stride + v) * kChunkBytes + t % 4 * 16);
      }
    });
    block.each_together([&](int warp, auto* states) {
      if (start + u * kSplitWarps + warp >= packed.chunks) return;
      EDGEKIT_UNROLL
      for (int j = 0; j < vectors / 8; ++j) {
        multiply<0>(
            states, [j](auto& state) -> float* { return state.c[0][j]; },
            [u](auto& state) -> const Quad& { return state.low[u]; },
            [u](auto& state) -> const Quad& { return state.high[u]; },
            [j](auto& state) -> const Quad& { return state.b[j]; });
        multiply<1>(
            states, [j](auto& state) -> float* { return state.c[1][j]; },
            [u](auto& state) -> const Quad& { return state.low[u]; },
            [u](auto& state) -> const Quad& { return state.high[u]; },
            [j](auto& state) -> const Quad& { return state.b[j]; });
      }
    });
    load_chunk(block, packed, next_tile, next_start, u);
  }
}

// Sorts out a tile's scores: a warp a vector, a lane a row.
template <int vectors, typename Block>
EDGEKIT_DEVICE void screen_split(Block& block, SplitMemory<vectors>* memory, int used,
                                 int64_t first_row, int64_t rows, bool want_second) {
  const int left = static_cast<int>(rows - first_row < kSplitRows ? rows - first_row : kSplitRows);
  EDGEKIT_ROLLED
  for (int v0 = 0; v0 < used; v0 += kSplitWarps) {
    block.each_warp([&](int t, auto& state) {
      const int v = v0 + t / kWarp;
      const int r = t % kWarp;
      state.two = no_values();
      if (v >= used || r >= left || memory->facts[v].kind != kOrdinary) return;
      float sum = 0;
      EDGEKIT_UNROLL
      for (int warp = 0; warp < kSplitWarps; ++warp) sum += memory->partial[warp][r][v];
      const Interval at = score_interval(sum, state.row, memory->facts[v]);
      state.two.first = at.lower;
      memory->upper[v][r] = at.upper;
    });
    block.reduce_warps([](auto& state) -> Two& { return state.two; },
                       [](Two* own, const Two& other) { merge(own, other); });
    block.each_warp([&](int t, auto& state) {
      const int v = v0 + t / kWarp;
      if (v < used && t % kWarp == 0) raise(&memory->list[v], state.two, want_second);
    });
    block.each_warp([&](int t, auto& state) {
      const int v = v0 + t / kWarp;
      const int r = t % kWarp;
      if (v >= used || r >= left || memory->facts[v].kind != kOrdinary) return;
      const float upper = memory->upper[v][r];
      if (upper >= threshold(memory->list[v].lower, want_second)) {
        add(&memory->list[v], state.entry, upper);
      }
    });
  }
  block.each([](int, auto&) {});
}

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

// The work of block `number` of blocks_down x parts. `here` has room for the vectors' codes where
// the plan says so.
template <int vectors, typename X, typename E, typename Block>
EDGEKIT_DEVICE void coarse_split(Block& block, SplitMemory<vectors>* memory, unsigned char* here,
                                 const SplitJob<X, E>& job, int64_t number) {
  constexpr bool kToTheEnd = vectors == kFewVectors;
  const Packed& packed = job.packed;
  const auto parts = static_cast<uint32_t>(job.plan.parts);
  const int64_t v0 = static_cast<int64_t>(static_cast<uint32_t>(number) / parts) * vectors;
  const int64_t at = static_cast<uint32_t>(number) % parts;
  const int used = static_cast<int>(job.vectors.m - v0 < vectors ? job.vectors.m - v0 : vectors);
  // The first tile's codes and facts are on their way before anything else is known.
  const Part all = make_part(job.plan, job.exact.n, at);
  EDGEKIT_UNROLL
  for (int u = 0; u < kAhead; ++u) load_chunk(block, packed, tile_of(all, 0), 0, u);
  load_facts<vectors>(block, packed, all, 0, job.exact.n);
  const int64_t rows = packed.header->nonfinite != 0 ? 0 : packed.header->rows;
  const Part part = make_part(job.plan, rows, at);
  VectorCodes codes;
  if (kToTheEnd && job.plan.prepare_here) {
    codes = {here, 0, used, used};
    prepare_vectors(
        block, &memory->prepare, job.vectors, packed.header, 0,
        used == 1   ? 8
        : used == 2 ? 4
        : used <= 4 ? 2
                    : 1,
        [&](int64_t v, int64_t chunk) { return here + (chunk * used + v) * kChunkBytes; },
        [&](int64_t v) { return &memory->facts[v]; });
  } else {
    const int64_t group = packed.stride * kBlockRows * kChunkBytes;
    codes = {job.workspace.codes + v0 / kBlockRows * group, group, kBlockRows, used};
    block.each_alone([&](int v, auto&) {
      if (v < used) memory->facts[v] = job.workspace.facts[v0 + v];
    });
  }
  block.each([&](int v, auto&) {
    if (v == 0) memory->heavy = memory->pairs = 0;
    if (v < kSplitWarps) memory->top[v] = nothing_seen();
    if (v < used) clear(&memory->list[v]);
  });
  constexpr int64_t kGroup = kAhead * kSplitWarps;
  int64_t start = 0;
  for (int i = 0; i < part.tiles;) {
    const int64_t first_row = tile_of(part, i) * kSplitRows;
    const bool last = start + kGroup >= packed.chunks;
    if (start == 0) {
      block.each_alone([&](int, auto& state) {
        EDGEKIT_UNROLL
        for (int j = 0; j < vectors / 8; ++j) {
          EDGEKIT_UNROLL
          for (int k = 0; k < 4; ++k) state.c[0][j][k] = state.c[1][j][k] = 0;
        }
      });
    }
    const int64_t begin = start;
    start = last ? 0 : start + kGroup;
    i += last ? 1 : 0;
    add_products<vectors>(block, packed, codes, begin, tile_of(part, i), start);
    if (!last) continue;
    block.each([&](int t, auto& state) {
      const int lane = t % kWarp;
      EDGEKIT_UNROLL
      for (int j = 0; j < vectors / 8; ++j) {
        EDGEKIT_UNROLL
        for (int k = 0; k < 4; ++k) {
          memory->partial[t / kWarp][lane / 4 + k / 2 * 8][j * 8 + lane % 4 * 2 + k % 2] =
              state.c[0][j][k] + state.c[1][j][k];
        }
      }
    });
    screen_split(block, memory, used, first_row, rows, job.want_second);
    load_facts<vectors>(block, packed, part, i, rows);
  }
  if constexpr (kToTheEnd) {
    finish_split(block, memory, job, part, at, used, rows);
  } else {
    block.each_alone([&](int v, auto&) {
      if (v < used) job.workspace.lists[(v0 + v) * job.plan.parts + at] = memory->list[v];
    });
  }
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_COARSE_SPLIT_H_
