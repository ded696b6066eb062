// Many threads in one handle, and lookups that use several threads themselves (also under TSan).
#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "edgekit_codebook.h"
#include "reference.h"

namespace {

// A crew of two, as a runtime has that is busy elsewhere: each takes every second part.
void crew(void* context, int parts, void (*run)(void* task, int part), void* task) {
  static_cast<std::atomic<int>*>(context)->fetch_add(1);
  const auto take = [&](int first) {
    for (int part = first; part < parts; part += 2) run(task, part);
  };
  std::thread helper(take, 1);
  take(0);
  helper.join();
}

}  // namespace

int main() {
  const int64_t n = 3000;
  const int64_t d = 128;
  const int64_t m = 40;
  const reference::Case c = reference::make_case("clustered", n, d, m, 1);
  std::vector<reference::Answer> answers;
  for (int64_t i = 0; i < m; ++i) {
    answers.push_back(reference::lookup(c.rows, n, d, false, c.x.data() + i * d));
  }
  for (const char* method : {"double", "fp32", "int8", ""}) {
    setenv("EDGEKIT_LOOKUP_PATH", method, 1);
    edgekit_codebook* handle = nullptr;
    if (edgekit_codebook_pack(c.rows.data(), n, d, 0, &handle) != 0) continue;  // no int8 here
    std::atomic<int> wrong{0};
    std::atomic<int> crews{0};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; ++caller) {
      callers.emplace_back([&, caller] {
        for (int round = 0; round < 6; ++round) {
          const int64_t count = round % 2 == 0 ? m : 1 + caller;
          std::vector<int64_t> index(static_cast<size_t>(count));
          std::vector<float> margin(index.size());
          const int threads = 1 + (caller + round) % 4;
          const bool alone = (caller + round / 2) % 2 == 0;
          wrong +=
              edgekit_codebook_lookup_by(handle, c.x.data(), count, index.data(), nullptr,
                                         margin.data(), threads, alone ? nullptr : crew, &crews);
          for (size_t i = 0; i < index.size(); ++i) {
            wrong += index[i] != answers[i].index || margin[i] != answers[i].margin;
          }
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
    CHECK_EQ(wrong.load(), 0);
    CHECK(crews.load() > 0);
    edgekit_codebook_free(handle);
  }
  return check::report();
}
