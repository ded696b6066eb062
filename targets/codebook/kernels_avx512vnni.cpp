// Kernels for AVX-512 with VNNI.
#include "int8_avx512.h"
#include "vector_code.h"

namespace edgekit {

const Kernels kAvx512VnniKernels = {
    "avx512vnni", exact_dot, exact_dot4, largest_bits, scale,        quantize,    dot_int8,
    kInt8Vectors, 127,       true,       dot_fp32,     kTileVectors, screen_int8, screen_fp32,
};

}  // namespace edgekit
