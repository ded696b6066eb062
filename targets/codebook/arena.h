// Scratch memory of lookups: one arena per working thread, reused by the next call.
#ifndef EDGEKIT_ARENA_H_
#define EDGEKIT_ARENA_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "buffer.h"
#include "kernels.h"
#include "packed.h"
#include "top_two.h"

namespace edgekit {

// A row that may be the best.
struct Candidate {
  float upper;  // upper bound of its score
  int32_t row;
};

// A feature vector of the current tile, outside the inner loops.
struct Vector {
  const float* x;  // as given
  int exponent;    // a score times 2^exponent is in the units of the bounds
  double shift;    // upper bound of what the bounds leave out: the product with the mean row
  bool zero;       // every score is 0
  int32_t count;   // of candidates
};

struct Arena {
  static constexpr int64_t kMaxTile = 96;      // vectors that share a pass over a group of rows
  static constexpr int32_t kCandidates = 512;  // per vector, before they are thinned out

  explicit Arena(const Packed& packed);

  int64_t tile;          // at most kMaxTile; fewer where vectors are long
  int64_t code_stride;   // bytes from one vector's codes to the next
  int64_t float_stride;  // floats from one scaled vector to the next
  Buffer<float> scaled;  // vectors for fp32 scores, or one being rotated
  Buffer<int8_t> codes;
  Buffer<VectorState> states;
  Buffer<Vector> vectors;
  Buffer<Candidate> candidates;
  Buffer<int32_t> products;  // kMaxVectors x kGroup
  Buffer<float> products_fp32;
  Buffer<float> upper;     // kGroup
  Buffer<TopTwo> results;  // for each vector of the tile
};

// Arenas that no thread is using.
class ArenaPool {
 public:
  std::unique_ptr<Arena> take(const Packed& packed);
  void give(std::unique_ptr<Arena> arena);

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Arena>> free_;
  size_t created_ = 0;
};

// Holds an arena while a thread works.
class ArenaLease {
 public:
  ArenaLease(ArenaPool& pool, const Packed& packed) : pool_(pool), arena_(pool.take(packed)) {}
  ~ArenaLease() { pool_.give(std::move(arena_)); }
  ArenaLease(const ArenaLease&) = delete;
  ArenaLease& operator=(const ArenaLease&) = delete;
  Arena& operator*() { return *arena_; }

 private:
  ArenaPool& pool_;
  std::unique_ptr<Arena> arena_;
};

}  // namespace edgekit

#endif  // EDGEKIT_ARENA_H_
