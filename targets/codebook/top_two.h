// The result of a lookup: the best row, and how far ahead it is.
#ifndef EDGEKIT_TOP_TWO_H_
#define EDGEKIT_TOP_TWO_H_

#include <cstdint>
#include <limits>

namespace edgekit {

// The best and second best score seen, and the index of the best.
struct TopTwo {
  double best = -std::numeric_limits<double>::infinity();
  double second = -std::numeric_limits<double>::infinity();
  int64_t index = -1;

  // Offers a row; rows may come in any order, a tie goes to the lower index.
  void offer(double score, int64_t n) {
    if (score > best || (score == best && n < index)) {
      second = best;
      best = score;
      index = n;
    } else if (score > second) {
      second = score;
    }
  }

  // Merges the result over other rows.
  void merge(const TopTwo& other) {
    if (other.index < 0) return;
    const double loser_second = other.second;
    offer(other.best, other.index);
    if (loser_second > second) second = loser_second;
  }
};

}  // namespace edgekit

#endif  // EDGEKIT_TOP_TWO_H_
