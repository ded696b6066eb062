// The inner loops that every instruction set shares, written with the compiler's own vector types.
//
// Each kernels_*.cpp includes this file once and compiles it with its own machine flags. All of it
// has internal linkage, and none of it uses the C++ library: a function that two such files shared
// could be linked from the one whose instructions this machine lacks.
#ifndef EDGEKIT_VECTOR_CODE_H_
#define EDGEKIT_VECTOR_CODE_H_

#include "vector_exact.h"
#include "vector_fp32.h"
#include "vector_prepare.h"
#include "vector_screen.h"

#endif  // EDGEKIT_VECTOR_CODE_H_
