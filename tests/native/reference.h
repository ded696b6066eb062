// The definition of the score (edgekit_codebook.h), written as plainly as possible, and inputs that
// are hard on anything that approximates it.
#ifndef EDGEKIT_REFERENCE_H_
#define EDGEKIT_REFERENCE_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace reference {

inline double dot(const float* x, const float* e, int64_t d) {
  double lanes[16] = {};
  for (int64_t k = 0; k < d; ++k) {
    lanes[k % 16] += static_cast<double>(x[k]) * static_cast<double>(e[k]);
  }
  for (int width = 8; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  }
  return lanes[0];
}

struct Answer {
  int64_t index = -1;
  float best = 0;
  float margin = 0;
};

inline double score(const float* x, const float* row, int64_t d, bool l2) {
  return l2 ? dot(x, row, d) - dot(row, row, d) / 2 : dot(x, row, d);
}

inline Answer lookup(const std::vector<float>& rows, int64_t n, int64_t d, bool l2,
                     const float* x) {
  std::vector<double> scores(static_cast<size_t>(n));
  int64_t best = 0;
  for (int64_t i = 0; i < n; ++i) {
    scores[static_cast<size_t>(i)] = score(x, rows.data() + i * d, d, l2);
    if (scores[static_cast<size_t>(i)] > scores[static_cast<size_t>(best)]) best = i;
  }
  double second = -std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < n; ++i) {
    if (i != best) second = std::max(second, scores[static_cast<size_t>(i)]);
  }
  const double first = scores[static_cast<size_t>(best)];
  return {best, static_cast<float>(first), static_cast<float>(first - second)};
}

// Same numbers on every machine, unlike the distributions of the C++ library.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  uint64_t bits() { return engine_(); }
  int64_t below(int64_t count) {
    return static_cast<int64_t>(bits() % static_cast<uint64_t>(count));
  }
  float uniform() { return static_cast<float>(bits() >> 40) * 0x1p-24f; }  // 0 <= u < 1
  float normal() {  // the sum of twelve is close enough
    float sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }

 private:
  std::mt19937_64 engine_;
};

struct Case {
  std::vector<float> rows;
  std::vector<float> x;
};

// The kinds of input, by name; `make_case` fills in n rows and m vectors of d floats.
inline const std::vector<std::string>& kinds() {
  static const std::vector<std::string> names = {
      "random",   "clustered", "near-duplicate", "identical", "one-hot",   "integers", "relu",
      "denormal", "huge",      "tiny",           "mixed",     "zero-rows", "offset",   "outlier"};
  return names;
}

inline float power_of_ten(Random& random, int low, int high) {
  return std::pow(10.0f, static_cast<float>(low + random.below(high - low)));
}

inline Case make_case(const std::string& kind, int64_t n, int64_t d, int64_t m, uint64_t seed) {
  Random random(seed);
  Case c;
  c.rows.resize(static_cast<size_t>(n * d));
  c.x.resize(static_cast<size_t>(m * d));
  for (float& v : c.rows) v = random.normal();
  for (float& v : c.x) v = random.normal();
  const auto row = [&](int64_t i) { return c.rows.data() + i * d; };
  const auto vector = [&](int64_t i) { return c.x.data() + i * d; };
  const auto scale_all = [&](float rows, float vectors) {
    for (float& v : c.rows) v *= rows;
    for (float& v : c.x) v *= vectors;
  };
  if (kind == "clustered") {
    for (int64_t i = n / 8; i < n; ++i) {
      const int64_t center = random.below(n / 8 + 1);
      for (int64_t k = 0; k < d; ++k) row(i)[k] = row(center)[k] + 0.3f * row(i)[k];
    }
    for (int64_t i = 0; i < m; ++i) {
      const int64_t near = random.below(n);
      for (int64_t k = 0; k < d; ++k) vector(i)[k] = row(near)[k] + 0.05f * vector(i)[k];
    }
  } else if (kind == "near-duplicate") {  // rows differ from one another in a last bit or two
    for (int64_t i = 1; i < n; ++i) {
      std::memcpy(row(i), row(0), static_cast<size_t>(d) * sizeof(float));
      for (int flips = 0; flips < 2; ++flips) {
        float& v = row(i)[random.below(d)];
        v = std::nextafter(v, random.below(2) == 0 ? -9.0f : 9.0f);
      }
    }
  } else if (kind == "identical") {
    for (int64_t i = 1; i < n; ++i) {
      std::memcpy(row(i), row(0), static_cast<size_t>(d) * sizeof(float));
    }
  } else if (kind == "one-hot") {
    std::fill(c.rows.begin(), c.rows.end(), 0.0f);
    std::fill(c.x.begin(), c.x.end(), 0.0f);
    for (int64_t i = 0; i < n; ++i) row(i)[random.below(d)] = 1;
    for (int64_t i = 0; i < m; ++i) vector(i)[random.below(d)] = random.normal();
  } else if (kind == "integers") {  // many exact ties
    for (float& v : c.rows) v = static_cast<float>(random.below(3) - 1);
    for (float& v : c.x) v = static_cast<float>(random.below(3) - 1);
  } else if (kind == "relu") {
    for (float& v : c.rows) v = std::max(v, 0.0f);
    for (float& v : c.x) v = std::max(v, 0.0f);
  } else if (kind == "denormal") {
    scale_all(1e-41f, 1e-40f);
  } else if (kind == "huge") {
    scale_all(4e37f, 4e37f);
  } else if (kind == "tiny") {
    scale_all(1e-37f, 3e37f);
  } else if (kind == "mixed") {
    for (int64_t i = 0; i < n; ++i) {
      const float factor = power_of_ten(random, -44, 37);
      for (int64_t k = 0; k < d; ++k) row(i)[k] *= factor;
    }
    for (float& v : c.x) v *= power_of_ten(random, -44, 37);
  } else if (kind == "zero-rows") {
    for (int64_t i = 0; i < n; i += 2) std::fill(row(i), row(i) + d, 0.0f);
    for (int64_t i = 0; i < m; i += 3)
      std::fill(vector(i), vector(i) + d, i % 2 == 0 ? 0.0f : -0.0f);
  } else if (kind == "offset") {  // a common part a thousand times the differences
    for (float& v : c.rows) v += 1000;
    for (float& v : c.x) v += 1000;
  } else if (kind == "outlier") {  // one coordinate holds nearly all of the norm
    for (int64_t i = 0; i < n; ++i) row(i)[0] *= 1e4f;
    for (int64_t i = 0; i < m; ++i) vector(i)[d - 1] *= 1e4f;
  }
  return c;
}

}  // namespace reference

#endif  // EDGEKIT_REFERENCE_H_
