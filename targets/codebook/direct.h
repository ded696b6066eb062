// The direct path: the exact score of every row, in double. It runs everywhere.
#ifndef EDGEKIT_DIRECT_H_
#define EDGEKIT_DIRECT_H_

#include <cstdint>

#include "exact_score.h"
#include "packed.h"

namespace edgekit {

// Offers the rows begin..end-1 to each of the m vectors' results.
void lookup_direct(const Packed& packed, const float* x, int64_t m, int64_t begin, int64_t end,
                   TopTwo* results);

}  // namespace edgekit

#endif  // EDGEKIT_DIRECT_H_
