// A fingerprint of memory that two different contents practically never share.
#ifndef EDGEKIT_OPENVINO_FINGERPRINT_H_
#define EDGEKIT_OPENVINO_FINGERPRINT_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace edgekit {

// Two polynomial hashes over the field of 2^61 - 1 elements, each evaluated at a point drawn at
// random once per process. Two contents of the same size, of W 32-bit words, collide with a
// probability of at most (W / 2^61)^2 over that draw, however they are chosen: 2^-80 for a codebook
// of 1000 x 2048 numbers. Comparable within a process only, and only for equal sizes.
using Fingerprint = std::array<uint64_t, 2>;

Fingerprint fingerprint(const void* data, size_t bytes);

}  // namespace edgekit

#endif  // EDGEKIT_OPENVINO_FINGERPRINT_H_
