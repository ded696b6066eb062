// Runs a piece of work in several threads.
#ifndef EDGEKIT_PARALLEL_H_
#define EDGEKIT_PARALLEL_H_

#include <algorithm>
#include <cstdint>
#include <functional>

namespace edgekit {

// How many threads a lookup of `work` multiply-adds is worth, at most `requested` (0: one per CPU).
int useful_threads(int requested, double work);

// Calls task(0) ... task(count - 1), each in a thread of its own; the last runs in the caller's.
// An exception in any of them is thrown again here, after all have ended.
void run_parallel(int count, const std::function<void(int)>& task);

// The first item of part `part` when `items` are split into `parts` runs of near-equal length.
inline int64_t part_begin(int64_t items, int64_t parts, int64_t part) {
  return items / parts * part + std::min<int64_t>(items % parts, part);
}

}  // namespace edgekit

#endif  // EDGEKIT_PARALLEL_H_
