// The inner loops that all instruction sets share, written with the compiler's own vector types.
//
// Each kernels_*.cpp includes this file once and compiles it with its own machine flags. Everything
// has internal linkage, and nothing uses the C++ library: a function shared by two such files might
// be linked from the one whose instructions this machine lacks.
#ifndef EDGEKIT_VECTOR_CODE_H_
#define EDGEKIT_VECTOR_CODE_H_

#include "vector_exact.h"
#include "vector_fp32.h"
#include "vector_prepare.h"
#include "vector_screen.h"

#endif  // EDGEKIT_VECTOR_CODE_H_
