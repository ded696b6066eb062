// From products to bounds, and which rows remain candidates.
#ifndef EDGEKIT_VECTOR_SCREEN_H_
#define EDGEKIT_VECTOR_SCREEN_H_

#include "vector_types.h"

namespace edgekit {
namespace {

// A feature vector's weights, in a place where the compiler sees that no store changes them.
struct Weights {
  explicit Weights(const VectorState& state)
      : step(state.step),
        alpha(state.alpha),
        lambda(state.lambda),
        norm_error(state.norm_error),
        residual_error(state.residual_error),
        half_error(state.half_error),
        constant_error(state.constant_error) {}

  const float step, alpha, lambda, norm_error, residual_error, half_error, constant_error;
};

// The formula of docs/exact-lookup.md, "Bounds", for sixteen rows; returns their upper bounds.
// Without half norms (the dot metric) their terms are zero and left out.
template <bool kHalves>
EDGEKIT_INLINE inline F16 bounds(const RowGroup& group, int row, const F16& product,
                                 const Weights& weights, F16& lanes) {
  F16 score = product * (load<F16>(group.scale + row) * weights.step) +
              load<F16>(group.center + row) * weights.alpha;
  F16 error = splat(weights.constant_error);
  if constexpr (kHalves) {
    const F16 half = load<F16>(group.half + row);
    score = score - half * weights.lambda;
    error = half * weights.half_error + error;
  }
  error = load<F16>(group.norm + row) * weights.norm_error +
          (load<F16>(group.residual + row) * weights.residual_error + error);
  lanes = larger(lanes, score - error);
  return score + error;
}

template <bool kHalves, typename Product>
EDGEKIT_INLINE inline uint64_t screen(const RowGroup& group, VectorState* state, float* upper,
                                      const Product& product_at) {
  const Weights weights(*state);
  const F16 threshold = splat(state->threshold);
  F16 lanes = load<F16>(state->lanes);
  uint64_t mask = 0;
  for (int row = 0; row < kGroup; row += 16) {
    const F16 bound = bounds<kHalves>(group, row, product_at(row), weights, lanes);
    store(upper + row, bound);
    mask |= reaches(bound, threshold) << row;
  }
  store(state->lanes, lanes);
  return mask;
}

template <typename Product>
EDGEKIT_INLINE inline uint64_t screen_any(const RowGroup& group, VectorState* state, float* upper,
                                          const Product& product_at) {
  return state->half_error > 0 ? screen<true>(group, state, upper, product_at)
                               : screen<false>(group, state, upper, product_at);
}

uint64_t screen_fp32(const RowGroup& group, const float* products, VectorState* state,
                     float* upper) {
  return screen_any(group, state, upper, [&](int row) { return load<F16>(products + row); });
}

[[maybe_unused]] uint64_t screen_int8(const RowGroup& group, const int32_t* products, int planes,
                                      VectorState* state, float* upper) {
  const I16 coarse = splat_int(state->correction[0]);
  if (planes == 1) {
    return screen_any(group, state, upper,
                      [&](int row) { return to_float(load<I16>(products + row) - coarse); });
  }
  const I16 fine = splat_int(state->correction[1]);
  const float ratio = state->plane_ratio;
  return screen_any(group, state, upper, [&](int row) {
    const I16 first = load<I16>(products + row) - coarse;
    const I16 second = load<I16>(products + kGroup + row) - fine;
    return to_float(first) + to_float(second) * ratio;
  });
}

}  // namespace
}  // namespace edgekit

#endif  // EDGEKIT_VECTOR_SCREEN_H_
