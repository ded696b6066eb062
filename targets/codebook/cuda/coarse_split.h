// Approximate scores for few vectors: bound by reading the codebook, which is read once.
//
// A block takes 16 rows at a time with 8 or 32 vectors; its warps share the columns, load their
// part of the next rows before they sort out the last ones, and add up in the block's memory. With
// up to eight vectors the block goes on to the end: it scores its candidates in double, and the
// last block to arrive compares the blocks' answers.
#ifndef EDGEKIT_CUDA_COARSE_SPLIT_H_
#define EDGEKIT_CUDA_COARSE_SPLIT_H_

#include "finish_split.h"
#include "split_block.h"

namespace edgekit::cuda {

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
        block, &memory->prepare, job.vectors, packed.header, 0, used,
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
