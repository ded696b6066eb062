#include "rotation.h"

#include <cmath>

namespace edgekit {
namespace {

void hadamard(double* v, int64_t chunks, double factor) {
  const int64_t size = chunks * kChunk;
  for (int64_t k = 0; k < size; ++k) v[k] *= factor;
  for (int64_t half = kChunk; half < size; half *= 2) {
    for (int64_t base = 0; base < size; base += 2 * half) {
      double* low = v + base;
      double* high = low + half;
      for (int64_t k = 0; k < half; ++k) {
        const double a = low[k];
        const double b = high[k];
        low[k] = a + b;
        high[k] = a - b;
      }
    }
  }
}

}  // namespace

RotationPlan make_rotation(int64_t padded_width) {
  RotationPlan plan{};
  plan.chunks = padded_width / kChunk;
  plan.window = 1;
  int bits = 0;
  while (plan.window * 2 <= plan.chunks) {
    plan.window *= 2;
    ++bits;
  }
  plan.second = plan.chunks - plan.window;
  // The Hadamard matrix H has H H = window, so rows get 2^-j H and vectors 2^j / window H.
  plan.row_scale = std::ldexp(1.0, -(bits / 2));
  plan.vector_scale = std::ldexp(1.0, bits / 2 - bits);
  return plan;
}

float rotation_sign(int64_t k) {
  // One step of a 64-bit mixing function; its top bit decides.
  uint64_t z = (static_cast<uint64_t>(k) + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (z >> 63) != 0 ? -1.0f : 1.0f;
}

void rotate_row(const RotationPlan& plan, double* row) {
  hadamard(row, plan.window, plan.row_scale);
  if (plan.second > 0) hadamard(row + plan.second * kChunk, plan.window, plan.row_scale);
}

}  // namespace edgekit
