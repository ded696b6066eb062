// Which kernels and which method a lookup uses.
#ifndef EDGEKIT_DISPATCH_H_
#define EDGEKIT_DISPATCH_H_

#include <cstdint>
#include <string>

#include "packed.h"

namespace edgekit {

// What EDGEKIT_LOOKUP_PATH asks for: an instruction set, a method, or both ("avx2-int8").
struct PathRequest {
  const Kernels* kernels = nullptr;  // null: the best that this machine runs
  bool any_method = true;
  Method method = Method::kDouble;
};

// Reads the environment variable; false if it names a path that this machine or library lacks.
bool read_path_request(PathRequest* request);

// The fastest method for lookups in an n x d codebook. The number of vectors did not matter.
Method fastest_method(const Kernels& kernels, int64_t n, int64_t d);

// How many int8 planes pay off for each of m vectors.
int useful_planes(int64_t m);

const char* method_name(Method method);

// Every path that this machine can run, such as "avx2-int8", separated by commas and quoted.
std::string quoted_paths();

}  // namespace edgekit

#endif  // EDGEKIT_DISPATCH_H_
