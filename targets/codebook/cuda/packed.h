// Where everything lies in a packed codebook's memory.
#ifndef EDGEKIT_CUDA_PACKED_H_
#define EDGEKIT_CUDA_PACKED_H_

#include <cstddef>
#include <cstdint>

#include "bounds.h"
#include "mma.h"

namespace edgekit::cuda {

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int kFewVectors = 8;     // up to here, one launch does everything
constexpr int kSets = 16;          // of rows, whose lower bounds blocks tell each other
constexpr int kMaxArrivals = 512;  // vectors that several blocks may finish

constexpr uint32_t kTied = 0x80000000u;

// Written by the packing, but for what lookups leave as they found it: `arrived` and `lowers`.
struct PackedHeader {
  int32_t rows;       // distinct rows
  int32_t nonfinite;  // 1 if a value is NaN or infinite
  uint32_t peak;      // bits of the greatest magnitude
  int32_t exponent;   // no magnitude times 2^-exponent exceeds 1
  float center_norm;  // at least the norm of the center
  int32_t arrived_rows;
  int32_t arrived[kMaxArrivals];
  uint32_t lowers[kFewVectors][kSets];
};

struct Packed {
  PackedHeader* header;
  float* center;         // [columns], scaled; subtracted from every row
  RowFacts* facts;       // [n], by place
  uint32_t* entry;       // [n], by place: which row this is, and kTied where another row is equal
  uint32_t* tied;        // [n], by row: 1 where another row is equal
  uint32_t* slot;        // [n], by row: its place in the table
  uint64_t* hash;        // [slots]
  uint32_t* first;       // [slots], the first row with this hash
  unsigned char* codes;  // [row blocks][stride][kBlockRows][kChunk] halves
  int64_t slots;
  int64_t chunks;
  int64_t stride;  // chunks from one row block to the next
  int64_t row_blocks;
};

// An even number, so that depths of 32 and 64 columns both divide a row.
EDGEKIT_HOST_DEVICE int64_t count_chunks(int64_t d) {
  return (d + 2 * kChunk - 1) / (2 * kChunk) * 2;
}

// An odd number: blocks that read the same columns of many rows then do not all meet at addresses a
// power of two apart.
EDGEKIT_HOST_DEVICE int64_t count_stride(int64_t d) { return count_chunks(d) + 1; }

inline int64_t count_slots(int64_t n) {
  int64_t slots = 2;
  while (slots < 2 * n) slots *= 2;
  return slots;
}

// Lays the arrays out from `memory` on; the bytes that they take go to `bytes`.
inline Packed view_packed(void* memory, int64_t n, int64_t d, size_t* bytes) {
  const auto base = reinterpret_cast<uintptr_t>(memory);
  uintptr_t at = 0;
  const auto take = [&](int64_t size) {
    const uintptr_t place = base + at;
    at += static_cast<uintptr_t>(divide_up(size, 256) * 256);
    return place;
  };
  Packed packed;
  packed.chunks = count_chunks(d);
  packed.stride = count_stride(d);
  packed.slots = count_slots(n);
  packed.row_blocks = divide_up(n, 2 * kBlockRows) * 2;
  packed.header = reinterpret_cast<PackedHeader*>(take(sizeof(PackedHeader)));
  packed.center = reinterpret_cast<float*>(take(packed.chunks * kChunk * 4));
  packed.facts = reinterpret_cast<RowFacts*>(take(n * static_cast<int64_t>(sizeof(RowFacts))));
  packed.entry = reinterpret_cast<uint32_t*>(take(n * 4));
  packed.tied = reinterpret_cast<uint32_t*>(take(n * 4));
  packed.slot = reinterpret_cast<uint32_t*>(take(n * 4));
  packed.hash = reinterpret_cast<uint64_t*>(take(packed.slots * 8));
  packed.first = reinterpret_cast<uint32_t*>(take(packed.slots * 4));
  packed.codes = reinterpret_cast<unsigned char*>(
      take(packed.row_blocks * kBlockRows * packed.stride * kChunkBytes));
  *bytes = at;
  return packed;
}

// The place of a row's (or a vector's) chunk among codes.
EDGEKIT_DEVICE int64_t chunk_offset(int64_t row, int64_t chunk, int64_t stride) {
  return ((row / kBlockRows * stride + chunk) * kBlockRows + row % kBlockRows) * kChunkBytes;
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_PACKED_H_
