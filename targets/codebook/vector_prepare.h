// Preparing a feature vector: scaling, centering, rotating, quantizing.
#ifndef EDGEKIT_VECTOR_PREPARE_H_
#define EDGEKIT_VECTOR_PREPARE_H_

#include "vector_types.h"

namespace edgekit {
namespace {

uint32_t largest_bits(const float* x, int64_t d) {
  // Floats without their sign order as integers do, and NaN and infinity come last.
  I16 top[kStreams] = {};
  const I16 no_sign = splat_int(0x7fffffff);
  int64_t k = 0;
  for (; k + 16 * kStreams <= d; k += 16 * kStreams) {
    unroll<kStreams>([&](auto i) EDGEKIT_INLINE {
      top[i] = larger(top[i], load<I16>(x + k + 16 * i) & no_sign);
    });
  }
  for (; k < d; k += 16) top[0] = larger(top[0], load_up_to<I16>(x + k, d - k) & no_sign);
  int32_t values[16];
  store(values, larger(larger(top[0], top[1]), larger(top[2], top[3])));
  int32_t largest = 0;
  for (int i = 0; i < 16; ++i) largest = values[i] > largest ? values[i] : largest;
  return static_cast<uint32_t>(largest);
}

// Scales the chunk at column k; adds its square and its product with the mean.
inline void scale_chunk(const F16& raw, int64_t k, float first, float second, const float* mean,
                        float* scaled, F16& squares, F16& products) {
  const F16 value = raw * first;
  store(scaled + k, value * second);
  squares += value * value;
  if (mean != nullptr) products += value * load<F16>(mean + k);
}

void scale(const float* x, int64_t d, float first, float second, const float* mean, float* scaled,
           float* norm, float* product) {
  F16 squares[kStreams] = {};
  F16 products[kStreams] = {};
  int64_t k = 0;
  for (; k + 16 * kStreams <= d; k += 16 * kStreams) {
    unroll<kStreams>([&](auto i) EDGEKIT_INLINE {
      scale_chunk(load<F16>(x + k + 16 * i), k + 16 * i, first, second, mean, scaled, squares[i],
                  products[i]);
    });
  }
  for (; k < d; k += 16) {
    scale_chunk(load_up_to<F16>(x + k, d - k), k, first, second, mean, scaled, squares[0],
                products[0]);
  }
  *norm = __builtin_sqrtf(sum(join(squares)));
  *product = sum(join(products));
}

// `kRadix` chunks, `step` floats apart, through the stages that couple them.
template <int kRadix>
inline void butterfly(float* p, int64_t step) {
  F16 v[kRadix];
  unroll<kRadix>([&](auto i) EDGEKIT_INLINE { v[i] = load<F16>(p + i * step); });
  unroll<log2_of(kRadix)>([&](auto stage) EDGEKIT_INLINE {
    unroll<kRadix / 2>([&](auto pair) EDGEKIT_INLINE {
      constexpr int kHalf = 1 << stage;
      constexpr int kLow = pair / kHalf * 2 * kHalf + pair % kHalf;
      const F16 low = v[kLow];
      v[kLow] = low + v[kLow + kHalf];
      v[kLow + kHalf] = low - v[kLow + kHalf];
    });
  });
  unroll<kRadix>([&](auto i) EDGEKIT_INLINE { store(p + i * step, v[i]); });
}

// All stages of the unnormalized Hadamard transform between `half` chunks and `chunks`, kRadix at a
// time and then fewer; returns how far it got.
template <int kRadix>
inline int64_t hadamard_stages(float* v, int64_t chunks, int64_t half) {
  for (; half * kRadix <= chunks; half *= kRadix) {
    for (int64_t base = 0; base < chunks; base += kRadix * half) {
      for (int64_t i = base; i < base + half; ++i) {
        butterfly<kRadix>(v + i * kChunk, half * kChunk);
      }
    }
  }
  return half;
}

// The unnormalized Hadamard transform of `chunks` (a power of two) chunks, lane by lane.
inline void hadamard(float* v, int64_t chunks) {
  int64_t half = 1;
  if constexpr (kMaxRadix >= 16) half = hadamard_stages<16>(v, chunks, half);
  if constexpr (kMaxRadix >= 8) half = hadamard_stages<8>(v, chunks, half);
  half = hadamard_stages<4>(v, chunks, half);
  hadamard_stages<2>(v, chunks, half);
}

inline void multiply(float* v, int64_t count, float factor) {
  for (int64_t k = 0; k < count; k += 16) store(v + k, load<F16>(v + k) * factor);
}

// Centers and rotates; x has zeros up to the end of its last chunk and is uninitialized beyond.
inline void center_and_rotate(const QuantizePlan& plan, float alpha, float* x) {
  const RotationPlan& rotation = plan.rotation;
  const int64_t first_window = rotation.window * kChunk;
  const float window_scale = static_cast<float>(rotation.vector_scale);
  for (int64_t k = 0; k < plan.padded; k += 16) {
    const F16 value = k < plan.width ? load<F16>(x + k) : F16{};
    const F16 centered = value * load<F16>(plan.signs + k) - load<F16>(plan.mean + k) * alpha;
    store(x + k, k < first_window ? centered * window_scale : centered);
  }
  hadamard(x, rotation.window);
  if (rotation.second > 0) {
    multiply(x + rotation.second * kChunk, first_window, window_scale);
    hadamard(x + rotation.second * kChunk, rotation.window);
  }
}

// Rounds to codes in -levels..levels and stores them; leaves the rounding error in `value`.
inline void encode(F16& value, float inverse, float step, float levels, int8_t* codes, I16& sums) {
  const F16 limit = splat(levels);
  const F16 code = larger(smaller(nearest(value * inverse), limit), negative(limit));
  const I16 integers = to_int(code);
  store_bytes(codes, integers);
  sums += integers;
  value = value - code * step;
}

template <int kPlanes>
inline float encode_all(const QuantizePlan& plan, float step, const float* x, int8_t* const* codes,
                        int32_t* totals) {
  const float inverse = step > 0 ? 1.0f / step : 0.0f;
  const float fine_step = step * plan.plane_ratio;
  const float fine_inverse = inverse / plan.plane_ratio;
  F16 errors[kStreams] = {};
  I16 sums[kMaxPlanes] = {};
  for (int64_t k = 0; k < plan.padded; k += 16 * kStreams) {
    unroll<kStreams>([&](auto i) EDGEKIT_INLINE {
      const int64_t column = k + 16 * i;
      F16 value = load<F16>(x + column);
      encode(value, inverse, step, plan.levels, codes[0] + column, sums[0]);
      if constexpr (kPlanes == 2) {
        encode(value, fine_inverse, fine_step, plan.levels, codes[1] + column, sums[1]);
      }
      errors[i] += value * value;
    });
  }
  for (int p = 0; p < kPlanes; ++p) {
    int32_t values[16];
    store(values, sums[p]);
    totals[p] = 0;
    for (int i = 0; i < 16; ++i) totals[p] += values[i];
  }
  return __builtin_sqrtf(sum(join(errors)));
}

void quantize(const QuantizePlan& plan, float alpha, float* x, int8_t* const* codes,
              QuantizeResult* result) {
  center_and_rotate(plan, alpha, x);
  F16 top[kStreams] = {};
  F16 squares[kStreams] = {};
  for (int64_t k = 0; k < plan.padded; k += 16 * kStreams) {
    unroll<kStreams>([&](auto i) EDGEKIT_INLINE {
      const F16 value = load<F16>(x + k + 16 * i);
      top[i] = larger(top[i], larger(value, negative(value)));
      squares[i] += value * value;
    });
  }
  // Below 2^-100 the reciprocal would overflow; such a vector is all error, and the result is
  // still exact.
  const float peak = largest(larger(larger(top[0], top[1]), larger(top[2], top[3])));
  const float step = peak > 0x1p-100f ? peak / plan.levels : 0.0f;
  result->step = step;
  result->norm = __builtin_sqrtf(sum(join(squares)));
  result->error = plan.planes == 2 ? encode_all<2>(plan, step, x, codes, result->sums)
                                   : encode_all<1>(plan, step, x, codes, result->sums);
}

}  // namespace
}  // namespace edgekit

#endif  // EDGEKIT_VECTOR_PREPARE_H_
