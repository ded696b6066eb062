#include "arena.h"

#include <algorithm>
#include <utility>

namespace edgekit {
namespace {

constexpr int64_t kTileBytes = int64_t{4} << 20;  // of scaled vectors, where they are long

// One cache line more than the width: vectors a power of two apart would share few cache sets.
constexpr int64_t kStagger = 64;

}  // namespace

Arena::Arena(const Packed& packed) {
  const int64_t width = (packed.d + kChunk - 1) / kChunk * kChunk;
  tile = std::clamp<int64_t>(kTileBytes / (width * 4), 1, kMaxTile);
  float_stride = width + kChunk;
  code_stride = packed.padded + kStagger;
  const bool fp32 = packed.fp32_groups.size() > 0;
  const bool int8 = packed.int8_groups.size() > 0;
  const auto count = static_cast<size_t>(tile);
  scaled = Buffer<float>(fp32 ? count * static_cast<size_t>(float_stride)
                              : static_cast<size_t>(packed.padded));
  if (int8) {
    codes = Buffer<int8_t>(std::max<size_t>(count, kMaxPlanes) * static_cast<size_t>(code_stride));
    scaled = Buffer<float>(std::max(scaled.size(), static_cast<size_t>(packed.padded)));
  }
  results = Buffer<TopTwo>(count);
  if (!fp32 && !int8) return;
  states = Buffer<VectorState>(count);
  vectors = Buffer<Vector>(count);
  candidates = Buffer<Candidate>(count * kCandidates);
  products = Buffer<int32_t>(kMaxVectors * kGroup);
  products_fp32 = Buffer<float>(kMaxVectors * kGroup);
  // Rows past the codebook's end keep these values; any number will do there.
  std::fill(products_fp32.data(), products_fp32.data() + products_fp32.size(), 0.0f);
  upper = Buffer<float>(kGroup);
}

std::unique_ptr<Arena> ArenaPool::take(const Packed& packed) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!free_.empty()) {
      std::unique_ptr<Arena> arena = std::move(free_.back());
      free_.pop_back();
      return arena;
    }
    free_.reserve(++created_);  // so that give() cannot fail
  }
  return std::make_unique<Arena>(packed);
}

void ArenaPool::give(std::unique_ptr<Arena> arena) {
  const std::lock_guard<std::mutex> lock(mutex_);
  free_.push_back(std::move(arena));
}

}  // namespace edgekit
