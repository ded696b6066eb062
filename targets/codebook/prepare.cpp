#include "prepare.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "bounds.h"

namespace edgekit {
namespace {

// The power of two by which to scale a feature vector, so that later steps neither overflow nor
// underflow; see docs/exact-lookup.md, "Scaling". `bits` are those of the largest magnitude.
int vector_exponent(const Packed& packed, uint32_t bits) {
  float peak;
  static_assert(sizeof peak == sizeof bits);
  std::memcpy(&peak, &bits, sizeof peak);
  int exponent = peak > 0 ? -(std::ilogb(peak) + 1) : 0;
  // Half the squared norms are in the scale of the rows: keep their weight at most 1.
  if (packed.half_norms.size() > 0) exponent = std::min(exponent, -packed.exponent);
  return std::clamp(exponent, -126, 120);
}

// Initializes the part that both approximate methods share.
void start(const Packed& packed, const float* x, Vector* vector, VectorState* state) {
  const uint32_t bits = packed.kernels->largest_bits(x, packed.d);
  *state = VectorState{};
  std::fill(state->lanes, state->lanes + kChunk, -std::numeric_limits<float>::infinity());
  state->threshold = -std::numeric_limits<float>::infinity();
  const int exponent = vector_exponent(packed, bits);
  if (packed.half_norms.size() > 0) state->lambda = std::ldexp(1.0f, exponent + packed.exponent);
  vector->x = x;
  vector->exponent = exponent - packed.exponent;
  vector->shift = 0;
  vector->zero = bits == 0 && packed.half_norms.size() == 0;
  vector->count = 0;
}

void prepare_int8(const Packed& packed, int planes, int64_t i, Arena& arena) {
  const Kernels& kernels = *packed.kernels;
  Vector& vector = arena.vectors.data()[i];
  VectorState& state = arena.states.data()[i];
  float* work = arena.scaled.data();
  VectorNorms norms{};
  float norm;
  float product;
  const float factor = std::ldexp(1.0f, vector.exponent + packed.exponent);
  kernels.scale(vector.x, packed.d, factor, 1.0f, packed.mean.data(), work, &norm, &product);
  const float alpha = packed.mean_square > 0
                          ? static_cast<float>(static_cast<double>(product) / packed.mean_square)
                          : 0.0f;
  const QuantizePlan plan{packed.signs.data(), packed.signed_mean.data(),
                          packed.rotation,     packed.d,
                          packed.padded,       planes,
                          kernels.int8_levels, kernels.int8_levels > 64 ? 0x1p-8f : 0x1p-7f};
  int8_t* codes[kMaxPlanes];
  for (int p = 0; p < kMaxPlanes; ++p) {
    codes[p] = arena.codes.data() + (i * planes + p) * arena.code_stride;
  }
  QuantizeResult quantized;
  kernels.quantize(plan, alpha, work, codes, &quantized);

  state.step = quantized.step;
  state.alpha = alpha;
  state.plane_ratio = plan.plane_ratio;
  for (int p = 0; p < planes; ++p) {
    state.correction[p] = kernels.unsigned_codes ? 128 * quantized.sums[p] : 0;
  }
  norms.scaled = static_cast<double>(norm);
  norms.rotated = static_cast<double>(quantized.norm);
  norms.error = static_cast<double>(quantized.error);
  norms.alpha = static_cast<double>(alpha);
  norms.mean = packed.mean_norm;
  bound_int8(norms, packed.padded, &state);
  vector.shift = static_cast<double>(product) + product_slack(norms, packed.padded);
}

void prepare_fp32(const Packed& packed, int64_t i, Arena& arena) {
  Vector& vector = arena.vectors.data()[i];
  VectorState& state = arena.states.data()[i];
  // The rows are not scaled: a second power of two keeps products with them in range.
  const int range = std::clamp(-packed.exponent, -32, 100);
  float norm;
  float product;
  packed.kernels->scale(vector.x, packed.d, std::ldexp(1.0f, vector.exponent + packed.exponent),
                        std::ldexp(1.0f, range), nullptr,
                        arena.scaled.data() + i * arena.float_stride, &norm, &product);
  state.step = std::ldexp(1.0f, -packed.exponent - range);
  bound_fp32(static_cast<double>(norm), packed.d, &state);
}

}  // namespace

void prepare_vector(const Packed& packed, Method method, int planes, const float* x, int64_t i,
                    Arena& arena) {
  start(packed, x, arena.vectors.data() + i, arena.states.data() + i);
  if (method == Method::kInt8) {
    prepare_int8(packed, planes, i, arena);
  } else {
    prepare_fp32(packed, i, arena);
  }
}

}  // namespace edgekit
