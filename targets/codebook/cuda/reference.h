// The score's definition, word for word, for tests: no speed, no shortcuts.
#ifndef EDGEKIT_CUDA_REFERENCE_H_
#define EDGEKIT_CUDA_REFERENCE_H_

#include <cstdint>
#include <limits>

namespace edgekit::cuda {

inline double defined_dot(const float* x, const float* e, int64_t d) {
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
  int64_t index;
  float best;
  float margin;
};

inline Answer defined_lookup(const float* codebook, int64_t n, int64_t d, const float* x, bool l2) {
  double best = -std::numeric_limits<double>::infinity();
  double second = best;
  int64_t index = -1;
  for (int64_t row = 0; row < n; ++row) {
    const float* e = codebook + row * d;
    double score = defined_dot(x, e, d);
    if (l2) score -= defined_dot(e, e, d) / 2;
    if (index < 0 || score > best) {
      second = best;
      best = score;
      index = row;
    } else if (score > second) {
      second = score;
    }
  }
  return {index, static_cast<float>(best), static_cast<float>(best - second)};
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_REFERENCE_H_
