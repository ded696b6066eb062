// Approximate scores for many vectors: a product of matrices, tile by tile, that keeps no scores.
//
// A block holds `tile` vectors and walks through its part of the codebook `tile` rows at a time.
// Sixteen columns of both are in the block's memory while the next sixteen are on their way. A
// thread sums for a few vectors and four rows; every 128 columns its sums go to a second set of
// sums, which keeps the error bound (and with it the number of candidates) small.
#ifndef EDGEKIT_CUDA_COARSE_TILES_H_
#define EDGEKIT_CUDA_COARSE_TILES_H_

#include "coarse_rows.h"
#include "plan.h"
#include "portable.h"
#include "screen.h"

namespace edgekit::cuda {

constexpr int kTileDepth = 16;   // columns of x and codebook at once
constexpr int kTileFlush = 8;    // depths between two additions to the second set of sums
constexpr int kTileColumns = 4;  // rows of the codebook to a thread

inline int64_t tiles_depth(int64_t d) {
  return kTileDepth * kTileFlush + divide_up(d, kTileDepth * kTileFlush);
}

template <int tile>
struct TileShape {
  static constexpr int kThreads = 2 * tile;
  static constexpr int kAcross = tile / kTileColumns;          // threads over the rows
  static constexpr int kDown = kThreads / kAcross;             // threads over the vectors
  static constexpr int kVectors = tile / kDown;                // vectors to a thread
  static constexpr int kLoads = kTileDepth * tile / kThreads;  // values of each to a thread
  static_assert(kLoads == 8 && kVectors % 4 == 0, "loads are two wide ones");
};

template <int tile>
struct TilesState {
  float sum[TileShape<tile>::kVectors][kTileColumns];
  float total[TileShape<tile>::kVectors][kTileColumns];
  float next_x[TileShape<tile>::kLoads];
  float next_e[TileShape<tile>::kLoads];
  float x_sum, x_total, e_sum, e_total;  // squares of what this thread loaded
};

template <int tile>
struct TilesMemory {
  static constexpr int kStride = tile + 4;  // a multiple of four that spreads over the banks

  union {
    struct {
      alignas(16) float x[2][kTileDepth][kStride];
      alignas(16) float e[2][kTileDepth][kStride];
    } input;
    float score[tile][tile + 1];
  };
  float x_squares[2][tile];
  float e_squares[2][tile];
  Screen<tile, tile, TileShape<tile>::kThreads> screen;
};

EDGEKIT_DEVICE void read4(const float* from, float* to) {
#ifdef __CUDACC__
  const float4 four = *reinterpret_cast<const float4*>(from);
  to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
#else
  for (int i = 0; i < 4; ++i) to[i] = from[i];
#endif
}

// Loads this thread's eight values of row `row` at columns k.. (zeros outside).
template <typename T>
EDGEKIT_DEVICE void fetch(const T* matrix, int64_t row, int64_t rows, int64_t k, int64_t d,
                          bool aligned, float* out) {
  if (row >= rows) {
    EDGEKIT_UNROLL
    for (int i = 0; i < 8; ++i) out[i] = 0;
    return;
  }
  load4(matrix + row * d, k, d, aligned, out);
  load4(matrix + row * d, k + 4, d, aligned, out + 4);
}

template <int tile>
EDGEKIT_DEVICE void put(TilesMemory<tile>* memory, int buffer, int t, TilesState<tile>& state) {
  const int row = t % tile;
  const int k = t / tile * TileShape<tile>::kLoads;
  EDGEKIT_UNROLL
  for (int i = 0; i < TileShape<tile>::kLoads; ++i) {
    memory->input.x[buffer][k + i][row] = state.next_x[i];
    memory->input.e[buffer][k + i][row] = state.next_e[i];
    state.x_sum += state.next_x[i] * state.next_x[i];
    state.e_sum += state.next_e[i] * state.next_e[i];
  }
}

template <int tile>
EDGEKIT_DEVICE void multiply(const TilesMemory<tile>* memory, int buffer, int t,
                             TilesState<tile>& state) {
  using Shape = TileShape<tile>;
  const int down = t / Shape::kAcross * Shape::kVectors;
  const int across = t % Shape::kAcross * kTileColumns;
  EDGEKIT_UNROLL
  for (int k = 0; k < kTileDepth; ++k) {
    float xs[Shape::kVectors];
    float es[kTileColumns];
    EDGEKIT_UNROLL
    for (int i = 0; i < Shape::kVectors; i += 4) {
      read4(&memory->input.x[buffer][k][down + i], xs + i);
    }
    read4(&memory->input.e[buffer][k][across], es);
    EDGEKIT_UNROLL
    for (int i = 0; i < Shape::kVectors; ++i) {
      EDGEKIT_UNROLL
      for (int j = 0; j < kTileColumns; ++j) state.sum[i][j] += xs[i] * es[j];
    }
  }
}

template <int tile>
EDGEKIT_DEVICE void flush(TilesState<tile>& state) {
  EDGEKIT_UNROLL
  for (int i = 0; i < TileShape<tile>::kVectors; ++i) {
    EDGEKIT_UNROLL
    for (int j = 0; j < kTileColumns; ++j) {
      state.total[i][j] += state.sum[i][j];
      state.sum[i][j] = 0;
    }
  }
  state.x_total += state.x_sum;
  state.e_total += state.e_sum;
  state.x_sum = 0;
  state.e_sum = 0;
}

// The sums of `tile` vectors from v0 on and `tile` rows from `first` on, into memory->score.
template <int tile, typename X, typename E, typename Block>
EDGEKIT_DEVICE void multiply_tile(Block& block, TilesMemory<tile>* memory,
                                  const CoarseJob<X, E>& job, int64_t v0, int64_t first) {
  using Shape = TileShape<tile>;
  const auto load = [&](int t, TilesState<tile>& state, int64_t depth) {
    const int64_t k = depth * kTileDepth + t / tile * Shape::kLoads;
    fetch(job.x, v0 + t % tile, job.m, k, job.d, job.x_aligned, state.next_x);
    fetch(job.codebook, first + t % tile, job.n, k, job.d, job.codebook_aligned, state.next_e);
  };
  block.each([&](int t, auto& state) {
    EDGEKIT_UNROLL
    for (int i = 0; i < Shape::kVectors; ++i) {
      EDGEKIT_UNROLL
      for (int j = 0; j < kTileColumns; ++j) state.sum[i][j] = state.total[i][j] = 0;
    }
    state.x_sum = state.x_total = state.e_sum = state.e_total = 0;
    load(t, state, 0);
    put(memory, 0, t, state);
  });
  const int64_t depths = (job.d + kTileDepth - 1) / kTileDepth;
  for (int64_t depth = 0; depth < depths; ++depth) {
    const int buffer = static_cast<int>(depth % 2);
    const bool more = depth + 1 < depths;
    block.each([&](int t, auto& state) {
      if (more) load(t, state, depth + 1);
      multiply(memory, buffer, t, state);
      if (depth % kTileFlush == kTileFlush - 1 || !more) flush(state);
      if (more) put(memory, 1 - buffer, t, state);
    });
  }
  block.each([&](int t, auto& state) {
    const int down = t / Shape::kAcross * Shape::kVectors;
    const int across = t % Shape::kAcross * kTileColumns;
    EDGEKIT_UNROLL
    for (int i = 0; i < Shape::kVectors; ++i) {
      EDGEKIT_UNROLL
      for (int j = 0; j < kTileColumns; ++j) {
        memory->score[down + i][across + j] = state.total[i][j];
      }
    }
    memory->x_squares[t / tile][t % tile] = state.x_total;
    memory->e_squares[t / tile][t % tile] = state.e_total;
  });
  block.each([&](int t, auto&) {
    if (t >= tile) return;
    memory->screen.x_square[t] = memory->x_squares[0][t] + memory->x_squares[1][t];
    memory->screen.e_square[t] = memory->e_squares[0][t] + memory->e_squares[1][t];
  });
}

// The work of block `number` of blocks_down x parts.
template <int tile, typename X, typename E, typename Block>
EDGEKIT_DEVICE void coarse_tiles(Block& block, TilesMemory<tile>* memory,
                                 const CoarseJob<X, E>& job, int64_t number) {
  const int64_t part = number % job.plan.parts;
  const int64_t v0 = number / job.plan.parts * tile;
  const int used = static_cast<int>(job.m - v0 < tile ? job.m - v0 : tile);
  const int64_t first = part * job.plan.part_rows;
  const int64_t last = first + job.plan.part_rows < job.n ? first + job.plan.part_rows : job.n;
  block.each([&](int v, auto&) {
    if (v < used) clear(&memory->screen.list[v]);
  });
  for (int64_t base = first; base < last; base += tile) {
    multiply_tile<tile>(block, memory, job, v0, base);
    const int columns = static_cast<int>(last - base < tile ? last - base : tile);
    screen_batch(
        block, &memory->screen, [&](int v, int c) { return memory->score[v][c]; }, job.bounds,
        job.want_second, used, base, columns);
  }
  block.each_alone([&](int v, auto&) {
    if (v < used) job.lists[(v0 + v) * job.plan.parts + part] = memory->screen.list[v];
  });
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_COARSE_TILES_H_
