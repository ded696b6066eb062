// The INT8 head of the OpenVINO extension against its formula in double; no OpenVINO needed.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "folded_head.h"
#include "guarded_buffer.h"

namespace {

using edgekit::CodeTables;
using edgekit::FoldedHead;
using edgekit::Quantization;
using edgekit::QuantizedLayer;

constexpr size_t kRows = 7;
constexpr size_t kCount = 5;

struct Case {
  size_t width, classes;
  bool residual;
  Quantization rest, fused;
  std::vector<float> norm, codebook, features, bias, projection_steps, classifier_steps;
  std::vector<int8_t> projection, classifier;
  CodeTables tables;
  std::vector<int64_t> codes{3, 0, 6, 3, 1};

  Case(size_t d, size_t c, bool add, Quantization r, Quantization f, unsigned seed)
      : width(d), classes(c), residual(add), rest(r), fused(f) {
    std::mt19937 generator(seed);
    const auto fill = [&](size_t count, float low, float high) {
      std::uniform_real_distribution<float> value(low, high);
      std::vector<float> values(count);
      for (float& v : values) v = value(generator);
      return values;
    };
    const auto whole = [&](size_t count, int low, int high) {
      std::uniform_int_distribution<int> value(low, high);
      std::vector<int> values(count);
      for (int& v : values) v = value(generator);
      return values;
    };
    norm = fill(kRows, 0.5F, 2);
    codebook = fill(kRows * width, 0, 1);
    features = fill(kCount * width, 0, 2);
    bias = fill(classes, -1, 1);
    projection_steps = fill(3 * width, 0.0005F, 0.002F);
    classifier_steps = fill(classes, 0.001F, 0.01F);
    const std::vector<int> p = whole(3 * width * width, -127, 127);
    projection.assign(p.begin(), p.end());
    const std::vector<int> w = whole(classes * width, -127, 127);
    classifier.assign(w.begin(), w.end());
    const std::vector<int> t = whole(kRows * 2 * width, -32767, 32767);
    tables.rows.assign(t.begin(), t.end());
    tables.steps = fill(2 * kRows, 1e-5F, 3e-5F);
  }

  FoldedHead head() const {
    return FoldedHead(
        width, norm, tables, QuantizedLayer(projection.data(), projection_steps, width), rest,
        QuantizedLayer(classifier.data(), classifier_steps, width), bias, fused, residual);
  }
};

// What is left of a value after its quantization.
double rounded(double value, const Quantization& to) {
  const double low = to.is_signed ? -128 : 0;
  const double code = std::nearbyint(value / to.step) + to.zero;
  return (std::clamp(code, low, low + 255) - to.zero) * to.step;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

std::vector<double> expected(const Case& c, size_t image) {
  const auto n = static_cast<size_t>(c.codes[image]);
  std::vector<double> rest(c.width);
  std::vector<double> coded(c.width);
  std::vector<double> projected(3 * c.width);
  for (size_t k = 0; k < c.width; ++k) {
    rest[k] = c.features[image * c.width + k] - c.codebook[n * c.width + k] * c.norm[n];
    coded[k] = rounded(rest[k], c.rest);
  }
  for (size_t r = 0; r < projected.size(); ++r) {
    for (size_t k = 0; k < c.width; ++k) {
      projected[r] += c.projection[r * c.width + k] * coded[k] * double{c.projection_steps[r]};
    }
  }
  double first = 0;
  double second = 0;
  const int16_t* row = c.tables.rows.data() + 2 * n * c.width;
  for (size_t k = 0; k < c.width; ++k) {
    first += rest[k] * row[k] * c.tables.steps[2 * n];
    second += rest[k] * projected[k];
  }
  std::vector<double> logits(c.bias.begin(), c.bias.end());
  for (size_t k = 0; k < c.width; ++k) {
    const double value = row[c.width + k] * c.tables.steps[2 * n + 1] +
                         sigmoid(first) * projected[c.width + k] +
                         sigmoid(first + second) * projected[2 * c.width + k];
    const double feature = c.features[image * c.width + k];
    const double input = rounded(c.residual ? feature + value : std::max(value, 0.0), c.fused);
    for (size_t r = 0; r < c.classes; ++r) {
      logits[r] += input * c.classifier[r * c.width + k] * c.classifier_steps[r];
    }
  }
  return logits;
}

// An edgekit_codebook_crew of the caller alone.
void one_after_another(void* /*context*/, int parts, void (*run)(void* task, int part),
                       void* task) {
  for (int part = 0; part < parts; ++part) run(task, part);
}

void compare(const Case& c) {
  const FoldedHead head = c.head();
  std::vector<float> logits(kCount * c.classes);
  // At an odd address, where a cached model may put it.
  std::vector<char> odd(c.codebook.size() * sizeof(float) + 1);
  std::memcpy(odd.data() + 1, c.codebook.data(), odd.size() - 1);
  head.run(c.features.data(), c.codes.data(), odd.data() + 1, kCount, 2, {}, logits.data());
  for (size_t i = 0; i < kCount; ++i) {
    const std::vector<double> right = expected(c, i);
    double greatest = 0;
    double error = 0;
    for (size_t r = 0; r < c.classes; ++r) {
      greatest = std::max(greatest, std::abs(right[r]));
      error = std::max(error, std::abs(right[r] - logits[i * c.classes + r]));
    }
    // A value halfway between two codes may go either way.
    CHECK(error <= 0.01 * greatest);
  }
  std::vector<float> again(kCount * c.classes);
  head.run(c.features.data(), c.codes.data(), c.codebook.data(), kCount, 1,
           {.run = one_after_another}, again.data());
  CHECK(logits == again);
  for (const auto side : {guarded::Side::kBefore, guarded::Side::kBehind}) {
    const guarded::Buffer<float> features(c.features, side);
    const guarded::Buffer<int64_t> codes(c.codes, side);
    const guarded::Buffer<float> codebook(c.codebook, side);
    const guarded::Buffer<float> out(logits.size(), side);
    head.run(features.data(), codes.data(), codebook.data(), kCount, 2, {}, out.data());
    CHECK(out.values() == logits);
    head.run(features.data(), codes.data(), codebook.data(), 0, 1, {}, out.data());
  }
}

}  // namespace

int main() {
  const Quantization is_signed{0.02F, 0, true};
  const Quantization shifted{0.02F, 120, false};
  const Quantization positive{0.03F, 0, false};
  compare(Case(24, 5, false, is_signed, positive, 1));
  compare(Case(65, 3, true, shifted, shifted, 2));
  compare(Case(1, 1, false, is_signed, positive, 3));
  compare(Case(640, 1000, true, is_signed, is_signed, 4));
  return check::report();
}
