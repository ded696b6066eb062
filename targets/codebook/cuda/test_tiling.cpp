// The device's algorithm on the host against the definition; for the sanitizers, which see every
// access of every simulated thread. tests/tensorrt/test_tiling.py asks more questions.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "reference.h"
#include "tiling_host.h"

namespace {

void check(int64_t m, int64_t n, int64_t d, int processors, bool l2, int values) {
  std::mt19937 random(static_cast<unsigned>(m * 7919 + n * 31 + d));
  std::normal_distribution<float> normal;
  const auto draw = [&] {
    // A few whole values make ties.
    return values == 0 ? normal(random)
                       : static_cast<float>(static_cast<int>(random() % 3) - 1) * 0.5f;
  };
  // No room to spare behind the arrays: a sanitizer then sees a read past them.
  std::vector<float> x(static_cast<size_t>(m * d));
  std::vector<float> codebook(static_cast<size_t>(n * d));
  for (float& value : x) value = draw();
  for (float& value : codebook) value = draw();
  std::vector<int64_t> indices(static_cast<size_t>(m), -1);
  std::vector<float> best(indices.size());
  std::vector<float> margin(indices.size());
  struct alignas(16) Chunk {
    unsigned char bytes[16];
  };
  const size_t bytes = edgekit_tiling_workspace(m, n);
  std::vector<Chunk> workspace((bytes + 15) / 16);
  edgekit_codebook_cuda_request request = {};
  request.x = x.data();
  request.codebook = codebook.data();
  request.m = m;
  request.n = n;
  request.d = d;
  request.metric = l2 ? EDGEKIT_CODEBOOK_CUDA_L2 : EDGEKIT_CODEBOOK_CUDA_DOT;
  request.indices = indices.data();
  request.best = best.data();
  request.margin = margin.data();
  request.workspace = workspace.data();
  request.workspace_bytes = bytes;
  const int status = edgekit_tiling_lookup(&request, processors, nullptr);
  bool good = status == EDGEKIT_CODEBOOK_CUDA_OK;
  for (int64_t i = 0; good && i < m; ++i) {
    const auto at = static_cast<size_t>(i);
    const auto expected =
        edgekit::cuda::defined_lookup(codebook.data(), n, d, &x[static_cast<size_t>(i * d)], l2);
    good =
        indices[at] == expected.index && best[at] == expected.best && margin[at] == expected.margin;
  }
  if (!good) {
    std::printf("FAILED: m %lld n %lld d %lld processors %d l2 %d values %d status %d\n",
                static_cast<long long>(m), static_cast<long long>(n), static_cast<long long>(d),
                processors, l2, values, status);
    std::exit(1);
  }
}

}  // namespace

int main() {
  for (const bool l2 : {false, true}) {
    for (const int values : {0, 3}) {
      for (const int64_t m : {1, 2, 5, 8, 9, 33, 65}) {
        for (const int64_t n : {1, 31, 129, 300}) {
          for (const int64_t d : {1, 7, 16, 133})
            check(m, n, d, 1 + static_cast<int>(n % 3), l2, values);
        }
      }
    }
  }
  std::printf("ok\n");
  return 0;
}
