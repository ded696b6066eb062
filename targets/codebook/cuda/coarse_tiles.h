// Approximate scores for many vectors: a product of matrices, tile by tile, that keeps no scores.
//
// A block holds a tile's sums in its threads' registers, a warp a rectangle of 16 x 8 sums each.
// The codes of both sides come through the block's memory, where the next columns are on their way
// while tensor cores work on the last ones.
#ifndef EDGEKIT_CUDA_COARSE_TILES_H_
#define EDGEKIT_CUDA_COARSE_TILES_H_

#include "plan.h"
#include "portable.h"
#include "split_block.h"

namespace edgekit::cuda {

// A warp has `across` x 16 rows and `down` x 8 vectors, a block warps_across x warps_down warps;
// `depth` chunks of columns are brought in at once, `stages` such steps are under way.
template <int across_, int down_, int warps_across_, int warps_down_, int depth_, int stages_>
struct TileShape {
  static constexpr int across = across_;
  static constexpr int down = down_;
  static constexpr int warps_across = warps_across_;
  static constexpr int warps_down = warps_down_;
  static constexpr int depth = depth_;
  static constexpr int stages = stages_;
  static constexpr int kThreads = kWarp * warps_across * warps_down;
  static constexpr int kRows = 16 * across * warps_across;
  static constexpr int kVectors = 8 * down * warps_down;
  static constexpr int kRowBlocks = kRows / kBlockRows;
  static constexpr int kBlocks = kRowBlocks + kVectors / kBlockRows;
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int kCopies = (kBlocks + kWarps - 1) / kWarps;  // blocks that a warp brings in
};

using Tile64x64 = TileShape<2, 4, 2, 2, 2, 6>;
using Tile80x64 = TileShape<1, 4, 5, 2, 2, 6>;
using Tile128x112 = TileShape<2, 7, 4, 2, 1, 8>;
using Tile128x208 = TileShape<2, 13, 4, 2, 1, 5>;

template <typename Shape>
struct TilesState {
  Quad low[Shape::across];
  Quad high[Shape::across];
  Quad b[Shape::down];
  float c[Shape::across][Shape::down][4];
  Two two;
  const unsigned char* from[Shape::kCopies];  // what this thread copies next
};

template <typename Shape>
struct TilesMemory {
  // Spreads what a warp's lanes write at once, 8 rows of each second vector, over all banks.
  static constexpr int kStride = (Shape::kRows + kWarp - 1) / kWarp * kWarp + 4;

  union {
    // Of 8 rows or vectors a block: a chunk of each.
    alignas(16) unsigned char codes[Shape::stages][Shape::depth][Shape::kBlocks]
                                   [kBlockRows * kChunkBytes];
    float score[Shape::kVectors][kStride];  // then upper bounds of scores
  };
  VectorFacts facts[Shape::kVectors];
  RowFacts rows[Shape::kRows];
  uint32_t entry[Shape::kRows];
  Shortlist list[Shape::kVectors];
};

struct TilesJob {
  int64_t m;
  Packed packed;
  Plan plan;
  Workspace workspace;
  bool want_second;
};

// Finds what each thread copies of a tile's codes: sixteen bytes of every chunk of some blocks.
template <typename Shape, typename Block>
EDGEKIT_DEVICE void find_codes(Block& block, const TilesJob& job, int64_t first_row, int64_t v0) {
  const Packed& packed = job.packed;
  const int64_t last_vectors = (job.m - 1) / kBlockRows;
  block.each_alone([&](int t, auto& state) {
    EDGEKIT_UNROLL
    for (int u = 0; u < Shape::kCopies; ++u) {
      const int at = t / kWarp + u * Shape::kWarps;
      // Beyond the last rows and vectors, the last ones again: nobody asks for their sums.
      const bool row = at < Shape::kRowBlocks;
      int64_t from = row ? first_row / kBlockRows + at : v0 / kBlockRows + at - Shape::kRowBlocks;
      const int64_t last = row ? packed.row_blocks - 1 : last_vectors;
      if (from > last) from = last;
      state.from[u] = (row ? packed.codes : job.workspace.codes) +
                      from * packed.stride * kBlockRows * kChunkBytes + t % kWarp * 16;
    }
  });
}

// Starts copying the columns of `step` for a tile; steps come one after another.
template <typename Shape, typename Block>
EDGEKIT_DEVICE void copy_codes(Block& block, TilesMemory<Shape>* memory, int step, int steps) {
  constexpr int kBytes = kBlockRows * kChunkBytes;
  if (step < steps) {
    block.each_alone([&](int t, auto& state) {
      auto* stage = memory->codes[step % Shape::stages];
      EDGEKIT_UNROLL
      for (int u = 0; u < Shape::kCopies; ++u) {
        const int at = t / kWarp + u * Shape::kWarps;
        if (Shape::kBlocks % Shape::kWarps != 0 && at >= Shape::kBlocks) continue;
        EDGEKIT_UNROLL
        for (int depth = 0; depth < Shape::depth; ++depth) {
          copy_quad(stage[depth][at] + t % kWarp * 16, state.from[u] + depth * kBytes);
        }
        state.from[u] += Shape::depth * kBytes;
      }
    });
  }
  block.end_copies();
}

template <int step, typename Shape, typename Block>
EDGEKIT_DEVICE void multiply_step(Block& block) {
  block.each_together([&](int, auto* states) {
    EDGEKIT_UNROLL
    for (int j = 0; j < Shape::down; ++j) {
      EDGEKIT_UNROLL
      for (int i = 0; i < Shape::across; ++i) {
        multiply<step>(
            states, [i, j](auto& state) -> float* { return state.c[i][j]; },
            [i](auto& state) -> const Quad& { return state.low[i]; },
            [i](auto& state) -> const Quad& { return state.high[i]; },
            [j](auto& state) -> const Quad& { return state.b[j]; });
      }
    }
  });
}

template <typename Shape, typename Block>
EDGEKIT_DEVICE void multiply_chunk(Block& block, const TilesMemory<Shape>* memory, int stage,
                                   int depth) {
  block.each_alone([&](int t, auto& state) {
    const int warp = t / kWarp;
    const auto* codes = memory->codes[stage][depth];
    EDGEKIT_UNROLL
    for (int i = 0; i < Shape::across; ++i) {
      const int at = (warp / Shape::warps_down * Shape::across + i) * 2;
      state.low[i] = load_quad(codes[at] + t % kWarp * 16);
      state.high[i] = load_quad(codes[at + 1] + t % kWarp * 16);
    }
    EDGEKIT_UNROLL
    for (int j = 0; j < Shape::down; ++j) {
      const int at = Shape::kRowBlocks + warp % Shape::warps_down * Shape::down + j;
      state.b[j] = load_quad(codes[at] + t % kWarp * 16);
    }
  });
  multiply_step<0, Shape>(block);
  multiply_step<1, Shape>(block);
}

// Puts a tile's sums where all threads can reach them: a thread has rows l / 4 (+ 8, + 16, ...) of
// its warp's and vectors 2 (l % 4) and the next of each eight.
template <typename Shape, typename Block>
EDGEKIT_DEVICE void store_sums(Block& block, TilesMemory<Shape>* memory) {
  block.each([](int, auto&) {});  // nobody needs codes anymore
  block.each([&](int t, auto& state) {
    const int lane = t % kWarp;
    const int row = t / kWarp / Shape::warps_down * Shape::across * 16 + lane / 4;
    const int v = t / kWarp % Shape::warps_down * Shape::down * 8 + lane % 4 * 2;
    EDGEKIT_UNROLL
    for (int j = 0; j < Shape::down; ++j) {
      EDGEKIT_UNROLL
      for (int i = 0; i < Shape::across; ++i) {
        EDGEKIT_UNROLL
        for (int k = 0; k < 4; ++k) {
          memory->score[v + j * 8 + k % 2][row + i * 16 + k / 2 * 8] = state.c[i][j][k];
        }
      }
    }
  });
}

// Sorts out a tile's scores: eight lanes a vector.
template <typename Shape, typename Block>
EDGEKIT_DEVICE void screen_tile(Block& block, TilesMemory<Shape>* memory, int used_vectors,
                                int used_rows, bool want_second) {
  constexpr int kShare = 8;
  for (int v0 = 0; v0 < used_vectors; v0 += Shape::kThreads / kShare) {
    const auto wanted = [&](int v) {
      return v < used_vectors && memory->facts[v].kind == kOrdinary;
    };
    block.each_warp([&](int t, auto& state) {
      const int v = v0 + t / kShare;
      state.two = no_values();
      if (!wanted(v)) return;
      const VectorFacts facts = memory->facts[v];
#ifdef __CUDACC__
#pragma unroll 4
#endif
      for (int row = t % kShare; row < used_rows; row += kShare) {
        const Interval at = score_interval(memory->score[v][row], memory->rows[row], facts);
        offer(&state.two, at.lower);
        memory->score[v][row] = at.upper;
      }
    });
    block.template reduce_warps<kShare>([](auto& state) -> Two& { return state.two; },
                                        [](Two* own, const Two& other) { merge(own, other); });
    block.each_warp([&](int t, auto& state) {
      const int v = v0 + t / kShare;
      if (t % kShare == 0 && wanted(v)) raise(&memory->list[v], state.two, want_second);
    });
    block.each_warp([&](int t, auto&) {
      const int v = v0 + t / kShare;
      if (!wanted(v)) return;
      const float least = threshold(memory->list[v].lower, want_second);
#ifdef __CUDACC__
#pragma unroll 4
#endif
      for (int row = t % kShare; row < used_rows; row += kShare) {
        const float upper = memory->score[v][row];
        if (upper >= least) add(&memory->list[v], memory->entry[row], upper);
      }
    });
  }
  block.each([](int, auto&) {});
}

// The work of block `number` of blocks_down x parts.
template <typename Shape, typename Block>
EDGEKIT_DEVICE void coarse_tiles(Block& block, TilesMemory<Shape>* memory, const TilesJob& job,
                                 int64_t number) {
  const Packed& packed = job.packed;
  const auto parts = static_cast<uint32_t>(job.plan.parts);
  const int64_t at = static_cast<uint32_t>(number) % parts;
  const int64_t v0 = static_cast<int64_t>(static_cast<uint32_t>(number) / parts) * Shape::kVectors;
  const int used = static_cast<int>(job.m - v0 < Shape::kVectors ? job.m - v0 : Shape::kVectors);
  const int64_t rows = packed.header->nonfinite != 0 ? 0 : packed.header->rows;
  const Part part = make_part(job.plan, rows, at);
  const int steps = static_cast<int>(packed.chunks) / Shape::depth;
  block.each_alone([&](int t, auto&) {
    for (int v = t; v < used; v += Shape::kThreads) {
      memory->facts[v] = job.workspace.facts[v0 + v];
      clear(&memory->list[v]);
    }
  });
  for (int i = 0; i < part.tiles; ++i) {
    const int64_t first_row = tile_of(part, i) * Shape::kRows;
    const int left =
        static_cast<int>(rows - first_row < Shape::kRows ? rows - first_row : Shape::kRows);
    find_codes<Shape>(block, job, first_row, v0);
    for (int step = 0; step < Shape::stages - 1; ++step) copy_codes(block, memory, step, steps);
    block.each_alone([&](int t, auto& state) {
      for (int row = t; row < left; row += Shape::kThreads) {
        memory->rows[row] = packed.facts[first_row + row];
        memory->entry[row] = packed.entry[first_row + row];
      }
      EDGEKIT_UNROLL
      for (int a = 0; a < Shape::across; ++a) {
        EDGEKIT_UNROLL
        for (int j = 0; j < Shape::down; ++j) {
          EDGEKIT_UNROLL
          for (int k = 0; k < 4; ++k) state.c[a][j][k] = 0;
        }
      }
    });
    for (int step = 0; step < steps; ++step) {
      block.template wait_for_copies<Shape::stages - 2>();
      copy_codes(block, memory, step + Shape::stages - 1, steps);
      EDGEKIT_UNROLL
      for (int depth = 0; depth < Shape::depth; ++depth) {
        multiply_chunk<Shape>(block, memory, step % Shape::stages, depth);
      }
    }
    store_sums(block, memory);
    screen_tile(block, memory, used, left, job.want_second);
  }
  block.each_alone([&](int t, auto&) {
    for (int v = t; v < used; v += Shape::kThreads) {
      job.workspace.lists[(v0 + v) * job.plan.parts + at] = memory->list[v];
    }
  });
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_COARSE_TILES_H_
