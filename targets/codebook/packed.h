// A packed codebook: what a handle of the C ABI owns.
#ifndef EDGEKIT_PACKED_H_
#define EDGEKIT_PACKED_H_

#include <cstdint>

#include "buffer.h"
#include "kernels.h"

namespace edgekit {

enum class Method { kDouble, kFp32, kInt8 };

struct Packed {
  int64_t n = 0;
  int64_t d = 0;
  int metric = 0;
  const Kernels* kernels = nullptr;

  Buffer<float> rows;         // n x d, as given
  Buffer<double> half_norms;  // n values dot(e, e) / 2; empty for the dot metric
  int exponent = 0;           // every value times 2^-exponent is at most 1; the "scaled" rows

  // For fp32 scores: bounds of the scaled rows. Empty if that path is not used.
  Buffer<RowGroup> fp32_groups;

  // For int8 scores: the scaled rows minus their mean, rotated. Empty if that path is not used.
  int64_t padded = 0;
  Buffer<RowGroup> int8_groups;
  Buffer<uint8_t> codes;      // [groups][padded / 4][kGroup][4]
  Buffer<float> mean;         // padded with zeros
  Buffer<float> signed_mean;  // mean times signs
  Buffer<float> signs;
  double mean_norm = 0;    // upper bound
  double mean_square = 0;  // about its square
  RotationPlan rotation{};

  int64_t groups() const { return (n + kGroup - 1) / kGroup; }
  const float* row(int64_t i) const { return rows.data() + i * d; }
  double offset(int64_t i) const { return half_norms.size() == 0 ? 0.0 : half_norms.data()[i]; }
  size_t bytes() const;
};

// Copies the codebook and prepares the data that each method needs.
void pack_rows(const float* codebook, int64_t n, int64_t d, int metric, Packed* packed);
void pack_fp32(Packed* packed);
void pack_int8(Packed* packed);

}  // namespace edgekit

#endif  // EDGEKIT_PACKED_H_
