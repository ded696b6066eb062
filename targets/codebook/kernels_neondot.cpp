// Kernels for ARM processors with the dot-product instructions (ARMv8.2).
#include "int8_neon.h"
#include "vector_code.h"

namespace edgekit {

const Kernels kNeonDotKernels = {
    .name = "neondot",
    .exact_dot = exact_dot,
    .exact_dot4 = exact_dot4,
    .largest_bits = largest_bits,
    .scale = scale,
    .quantize = quantize,
    .dot_int8 = dot_int8,
    .int8_vectors = kInt8Vectors,
    .int8_levels = 127,
    .unsigned_codes = false,
    .dot_fp32 = dot_fp32,
    .fp32_vectors = kTileVectors,
    .screen_int8 = screen_int8,
    .screen_fp32 = screen_fp32,
};

}  // namespace edgekit
