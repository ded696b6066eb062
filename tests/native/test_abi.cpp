// The C ABI: its answers on small cases worked out by hand, and its refusals.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "edgekit_codebook.h"

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

struct Handle {
  edgekit_codebook* p = nullptr;
  Handle(const std::vector<float>& rows, int64_t n, int64_t d, int metric) {
    CHECK_EQ(edgekit_codebook_pack(rows.data(), n, d, metric, &p), EDGEKIT_CODEBOOK_OK);
  }
  ~Handle() { edgekit_codebook_free(p); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
};

void answers() {
  const std::vector<float> rows = {1, 0, 0, 2, 0, 2};  // three rows of two
  const std::vector<float> x = {1, 0, 0, 1, 0, 0, -1, -1};
  int64_t index[4];
  float best[4];
  float margin[4];
  Handle dot(rows, 3, 2, EDGEKIT_CODEBOOK_DOT);
  CHECK_EQ(edgekit_codebook_lookup(dot.p, x.data(), 4, index, best, margin, 1), 0);
  const int64_t dot_index[] = {0, 1, 0, 0};
  const float dot_best[] = {1, 2, 0, -1};
  const float dot_margin[] = {1, 0, 0, 1};
  Handle l2(rows, 3, 2, EDGEKIT_CODEBOOK_L2);
  for (int i = 0; i < 4; ++i) {
    CHECK_EQ(index[i], dot_index[i]);
    CHECK_EQ(best[i], dot_best[i]);
    CHECK_EQ(margin[i], dot_margin[i]);
  }
  CHECK_EQ(edgekit_codebook_lookup(l2.p, x.data(), 4, index, best, margin, 1), 0);
  const int64_t l2_index[] = {0, 1, 0, 0};
  const float l2_best[] = {0.5f, 0, -0.5f, -1.5f};
  const float l2_margin[] = {2.5f, 0, 1.5f, 2.5f};
  for (int i = 0; i < 4; ++i) {
    CHECK_EQ(index[i], l2_index[i]);
    CHECK_EQ(best[i], l2_best[i]);
    CHECK_EQ(margin[i], l2_margin[i]);
  }
}

void single_row() {
  Handle one({3, 4}, 1, 2, EDGEKIT_CODEBOOK_DOT);
  const float x[] = {1, 1};
  int64_t index = -1;
  float margin = 0;
  CHECK_EQ(edgekit_codebook_lookup(one.p, x, 1, &index, nullptr, &margin, 1), 0);
  CHECK_EQ(index, 0);
  CHECK_EQ(margin, kInf);
}

void unaligned_input() {
  Handle two({1, 0, 0, 1}, 2, 2, EDGEKIT_CODEBOOK_DOT);
  const float x[] = {0, 5};
  char raw[sizeof x + 1];
  std::memcpy(raw + 1, x, sizeof x);
  int64_t index = -1;
  CHECK_EQ(edgekit_codebook_lookup(two.p, reinterpret_cast<const float*>(raw + 1), 1, &index,
                                   nullptr, nullptr, 1),
           0);
  CHECK_EQ(index, 1);
}

void refusals() {
  edgekit_codebook* p = nullptr;
  const float rows[] = {1, 2, 3, 4};
  const int bad = EDGEKIT_CODEBOOK_INVALID_ARGUMENT;
  CHECK_EQ(edgekit_codebook_pack(nullptr, 2, 2, 0, &p), bad);
  CHECK_EQ(edgekit_codebook_pack(rows, 0, 2, 0, &p), bad);
  CHECK_EQ(edgekit_codebook_pack(rows, 2, 0, 0, &p), bad);
  CHECK_EQ(edgekit_codebook_pack(rows, -1, 2, 0, &p), bad);
  CHECK_EQ(edgekit_codebook_pack(rows, 2, 2, 7, &p), bad);
  CHECK_EQ(edgekit_codebook_pack(rows, 2, 2, 0, nullptr), bad);
  CHECK_EQ(edgekit_codebook_pack(rows, INT64_MAX, 2, 0, &p), bad);
  for (float value : {kNan, kInf, -kInf}) {
    const float wrong[] = {1, 2, value, 4};
    CHECK_EQ(edgekit_codebook_pack(wrong, 2, 2, 0, &p), EDGEKIT_CODEBOOK_NONFINITE_CODEBOOK);
    CHECK(p == nullptr);
    Handle good({1, 2, 3, 4}, 2, 2, EDGEKIT_CODEBOOK_DOT);
    int64_t index[2] = {-7, -7};
    CHECK_EQ(edgekit_codebook_lookup(good.p, wrong, 2, index, nullptr, nullptr, 1),
             EDGEKIT_CODEBOOK_NONFINITE_INPUT);
    CHECK_EQ(index[0], -7);
    CHECK_EQ(index[1], -7);
  }
  Handle good({1, 2, 3, 4}, 2, 2, EDGEKIT_CODEBOOK_DOT);
  int64_t index = -7;
  CHECK_EQ(edgekit_codebook_lookup(nullptr, rows, 1, &index, nullptr, nullptr, 1), bad);
  CHECK_EQ(edgekit_codebook_lookup(good.p, nullptr, 1, &index, nullptr, nullptr, 1), bad);
  CHECK_EQ(edgekit_codebook_lookup(good.p, rows, 1, nullptr, nullptr, nullptr, 1), bad);
  CHECK_EQ(edgekit_codebook_lookup(good.p, rows, -1, &index, nullptr, nullptr, 1), bad);
  CHECK_EQ(edgekit_codebook_lookup(good.p, rows, 1, &index, nullptr, nullptr, -1), bad);
  CHECK_EQ(edgekit_codebook_lookup(good.p, rows, INT64_MAX / 2, &index, nullptr, nullptr, 1), bad);
  CHECK_EQ(edgekit_codebook_lookup(good.p, nullptr, 0, nullptr, nullptr, nullptr, 1), 0);
  edgekit_codebook_free(nullptr);
}

void texts() {
  CHECK_EQ(edgekit_codebook_abi_version(), EDGEKIT_CODEBOOK_ABI_VERSION);
  for (int status = -1; status < 20; ++status) CHECK(std::strlen(edgekit_status_text(status)) > 3);
  Handle two({1, 0, 0, 1}, 2, 2, EDGEKIT_CODEBOOK_DOT);
  const size_t size = edgekit_codebook_describe(two.p, nullptr, 0);
  std::string text(size, '?');
  CHECK_EQ(edgekit_codebook_describe(two.p, text.data(), size), size);
  CHECK_EQ(text.back(), '\0');
  CHECK(text.find("\"n\": 2") != std::string::npos);
  char small[4] = {1, 1, 1, 1};
  CHECK_EQ(edgekit_codebook_describe(two.p, small, 3), size);
  CHECK_EQ(small[2], '\0');
  CHECK_EQ(small[3], 1);
  CHECK_EQ(edgekit_codebook_describe(nullptr, small, 3), size_t{0});
}

}  // namespace

int main() {
  answers();
  single_row();
  unaligned_input();
  refusals();
  texts();
  return check::report();
}
