// The inner loops, once per instruction set, behind a table of functions.
#ifndef EDGEKIT_KERNELS_H_
#define EDGEKIT_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace edgekit {

constexpr int kGroup = 64;          // codebook rows that are scored together
constexpr int kMaxVectors = 8;      // vectors (or planes of vectors) that a scoring kernel may take
constexpr int kMaxPlanes = 2;       // int8 planes of a feature vector: coarse, and its remainder
constexpr int64_t kChunk = 16;      // floats that the rotation processes together
constexpr int64_t kWidthStep = 64;  // the rotated width is a multiple of this

// What turns a coarse score into bounds, for a group of rows (docs/exact-lookup.md, "Bounds").
// Rows past the codebook's end have an infinite `norm`, which makes their bounds vacuous.
struct RowGroup {
  float scale[kGroup];     // value of one step of the row's int8 code (1 for fp32 scores)
  float center[kGroup];    // product of the row with the mean row
  float norm[kGroup];      // upper bound of the row's norm
  float residual[kGroup];  // upper bound of the norm of what the int8 code misses
  float half[kGroup];      // half the squared norm of the row; 0 for the dot metric
};

// What turns coarse scores into bounds, for one feature vector, and what is known about it so far.
struct alignas(64) VectorState {
  float lanes[kChunk];             // greatest lower bounds, each over rows of its own
  float threshold;                 // a row whose upper bound is below this cannot matter
  float step;                      // value of one step of the vector's int8 code
  float alpha;                     // multiple of the mean row that was subtracted
  float lambda;                    // weight of `half`
  float norm_error;                // error in units of the row's `norm`
  float residual_error;            // error in units of the row's `residual`
  float half_error;                // error in units of the row's `half`
  float constant_error;            // error of every row
  float plane_ratio;               // step of the second plane over that of the first
  int32_t correction[kMaxPlanes];  // what unsigned codes add to the products
};

// How the rotation is laid out: two windows of `window` chunks each, the second from chunk `second`
// on; one window if `second` is 0. Scales are powers of two.
struct RotationPlan {
  int64_t chunks;
  int64_t window;
  int64_t second;
  double vector_scale;  // applied to feature vectors in each window
  double row_scale;     // applied to codebook rows in each window
};

// The parameters for rotating and quantizing a feature vector.
struct QuantizePlan {
  const float* signs;  // +1 or -1 for each column, 0 in the padding
  const float* mean;   // signed mean row, padded with zeros
  RotationPlan rotation;
  int64_t width;   // columns of x
  int64_t padded;  // columns after padding
  int planes;
  float levels;  // codes are -levels..levels
  float plane_ratio;
};

struct QuantizeResult {
  float step;                // value of one step of the first plane
  float norm;                // of the rotated vector, computed in float
  float error;               // norm of what both planes miss, computed in float
  int32_t sums[kMaxPlanes];  // of each plane's codes
};

struct Kernels {
  const char* name;

  // dot(x, e) in the fixed order of edgekit_codebook.h; four rows at once in the second.
  double (*exact_dot)(const float* x, const float* e, int64_t d);
  void (*exact_dot4)(const float* x, const float* const* e, int64_t d, double* out);

  // The bits of the greatest |x[i]|: NaN and infinity give 0x7f800000 or more.
  uint32_t (*largest_bits)(const float* x, int64_t d);

  // scaled = x * first * second, with zeros up to a multiple of the chunk; returns the norm of
  // x * first and, if `mean` is not null, its product with that, both computed in float.
  void (*scale)(const float* x, int64_t d, float first, float second, const float* mean,
                float* scaled, float* norm, float* product);

  // Rotates `x - alpha * mean` in place and writes its planes of codes.
  void (*quantize)(const QuantizePlan& plan, float alpha, float* x, int8_t* const* codes,
                   QuantizeResult* result);

  // Products of a group of rows with up to `int8_vectors` vectors of codes, `stride` bytes apart:
  // out[v * kGroup + row]. Row codes lie as [padded / 4][kGroup][4], unsigned with 128 added if
  // `unsigned_codes`. Lines from `next` on are prefetched along the way.
  void (*dot_int8)(const uint8_t* rows, const int8_t* vectors, int64_t stride, int count,
                   int64_t padded, const char* next, int32_t* out);
  int int8_vectors;  // 0 where the instruction set has no int8 kernel
  float int8_levels;
  bool unsigned_codes;

  // The same in float for `rows` rows of d floats each, at most kGroup; vectors are `stride`
  // floats apart and padded with zeros to a multiple of the chunk.
  void (*dot_fp32)(const float* e, int64_t d, int rows, const float* vectors, int64_t stride,
                   int count, float* out);
  int fp32_vectors;

  // Turns a group's products into upper bounds and raises `lanes`; returns a bit for each row:
  // whether its upper bound reaches the threshold. Integer products of two planes lie kGroup apart.
  uint64_t (*screen_int8)(const RowGroup& group, const int32_t* products, int planes,
                          VectorState* state, float* upper);
  uint64_t (*screen_fp32)(const RowGroup& group, const float* products, VectorState* state,
                          float* upper);
};

// The tables that this machine can run, best first, terminated by a null pointer.
const Kernels* const* available_kernels();

extern const Kernels kPortableKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvxVnniKernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512VnniKernels;
#elif defined(__aarch64__)
extern const Kernels kNeonDotKernels;
#endif

}  // namespace edgekit

#endif  // EDGEKIT_KERNELS_H_
