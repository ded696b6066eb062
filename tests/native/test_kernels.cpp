// Each kernel of each instruction set against the plainest code for it.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "check.h"
#include "kernels.h"
#include "reference.h"
#include "rotation.h"

namespace edgekit {
#ifdef EDGEKIT_TEST_EVEX_VNNI
extern const Kernels kAvxVnniInEvexKernels;
#endif
}  // namespace edgekit

namespace {

using edgekit::Kernels;
using edgekit::kGroup;

std::vector<float> numbers(reference::Random& random, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = random.normal() * reference::power_of_ten(random, -20, 20);
  return values;
}

void exact_products(const Kernels& kernels) {
  reference::Random random(1);
  for (int64_t d : {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100, 2048, 2049}) {
    const std::vector<float> x = numbers(random, d);
    const std::vector<float> e = numbers(random, 4 * d);
    const float* rows[4];
    double four[4];
    for (int r = 0; r < 4; ++r) rows[r] = e.data() + r * d;
    kernels.exact_dot4(x.data(), rows, d, four);
    for (int r = 0; r < 4; ++r) {
      const double expected = reference::dot(x.data(), rows[r], d);
      CHECK_EQ(four[r], expected);
      CHECK_EQ(kernels.exact_dot(x.data(), rows[r], d), expected);
    }
  }
}

void largest(const Kernels& kernels) {
  reference::Random random(2);
  for (int64_t d : {1, 5, 16, 63, 64, 65, 200}) {
    std::vector<float> x = numbers(random, d);
    float expected = 0;
    for (float v : x) expected = std::max(expected, std::fabs(v));
    uint32_t bits;
    std::memcpy(&bits, &expected, sizeof bits);
    CHECK_EQ(kernels.largest_bits(x.data(), d), bits);
    for (float wrong : {std::nanf(""), -HUGE_VALF, HUGE_VALF}) {
      x[static_cast<size_t>(random.below(d))] = wrong;
      CHECK(kernels.largest_bits(x.data(), d) >= 0x7f800000u);
    }
  }
}

// Extreme codes as well: a saturating instruction would show.
void int8_products(const Kernels& kernels) {
  reference::Random random(3);
  const int limit = static_cast<int>(kernels.int8_levels);
  for (int64_t padded : {64, 128, 320, 2048}) {
    for (int extreme = 0; extreme < 2; ++extreme) {
      const int64_t stride = padded + 64;
      std::vector<int8_t> rows(static_cast<size_t>(kGroup * padded));
      std::vector<int8_t> vectors(static_cast<size_t>(edgekit::kMaxVectors * stride));
      for (int8_t& v : rows) {
        v = static_cast<int8_t>(extreme != 0 ? 127 : random.below(255) - 127);
      }
      for (int8_t& v : vectors) {
        v = static_cast<int8_t>(extreme != 0 ? limit : random.below(2 * limit + 1) - limit);
      }
      std::vector<uint8_t> packed(rows.size());
      for (int64_t r = 0; r < kGroup; ++r) {
        for (int64_t k = 0; k < padded; ++k) {
          const int code = rows[static_cast<size_t>(r * padded + k)];
          packed[static_cast<size_t>(k / 4 * 4 * kGroup + r * 4 + k % 4)] =
              static_cast<uint8_t>(kernels.unsigned_codes ? code + 128 : code);
        }
      }
      for (int count = 1; count <= kernels.int8_vectors; ++count) {
        std::vector<int32_t> out(static_cast<size_t>(count * kGroup), -1);
        kernels.dot_int8(packed.data(), vectors.data(), stride, count, padded,
                         reinterpret_cast<const char*>(packed.data()), out.data());
        int wrong = 0;
        for (int v = 0; v < count; ++v) {
          for (int64_t r = 0; r < kGroup; ++r) {
            int32_t expected = 0;
            for (int64_t k = 0; k < padded; ++k) {
              const int code = vectors[static_cast<size_t>(v * stride + k)];
              expected += code * (rows[static_cast<size_t>(r * padded + k)] +
                                  (kernels.unsigned_codes ? 128 : 0));
            }
            wrong += out[static_cast<size_t>(v * kGroup + r)] != expected;
          }
        }
        CHECK_EQ(wrong, 0);
      }
    }
  }
}

void float_products(const Kernels& kernels) {
  reference::Random random(4);
  for (int64_t d : {1, 3, 16, 17, 40, 256, 300}) {
    const int64_t stride = (d + 15) / 16 * 16 + 16;
    std::vector<float> rows(static_cast<size_t>(kGroup * d));
    std::vector<float> vectors(static_cast<size_t>(edgekit::kMaxVectors * stride));
    for (float& v : rows) v = random.normal();
    for (int v = 0; v < edgekit::kMaxVectors; ++v) {
      for (int64_t k = 0; k < d; ++k)
        vectors[static_cast<size_t>(v * stride + k)] = random.normal();
    }
    for (int count = 1; count <= kernels.fp32_vectors; ++count) {
      for (int last : {1, 5, 64}) {
        std::vector<float> out(static_cast<size_t>(count * kGroup), -1e9f);
        kernels.dot_fp32(rows.data(), d, last, vectors.data(), stride, count, out.data());
        int wrong = 0;
        for (int v = 0; v < count; ++v) {
          for (int r = 0; r < last; ++r) {
            const double expected =
                reference::dot(vectors.data() + v * stride, rows.data() + r * d, d);
            const double found = static_cast<double>(out[static_cast<size_t>(v * kGroup + r)]);
            wrong += !(std::fabs(found - expected) <= 1e-4 * std::sqrt(static_cast<double>(d)));
          }
        }
        CHECK_EQ(wrong, 0);
      }
    }
  }
}

// Rotating a vector and a row must not change their product, and codes must stand for the vector.
void quantizing(const Kernels& kernels) {
  if (kernels.int8_vectors == 0) return;
  reference::Random random(5);
  for (int64_t padded : {64, 128, 192, 320, 1024, 1280, 2048}) {
    for (int planes = 1; planes <= 2; ++planes) {
      const auto size = static_cast<size_t>(padded);
      std::vector<float> x(size);
      std::vector<float> signs(size);
      std::vector<float> mean(size);
      std::vector<double> row(size);
      double product = 0;
      for (size_t k = 0; k < size; ++k) {
        x[k] = random.normal();
        signs[k] = edgekit::rotation_sign(static_cast<int64_t>(k));
        mean[k] = random.normal() * signs[k];
        const double value = static_cast<double>(random.normal());
        product +=
            value * (static_cast<double>(x[k]) - 0.5 * static_cast<double>(mean[k] * signs[k]));
        row[k] = value * static_cast<double>(signs[k]);
      }
      const edgekit::RotationPlan rotation = edgekit::make_rotation(padded);
      edgekit::rotate_row(rotation, row.data());
      const float ratio = kernels.int8_levels > 64 ? 0x1p-8f : 0x1p-7f;
      const edgekit::QuantizePlan plan{signs.data(), mean.data(),         rotation, padded, padded,
                                       planes,       kernels.int8_levels, ratio};
      std::vector<int8_t> codes(2 * size);
      int8_t* targets[2] = {codes.data(), codes.data() + size};
      edgekit::QuantizeResult result;
      std::vector<float> work = x;
      kernels.quantize(plan, 0.5f, work.data(), targets, &result);
      double found = 0;
      double error = 0;
      int64_t sum = 0;
      for (size_t k = 0; k < size; ++k) {
        double value = static_cast<double>(result.step) * codes[k];
        if (planes == 2) value += static_cast<double>(result.step * ratio) * codes[size + k];
        found += value * row[k];
        const double missed = static_cast<double>(work[k]) - value;
        error += missed * missed;
        sum += codes[k];
      }
      const double tolerance = (planes == 2 ? 2e-4 : 2e-2) * static_cast<double>(padded);
      CHECK(std::fabs(found - product) < tolerance);
      CHECK(std::fabs(std::sqrt(error) / static_cast<double>(result.error) - 1) < 1e-2);
      CHECK_EQ(result.sums[0], sum);
    }
  }
}

void check_all(const Kernels& kernels) {
  exact_products(kernels);
  largest(kernels);
  if (kernels.int8_vectors > 0) int8_products(kernels);
  float_products(kernels);
  quantizing(kernels);
  std::printf("%s\n", kernels.name);
}

}  // namespace

int main() {
  for (auto entry = edgekit::available_kernels(); *entry != nullptr; ++entry) check_all(**entry);
#ifdef EDGEKIT_TEST_EVEX_VNNI
  // The AVX-VNNI kernels in AVX-512's encoding, where the machine has only that.
  if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl")) {
    check_all(edgekit::kAvxVnniInEvexKernels);
  }
#endif
  return check::report();
}
