// What no function of the C ABI lets out.
#ifndef EDGEKIT_GUARDED_H_
#define EDGEKIT_GUARDED_H_

#include <new>

#include "edgekit_codebook.h"

namespace edgekit {

// Runs `body`, which returns a status, and turns an exception into one. The floating-point
// environment is the caller's: what computes scores sets its own, what multiplies integers
// (product.cpp) has no rounding that it could change.
template <typename Body>
int guarded(const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return EDGEKIT_CODEBOOK_OUT_OF_MEMORY;
  } catch (...) {  // nothing else is thrown on purpose; none may cross a C function
    return EDGEKIT_CODEBOOK_INTERNAL;
  }
}

}  // namespace edgekit

#endif  // EDGEKIT_GUARDED_H_
