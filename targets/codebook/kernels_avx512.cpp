// Kernels for AVX-512 without VNNI. Its int8 products are those of AVX2: they serve lookups that
// wait for memory, where width does not matter.
#include "multiply_add_avx2.h"
#include "vector_code.h"
// The operation above comes first: the shared code uses it.
#include "int8_avx2.h"

namespace edgekit {

const Kernels kAvx512Kernels = {
    "avx512",     exact_dot,   exact_dot4, largest_bits, scale,        quantize,    dot_int8,
    kInt8Vectors, kInt8Levels, true,       dot_fp32,     kTileVectors, screen_int8, screen_fp32,
};

}  // namespace edgekit
