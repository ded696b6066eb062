// Approximate scores for many vectors: a product of matrices, tile by tile, that keeps no scores.
//
// A block holds a tile's sums in its threads' registers, a warp a rectangle of 16 x 8 sums each.
// The codes of both sides come through the block's memory, where the next columns are on their way
// while tensor cores work on the last ones.
#ifndef EDGEKIT_CUDA_COARSE_TILES_H_
#define EDGEKIT_CUDA_COARSE_TILES_H_

#include "coarse_split.h"
#include "plan.h"
#include "portable.h"

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
};

using Tile64x64 = TileShape<2, 4, 2, 2, 2, 3>;
using Tile80x64 = TileShape<1, 4, 5, 2, 2, 3>;
using Tile128x112 = TileShape<2, 7, 4, 2, 1, 4>;
using Tile128x208 = TileShape<2, 13, 4, 2, 1, 4>;
using Tile160x208 = TileShape<2, 13, 5, 2, 1, 4>;

template <typename Shape>
struct TilesState {
  Quad low[Shape::across];
  Quad high[Shape::across];
  Quad b[Shape::down];
  float c[Shape::across][Shape::down][4];  // sums, then upper bounds of scores
  Two two[2];
};

template <typename Shape>
struct TilesMemory {
  // Of 8 rows or vectors a block: a chunk of each.
  alignas(16) unsigned char codes[Shape::stages][Shape::depth][Shape::kBlocks]
                                 [kBlockRows * kChunkBytes];
  VectorFacts facts[Shape::kVectors];
  RowFacts rows[Shape::kRows];
  uint32_t entry[Shape::kRows];
  Two lower[Shape::warps_across][Shape::kVectors];
  Shortlist list[Shape::kVectors];
};

struct TilesJob {
  int64_t m;
  Packed packed;
  Plan plan;
  Workspace workspace;
  bool want_second;
};

// Starts copying the columns of `step` for a tile.
template <typename Shape, typename Block>
EDGEKIT_DEVICE void copy_codes(Block& block, TilesMemory<Shape>* memory, const TilesJob& job,
                               int64_t first_row, int64_t v0, int64_t step) {
  const Packed& packed = job.packed;
  constexpr int kBytes = kBlockRows * kChunkBytes;
  const int64_t last_vectors = (job.m - 1) / kBlockRows;
  if (step * Shape::depth < packed.chunks) {
    block.each_alone([&](int t, auto&) {
      EDGEKIT_UNROLL
      for (int i = t / kWarp; i < Shape::depth * Shape::kBlocks; i += Shape::kThreads / kWarp) {
        const int at = i % Shape::kBlocks;
        const int64_t chunk = step * Shape::depth + i / Shape::kBlocks;
        // Beyond the last rows and vectors, the last ones again: nobody asks for their sums.
        int64_t from = at < Shape::kRowBlocks ? first_row / kBlockRows + at
                                              : v0 / kBlockRows + at - Shape::kRowBlocks;
        const int64_t last = at < Shape::kRowBlocks ? packed.row_blocks - 1 : last_vectors;
        if (from > last) from = last;
        const unsigned char* codes = at < Shape::kRowBlocks ? packed.codes : job.workspace.codes;
        copy_quad(memory->codes[step % Shape::stages][i / Shape::kBlocks][at] + t % kWarp * 16,
                  codes + (from * packed.chunks + chunk) * kBytes + t % kWarp * 16);
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

// Sorts out a tile's scores: see screen_split. A thread has rows l / 4 (+ 8, + 16, ...) of its
// warp's and vectors 2 (l % 4) and the next of each eight.
template <typename Shape, typename Block>
EDGEKIT_DEVICE void screen_tile(Block& block, TilesMemory<Shape>* memory, int used_vectors,
                                int used_rows, bool want_second) {
  const auto row_of = [](int t, int i, int k) {
    return (t / kWarp / Shape::warps_down * Shape::across + i) * 16 + t % kWarp / 4 + k / 2 * 8;
  };
  const auto vector_of = [](int t, int j, int k) {
    return (t / kWarp % Shape::warps_down * Shape::down + j) * 8 + t % 4 * 2 + k % 2;
  };
  EDGEKIT_UNROLL
  for (int j = 0; j < Shape::down; ++j) {
    block.each_alone([&](int t, auto& state) {
      state.two[0] = state.two[1] = no_values();
      EDGEKIT_UNROLL
      for (int k = 0; k < 4; ++k) {
        const int v = vector_of(t, j, k);
        const bool wanted = v < used_vectors && memory->facts[v].kind == kOrdinary;
        EDGEKIT_UNROLL
        for (int i = 0; i < Shape::across; ++i) {
          const int row = row_of(t, i, k);
          if (!wanted || row >= used_rows) {
            state.c[i][j][k] = kNan;  // which reaches no threshold
            continue;
          }
          const Interval at = score_interval(state.c[i][j][k], memory->rows[row], memory->facts[v]);
          offer(&state.two[k % 2], at.lower);
          state.c[i][j][k] = at.upper;
        }
      }
    });
    EDGEKIT_UNROLL
    for (int k = 0; k < 2; ++k) {
      block.template reduce_warps<4>([k](auto& state) -> Two& { return state.two[k]; },
                                     [](Two* own, const Two& other) { merge(own, other); });
    }
    block.each_alone([&](int t, auto& state) {
      if (t % kWarp >= 4) return;
      EDGEKIT_UNROLL
      for (int k = 0; k < 2; ++k) {
        memory->lower[t / kWarp / Shape::warps_down][vector_of(t, j, k)] = state.two[k];
      }
    });
  }
  block.each([](int, auto&) {});
  block.each([&](int t, auto&) {
    for (int v = t; v < used_vectors; v += Shape::kThreads) {
      Two lower = no_values();
      EDGEKIT_UNROLL
      for (int warp = 0; warp < Shape::warps_across; ++warp) merge(&lower, memory->lower[warp][v]);
      raise(&memory->list[v], lower, want_second);
      memory->lower[0][v].first = threshold(memory->list[v].lower, want_second);
    }
  });
  block.each([&](int t, auto& state) {
    EDGEKIT_UNROLL
    for (int j = 0; j < Shape::down; ++j) {
      EDGEKIT_UNROLL
      for (int k = 0; k < 4; ++k) {
        const int v = vector_of(t, j, k);
        const float least = memory->lower[0][v].first;
        EDGEKIT_UNROLL
        for (int i = 0; i < Shape::across; ++i) {
          if (state.c[i][j][k] >= least) {
            add(&memory->list[v], memory->entry[row_of(t, i, k)], state.c[i][j][k]);
          }
        }
      }
    }
  });
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
  const int64_t steps = packed.chunks / Shape::depth;
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
    for (int64_t step = 0; step < Shape::stages - 1; ++step) {
      copy_codes(block, memory, job, first_row, v0, step);
    }
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
    for (int64_t step = 0; step < steps; ++step) {
      block.template wait_for_copies<Shape::stages - 2>();
      copy_codes(block, memory, job, first_row, v0, step + Shape::stages - 1);
      EDGEKIT_UNROLL
      for (int depth = 0; depth < Shape::depth; ++depth) {
        multiply_chunk<Shape>(block, memory, static_cast<int>(step % Shape::stages), depth);
      }
    }
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
