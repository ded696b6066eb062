// The OpenVINO extension's shared codebooks; no OpenVINO needed.
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "fingerprint.h"
#include "packed_codebook.h"

namespace {

using edgekit::CodebookView;
using edgekit::fingerprint;
using edgekit::PackedCodebook;

constexpr size_t kRows = 50;
constexpr size_t kWidth = 9;

std::vector<float> numbers(float first) {
  std::vector<float> values(kRows * kWidth);
  for (size_t i = 0; i < values.size(); ++i) values[i] = first + static_cast<float>((i * 37) % 101);
  return values;
}

CodebookView view(const void* floats) { return {floats, kRows, kWidth}; }

void test_fingerprint() {
  std::vector<char> data(100, 'a');
  for (size_t size = 0; size <= data.size(); ++size) {
    const auto before = fingerprint(data.data(), size);
    CHECK(before == fingerprint(std::vector<char>(data).data(), size));
    if (size == 0) continue;
    for (size_t at : {size_t{0}, size / 2, size - 1}) {
      data[at] ^= 1;
      CHECK(before != fingerprint(data.data(), size));
      data[at] ^= 1;
    }
  }
  // Words that change places change both hashes.
  const std::vector<uint32_t> words{1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<uint32_t> swapped{5, 2, 3, 4, 1, 6, 7, 8};
  const auto a = fingerprint(words.data(), 32);
  const auto b = fingerprint(swapped.data(), 32);
  CHECK(a[0] != b[0]);
  CHECK(a[1] != b[1]);
}

void test_equal_content_is_shared() {
  const std::vector<float> here = numbers(1);
  std::vector<char> bytes(here.size() * sizeof(float) + 1);
  std::memcpy(bytes.data() + 1, here.data(), bytes.size() - 1);  // elsewhere, and misaligned
  const auto first = PackedCodebook::share(view(here.data()), EDGEKIT_CODEBOOK_DOT);
  const auto second = PackedCodebook::share(view(bytes.data() + 1), EDGEKIT_CODEBOOK_DOT);
  CHECK(first == second);
  CHECK(first != PackedCodebook::share(view(here.data()), EDGEKIT_CODEBOOK_L2));
  CHECK(first != PackedCodebook::share({here.data(), kWidth, kRows}, EDGEKIT_CODEBOOK_DOT));
}

void test_new_content_at_an_old_address_is_packed_anew() {
  std::vector<float> memory = numbers(1);
  const auto before = PackedCodebook::share(view(memory.data()), EDGEKIT_CODEBOOK_DOT);
  for (float& value : memory) value = -value;
  const auto after = PackedCodebook::share(view(memory.data()), EDGEKIT_CODEBOOK_DOT);
  CHECK(before != after);
  const std::vector<float> x(kWidth, 1);
  int64_t index_before = -1;
  int64_t index_after = -1;
  before->lookup(x.data(), 1, &index_before, nullptr, 1, nullptr);
  after->lookup(x.data(), 1, &index_after, nullptr, 1, nullptr);
  CHECK(index_before != index_after);
}

void test_freed_with_its_last_user() {
  const std::vector<float> memory = numbers(7);
  auto packed = PackedCodebook::share(view(memory.data()), EDGEKIT_CODEBOOK_DOT);
  const std::weak_ptr<const PackedCodebook> watch = packed;
  auto user = PackedCodebook::share(view(memory.data()), EDGEKIT_CODEBOOK_DOT);
  packed.reset();
  CHECK(!watch.expired());
  user.reset();
  CHECK(watch.expired());
  CHECK(PackedCodebook::share(view(memory.data()), EDGEKIT_CODEBOOK_DOT) != nullptr);
}

void test_many_threads() {
  const std::vector<float> memory = numbers(3);
  std::vector<std::shared_ptr<const PackedCodebook>> found(8);
  std::vector<std::thread> threads;
  for (auto& mine : found) {
    threads.emplace_back([&memory, &mine] {
      for (int i = 0; i < 50; ++i) {
        mine.reset();
        const std::vector<float> copy = memory;
        mine = PackedCodebook::share(view(copy.data()), EDGEKIT_CODEBOOK_DOT);
        int64_t index = -1;
        mine->lookup(copy.data(), 1, &index, nullptr, 1, nullptr);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& mine : found) CHECK(mine == found[0]);
}

std::string error_of(const std::vector<float>& codebook, const std::vector<float>& x) {
  try {
    const auto packed = PackedCodebook::share(view(codebook.data()), EDGEKIT_CODEBOOK_DOT);
    std::vector<int64_t> indices(x.size() / kWidth);
    packed->lookup(x.data(), indices.size(), indices.data(), nullptr, 1, nullptr);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

void test_errors() {
  std::vector<float> codebook = numbers(1);
  std::vector<float> x(4 * kWidth, 1);
  CHECK_EQ(error_of(codebook, x), "");
  x[2 * kWidth + 5] = NAN;
  x[3 * kWidth] = INFINITY;
  CHECK_EQ(error_of(codebook, x), "features hold NaN or infinity, first in vector 2 of 4");
  codebook[4] = NAN;
  CHECK(!error_of(codebook, x).empty());
}

}  // namespace

int main() {
  test_fingerprint();
  test_equal_content_is_shared();
  test_new_content_at_an_old_address_is_packed_anew();
  test_freed_with_its_last_user();
  test_many_threads();
  test_errors();
  return check::report();
}
