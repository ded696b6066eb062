// Keeps exceptions from leaving the functions of the C ABI.
#ifndef EDGEKIT_GUARDED_H_
#define EDGEKIT_GUARDED_H_

#include <new>

#include "edgekit_codebook.h"

namespace edgekit {

// Runs `body`, which returns a status, and turns an exception into a status. The floating-point
// environment is the caller's: code that computes scores sets its own, and integer products
// (product.cpp) have no rounding that it could change.
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
