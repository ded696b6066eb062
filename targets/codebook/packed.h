// A packed codebook: what a handle of the C ABI owns.
#ifndef EDGEKIT_PACKED_H_
#define EDGEKIT_PACKED_H_

#include <cstdint>

#include "buffer.h"

namespace edgekit {

struct Packed {
  int64_t n = 0;
  int64_t d = 0;
  int metric = 0;
  Buffer<float> rows;         // n x d, as given
  Buffer<double> half_norms;  // n values dot(e, e) / 2; empty for the dot metric

  const float* row(int64_t i) const { return rows.data() + i * d; }
  double offset(int64_t i) const { return half_norms.size() == 0 ? 0.0 : half_norms.data()[i]; }
  size_t bytes() const { return rows.bytes() + half_norms.bytes(); }
};

}  // namespace edgekit

#endif  // EDGEKIT_PACKED_H_
