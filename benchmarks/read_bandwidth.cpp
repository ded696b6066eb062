// Reads memory as fast as one thread can: what a lookup that waits for memory is measured against.
// benchmarks/lookup.py compiles it into a library and times its one function.
#include <cstddef>
#include <cstdint>

extern "C" uint64_t read_all(const void* data, size_t bytes) {
  typedef uint64_t Line __attribute__((vector_size(64)));
  const auto* lines = static_cast<const Line*>(data);
  Line sums[4] = {};
  for (size_t i = 0; i + 4 <= bytes / sizeof(Line); i += 4) {
    for (size_t j = 0; j < 4; ++j) sums[j] ^= lines[i + j];
  }
  const Line sum = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  return sum[0] ^ sum[7];  // so that nothing of it can be left out
}
