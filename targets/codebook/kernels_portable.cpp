// Kernels in instructions that every processor of the architecture has. No int8 products: without
// a dedicated instruction they are slower than float.
#include "vector_code.h"

namespace edgekit {

const Kernels kPortableKernels = {
    .name = "portable",
    .exact_dot = exact_dot,
    .exact_dot4 = exact_dot4,
    .largest_bits = largest_bits,
    .scale = scale,
    .quantize = quantize,
    .dot_int8 = nullptr,
    .int8_vectors = 0,
    .int8_levels = 0,
    .unsigned_codes = false,
    .dot_fp32 = dot_fp32,
    .fp32_vectors = kTileVectors,
    .screen_int8 = nullptr,
    .screen_fp32 = screen_fp32,
};

}  // namespace edgekit
