// The C ABI reads and writes what it was given and no byte more: buffers end where memory ends.
//
// Sizes are odd on purpose: no width is a multiple of a register, no pointer is aligned. `--quick`
// takes fewer of them, for emulators and sanitizers.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "available_paths.h"
#include "check.h"
#include "edgekit_codebook.h"
#include "edgekit_product.h"
#include "guarded_buffer.h"
#include "kernels.h"
#include "reference.h"

namespace {

using guarded::Buffer;
using guarded::Side;

constexpr Side kSides[] = {Side::kBefore, Side::kBehind};

// Whether a process dies of touching the byte at `offset` beyond a buffer of three.
bool dies(Side side, int64_t offset) {
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);  // what a sanitizer says of it
    const Buffer<char> buffer(3, side);
    const volatile char* const data = buffer.data();
    const char found = data[offset];
    _exit(found == 1 ? 2 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

void guards_bite() {
  CHECK(dies(Side::kBefore, -1));
  CHECK(dies(Side::kBehind, 3));
  CHECK(!dies(Side::kBefore, 2));
  CHECK(!dies(Side::kBehind, 0));
}

void lookup(const std::string& path, int64_t n, int64_t d, int64_t m, bool l2, Side side) {
  const reference::Case c = reference::make_case("clustered", n, d, m, uint64_t(n + d + m));
  setenv("EDGEKIT_LOOKUP_PATH", path.c_str(), 1);
  edgekit_codebook* handle = nullptr;
  {
    const Buffer<float> rows(c.rows, side);  // gone before the lookup
    const int metric = l2 ? EDGEKIT_CODEBOOK_L2 : EDGEKIT_CODEBOOK_DOT;
    CHECK_EQ(edgekit_codebook_pack(rows.data(), n, d, metric, &handle), EDGEKIT_CODEBOOK_OK);
  }
  const auto count = static_cast<size_t>(m);
  const Buffer<float> x(c.x, side);
  const Buffer<int64_t> index(count, side);
  const Buffer<float> best(count, side);
  const Buffer<float> margin(count, side);
  for (const bool outputs : {true, false}) {
    for (int threads : {1, 3}) {
      CHECK_EQ(edgekit_codebook_lookup(handle, x.data(), m, index.data(),
                                       outputs ? best.data() : nullptr,
                                       outputs ? margin.data() : nullptr, threads),
               EDGEKIT_CODEBOOK_OK);
      for (size_t i = 0; i < count; ++i) {
        const reference::Answer answer =
            reference::lookup(c.rows, n, d, l2, c.x.data() + static_cast<int64_t>(i) * d);
        CHECK_EQ(index[i], answer.index);
        CHECK_EQ(best[i], answer.best);
        CHECK_EQ(margin[i], answer.margin);
      }
    }
  }
  const size_t length = edgekit_codebook_describe(handle, nullptr, 0);
  for (size_t size : {length, length / 2, size_t{1}}) {
    const Buffer<char> text(size, side);
    CHECK_EQ(edgekit_codebook_describe(handle, text.data(), size), length);
    CHECK_EQ(text[size - 1], '\0');
  }
  edgekit_codebook_free(handle);
}

void lookups(bool quick) {
  const std::vector<int64_t> widths =
      quick ? std::vector<int64_t>{1, 17, 67} : std::vector<int64_t>{1, 3, 17, 31, 67, 129, 1283};
  for (const std::string& path : available_paths()) {
    for (int64_t d : widths) {
      for (int64_t n : {1, 65, 131}) {
        for (int64_t m : {0, 1, 13}) {
          for (const Side side : kSides) lookup(path, n, d, m, (n + d + m) % 2 == 0, side);
        }
      }
    }
  }
}

// Refused numbers are refused before anything is written.
void refused(Side side) {
  setenv("EDGEKIT_LOOKUP_PATH", "", 1);
  const Buffer<float> rows(std::vector<float>(5 * 7, 1.5F), side);
  edgekit_codebook* handle = nullptr;
  CHECK_EQ(edgekit_codebook_pack(rows.data(), 5, 7, EDGEKIT_CODEBOOK_DOT, &handle), 0);
  const Buffer<float> x(std::vector<float>(3 * 7, NAN), side);
  const Buffer<int64_t> index(std::vector<int64_t>(3, -7), side);
  CHECK_EQ(edgekit_codebook_lookup(handle, x.data(), 3, index.data(), nullptr, nullptr, 2),
           EDGEKIT_CODEBOOK_NONFINITE_INPUT);
  for (size_t i = 0; i < 3; ++i) CHECK_EQ(index[i], -7);
  CHECK_EQ(edgekit_codebook_lookup(handle, x.data(), -1, index.data(), nullptr, nullptr, 2),
           EDGEKIT_CODEBOOK_INVALID_ARGUMENT);
  edgekit_codebook_free(handle);
}

void product(int64_t rows, int64_t columns, int64_t m, Side side) {
  std::mt19937 generator(static_cast<unsigned>(rows * columns + m));
  std::uniform_int_distribution<int> code(-128, 127);
  const auto draw = [&](int64_t count) {
    std::vector<int8_t> values(static_cast<size_t>(count));
    for (int8_t& v : values) v = static_cast<int8_t>(code(generator));
    return values;
  };
  const std::vector<int8_t> weights = draw(rows * columns);
  const std::vector<int8_t> vectors = draw(m * columns);
  edgekit_product* handle = nullptr;
  {
    const Buffer<int8_t> stored(weights, side);
    CHECK_EQ(edgekit_product_pack(stored.data(), rows, columns, &handle), EDGEKIT_CODEBOOK_OK);
  }
  const Buffer<int8_t> x(vectors, side);
  const Buffer<int32_t> sums(static_cast<size_t>(m * rows), side);
  for (int64_t parts : {1, 3}) {
    for (int64_t part = 0; part < parts; ++part) {
      CHECK_EQ(edgekit_product_multiply(handle, x.data(), m, 128, part, parts, sums.data()),
               EDGEKIT_CODEBOOK_OK);
    }
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t r = 0; r < rows; ++r) {
        int32_t expected = 0;
        for (int64_t k = 0; k < columns; ++k) {
          expected += weights[static_cast<size_t>(r * columns + k)] *
                      (vectors[static_cast<size_t>(i * columns + k)] + 128);
        }
        CHECK_EQ(sums[static_cast<size_t>(i * rows + r)], expected);
      }
    }
  }
  edgekit_product_free(handle);
}

void products(bool quick) {
  for (const auto* kernels = edgekit::available_kernels(); *kernels != nullptr; ++kernels) {
    setenv("EDGEKIT_LOOKUP_PATH", (*kernels)->name, 1);
    for (int64_t columns : {1, 3, 17, 63, 67, quick ? 129 : 1283}) {
      for (int64_t rows : {1, 5, 17, 33}) {
        for (int64_t m : {0, 1, 3}) {
          for (const Side side : kSides) product(rows, columns, m, side);
        }
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool quick = argc > 1 && std::strcmp(argv[1], "--quick") == 0;
  guards_bite();
  lookups(quick);
  for (const Side side : kSides) refused(side);
  products(quick);
  return check::report();
}
