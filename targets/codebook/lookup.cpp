#include "lookup.h"

#include <algorithm>
#include <limits>

#include "parallel.h"
#include "prepare.h"

namespace edgekit {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Candidates candidates_of(const Job& job, int64_t i, Arena& arena) {
  return Candidates(job.packed, job.requested, arena.vectors.data() + i, arena.states.data() + i,
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
    prepare_vector(packed, job.method, job.planes, x + i * packed.d, i, arena);
    arena.results.data()[i] = TopTwo{};
    if (vector.zero) {
      // Every score is zero and every row a candidate: no need to examine them one by one.
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
