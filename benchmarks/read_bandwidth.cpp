// Prints how fast one thread reads memory: GB/s for the working set in bytes given as argument, the
// best of several passes. benchmarks/lookup.py compiles and runs it.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <sys/mman.h>

int main(int argc, char** argv) {
  typedef uint64_t Line __attribute__((vector_size(64)));
  const size_t bytes = argc > 1 ? std::strtoull(argv[1], nullptr, 10) / 4096 * 4096 : size_t{1} << 28;
  const size_t huge_page = size_t{2} << 20;
  const size_t rounded = (bytes + huge_page - 1) / huge_page * huge_page;
  auto* data = static_cast<Line*>(std::aligned_alloc(huge_page, rounded));
  if (data == nullptr) return 1;
  madvise(data, rounded, MADV_HUGEPAGE);
  std::memset(data, 1, rounded);
  const size_t lines = bytes / sizeof(Line);
  const int passes = static_cast<int>(std::max<size_t>(8, (size_t{1} << 30) / bytes));
  double best = 0;
  uint64_t sink = 0;
  for (int pass = 0; pass < passes; ++pass) {
    Line sums[4] = {};
    const auto start = std::chrono::steady_clock::now();
    for (size_t i = 0; i < lines; i += 4) {
      for (size_t j = 0; j < 4; ++j) sums[j] ^= data[i + j];
    }
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(bytes) / time.count() / 1e9);
    sink ^= (sums[0] ^ sums[1] ^ sums[2] ^ sums[3])[pass % 8];
  }
  std::printf("%.2f\n", best);
  std::free(data);
  return sink == 42;  // keeps the reads
}
