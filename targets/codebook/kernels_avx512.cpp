// Kernels for AVX-512 without VNNI. Its int8 products are AVX2's: they serve memory-bound lookups,
// where the registers' width does not matter.
#include "int8_avx2.h"
#include "multiply_add_avx2.h"
#include "vector_code.h"

namespace edgekit {

const Kernels kAvx512Kernels = {
    .name = "avx512",
    .exact_dot = exact_dot,
    .exact_dot4 = exact_dot4,
    .largest_bits = largest_bits,
    .scale = scale,
    .quantize = quantize,
    .dot_int8 = dot_int8<MultiplyAddAvx2>,
    .int8_vectors = kInt8Vectors,
    .int8_levels = MultiplyAddAvx2::kLevels,
    .unsigned_codes = true,
    .dot_fp32 = dot_fp32,
    .fp32_vectors = kTileVectors,
    .screen_int8 = screen_int8,
    .screen_fp32 = screen_fp32,
};

}  // namespace edgekit
