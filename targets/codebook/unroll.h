// Loops that are unrolled before the compiler allocates registers.
#ifndef EDGEKIT_UNROLL_H_
#define EDGEKIT_UNROLL_H_

// On a function or, after its parameters, on a lambda: inlined even before optimization.
#define EDGEKIT_INLINE __attribute__((always_inline))

namespace edgekit {
namespace {

// An integer that is a constant everywhere, even as a template argument.
template <int kValue>
struct Constant {
  constexpr operator int() const { return kValue; }
};

constexpr int log2_of(int power) { return power <= 1 ? 0 : 1 + log2_of(power / 2); }

// Calls body(Constant<0>), ..., body(Constant<kCount - 1>). An array that is only indexed by such
// constants, in lambdas marked EDGEKIT_INLINE, is split into registers; with a loop and a pragma,
// GCC 12 keeps it in memory, which halves the speed of the int8 kernel.
template <int kCount, int kFirst = 0, typename Body>
EDGEKIT_INLINE inline void unroll(const Body& body) {
  if constexpr (kFirst < kCount) {
    body(Constant<kFirst>{});
    unroll<kCount, kFirst + 1>(body);
  }
}

}  // namespace
}  // namespace edgekit

#endif  // EDGEKIT_UNROLL_H_
