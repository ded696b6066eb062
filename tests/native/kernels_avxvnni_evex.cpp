// targets/codebook/kernels_avxvnni.cpp with its one VNNI instruction in AVX-512's encoding.
#define EDGEKIT_VNNI_IN_EVEX
#define kAvxVnniKernels kAvxVnniInEvexKernels
#include "kernels_avxvnni.cpp"
