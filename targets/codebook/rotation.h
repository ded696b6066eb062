// The rotation that spreads every coordinate over many, so that int8 codes suit them all equally.
//
// A vector of `chunks` chunks of 16 numbers is multiplied by signs and then, lane by lane, by
// Hadamard matrices: one over all chunks where their number is a power of two, else one over the
// first `window` chunks and another over the last. Codebook rows get G, feature vectors the inverse
// of its transpose, so the product of the two does not change. Both consist of additions and powers
// of two, so this holds exactly, not only up to rounding.
#ifndef EDGEKIT_ROTATION_H_
#define EDGEKIT_ROTATION_H_

#include <cstdint>

#include "kernels.h"

namespace edgekit {

RotationPlan make_rotation(int64_t padded_width);

// A fixed pseudo-random sign (+1 or -1) for column k.
float rotation_sign(int64_t k);

// Rotates a codebook row (signs already applied) in place, in double.
void rotate_row(const RotationPlan& plan, double* row);

}  // namespace edgekit

#endif  // EDGEKIT_ROTATION_H_
