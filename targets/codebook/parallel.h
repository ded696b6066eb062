// Runs a piece of work in several threads: the caller's if it passed any, or new ones.
#ifndef EDGEKIT_PARALLEL_H_
#define EDGEKIT_PARALLEL_H_

#include <algorithm>
#include <cstdint>
#include <functional>

#include "edgekit_codebook.h"

namespace edgekit {

// Who does the work: a caller's threads, or, if `run` is null, one new thread per part.
struct Crew {
  edgekit_codebook_crew run = nullptr;
  void* context = nullptr;
};

// How many threads a lookup of `work` multiply-adds is worth, at most `requested` (0: one per CPU).
int useful_threads(const Crew& crew, int requested, double work);

// Calls task(0) ... task(count - 1), each in its own thread as far as the crew has enough. An
// exception in any of them is rethrown here, after all have ended.
void run_parallel(const Crew& crew, int count, const std::function<void(int)>& task);

// The first item of part `part` when `items` are split into `parts` runs of near-equal length.
inline int64_t part_begin(int64_t items, int64_t parts, int64_t part) {
  return items / parts * part + std::min<int64_t>(items % parts, part);
}

}  // namespace edgekit

#endif  // EDGEKIT_PARALLEL_H_
