// Kernels in the instructions that every processor of the architecture has. No int8 products:
// without an instruction for them they are slower than float.
#include "vector_code.h"

namespace edgekit {

const Kernels kPortableKernels = {
    "portable", exact_dot, exact_dot4, largest_bits, scale,        quantize, nullptr,
    0,          0,         false,      dot_fp32,     kTileVectors, nullptr,  screen_fp32,
};

}  // namespace edgekit
