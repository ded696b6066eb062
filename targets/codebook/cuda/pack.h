// Packing a codebook: its distinct rows, less a center, as halves in the order in which warps load
// them, and what their bounds need. Done once; every step is the work of many blocks.
#ifndef EDGEKIT_CUDA_PACK_H_
#define EDGEKIT_CUDA_PACK_H_

#include "packed.h"
#include "portable.h"

namespace edgekit::cuda {

constexpr int kPackThreads = 256;
constexpr int kPackWarps = kPackThreads / kWarp;

template <typename E>
struct PackJob {
  const E* codebook;
  int64_t n;
  int64_t d;
  bool aligned;
  Packed packed;
};

struct PackState {
  uint64_t hash;
  uint32_t peak;
  int32_t different;
  double square;
  double missed_square;
  double half_square;
};

struct PackMemory {
  double sums[kPackWarps][kWarp];
  int32_t place[kPackWarps];
};

// Clears `threads` x 16 bytes at a time; block `number` of `blocks`.
template <typename E, typename Block>
EDGEKIT_DEVICE void pack_clear(Block& block, PackMemory*, const PackJob<E>& job, int64_t number,
                               int64_t blocks) {
  const Packed& packed = job.packed;
  const int64_t step = blocks * kPackThreads;
  block.each_alone([&](int t, auto&) {
    const int64_t start = number * kPackThreads + t;
    if (number == 0) {
      auto* words = reinterpret_cast<uint32_t*>(packed.header);
      for (int64_t i = t; i < static_cast<int64_t>(sizeof(PackedHeader) / 4); i += kPackThreads) {
        words[i] = 0;
      }
    }
    for (int64_t i = start; i < job.n; i += step) {
      packed.tied[i] = packed.entry[i] = 0;
      packed.facts[i] = RowFacts{};
    }
    for (int64_t i = start; i < packed.slots; i += step) {
      packed.hash[i] = 0;
      packed.first[i] = UINT32_MAX;
    }
    const int64_t quads = packed.row_blocks * kBlockRows * packed.stride * kChunkBytes / 16;
    for (int64_t i = start; i < quads; i += step) store_quad(packed.codes + i * 16, Quad{});
  });
}

EDGEKIT_DEVICE uint64_t mixed(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Finds the greatest magnitude and enters every row into the table of hashes; a warp a row.
template <typename E, typename Block>
EDGEKIT_DEVICE void pack_hash(Block& block, PackMemory*, const PackJob<E>& job, int64_t number,
                              int64_t blocks) {
  const Packed& packed = job.packed;
  for (int64_t base = number * kPackWarps; base < job.n; base += blocks * kPackWarps) {
    block.each_alone([&](int t, auto& state) {
      const int64_t row = base + t / kWarp;
      state.hash = 0;
      state.peak = 0;
      if (row >= job.n) return;
      const E* values = job.codebook + row * job.d;
      for (int64_t k = t % kWarp * 4; k < job.d; k += 4 * kWarp) {
        float four[4];
        load4(values, k, job.d, job.aligned, four);
        EDGEKIT_UNROLL
        for (int i = 0; i < 4; ++i) {
          const uint32_t bits = bits_of(four[i]);
          if ((bits & 0x7fffffffu) > state.peak) state.peak = bits & 0x7fffffffu;
          state.hash += mixed(static_cast<uint64_t>(k + i + 1) * 0x9e3779b97f4a7c15u + bits);
        }
      }
    });
    block.reduce_warps([](auto& state) -> uint64_t& { return state.hash; },
                       [](uint64_t* own, uint64_t other) { *own += other; });
    block.reduce_warps([](auto& state) -> uint32_t& { return state.peak; },
                       [](uint32_t* own, uint32_t other) {
                         if (other > *own) *own = other;
                       });
    block.each_alone([&](int t, auto& state) {
      const int64_t row = base + t / kWarp;
      if (t % kWarp != 0 || row >= job.n) return;
      raise_to(&packed.header->peak, state.peak);
      if (state.peak >= 0x7f800000u) packed.header->nonfinite = 1;
      const uint64_t key = state.hash | 1;  // 0 marks a free place
      int64_t slot = static_cast<int64_t>(mixed(key)) & (packed.slots - 1);
      for (;;) {
        const uint64_t there = exchange_if(packed.hash + slot, 0, key);
        if (there == 0 || there == key) break;
        slot = (slot + 1) & (packed.slots - 1);
      }
      lower_to(packed.first + slot, static_cast<uint32_t>(row));
      packed.slot[row] = static_cast<uint32_t>(slot);
    });
  }
}

EDGEKIT_DEVICE int codebook_exponent(uint32_t peak) {
  return peak == 0 || peak >= 0x7f800000u ? 0 : exponent_above(float_of(peak));
}

// 2^exponent in double, for exponents of floats and the like.
EDGEKIT_DEVICE double double_power(int exponent) {
  const int low = exponent / 2;
  return static_cast<double>(power_of_two(low)) * static_cast<double>(power_of_two(exponent - low));
}

// The mean row: 32 columns to a block, which a warp a row adds up. Any center is right; this one
// keeps what is left small.
template <typename E, typename Block>
EDGEKIT_DEVICE void pack_center(Block& block, PackMemory* memory, const PackJob<E>& job,
                                int64_t number, int64_t blocks) {
  const Packed& packed = job.packed;
  const int64_t width = packed.chunks * kChunk;
  for (int64_t base = number * kWarp; base < width; base += blocks * kWarp) {
    block.each([&](int t, auto&) {
      const int64_t k = base + t % kWarp;
      double sum = 0;
      if (k < job.d) {
#ifdef __CUDACC__
#pragma unroll 8
#endif
        for (int64_t row = t / kWarp; row < job.n; row += kPackWarps) {
          sum += static_cast<double>(to_float(job.codebook[row * job.d + k]));
        }
      }
      memory->sums[t / kWarp][t % kWarp] = sum;
    });
    block.each([&](int t, auto&) {
      if (t >= kWarp) return;
      double sum = 0;
      for (int warp = 0; warp < kPackWarps; ++warp) sum += memory->sums[warp][t];
      const int exponent = codebook_exponent(packed.header->peak);
      packed.center[base + t] =
          static_cast<float>(sum / static_cast<double>(job.n) * double_power(-exponent));
    });
  }
}

// The center's norm; for one block.
template <typename E, typename Block>
EDGEKIT_DEVICE void pack_center_norm(Block& block, PackMemory* memory, const PackJob<E>& job,
                                     int64_t, int64_t) {
  const Packed& packed = job.packed;
  block.each([&](int t, auto&) {
    double sum = 0;
    for (int64_t k = t; k < packed.chunks * kChunk; k += kPackThreads) {
      sum += static_cast<double>(packed.center[k]) * static_cast<double>(packed.center[k]);
    }
    memory->sums[t / kWarp][t % kWarp] = sum;
  });
  block.each([&](int t, auto&) {
    if (t != 0) return;
    double sum = 0;
    for (int i = 0; i < kPackThreads; ++i) sum += memory->sums[i / kWarp][i % kWarp];
    packed.header->center_norm = float_above(std::sqrt(sum) * bounds::kDoubleInflate);
    packed.header->exponent = codebook_exponent(packed.header->peak);
  });
}

// Reads eight columns of a row, scaled and less the center; zeros past its end.
template <typename E>
EDGEKIT_DEVICE void load_centered(const PackJob<E>& job, const E* row, int64_t k, double unit,
                                  double* scaled, double* centered) {
  float values[8];
  load4(row, k, job.d, job.aligned, values);
  load4(row, k + 4, job.d, job.aligned, values + 4);
  EDGEKIT_UNROLL
  for (int i = 0; i < 8; ++i) {
    scaled[i] = static_cast<double>(values[i]) * unit;
    centered[i] = k + i < job.d ? scaled[i] - static_cast<double>(job.packed.center[k + i]) : 0.0;
  }
}

// Gives each distinct row a place and writes its codes and facts there; a warp a row.
template <typename E, typename Block>
EDGEKIT_DEVICE void pack_rows(Block& block, PackMemory* memory, const PackJob<E>& job,
                              int64_t number, int64_t blocks) {
  const Packed& packed = job.packed;
  const int64_t width = packed.chunks * kChunk;
  const int exponent = codebook_exponent(packed.header->peak);
  const double unit = double_power(-exponent);
  for (int64_t base = number * kPackWarps; base < job.n; base += blocks * kPackWarps) {
    const auto first_of = [&](int64_t row) {
      return static_cast<int64_t>(packed.first[packed.slot[row]]);
    };
    block.each_alone([&](int t, auto& state) {
      const int64_t row = base + t / kWarp;
      state.different = 0;
      state.peak = 0;
      if (row >= job.n) return;
      const E* values = job.codebook + row * job.d;
      const int64_t first = first_of(row);
      if (first != row) {
        const E* others = job.codebook + first * job.d;
        for (int64_t k = t % kWarp; k < job.d; k += kWarp) {
          if (bits_of(to_float(values[k])) != bits_of(to_float(others[k]))) state.different = 1;
        }
      }
      for (int64_t k = t % kWarp * 8; k < width; k += 8 * kWarp) {
        double scaled[8];
        double centered[8];
        load_centered(job, values, k, unit, scaled, centered);
        EDGEKIT_UNROLL
        for (int i = 0; i < 8; ++i) {
          const uint32_t bits = bits_of(static_cast<float>(std::fabs(centered[i])));
          if (bits > state.peak) state.peak = bits;
        }
      }
    });
    block.reduce_warps([](auto& state) -> int32_t& { return state.different; },
                       [](int32_t* own, int32_t other) { *own |= other; });
    block.reduce_warps([](auto& state) -> uint32_t& { return state.peak; },
                       [](uint32_t* own, uint32_t other) {
                         if (other > *own) *own = other;
                       });
    block.each_warp([&](int t, auto& state) {
      const int64_t row = base + t / kWarp;
      if (t % kWarp != 0 || row >= job.n) return;
      const int64_t first = first_of(row);
      if (first != row && state.different == 0) {
        raise_to(packed.tied + first, 1);
        memory->place[t / kWarp] = -1;
      } else {
        memory->place[t / kWarp] = take_ticket(&packed.header->rows);
      }
    });
    const auto code_exponent = [](uint32_t peak) {
      if (peak == 0 || peak >= 0x7f800000u) return 0;
      const int wanted = kRowShift - exponent_above(float_of(peak));
      return wanted < 100 ? wanted : 100;
    };
    block.each_alone([&](int t, auto& state) {
      state.square = state.missed_square = state.half_square = 0;
      const int64_t row = base + t / kWarp;
      if (row >= job.n || memory->place[t / kWarp] < 0) return;
      const int shift = code_exponent(state.peak);
      const double up = double_power(shift);
      const double down = double_power(-shift);
      for (int64_t k = t % kWarp * 8; k < width; k += 8 * kWarp) {
        double scaled[8];
        double centered[8];
        Half codes[8];
        load_centered(job, job.codebook + row * job.d, k, unit, scaled, centered);
        EDGEKIT_UNROLL
        for (int i = 0; i < 8; ++i) {
          codes[i] = to_half(static_cast<float>(centered[i] * up));
          const double missed = centered[i] - static_cast<double>(to_float(codes[i])) * down;
          state.square += centered[i] * centered[i];
          state.missed_square += missed * missed;
          state.half_square += scaled[i] * scaled[i];
        }
        const int64_t place = memory->place[t / kWarp];
        store_quad(packed.codes + chunk_offset(place, k / kChunk, packed.stride) + k % kChunk * 2,
                   pack_halves(codes));
      }
    });
    const auto add = [](double* own, double other) { *own += other; };
    block.reduce_warps([](auto& state) -> double& { return state.square; }, add);
    block.reduce_warps([](auto& state) -> double& { return state.missed_square; }, add);
    block.reduce_warps([](auto& state) -> double& { return state.half_square; }, add);
    block.each_warp([&](int t, auto& state) {
      const int64_t row = base + t / kWarp;
      if (t % kWarp != 0 || row >= job.n || memory->place[t / kWarp] < 0) return;
      const double norm = std::sqrt(state.square) * bounds::kDoubleInflate;
      RowFacts facts;
      facts.scale = power_of_two(-code_exponent(state.peak) - kVectorShift);
      facts.norm = float_above(norm);
      facts.residual = float_above(std::sqrt(state.missed_square) * bounds::kDoubleInflate +
                                   norm * bounds::kDoubleError);
      facts.half = static_cast<float>(state.half_square / 2);
      packed.facts[memory->place[t / kWarp]] = facts;
      packed.entry[memory->place[t / kWarp]] = static_cast<uint32_t>(row);
    });
  }
}

// Marks the places of rows that others are equal to.
template <typename E, typename Block>
EDGEKIT_DEVICE void pack_ties(Block& block, PackMemory*, const PackJob<E>& job, int64_t number,
                              int64_t blocks) {
  const Packed& packed = job.packed;
  block.each_alone([&](int t, auto&) {
    for (int64_t place = number * kPackThreads + t; place < packed.header->rows;
         place += blocks * kPackThreads) {
      if (packed.tied[packed.entry[place]] != 0) packed.entry[place] |= kTied;
    }
  });
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_PACK_H_
