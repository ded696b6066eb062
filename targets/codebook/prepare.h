// Prepares feature vectors for scoring: scaled, rotated and quantized, with bounds of the errors.
#ifndef EDGEKIT_PREPARE_H_
#define EDGEKIT_PREPARE_H_

#include "arena.h"
#include "packed.h"

namespace edgekit {

// Fills in vector `i` of the arena's tile (its Vector, VectorState and scaled values or codes),
// with no bounds known and no candidates. `method` is kInt8 or kFp32.
void prepare_vector(const Packed& packed, Method method, int planes, const float* x, int64_t i,
                    Arena& arena);

}  // namespace edgekit

#endif  // EDGEKIT_PREPARE_H_
