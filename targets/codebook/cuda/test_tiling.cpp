// The device's algorithm on the host against the definition; for the sanitizers, which see every
// access of every simulated thread. tests/tensorrt/test_tiling.py asks more questions.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "reference.h"
#include "tiling_host.h"

namespace {

// Memory as the interface wants it, with no room to spare behind: a sanitizer sees what is past it.
struct alignas(256) Piece {
  unsigned char bytes[256];
};

class Memory {
 public:
  explicit Memory(size_t bytes) : pieces_((bytes + 255) / 256), bytes_(bytes) {
    for (Piece& piece : pieces_) std::fill(piece.bytes, piece.bytes + 256, 0x5a);
  }
  void* data() { return pieces_.data(); }
  size_t bytes() const { return bytes_; }

 private:
  std::vector<Piece> pieces_;
  size_t bytes_;
};

void check(int64_t m, int64_t n, int64_t d, int kernel, int processors, bool l2, int values) {
  std::mt19937 random(static_cast<unsigned>(m * 7919 + n * 31 + d));
  std::normal_distribution<float> normal;
  const auto draw = [&] {
    // A few whole values make ties and equal rows.
    return values == 0 ? normal(random)
                       : static_cast<float>(static_cast<int>(random() % 3) - 1) * 0.5f;
  };
  std::vector<float> x(static_cast<size_t>(m * d));
  std::vector<float> rows(static_cast<size_t>(n * d));
  for (float& value : x) value = draw();
  for (float& value : rows) value = draw();
  std::vector<int64_t> indices(static_cast<size_t>(m), -1);
  std::vector<float> best(indices.size());
  std::vector<float> margin(indices.size());
  Memory packed(edgekit_tiling_packed_bytes(n, d));
  Memory workspace(edgekit_tiling_workspace(m, n, d));
  edgekit_codebook_cuda_codebook codebook = {};
  codebook.codebook = rows.data();
  codebook.n = n;
  codebook.d = d;
  codebook.packed = packed.data();
  codebook.packed_bytes = packed.bytes();
  int status = edgekit_tiling_pack(&codebook);
  edgekit_codebook_cuda_request request = {};
  request.x = x.data();
  request.codebook = rows.data();
  request.m = m;
  request.n = n;
  request.d = d;
  request.metric = l2 ? EDGEKIT_CODEBOOK_CUDA_L2 : EDGEKIT_CODEBOOK_CUDA_DOT;
  request.indices = indices.data();
  request.best = best.data();
  request.margin = margin.data();
  request.workspace = workspace.data();
  request.workspace_bytes = workspace.bytes();
  request.packed = packed.data();
  request.packed_bytes = packed.bytes();
  bool good = status == EDGEKIT_CODEBOOK_CUDA_OK;
  // Twice: a lookup must leave the packed codebook fit for the next.
  for (int i = 0; good && i < 2; ++i) {
    edgekit_tiling_order(i);
    status = edgekit_tiling_lookup(&request, processors, kernel, nullptr);
    good = status == EDGEKIT_CODEBOOK_CUDA_OK;
  }
  for (int64_t i = 0; good && i < m; ++i) {
    const auto at = static_cast<size_t>(i);
    const auto expected =
        edgekit::cuda::defined_lookup(rows.data(), n, d, &x[static_cast<size_t>(i * d)], l2);
    good =
        indices[at] == expected.index && best[at] == expected.best && margin[at] == expected.margin;
  }
  if (!good) {
    std::printf("FAILED: m %lld n %lld d %lld kernel %d processors %d l2 %d values %d status %d\n",
                static_cast<long long>(m), static_cast<long long>(n), static_cast<long long>(d),
                kernel, processors, l2, values, status);
    std::exit(1);
  }
}

}  // namespace

int main() {
  constexpr int kFew = 0;
  constexpr int kKernels = 6;
  for (const bool l2 : {false, true}) {
    for (const int values : {0, 3}) {
      for (const int64_t n : {1, 31, 145}) {
        for (const int64_t d : {1, 133}) {
          const int processors = 1 + static_cast<int>(n % 3);
          for (const int64_t m : {1, 2, 5, 8}) check(m, n, d, kFew, processors, l2, values);
          // Every kernel, at sizes that take turns.
          for (int kernel = 1; kernel < kKernels; ++kernel) {
            check(kernel % 2 == 0 ? 33 : 65, n, d, kernel, processors, l2, values);
          }
        }
      }
      check(8, 300, 16, kFew, 2, l2, values);
      check(65, 300, 16, 2, 2, l2, values);
      check(9, 40, 2100, 1, 1, l2, values);
      check(3, 40, 2100, kFew, 1, l2, values);
    }
  }
  std::printf("ok\n");
  return 0;
}
