#include "lookup.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "bounds.h"
#include "parallel.h"

namespace edgekit {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A power of two for the feature vector, so that what follows neither overflows nor underflows; see
// docs/exact-lookup.md, "Scaling". `bits` are those of the largest magnitude.
int vector_exponent(const Packed& packed, uint32_t bits) {
  float peak;
  static_assert(sizeof peak == sizeof bits);
  std::memcpy(&peak, &bits, sizeof peak);
  int exponent = peak > 0 ? -(std::ilogb(peak) + 1) : 0;
  // Half the squared norms are in the scale of the rows: keep their weight at most 1.
  if (packed.half_norms.size() > 0) exponent = std::min(exponent, -packed.exponent);
  return std::clamp(exponent, -126, 120);
}

// Initializes what both approximate methods share.
void start(const Packed& packed, const float* x, TopTwo* result, Vector* vector,
           VectorState* state) {
  const uint32_t bits = packed.kernels->largest_bits(x, packed.d);
  *result = TopTwo{};
  *state = VectorState{};
  std::fill(state->lanes, state->lanes + kChunk, -std::numeric_limits<float>::infinity());
  state->threshold = -std::numeric_limits<float>::infinity();
  const int exponent = vector_exponent(packed, bits);
  if (packed.half_norms.size() > 0) state->lambda = std::ldexp(1.0f, exponent + packed.exponent);
  vector->x = x;
  vector->exponent = exponent - packed.exponent;
  vector->shift = 0;
  vector->zero = bits == 0 && packed.half_norms.size() == 0;
  vector->count = 0;
}

void prepare_int8(const Job& job, int64_t i, Arena& arena) {
  const Packed& packed = job.packed;
  const Kernels& kernels = *packed.kernels;
  Vector& vector = arena.vectors.data()[i];
  VectorState& state = arena.states.data()[i];
  float* work = arena.scaled.data();
  VectorNorms norms{};
  float norm;
  float product;
  const float factor = std::ldexp(1.0f, vector.exponent + packed.exponent);
  kernels.scale(vector.x, packed.d, factor, 1.0f, packed.mean.data(), work, &norm, &product);
  const float alpha = packed.mean_square > 0
                          ? static_cast<float>(static_cast<double>(product) / packed.mean_square)
                          : 0.0f;
  const QuantizePlan plan{packed.signs.data(), packed.signed_mean.data(),
                          packed.rotation,     packed.d,
                          packed.padded,       job.planes,
                          kernels.int8_levels, kernels.int8_levels > 64 ? 0x1p-8f : 0x1p-7f};
  int8_t* codes[kMaxPlanes];
  for (int p = 0; p < kMaxPlanes; ++p) {
    codes[p] = arena.codes.data() + (i * job.planes + p) * arena.code_stride;
  }
  QuantizeResult quantized;
  kernels.quantize(plan, alpha, work, codes, &quantized);

  state.step = quantized.step;
  state.alpha = alpha;
  state.plane_ratio = plan.plane_ratio;
  for (int p = 0; p < job.planes; ++p) {
    state.correction[p] = kernels.unsigned_codes ? 128 * quantized.sums[p] : 0;
  }
  norms.scaled = static_cast<double>(norm);
  norms.rotated = static_cast<double>(quantized.norm);
  norms.error = static_cast<double>(quantized.error);
  norms.alpha = static_cast<double>(alpha);
  norms.mean = packed.mean_norm;
  bound_int8(norms, packed.padded, &state);
  vector.shift = static_cast<double>(product) + product_slack(norms, packed.padded);
}

void prepare_fp32(const Job& job, int64_t i, Arena& arena) {
  const Packed& packed = job.packed;
  Vector& vector = arena.vectors.data()[i];
  VectorState& state = arena.states.data()[i];
  // The rows are not scaled: a second power of two keeps products with them in range.
  const int range = std::clamp(-packed.exponent, -32, 100);
  float norm;
  float product;
  packed.kernels->scale(vector.x, packed.d, std::ldexp(1.0f, vector.exponent + packed.exponent),
                        std::ldexp(1.0f, range), nullptr,
                        arena.scaled.data() + i * arena.float_stride, &norm, &product);
  state.step = std::ldexp(1.0f, -packed.exponent - range);
  bound_fp32(static_cast<double>(norm), packed.d, &state);
}

Candidates candidates_of(const Job& job, int64_t i, Arena& arena) {
  return Candidates(job.packed, job.wanted, arena.vectors.data() + i, arena.states.data() + i,
                    arena.candidates.data() + i * Arena::kCandidates, arena.results.data() + i);
}

// The vectors v..v+count-1 against a group of rows.
void score_int8(const Job& job, int64_t g, int64_t v, int count, const char* next, Arena& arena) {
  const Packed& packed = job.packed;
  const Kernels& kernels = *packed.kernels;
  int32_t* products = arena.products.data();
  float* upper = arena.upper.data();
  kernels.dot_int8(packed.codes.data() + g * kGroup * packed.padded,
                   arena.codes.data() + v * job.planes * arena.code_stride, arena.code_stride,
                   count * job.planes, packed.padded, next, products);
  for (int i = 0; i < count; ++i) {
    VectorState* state = arena.states.data() + v + i;
    const uint64_t reached = kernels.screen_int8(
        packed.int8_groups.data()[g], products + i * job.planes * kGroup, job.planes, state, upper);
    if (reached != 0) candidates_of(job, v + i, arena).add_group(g * kGroup, upper, reached);
  }
}

void score_fp32(const Job& job, int64_t g, int64_t v, int count, Arena& arena) {
  const Packed& packed = job.packed;
  const Kernels& kernels = *packed.kernels;
  float* products = arena.products_fp32.data();
  float* upper = arena.upper.data();
  const int rows = static_cast<int>(std::min<int64_t>(kGroup, packed.n - g * kGroup));
  kernels.dot_fp32(packed.row(g * kGroup), packed.d, rows,
                   arena.scaled.data() + v * arena.float_stride, arena.float_stride, count,
                   products);
  for (int i = 0; i < count; ++i) {
    VectorState* state = arena.states.data() + v + i;
    const uint64_t reached =
        kernels.screen_fp32(packed.fp32_groups.data()[g], products + i * kGroup, state, upper);
    if (reached != 0) candidates_of(job, v + i, arena).add_group(g * kGroup, upper, reached);
  }
}

void score_group(const Job& job, int64_t g, int64_t last_group, int64_t count, Arena& arena) {
  const Packed& packed = job.packed;
  const bool int8 = job.method == Method::kInt8;
  const int most = int8 ? packed.kernels->int8_vectors / job.planes : packed.kernels->fp32_vectors;
  const int64_t passes = (count + most - 1) / most;
  // Each pass prefetches another slice of the next group.
  const auto* next = reinterpret_cast<const char*>(packed.codes.data()) +
                     (g + 1 < last_group ? g + 1 : g) * kGroup * packed.padded;
  for (int64_t pass = 0; pass < passes; ++pass) {
    const int64_t v = part_begin(count, passes, pass);
    const int vectors = static_cast<int>(part_begin(count, passes, pass + 1) - v);
    if (int8) {
      score_int8(job, g, v, vectors, next + std::min<int64_t>(pass, 15) * packed.padded * 4, arena);
    } else {
      score_fp32(job, g, v, vectors, arena);
    }
  }
}

void lookup_approximate(const Job& job, const float* x, int64_t count, int64_t first_group,
                        int64_t last_group, Arena& arena) {
  const Packed& packed = job.packed;
  bool all_zero = true;
  for (int64_t i = 0; i < count; ++i) {
    Vector& vector = arena.vectors.data()[i];
    start(packed, x + i * packed.d, arena.results.data() + i, &vector, arena.states.data() + i);
    if (job.method == Method::kInt8) {
      prepare_int8(job, i, arena);
    } else {
      prepare_fp32(job, i, arena);
    }
    if (vector.zero) {
      // Every score is zero, and every row a candidate: no need to look at them one by one.
      arena.states.data()[i].threshold = std::numeric_limits<float>::infinity();
    } else {
      all_zero = false;
    }
  }
  for (int64_t g = first_group; g < last_group && !all_zero; ++g) {
    score_group(job, g, last_group, count, arena);
  }
  for (int64_t i = 0; i < count; ++i) {
    if (arena.vectors.data()[i].zero) {
      const int64_t rows = std::min(packed.n, last_group * kGroup) - first_group * kGroup;
      arena.results.data()[i] = {0.0, rows > 1 ? 0.0 : -kInfinity, first_group * kGroup};
    } else {
      candidates_of(job, i, arena).finish();
    }
  }
}

// The exact score of every row.
void lookup_double(const Job& job, const float* x, int64_t count, int64_t first_group,
                   int64_t last_group, Arena& arena) {
  const Packed& packed = job.packed;
  std::fill(arena.results.data(), arena.results.data() + count, TopTwo{});
  for (int64_t g = first_group; g < last_group; ++g) {
    const int64_t last = std::min((g + 1) * kGroup, packed.n);
    for (int64_t i = 0; i < count; ++i) {
      const float* vector = x + i * packed.d;
      TopTwo& result = arena.results.data()[i];
      int64_t n = g * kGroup;
      for (; n + 4 <= last; n += 4) {
        const float* rows[4] = {packed.row(n), packed.row(n + 1), packed.row(n + 2),
                                packed.row(n + 3)};
        double products[4];
        packed.kernels->exact_dot4(vector, rows, packed.d, products);
        for (int r = 0; r < 4; ++r) result.offer(products[r] - packed.offset(n + r), n + r);
      }
      for (; n < last; ++n) {
        const double product = packed.kernels->exact_dot(vector, packed.row(n), packed.d);
        result.offer(product - packed.offset(n), n);
      }
    }
  }
}

}  // namespace

void lookup_tile(const Job& job, const float* x, int64_t count, int64_t first_group,
                 int64_t last_group, Arena& arena) {
  if (job.method == Method::kDouble) {
    lookup_double(job, x, count, first_group, last_group, arena);
  } else {
    lookup_approximate(job, x, count, first_group, last_group, arena);
  }
}

}  // namespace edgekit
