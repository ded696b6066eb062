// Sorts out a batch of approximate scores: which rows of the codebook stay candidates?
#ifndef EDGEKIT_CUDA_SCREEN_H_
#define EDGEKIT_CUDA_SCREEN_H_

#include "bounds.h"
#include "portable.h"
#include "shortlist.h"

namespace edgekit::cuda {

constexpr int at_most(int value, int limit) { return value < limit ? value : limit; }

// A block's memory for `vectors` vectors and batches of up to `columns` rows of the codebook.
template <int vectors, int columns, int threads>
struct Screen {
  static constexpr int kParts = at_most(kWarp, threads / vectors);  // threads for one vector

  float e_square[columns];
  float x_square[vectors];
  Two lower[vectors][kParts];
  Shortlist list[vectors];
};

// `score(v, c)` is the sum for vector v and row first + c, in the block's memory. Every thread of
// the block comes here; all that it reads was written before a wait.
template <int vectors, int columns, int threads, typename Block, typename Score>
EDGEKIT_DEVICE void screen_batch(Block& block, Screen<vectors, columns, threads>* memory,
                                 const Score& score, const Bounds& bounds, bool want_second,
                                 int used_vectors, int64_t first, int used_columns) {
  constexpr int kParts = Screen<vectors, columns, threads>::kParts;
  block.each([&](int t, auto&) {
    const int v = t / kParts;
    if (v >= used_vectors) return;
    const float x_norm = norm_at_most(memory->x_square[v], bounds);
    Two lower = no_values();
    for (int c = t % kParts; c < used_columns; c += kParts) {
      const Interval at = score_interval(score(v, c), x_norm, memory->e_square[c], bounds);
      if (at.usable) {
        offer(&lower, at.lower);
      } else {
        memory->list[v].spill = kUnusable;  // all threads that write, write this
      }
    }
    memory->lower[v][t % kParts] = lower;
  });
  block.each([&](int v, auto&) {
    if (v >= used_vectors) return;
    Two lower = no_values();
    for (int part = 0; part < kParts; ++part) merge(&lower, memory->lower[v][part]);
    raise(&memory->list[v], lower, want_second);
  });
  block.each([&](int t, auto&) {
    const int v = t / kParts;
    if (v >= used_vectors || memory->list[v].spill != 0) return;
    const float x_norm = norm_at_most(memory->x_square[v], bounds);
    const float least = threshold(memory->list[v].lower, want_second);
    for (int c = t % kParts; c < used_columns; c += kParts) {
      const Interval at = score_interval(score(v, c), x_norm, memory->e_square[c], bounds);
      if (at.upper >= least) add(&memory->list[v], static_cast<int32_t>(first + c), at.upper);
    }
  });
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_SCREEN_H_
