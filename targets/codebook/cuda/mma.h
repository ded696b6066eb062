// The product on tensor cores: 16 rows of the codebook with 8 vectors, 32 columns at a time.
//
// The lanes of a warp hold the operands. Lane l has eight columns, 8 (l % 4) and the following, of
// rows l / 4 and l / 4 + 8 and of vector l / 4. The device's instruction wants other columns in a
// lane, but any order of the columns will do that is the same on both sides: columns 0 to 3 of each
// lane's eight go to one instruction of depth 16, columns 4 to 7 to another. A lane's four sums are
// those of row l / 4 with vectors 2 (l % 4) and 2 (l % 4) + 1, and the same of row l / 4 + 8.
//
// Hardware may sum in any order and round each step as it likes, within what bounds.h assumes.
#ifndef EDGEKIT_CUDA_MMA_H_
#define EDGEKIT_CUDA_MMA_H_

#include "portable.h"

namespace edgekit::cuda {

constexpr int kChunk = 32;       // columns that a lane's operands reach over
constexpr int kChunkBytes = 64;  // of one row
constexpr int kBlockRows = 8;    // rows whose chunks lie together: 512 bytes, a warp's load

#ifdef __CUDACC__

// SM 80 and later have an instruction of depth 16, SM 75 one of depth 8; before, lanes exchange
// their operands. EDGEKIT_PLAIN_PRODUCT takes the last way anywhere, to test it.
EDGEKIT_DEVICE void multiply_lane(float* c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                  uint32_t b0, uint32_t b1) {
#if !defined(EDGEKIT_PLAIN_PRODUCT) && __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#elif !defined(EDGEKIT_PLAIN_PRODUCT) && __CUDA_ARCH__ >= 750
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(b0));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a2), "r"(a3), "r"(b1));
#else
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto add = [](float& sum, uint32_t a, uint32_t b) {
    sum += to_float(Half{static_cast<uint16_t>(a & 0xffff)}) *
           to_float(Half{static_cast<uint16_t>(b & 0xffff)});
    sum += to_float(Half{static_cast<uint16_t>(a >> 16)}) *
           to_float(Half{static_cast<uint16_t>(b >> 16)});
  };
  EDGEKIT_UNROLL
  for (int part = 0; part < 4; ++part) {
    const int row = lane / 4 * 4 + part;
    const int left = lane % 4 * 8 + part;
    const uint32_t a[4] = {__shfl_sync(0xffffffffu, a0, row), __shfl_sync(0xffffffffu, a1, row),
                           __shfl_sync(0xffffffffu, a2, row), __shfl_sync(0xffffffffu, a3, row)};
    const uint32_t b[4] = {
        __shfl_sync(0xffffffffu, b0, left), __shfl_sync(0xffffffffu, b0, left + 4),
        __shfl_sync(0xffffffffu, b1, left), __shfl_sync(0xffffffffu, b1, left + 4)};
    EDGEKIT_UNROLL
    for (int i = 0; i < 4; ++i) {
      add(c[i], a[i / 2], b[i % 2]);
      add(c[i], a[2 + i / 2], b[2 + i % 2]);
    }
  }
#endif
}

// Adds the products of 16 columns: the first or the last four of each lane's eight. c(state) is an
// array of four floats; low, high and b are the lanes' operands. An instruction on the same sums
// must wait for the last one: take all others between the two steps.
template <int step, typename State, typename C, typename Low, typename High, typename B>
EDGEKIT_DEVICE void multiply(State* states, const C& c, const Low& low, const High& high,
                             const B& b) {
  const Quad& a = low(*states);
  const Quad& a8 = high(*states);
  const Quad& v = b(*states);
  multiply_lane(c(*states), a.word[2 * step], a8.word[2 * step], a.word[2 * step + 1],
                a8.word[2 * step + 1], v.word[2 * step], v.word[2 * step + 1]);
}

#else

// One sum of an instruction as careless as bounds.h allows for: all terms are cut, toward zero, to
// 24 bits of the greatest, and so is the result.
inline float careless_sum(float start, const float* products, int count) {
  float greatest = std::fabs(start);
  for (int i = 0; i < count; ++i) greatest = std::fmax(greatest, std::fabs(products[i]));
  if (greatest == 0) return 0;
  const double step = std::ldexp(1.0, std::ilogb(greatest) - 23);
  double sum = std::trunc(static_cast<double>(start) / step);
  for (int i = 0; i < count; ++i) sum += std::trunc(static_cast<double>(products[i]) / step);
  sum *= step;
  auto result = static_cast<float>(sum);
  if (std::fabs(static_cast<double>(result)) > std::fabs(sum)) {
    result = std::nextafter(result, 0.0f);
  }
  return result;
}

inline float half_of(const Quad& quad, int i) {
  return to_float(Half{static_cast<uint16_t>(quad.word[i / 2] >> (i % 2 * 16))});
}

// The operands of the instruction as its manual lays them out over the lanes.
template <int step, typename State, typename C, typename Low, typename High, typename B>
void multiply(State* states, const C& c, const Low& low, const High& high, const B& b) {
  float rows[16][16];
  float vectors[8][16];
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int k = lane % 4 * 2 + i % 2 + i / 2 * 8;
      rows[lane / 4][k] = half_of(low(states[lane]), step * 4 + i);
      rows[lane / 4 + 8][k] = half_of(high(states[lane]), step * 4 + i);
      vectors[lane / 4][k] = half_of(b(states[lane]), step * 4 + i);
    }
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 4; ++i) {
      float products[16];
      for (int k = 0; k < 16; ++k) {
        products[k] = rows[lane / 4 + i / 2 * 8][k] * vectors[lane % 4 * 2 + i % 2][k];
      }
      float* sum = c(states[lane]) + i;
      *sum = careless_sum(*sum, products, 16);
    }
  }
}

#endif

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_MMA_H_
