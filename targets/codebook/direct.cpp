#include "direct.h"

#include <algorithm>

namespace edgekit {
namespace {

// Rows that stay in the second-level cache while all vectors pass over them.
constexpr int64_t kBlockBytes = 256 * 1024;

}  // namespace

void lookup_direct(const Packed& packed, const float* x, int64_t m, int64_t begin, int64_t end,
                   TopTwo* results) {
  const int64_t row_bytes = packed.d * static_cast<int64_t>(sizeof(float));
  const int64_t block = std::max<int64_t>(1, kBlockBytes / row_bytes);
  for (int64_t first = begin; first < end; first += block) {
    const int64_t last = std::min(first + block, end);
    for (int64_t i = 0; i < m; ++i) {
      const float* vector = x + i * packed.d;
      for (int64_t n = first; n < last; ++n) {
        results[i].offer(exact_dot(vector, packed.row(n), packed.d) - packed.offset(n), n);
      }
    }
  }
}

}  // namespace edgekit
