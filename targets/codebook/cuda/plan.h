// How a lookup is cut into blocks: which path, how many parts of the codebook, how much memory.
#ifndef EDGEKIT_CUDA_PLAN_H_
#define EDGEKIT_CUDA_PLAN_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "shortlist.h"

namespace edgekit::cuda {

constexpr int64_t kMaxRows = (int64_t{1} << 31) - 1;
constexpr int64_t kMaxWidth = int64_t{1} << 24;
constexpr int64_t kMaxVectors = kMaxRows;

constexpr int kFewVectors = 8;        // up to here, the codebook is read once for all vectors
constexpr int64_t kMaxBlocks = 1024;  // more would not fill any device better
constexpr int kSmallTile = 32;
constexpr int kLargeTile = 64;

struct Plan {
  int tile;             // vectors and rows in a tile; 0: the path for few vectors
  int vectors;          // vectors in a block
  int64_t blocks_down;  // blocks over the vectors
  int64_t parts;        // blocks over the codebook
  int64_t part_rows;    // rows of the codebook in a part; fewer in the last
};

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline Plan cut(int64_t m, int64_t n, int tile, int vectors, int step, int64_t wanted_blocks) {
  Plan plan;
  plan.tile = tile;
  plan.vectors = vectors;
  plan.blocks_down = divide_up(m, vectors);
  const int64_t steps = divide_up(n, step);
  const int64_t wanted = divide_up(std::min(wanted_blocks, kMaxBlocks), plan.blocks_down);
  plan.part_rows = divide_up(steps, std::min(steps, wanted)) * step;
  plan.parts = divide_up(n, plan.part_rows);
  return plan;
}

// For a device with `processors` streaming multiprocessors.
inline Plan make_plan(int64_t m, int64_t n, int processors) {
  const int64_t busy = processors;
  if (m <= kFewVectors) {
    const int vectors = m <= 1 ? 1 : m <= 4 ? 4 : 8;
    return cut(m, n, 0, vectors, kWarp, 4 * busy);
  }
  const int64_t large = divide_up(m, kLargeTile) * divide_up(n, kLargeTile);
  if (large < 2 * busy) return cut(m, n, kSmallTile, kSmallTile, kSmallTile, 8 * busy);
  return cut(m, n, kLargeTile, kLargeTile, kLargeTile, 4 * busy);
}

// Room for every plan of up to m vectors and n rows: parts <= ceil(kMaxBlocks / blocks_down), so
// m * parts <= 64 * kMaxBlocks + m; and a part has at least 32 rows.
inline size_t workspace_bytes(int64_t m, int64_t n) {
  const int64_t lists = m <= (kLargeTile * kMaxBlocks) / divide_up(n, kWarp)
                            ? m * divide_up(n, kWarp)
                            : kLargeTile * kMaxBlocks + m;
  return static_cast<size_t>(std::min(lists, kLargeTile * kMaxBlocks + m)) * sizeof(Shortlist);
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_PLAN_H_
