// Kernels for AVX2 with the VNNI instructions of AVX-VNNI.
#include "int8_avx2.h"
#include "multiply_add_avxvnni.h"
#include "vector_code.h"

namespace edgekit {

const Kernels kAvxVnniKernels = {
    .name = "avxvnni",
    .exact_dot = exact_dot,
    .exact_dot4 = exact_dot4,
    .largest_bits = largest_bits,
    .scale = scale,
    .quantize = quantize,
    .dot_int8 = dot_int8<MultiplyAddAvxVnni>,
    .int8_vectors = kInt8Vectors,
    .int8_levels = MultiplyAddAvxVnni::kLevels,
    .unsigned_codes = true,
    .dot_fp32 = dot_fp32,
    .fp32_vectors = kTileVectors,
    .screen_int8 = screen_int8,
    .screen_fp32 = screen_fp32,
};

}  // namespace edgekit
