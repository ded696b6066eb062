// Preparing vectors: scaled by a power of two, as halves, and what their bounds need. A warp takes
// a vector.
#ifndef EDGEKIT_CUDA_PREPARE_H_
#define EDGEKIT_CUDA_PREPARE_H_

#include "packed.h"
#include "portable.h"

namespace edgekit::cuda {

constexpr int kPrepareThreads = 256;
constexpr int kPrepareWarps = kPrepareThreads / kWarp;

// What every step of a lookup knows.
template <typename X>
struct VectorJob {
  const X* x;
  int64_t m;
  int64_t d;
  bool aligned;
  bool l2;
  WidthBounds width;
};

struct PrepareState {
  uint32_t peak;
  float norm_square;
  float missed_square;
};

// The power of two that brings a vector into range: docs/exact-lookup.md, "Scaling".
EDGEKIT_DEVICE int vector_exponent(uint32_t peak, bool l2, int codebook_exponent) {
  int exponent = peak != 0 ? -exponent_above(float_of(peak)) : 0;
  if (l2 && exponent > -codebook_exponent) exponent = -codebook_exponent;
  if (exponent < -126) return -126;
  return exponent < 120 ? exponent : 120;
}

struct PrepareMemory {
  uint32_t peak[kPrepareWarps];
  float norm_square[kPrepareWarps];
  float missed_square[kPrepareWarps];
};

// Prepares vectors v0 to v0 + kPrepareWarps / warps - 1, as far as they exist, `warps` warps each;
// codes(v, chunk) is the place of 64 bytes of codes, and facts(v) that of the facts. Vectors from
// job.m to `end` have codes of zeros. All threads of the block come here.
template <typename X, typename Block, typename Codes, typename Facts>
EDGEKIT_DEVICE void prepare_vectors(Block& block, PrepareMemory* memory, const VectorJob<X>& job,
                                    const PackedHeader* header, int64_t v0, int64_t end, int warps,
                                    const Codes& codes, const Facts& facts) {
  const int64_t width = count_chunks(job.d) * kChunk;
  const int threads = warps * kWarp;
  const auto vector_of = [&](int t) { return v0 + t / threads; };
  block.each_alone([&](int t, auto& state) {
    state.peak = 0;
    if (vector_of(t) >= job.m) return;
    const X* x = job.x + vector_of(t) * job.d;
    for_eights(x, t % threads * 8, 8 * threads, job.d, job.d, job.aligned,
               [&](int64_t, const float* values) {
                 EDGEKIT_UNROLL
                 for (int i = 0; i < 8; ++i) {
                   const uint32_t bits = bits_of(values[i]) & 0x7fffffffu;
                   if (bits > state.peak) state.peak = bits;
                 }
               });
  });
  block.reduce_warps([](auto& state) -> uint32_t& { return state.peak; },
                     [](uint32_t* own, uint32_t other) {
                       if (other > *own) *own = other;
                     });
  block.each([&](int t, auto& state) {
    if (t % kWarp == 0) memory->peak[t / kWarp] = state.peak;
  });
  block.each_alone([&](int t, auto& state) {
    state.norm_square = state.missed_square = 0;
    for (int i = 0; i < warps; ++i) {
      const uint32_t peak = memory->peak[t / threads * warps + i];
      if (peak > state.peak) state.peak = peak;
    }
    if (vector_of(t) >= job.m) {
      EDGEKIT_ROLLED
      for (int64_t k = t % threads * 8; vector_of(t) < end && k < width; k += 8 * threads) {
        store_quad(codes(vector_of(t), k / kChunk) + k % kChunk * 2, Quad{});
      }
      return;
    }
    const X* x = job.x + vector_of(t) * job.d;
    const bool finite = state.peak < 0x7f800000u;
    const int exponent =
        finite ? vector_exponent(state.peak, job.l2, job.l2 ? header->exponent : 0) : 0;
    const float factor = power_of_two(exponent);
    constexpr float kUp = 1 << kVectorShift;
    for_eights(x, t % threads * 8, 8 * threads, width, job.d, job.aligned,
               [&](int64_t k, const float* values) {
                 Half halves[8];
                 EDGEKIT_UNROLL
                 for (int i = 0; i < 8; ++i) {
                   const float scaled = finite ? values[i] * factor : 0.0f;
                   halves[i] = to_half(scaled * kUp);
                   const float missed = scaled - to_float(halves[i]) * (1 / kUp);
                   state.norm_square += scaled * scaled;
                   state.missed_square += missed * missed;
                 }
                 store_quad(codes(vector_of(t), k / kChunk) + k % kChunk * 2, pack_halves(halves));
               });
  });
  const auto add = [](float* own, float other) { *own += other; };
  block.reduce_warps([](auto& state) -> float& { return state.norm_square; }, add);
  block.reduce_warps([](auto& state) -> float& { return state.missed_square; }, add);
  block.each([&](int t, auto& state) {
    if (t % kWarp != 0) return;
    memory->norm_square[t / kWarp] = state.norm_square;
    memory->missed_square[t / kWarp] = state.missed_square;
  });
  block.each_alone([&](int t, auto& state) {
    if (t % threads != 0 || vector_of(t) >= job.m) return;
    float norm_square = 0;
    float missed_square = 0;
    for (int i = 0; i < warps; ++i) {
      norm_square += memory->norm_square[t / kWarp + i];
      missed_square += memory->missed_square[t / kWarp + i];
    }
    const bool finite = state.peak < 0x7f800000u;
    float lambda = 0;
    if (finite && job.l2) {
      // Less than 2^-126 is nothing beside kTinyScore.
      const int weight = vector_exponent(state.peak, job.l2, header->exponent) + header->exponent;
      if (weight >= -126) lambda = power_of_two(weight);
    }
    VectorFacts found =
        bound_vector(norm_square, missed_square, lambda, header->center_norm, job.width);
    if (!finite) {
      found.kind = kNonfinite;
    } else if (state.peak == 0 && !job.l2) {
      found.kind = kZero;
    }
    *facts(vector_of(t)) = found;
  });
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_PREPARE_H_
