// Every path of this machine against the definition: the same index, best and margin, bit for bit.
//
// An argument names one path ("avx2-int8"); without it all are tested. `--quick` takes fewer sizes,
// for emulators and sanitizers.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "available_paths.h"
#include "check.h"
#include "edgekit_codebook.h"
#include "reference.h"

namespace {

struct Size {
  int64_t n, d, m;
};

std::vector<Size> sizes(bool quick) {
  std::vector<Size> all;
  for (int64_t d = 1; d <= 33; d += quick ? 8 : 1) all.push_back({70, d, 7});
  for (int64_t n : {1, 2, 63, 64, 65}) all.push_back({n, 40, 3});
  for (int64_t m : {0, 1, 2, 6, 13}) all.push_back({100, 48, m});
  for (int64_t d : {65, 128, 192}) all.push_back({80, d, 4});
  all.push_back({quick ? 70 : 300, 2048, 4});
  if (!quick) {
    for (int64_t d : {64, 127, 320, 1000}) all.push_back({80, d, 4});
    all.push_back({130, 96, 392});  // more than a tile
    all.push_back({5000, 64, 9});
    all.push_back({600, 3008, 3});  // two windows of the rotation
  }
  return all;
}

struct Problem {
  std::string kind;
  Size size;
  bool l2;
  reference::Case c;
  std::vector<reference::Answer> answers;
};

Problem make_problem(const std::string& kind, const Size& size, bool l2) {
  const uint64_t seed = static_cast<uint64_t>(size.n * 1000003 + size.d * 1009 + size.m);
  Problem problem{kind, size, l2, reference::make_case(kind, size.n, size.d, size.m, seed), {}};
  for (int64_t i = 0; i < size.m; ++i) {
    problem.answers.push_back(
        reference::lookup(problem.c.rows, size.n, size.d, l2, problem.c.x.data() + i * size.d));
  }
  return problem;
}

void compare(const std::string& path, const Problem& problem) {
  const Size& size = problem.size;
  const float* x = problem.c.x.data();
  setenv("EDGEKIT_LOOKUP_PATH", path.c_str(), 1);
  edgekit_codebook* handle = nullptr;
  const int status =
      edgekit_codebook_pack(problem.c.rows.data(), size.n, size.d, problem.l2 ? 1 : 0, &handle);
  CHECK_EQ(status, 0);
  if (status != 0) return;
  const auto count = static_cast<size_t>(size.m);
  std::vector<int64_t> index(count, -1), index_only(count, -1), split(count, -1);
  std::vector<float> best(count), margin(count), split_margin(count);
  CHECK_EQ(edgekit_codebook_lookup(handle, x, size.m, index.data(), best.data(), margin.data(), 1),
           0);
  CHECK_EQ(edgekit_codebook_lookup(handle, x, size.m, index_only.data(), nullptr, nullptr, 1), 0);
  CHECK_EQ(
      edgekit_codebook_lookup(handle, x, size.m, split.data(), nullptr, split_margin.data(), 3), 0);
  int wrong = 0;
  for (size_t i = 0; i < count; ++i) {
    const reference::Answer& answer = problem.answers[i];
    wrong += index[i] != answer.index || index_only[i] != answer.index ||
             split[i] != answer.index || best[i] != answer.best || margin[i] != answer.margin ||
             split_margin[i] != answer.margin;
  }
  CHECK_EQ(wrong, 0);
  if (wrong != 0) {
    std::fprintf(stderr, "  %s, %s, N = %d, D = %d, M = %d, %s\n", path.c_str(),
                 problem.kind.c_str(), static_cast<int>(size.n), static_cast<int>(size.d),
                 static_cast<int>(size.m), problem.l2 ? "l2" : "dot");
  }
  edgekit_codebook_free(handle);
}

}  // namespace

int main(int argc, char** argv) {
  bool quick = false;
  std::vector<std::string> paths = available_paths();
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0) {
      quick = true;
    } else {
      paths = {argv[i]};
    }
  }
  CHECK(paths.size() >= 2);
  for (const Size& size : sizes(quick)) {
    for (const std::string& kind : reference::kinds()) {
      for (bool l2 : {false, true}) {
        const Problem problem = make_problem(kind, size, l2);
        for (const std::string& path : paths) compare(path, problem);
      }
    }
  }
  for (const std::string& path : paths) std::printf("%s\n", path.c_str());
  return check::report();
}
