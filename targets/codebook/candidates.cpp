#include "candidates.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "bounds.h"

namespace edgekit {

namespace {

float greatest(const float* lanes) {
  float top[4];
  for (int i = 0; i < 4; ++i) {
    top[i] = std::max(std::max(lanes[i], lanes[i + 4]), std::max(lanes[i + 8], lanes[i + 12]));
  }
  return std::max(std::max(top[0], top[1]), std::max(top[2], top[3]));
}

float second_greatest(const float* lanes) {
  float first = -std::numeric_limits<float>::infinity();
  float second = first;
  for (int64_t i = 0; i < kChunk; ++i) {
    second = std::max(second, std::min(first, lanes[i]));
    first = std::max(first, lanes[i]);
  }
  return second;
}

}  // namespace

void Candidates::raise_threshold() {
  // Each lane is the lower bound of a different row, so the second greatest lane is a lower bound
  // of the second-best score.
  const float bound = requested_.margin ? second_greatest(state_.lanes) : greatest(state_.lanes);
  state_.threshold = std::max(state_.threshold, bound);
}

void Candidates::add_group(int64_t first_row, const float* upper, uint64_t reached) {
  raise_threshold();
  const int64_t rows = packed_.n - first_row;
  if (rows < kGroup) reached &= (uint64_t{1} << rows) - 1;
  for (; reached != 0; reached &= reached - 1) {
    const int r = std::countr_zero(reached);
    if (upper[r] < state_.threshold) continue;
    if (vector_.count == Arena::kCandidates) thin_out();
    list_[vector_.count++] = {upper[r], static_cast<int32_t>(first_row + r)};
  }
}

void Candidates::drop_below_threshold() {
  int32_t remaining = 0;
  for (int32_t i = 0; i < vector_.count; ++i) {
    if (!(list_[i].upper < state_.threshold)) list_[remaining++] = list_[i];
  }
  vector_.count = remaining;
}

// Makes room in a full list: drops candidates below the threshold, or else scores all exactly.
void Candidates::thin_out() {
  drop_below_threshold();
  if (vector_.count <= Arena::kCandidates / 2) return;
  int32_t i = 0;
  for (; i + 4 <= vector_.count; i += 4) evaluate_four(list_ + i);
  for (; i < vector_.count; ++i) evaluate(list_[i].row);
  vector_.count = 0;
  learn_from_result();
}

// Raises the threshold to the exact score that another row must reach.
void Candidates::learn_from_result() {
  const double score = requested_.margin ? result_.second : result_.best;
  if (score == -std::numeric_limits<double>::infinity()) return;
  const double scaled = std::ldexp(score, vector_.exponent);
  // Two roundings in double below, and the one to float downward.
  const double slack = 0x1p-50 * (std::fabs(scaled) + std::fabs(vector_.shift));
  state_.threshold = std::max(state_.threshold, float_below(scaled - vector_.shift - slack));
}

void Candidates::evaluate(int64_t row) {
  const double product = packed_.kernels->exact_dot(vector_.x, packed_.row(row), packed_.d);
  result_.offer(product - packed_.offset(row), row);
}

void Candidates::evaluate_four(const Candidate* candidates) {
  const float* rows[4];
  double products[4];
  for (int i = 0; i < 4; ++i) rows[i] = packed_.row(candidates[i].row);
  packed_.kernels->exact_dot4(vector_.x, rows, packed_.d, products);
  for (int i = 0; i < 4; ++i) {
    const int64_t row = candidates[i].row;
    result_.offer(products[i] - packed_.offset(row), row);
  }
}

void Candidates::finish() {
  raise_threshold();
  drop_below_threshold();
  if (!requested_.margin && !requested_.score && result_.index < 0 && vector_.count == 1) {
    result_.index = list_[0].row;
    return;
  }
  std::sort(list_, list_ + vector_.count,
            [](const Candidate& a, const Candidate& b) { return a.upper > b.upper; });
  int32_t i = 0;
  while (i < vector_.count) {
    // The list is in descending order: once a candidate cannot matter, neither can those after it.
    if (list_[i].upper < state_.threshold) break;
    if (i > 0 && i + 4 <= vector_.count && !(list_[i + 3].upper < state_.threshold)) {
      evaluate_four(list_ + i);
      i += 4;
    } else {
      evaluate(list_[i].row);
      i += 1;
    }
    learn_from_result();
  }
  vector_.count = 0;
}

}  // namespace edgekit
