// Kernels for ARM processors with the dot-product instructions (ARMv8.2).
#include "int8_neon.h"
#include "vector_code.h"

namespace edgekit {

const Kernels kNeonDotKernels = {
    "neondot",    exact_dot, exact_dot4, largest_bits, scale,        quantize,    dot_int8,
    kInt8Vectors, 127,       false,      dot_fp32,     kTileVectors, screen_int8, screen_fp32,
};

}  // namespace edgekit
