// Rows that, by their bounds, may be the best, and the exact comparison between them.
#ifndef EDGEKIT_CANDIDATES_H_
#define EDGEKIT_CANDIDATES_H_

#include <cstdint>

#include "arena.h"
#include "packed.h"
#include "top_two.h"

namespace edgekit {

// The scores that the caller asked for.
struct Requested {
  bool margin;  // the second-best score, exactly
  bool score;   // the best score; with neither, a sole candidate needs no computation
};

// The candidates of one feature vector.
class Candidates {
 public:
  Candidates(const Packed& packed, const Requested& requested, Vector* vector, VectorState* state,
             Candidate* list, TopTwo* result)
      : packed_(packed),
        requested_(requested),
        vector_(*vector),
        state_(*state),
        list_(list),
        result_(*result) {}

  // Raises the threshold, and adds the rows of a group that reach it, of those with a bit set.
  void add_group(int64_t first_row, const float* upper, uint64_t reached);

  // Compares the remaining candidates exactly; the result then holds the answer.
  void finish();

 private:
  void raise_threshold();
  void thin_out();
  void drop_below_threshold();
  void evaluate(int64_t row);
  void evaluate_four(const Candidate* candidates);
  void learn_from_result();

  const Packed& packed_;
  const Requested& requested_;
  Vector& vector_;
  VectorState& state_;
  Candidate* list_;
  TopTwo& result_;
};

}  // namespace edgekit

#endif  // EDGEKIT_CANDIDATES_H_
