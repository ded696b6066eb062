// The 8-bit products against sums worked out one by one, on every instruction set of this machine.
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "edgekit_product.h"
#include "kernels.h"

namespace {

std::mt19937 generator(1);

int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }

std::vector<int8_t> codes(int64_t count, int low = -128, int high = 127) {
  std::vector<int8_t> values(static_cast<size_t>(count));
  for (int8_t& value : values) value = static_cast<int8_t>(draw(low, high));
  return values;
}

struct Handle {
  edgekit_product* p = nullptr;
  Handle(const std::vector<int8_t>& weights, int64_t rows, int64_t columns) {
    CHECK_EQ(edgekit_product_pack(weights.data(), rows, columns, &p), EDGEKIT_CODEBOOK_OK);
  }
  ~Handle() { edgekit_product_free(p); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
};

std::vector<int32_t> expected(const std::vector<int8_t>& weights, int64_t rows, int64_t columns,
                              const std::vector<int8_t>& x, int64_t m, int offset) {
  std::vector<int32_t> sums;
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t r = 0; r < rows; ++r) {
      int64_t total = 0;
      for (int64_t k = 0; k < columns; ++k) {
        total += int64_t{weights[static_cast<size_t>(r * columns + k)]} *
                 (x[static_cast<size_t>(i * columns + k)] + offset);
      }
      sums.push_back(static_cast<int32_t>(total));
    }
  }
  return sums;
}

void compare(const std::vector<int8_t>& weights, int64_t rows, int64_t columns, int64_t m,
             int offset, int64_t parts) {
  const Handle handle(weights, rows, columns);
  const std::vector<int8_t> x = codes(m * columns);
  std::vector<int32_t> sums(static_cast<size_t>(m * rows), 12345);
  for (int64_t part = 0; part < parts; ++part) {
    CHECK_EQ(edgekit_product_multiply(handle.p, x.data(), m, offset, part, parts, sums.data()), 0);
  }
  CHECK(sums == expected(weights, rows, columns, x, m, offset));
}

void shapes() {
  for (int64_t rows : {1, 3, 63, 64, 65, 200}) {
    for (int64_t columns : {1, 2, 5, 63, 64, 65, 130, 321}) {
      compare(codes(rows * columns), rows, columns, draw(0, 9), draw(-128, 128), draw(1, 5));
    }
  }
}

// A triangle, blocks of zeros in other places, and nothing but zeros.
void zeros() {
  const int64_t size = 333;
  std::vector<int8_t> weights = codes(size * size, 1, 127);
  for (int64_t r = 0; r < size; ++r) {
    for (int64_t k = 0; k < r; ++k) weights[static_cast<size_t>(r * size + k)] = 0;
  }
  compare(weights, size, size, 3, 128, 4);
  const Handle triangle(weights, size, size);
  const Handle full(codes(size * size, 1, 127), size, size);
  CHECK(edgekit_product_bytes(triangle.p) < 6 * edgekit_product_bytes(full.p) / 10 + 64 * 64 * 2);
  for (int64_t r = 64; r < 192; ++r) {
    for (int64_t k = 0; k < size; ++k) weights[static_cast<size_t>(r * size + k)] = 0;
  }
  compare(weights, size, size, 2, -7, 1);
  compare(std::vector<int8_t>(100 * 70), 100, 70, 2, 128, 3);
}

// The greatest sums there can be.
void extremes() {
  const int64_t columns = 65535;
  for (int weight : {-128, 127}) {
    for (int code : {-128, 127}) {
      for (int offset : {-128, 0, 128}) {
        const std::vector<int8_t> weights(static_cast<size_t>(columns),
                                          static_cast<int8_t>(weight));
        const std::vector<int8_t> x(static_cast<size_t>(columns), static_cast<int8_t>(code));
        const Handle handle(weights, 1, columns);
        int32_t sum = 0;
        CHECK_EQ(edgekit_product_multiply(handle.p, x.data(), 1, offset, 0, 1, &sum), 0);
        CHECK_EQ(sum, static_cast<int32_t>(int64_t{weight} * (code + offset) * columns));
      }
    }
  }
}

void threads_share_a_handle() {
  const int64_t rows = 200;
  const int64_t columns = 300;
  const std::vector<int8_t> weights = codes(rows * columns);
  const std::vector<int8_t> x = codes(4 * columns);
  const Handle handle(weights, rows, columns);
  const std::vector<int32_t> right = expected(weights, rows, columns, x, 4, 128);
  std::vector<int32_t> sums(right.size());
  std::vector<std::thread> workers;
  for (int64_t part = 0; part < 3; ++part) {
    workers.emplace_back(
        [&, part] { edgekit_product_multiply(handle.p, x.data(), 4, 128, part, 3, sums.data()); });
  }
  for (std::thread& worker : workers) worker.join();
  CHECK(sums == right);
}

void refusals() {
  const std::vector<int8_t> weights(6);
  int32_t sums[6];
  edgekit_product* p = nullptr;
  CHECK_EQ(edgekit_product_pack(weights.data(), 2, 3, nullptr), EDGEKIT_CODEBOOK_INVALID_ARGUMENT);
  CHECK_EQ(edgekit_product_pack(nullptr, 2, 3, &p), EDGEKIT_CODEBOOK_INVALID_ARGUMENT);
  CHECK_EQ(edgekit_product_pack(weights.data(), 0, 3, &p), EDGEKIT_CODEBOOK_INVALID_ARGUMENT);
  CHECK_EQ(edgekit_product_pack(weights.data(), 2, 65536, &p), EDGEKIT_CODEBOOK_INVALID_ARGUMENT);
  CHECK(p == nullptr);
  const Handle handle(weights, 2, 3);
  const int8_t* x = weights.data();
  const auto multiply = [&](int64_t m, int offset, int64_t part, int64_t parts) {
    return edgekit_product_multiply(handle.p, x, m, offset, part, parts, sums);
  };
  CHECK_EQ(multiply(0, 0, 0, 1), EDGEKIT_CODEBOOK_OK);
  CHECK_EQ(multiply(-1, 0, 0, 1), EDGEKIT_CODEBOOK_INVALID_ARGUMENT);
  CHECK_EQ(multiply(1, 129, 0, 1), EDGEKIT_CODEBOOK_INVALID_ARGUMENT);
  CHECK_EQ(multiply(1, 0, 1, 1), EDGEKIT_CODEBOOK_INVALID_ARGUMENT);
  CHECK_EQ(multiply(INT64_MAX / 2, 0, 0, 1), EDGEKIT_CODEBOOK_INVALID_ARGUMENT);
  CHECK_EQ(edgekit_product_multiply(nullptr, x, 1, 0, 0, 1, sums),
           EDGEKIT_CODEBOOK_INVALID_ARGUMENT);
  CHECK_EQ(edgekit_product_bytes(nullptr), size_t{0});
  edgekit_product_free(nullptr);
  setenv("EDGEKIT_LOOKUP_PATH", "abacus", 1);
  CHECK_EQ(edgekit_product_pack(weights.data(), 2, 3, &p), EDGEKIT_CODEBOOK_UNSUPPORTED_PATH);
  unsetenv("EDGEKIT_LOOKUP_PATH");
}

}  // namespace

int main() {
  for (const edgekit::Kernels* const* entry = edgekit::available_kernels(); *entry != nullptr;
       ++entry) {
    setenv("EDGEKIT_LOOKUP_PATH", (*entry)->name, 1);
    shapes();
    zeros();
    extremes();
    threads_share_a_handle();
  }
  unsetenv("EDGEKIT_LOOKUP_PATH");
  refusals();
  return check::report();
}
