// What a block that shares out the columns to its warps knows and remembers: see coarse_split.h.
#ifndef EDGEKIT_CUDA_SPLIT_BLOCK_H_
#define EDGEKIT_CUDA_SPLIT_BLOCK_H_

#include <type_traits>

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

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_SPLIT_BLOCK_H_
