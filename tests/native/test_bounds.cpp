// The bounds that the proof promises, checked on the numbers that the kernels really compute: every
// exact score lies between its bounds, also for inputs made and searched for to break them.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "arena.h"
#include "bounds.h"
#include "check.h"
#include "edgekit_codebook.h"
#include "packed.h"
#include "prepare.h"
#include "reference.h"
#include "rotation.h"

namespace {

using edgekit::kGroup;
using edgekit::Method;

constexpr float kInf = std::numeric_limits<float>::infinity();

// Numbers wide enough that sums of exact products have no error that matters here.
#if defined(__SIZEOF_FLOAT128__)
typedef __float128 Wide;
#else
typedef long double Wide;
#endif

struct Bound {
  float lower;
  float upper;
};

class Bench {
 public:
  Bench(const edgekit::Kernels& kernels, Method method, int planes, const std::vector<float>& rows,
        int64_t n, int64_t d, bool l2)
      : method_(method), planes_(planes) {
    packed.kernels = &kernels;
    edgekit::pack_rows(rows.data(), n, d, l2 ? EDGEKIT_CODEBOOK_L2 : EDGEKIT_CODEBOOK_DOT, &packed);
    if (method == Method::kFp32) edgekit::pack_fp32(&packed);
    if (method == Method::kInt8) edgekit::pack_int8(&packed);
    arena = std::make_unique<edgekit::Arena>(packed);
  }

  // The bounds of each row, in the units of the bounds and without the mean row's share.
  std::vector<Bound> bounds(const float* x) {
    edgekit::prepare_vector(packed, method_, planes_, x, 0, *arena);
    std::vector<Bound> found(static_cast<size_t>(packed.n));
    for (int64_t g = 0; g < packed.groups(); ++g) {
      multiply(g);
      const int64_t rows = std::min<int64_t>(kGroup, packed.n - g * kGroup);
      // Lower bounds come out as the greatest of each lane's four rows: hide three of them.
      for (int64_t quarter = 0; quarter < 4; ++quarter) {
        edgekit::RowGroup group = groups()[g];
        for (int64_t r = 0; r < kGroup; ++r) {
          if (r / 16 != quarter) group.norm[r] = kInf;
        }
        edgekit::VectorState state = arena->states.data()[0];
        float upper[kGroup];
        screen(group, &state, upper);
        for (int64_t r = quarter * 16; r < std::min(rows, quarter * 16 + 16); ++r) {
          found[static_cast<size_t>(g * kGroup + r)] = {state.lanes[r % 16], upper[r]};
        }
      }
    }
    return found;
  }

  // How far the exact score uses up its error bound, of all rows: at most 1 if the proof holds.
  double worst(const float* x, int64_t* worst_row) {
    const std::vector<Bound> found = bounds(x);
    const int exponent = arena->vectors.data()[0].exponent;
    Wide shift = 0;
    if (method_ == Method::kInt8) {
      for (int64_t k = 0; k < packed.d; ++k) {
        shift += Wide(x[k]) * Wide(std::ldexp(1.0, exponent + packed.exponent)) *
                 Wide(packed.mean.data()[k]);
      }
    }
    double most = -1;
    for (int64_t i = 0; i < packed.n; ++i) {
      const double score =
          reference::score(x, packed.row(i), packed.d, packed.half_norms.size() > 0);
      const double value =
          static_cast<double>(Wide(score) * Wide(std::ldexp(1.0, exponent)) - shift);
      const Bound& bound = found[static_cast<size_t>(i)];
      const double middle =
          (static_cast<double>(bound.lower) + static_cast<double>(bound.upper)) / 2;
      const double radius =
          (static_cast<double>(bound.upper) - static_cast<double>(bound.lower)) / 2;
      const double used = std::fabs(value - middle) / radius;
      if (!(used <= most)) {
        most = used;
        *worst_row = i;
      }
      if (std::isnan(used)) return used;
    }
    return most;
  }

  edgekit::Packed packed;
  std::unique_ptr<edgekit::Arena> arena;

 private:
  const edgekit::RowGroup* groups() const {
    return method_ == Method::kInt8 ? packed.int8_groups.data() : packed.fp32_groups.data();
  }

  void multiply(int64_t g) {
    if (method_ == Method::kInt8) {
      const auto* codes = packed.codes.data() + g * kGroup * packed.padded;
      packed.kernels->dot_int8(codes, arena->codes.data(), arena->code_stride, planes_,
                               packed.padded, reinterpret_cast<const char*>(codes),
                               arena->products.data());
    } else {
      packed.kernels->dot_fp32(packed.row(g * kGroup), packed.d,
                               static_cast<int>(std::min<int64_t>(kGroup, packed.n - g * kGroup)),
                               arena->scaled.data(), arena->float_stride, 1,
                               arena->products_fp32.data());
    }
  }

  void screen(const edgekit::RowGroup& group, edgekit::VectorState* state, float* upper) {
    if (method_ == Method::kInt8) {
      packed.kernels->screen_int8(group, arena->products.data(), planes_, state, upper);
    } else {
      packed.kernels->screen_fp32(group, arena->products_fp32.data(), state, upper);
    }
  }

  Method method_;
  int planes_;
};

struct Worst {
  double used = 0;

  void take(double value, const char* what) {
    CHECK(value <= 1);  // false for NaN as well
    if (!(value <= 1)) std::fprintf(stderr, "  %s: %.6f of the bound\n", what, value);
    used = std::max(used, value);
  }
};

// The feature vector whose rotation is the part of row i that its codes miss: the worst direction
// for the Cauchy-Schwarz inequality. The transpose of the rows' rotation is the vectors' inverse.
std::vector<float> missed_direction(const Bench& bench, int64_t i) {
  const edgekit::Packed& packed = bench.packed;
  const int64_t padded = packed.padded;
  std::vector<double> columns(static_cast<size_t>(padded));
  std::vector<float> x(static_cast<size_t>(packed.d));
  // The rotation's columns one at a time: slow and plainly right.
  const edgekit::RowGroup& group = packed.int8_groups.data()[i / kGroup];
  const uint8_t* codes = packed.codes.data() + i / kGroup * kGroup * padded;
  const int offset = packed.kernels->unsigned_codes ? 128 : 0;
  std::vector<double> missed(static_cast<size_t>(padded));
  for (int64_t k = 0; k < packed.d; ++k) {
    const double value = std::ldexp(static_cast<double>(packed.row(i)[k]), -packed.exponent) -
                         static_cast<double>(packed.mean.data()[k]);
    missed[static_cast<size_t>(k)] = value * static_cast<double>(packed.signs.data()[k]);
  }
  edgekit::rotate_row(packed.rotation, missed.data());
  for (int64_t k = 0; k < padded; ++k) {
    const uint8_t byte = codes[k / 4 * 4 * kGroup + i % kGroup * 4 + k % 4];
    const int code = offset > 0 ? byte - offset : static_cast<int8_t>(byte);
    missed[static_cast<size_t>(k)] -= code * static_cast<double>(group.scale[i % kGroup]);
  }
  for (int64_t k = 0; k < packed.d; ++k) {
    std::fill(columns.begin(), columns.end(), 0.0);
    columns[static_cast<size_t>(k)] = static_cast<double>(packed.signs.data()[k]);
    edgekit::rotate_row(packed.rotation, columns.data());
    double sum = 0;
    for (int64_t j = 0; j < padded; ++j) {
      sum += columns[static_cast<size_t>(j)] * missed[static_cast<size_t>(j)];
    }
    x[static_cast<size_t>(k)] = static_cast<float>(sum);
  }
  return x;
}

// Changes a vector step by step, keeping what brings some row closer to its bound.
double climb(Bench& bench, std::vector<float> x, int steps, reference::Random& random) {
  int64_t row = 0;
  double best = bench.worst(x.data(), &row);
  for (int step = 0; step < steps && best <= 1; ++step) {
    std::vector<float> next = x;
    const float size = std::ldexp(1.0f, -static_cast<int>(random.below(12)));
    const auto changes = 1 + random.below(static_cast<int64_t>(x.size()));
    for (int64_t c = 0; c < changes; ++c) {
      float& v = next[static_cast<size_t>(random.below(static_cast<int64_t>(x.size())))];
      const float changed = v + size * random.normal() * (std::fabs(v) + 0.01f);
      if (std::isfinite(changed)) v = changed;
    }
    const double used = bench.worst(next.data(), &row);
    if (!(used <= best)) {
      best = used;
      x = next;
    }
  }
  return best;
}

void check_kernels(const edgekit::Kernels& kernels, Method method, int planes, int steps) {
  Worst made;
  Worst searched;
  reference::Random random(7);
  for (const std::string& kind : reference::kinds()) {
    for (int64_t d : {1, 7, 64, 100, 192, 520}) {
      for (bool l2 : {false, true}) {
        const int64_t n = 70;
        const int64_t m = 5;
        const reference::Case c = reference::make_case(kind, n, d, m, static_cast<uint64_t>(d));
        Bench bench(kernels, method, planes, c.rows, n, d, l2);
        int64_t row = 0;
        for (int64_t i = 0; i < m; ++i) {
          made.take(bench.worst(c.x.data() + i * d, &row), kind.c_str());
        }
        if (steps == 0 || d > 128) continue;
        std::vector<float> x(c.x.begin(), c.x.begin() + d);
        searched.take(climb(bench, x, steps, random), kind.c_str());
        if (method == Method::kInt8) {
          searched.take(climb(bench, missed_direction(bench, 3), steps, random), kind.c_str());
        }
      }
    }
  }
  std::printf("%s %s, planes %d: at most %.3f of the bound made, %.3f searched\n", kernels.name,
              method == Method::kInt8 ? "int8" : "fp32", planes, made.used, searched.used);
  CHECK(made.used > 0.01);  // the test sees errors at all
}

}  // namespace

int main(int argc, char** argv) {
  const int steps = argc > 1 && std::strcmp(argv[1], "--quick") == 0 ? 5 : 60;
  for (auto entry = edgekit::available_kernels(); *entry != nullptr; ++entry) {
    check_kernels(**entry, Method::kFp32, 1, steps);
    if ((*entry)->int8_vectors == 0) continue;
    check_kernels(**entry, Method::kInt8, 1, steps);
    check_kernels(**entry, Method::kInt8, 2, steps);
  }
  return check::report();
}
