// The rows of one part of the codebook that may be a vector's best (or second best) row.
#ifndef EDGEKIT_CUDA_SHORTLIST_H_
#define EDGEKIT_CUDA_SHORTLIST_H_

#include "bounds.h"
#include "portable.h"

namespace edgekit::cuda {

// The two greatest of the values offered.
struct Two {
  float first;
  float second;
};

EDGEKIT_DEVICE Two no_values() { return {-kInfinity, -kInfinity}; }

EDGEKIT_DEVICE void offer(Two* two, float value) {
  if (value > two->first) {
    two->second = two->first;
    two->first = value;
  } else if (value > two->second) {
    two->second = value;
  }
}

#ifdef __CUDACC__
EDGEKIT_DEVICE Two shuffle_xor(Two two, int width) {
  return {shuffle_xor(two.first, width), shuffle_xor(two.second, width)};
}
#endif

EDGEKIT_DEVICE void merge(Two* two, const Two& other) {
  offer(two, other.first);
  offer(two, other.second);
}

struct Shortlist {
  static constexpr int kRoom = 16;

  Two lower;              // greatest lower bounds of scores in this part
  int32_t count;          // candidates offered; more than kRoom were spilled
  int32_t spill;          // 1: there was no room, every row of the part is to be scored exactly
  uint32_t entry[kRoom];  // see Packed::entry
  float upper[kRoom];
};

EDGEKIT_DEVICE void clear(Shortlist* list) {
  list->lower = no_values();
  list->count = 0;
  list->spill = 0;
}

// A row whose upper bound is below this is not wanted: with a margin, the runner-up is.
EDGEKIT_DEVICE float threshold(const Two& lower, bool want_second) {
  return want_second ? lower.second : lower.first;
}

// Drops the candidates that a threshold excludes. For one thread.
EDGEKIT_DEVICE void drop_below(Shortlist* list, float least) {
  int kept = 0;
  EDGEKIT_ROLLED
  for (int i = 0; i < list->count && i < Shortlist::kRoom; ++i) {
    if (list->upper[i] >= least) {
      list->entry[kept] = list->entry[i];
      list->upper[kept] = list->upper[i];
      ++kept;
    }
  }
  list->count = kept;
}

// Takes note of new lower bounds and drops the candidates that they exclude. For one thread.
EDGEKIT_DEVICE void raise(Shortlist* list, const Two& lower, bool want_second) {
  merge(&list->lower, lower);
  drop_below(list, threshold(list->lower, want_second));
}

// Adds a candidate. For many threads at once.
EDGEKIT_DEVICE void add(Shortlist* list, uint32_t entry, float upper) {
  const int place = take_ticket(&list->count);
  if (place < Shortlist::kRoom) {
    list->entry[place] = entry;
    list->upper[place] = upper;
  } else {
    list->spill = 1;  // all threads that write, write this
  }
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_SHORTLIST_H_
