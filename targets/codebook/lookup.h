// Looks up a tile of feature vectors in a range of codebook rows.
#ifndef EDGEKIT_LOOKUP_H_
#define EDGEKIT_LOOKUP_H_

#include <cstdint>

#include "arena.h"
#include "candidates.h"
#include "packed.h"

namespace edgekit {

struct Job {
  const Packed& packed;
  Method method;
  int planes;  // int8 planes of each vector
  Requested requested;
};

// Finds, for each of `count` <= arena.tile vectors, the best of the rows in groups first..last-1;
// the results are in arena.results.
void lookup_tile(const Job& job, const float* x, int64_t count, int64_t first_group,
                 int64_t last_group, Arena& arena);

}  // namespace edgekit

#endif  // EDGEKIT_LOOKUP_H_
