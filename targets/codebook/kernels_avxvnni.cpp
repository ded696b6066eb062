// Kernels for AVX2 with the VNNI instructions of AVX-VNNI.
#include "multiply_add_avxvnni.h"
#include "vector_code.h"
// The operation above comes first: the shared code uses it.
#include "int8_avx2.h"

namespace edgekit {

const Kernels kAvxVnniKernels = {
    "avxvnni",    exact_dot, exact_dot4, largest_bits, scale,        quantize,    dot_int8,
    kInt8Vectors, 127,       true,       dot_fp32,     kTileVectors, screen_int8, screen_fp32,
};

}  // namespace edgekit
