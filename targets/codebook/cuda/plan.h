// How a lookup is cut into blocks: which kernel, how many parts of the codebook, how much memory.
#ifndef EDGEKIT_CUDA_PLAN_H_
#define EDGEKIT_CUDA_PLAN_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "packed.h"
#include "shortlist.h"

namespace edgekit::cuda {

constexpr int64_t kMaxRows = (int64_t{1} << 31) - 1;
constexpr int64_t kMaxWidth = int64_t{1} << 24;
constexpr int64_t kMaxVectors = kMaxRows;
constexpr int64_t kRound = 4096;     // vectors that are looked up at once
constexpr int64_t kMaxParts = 1024;  // more would not fill any device better
constexpr int64_t kMaxLists = 64 * kMaxParts;

enum Kernel : int {
  kFew,    // up to kFewVectors vectors, in one launch
  kSplit,  // a block takes 16 rows and 32 vectors, its warps share the columns
  kTile64x64,
  kTile80x64,
  kTile128x112,
  kTile128x208,
  kKernels,
};

struct KernelShape {
  int rows;
  int vectors;
  int resident;  // blocks that a multiprocessor runs at a time
  int shared;    // KiB that a block needs
};

constexpr KernelShape kShapes[kKernels] = {
    {16, 8, 1, 44},   {16, 32, 2, 25},    {64, 64, 2, 108},
    {80, 64, 1, 121}, {128, 112, 1, 141}, {128, 208, 1, 149},
};

// What a plan must know of a device.
struct Device {
  int processors;  // streaming multiprocessors
  int shared;      // KiB that a block can have
};

struct Plan {
  int kernel;
  int tile_rows;
  int64_t blocks_down;  // blocks over the vectors
  int64_t parts;        // blocks over the codebook: part p has tiles p, p + parts, ...
  int64_t slices;       // blocks that finish a vector together if much is left
  bool prepare_here;    // kFew: the blocks prepare the vectors themselves
};

constexpr int64_t kCodesHere = 32768;  // bytes of codes that a block of kFew has room for

// About how long a block takes for a tile, in clocks a column of an H100: its products, or what it
// reads through the second-level cache.
inline double tile_cost(const KernelShape& shape) {
  return std::max(shape.rows * shape.vectors / 1100.0, (shape.rows + shape.vectors) / 14.0);
}

inline Plan plan_with(int kernel, int64_t m, int64_t n, int64_t d, const Device& device) {
  const KernelShape& shape = kShapes[kernel];
  Plan plan;
  plan.kernel = kernel;
  plan.tile_rows = shape.rows;
  plan.blocks_down = divide_up(m, shape.vectors);
  const int64_t tiles = divide_up(n, shape.rows);
  const int64_t blocks =
      std::min<int64_t>(int64_t{device.processors} * shape.resident, kMaxLists / shape.vectors);
  const int64_t wanted = divide_up(blocks, plan.blocks_down);
  plan.parts = std::max<int64_t>(1, std::min({tiles, wanted, kMaxParts}));
  plan.slices = std::min<int64_t>(m <= kMaxArrivals ? divide_up(4 * device.processors, m) : 1,
                                  divide_up(n, 16));
  const int64_t codes = m * count_chunks(d) * kChunkBytes;
  plan.prepare_here = kernel == kFew && codes <= kCodesHere &&
                      codes <= int64_t{device.shared - shape.shared} * 1024;
  return plan;
}

// For up to kRound vectors.
inline Plan make_plan(int64_t m, int64_t n, int64_t d, const Device& device) {
  if (m <= kFewVectors) return plan_with(kFew, m, n, d, device);
  int chosen = kSplit;
  double least = 0;
  for (int kernel = kSplit; kernel < kKernels; ++kernel) {
    const KernelShape& shape = kShapes[kernel];
    if (shape.shared > device.shared) continue;
    const int64_t blocks = divide_up(m, shape.vectors) * divide_up(n, shape.rows);
    const double cost =
        static_cast<double>(divide_up(blocks, device.processors)) * tile_cost(shape);
    if (kernel == kSplit || cost < least) {
      least = cost;
      chosen = kernel;
    }
  }
  return plan_with(chosen, m, n, d, device);
}

constexpr int kDeferred = 2;  // candidates that a block of kFew leaves to the last one

// What a block found: its answer or, with few vectors, what it leaves to the last block.
struct alignas(16) PartResult {
  double best;
  double second;
  int64_t index;  // -1: no row was scored in double
  Two lower;
  int32_t count;
  uint32_t entry[kDeferred];
  float upper[kDeferred];
};

// Where everything lies in a lookup's memory.
struct Workspace {
  unsigned char* codes;  // of the vectors, as Packed::codes
  VectorFacts* facts;    // [m]
  Shortlist* lists;      // [m][parts]
  PartResult* results;   // [m][parts or slices]
  size_t bytes;
};

// Room for every plan of up to m vectors (kRound at once) and n rows.
inline Workspace view_workspace(void* memory, int64_t m, int64_t n, int64_t d) {
  const auto base = reinterpret_cast<uintptr_t>(memory);
  uintptr_t at = 0;
  const auto take = [&](int64_t size) {
    const uintptr_t place = base + at;
    at += static_cast<uintptr_t>(divide_up(size, 256) * 256);
    return place;
  };
  const int64_t most = std::min(m, kRound);
  // With b blocks over the vectors, V vectors each, there are at most kMaxLists / V / b + 1 parts,
  // and b V is less than m + V.
  const int64_t parts = std::min(divide_up(n, 16), kMaxParts);
  const int64_t lists = most <= kFewVectors ? 0 : std::min(most * parts, kMaxLists + most + 208);
  const int64_t results = most <= kFewVectors ? most * parts : 8 * kMaxParts + most;
  Workspace workspace;
  workspace.codes = reinterpret_cast<unsigned char*>(
      take(divide_up(most, kBlockRows) * kBlockRows * count_stride(d) * kChunkBytes));
  workspace.facts =
      reinterpret_cast<VectorFacts*>(take(most * static_cast<int64_t>(sizeof(VectorFacts))));
  workspace.lists =
      reinterpret_cast<Shortlist*>(take(lists * static_cast<int64_t>(sizeof(Shortlist))));
  workspace.results =
      reinterpret_cast<PartResult*>(take(results * static_cast<int64_t>(sizeof(PartResult))));
  workspace.bytes = at;
  return workspace;
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_PLAN_H_
