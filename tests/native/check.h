// The smallest test harness that reports what failed and where.
#ifndef EDGEKIT_CHECK_H_
#define EDGEKIT_CHECK_H_

#include <cstdio>
#include <sstream>

namespace check {

inline int failures = 0;
inline int total = 0;

template <typename A, typename B>
void equal(const A& actual, const B& expected, const char* what, const char* file, int line) {
  ++total;
  if (actual == expected) return;
  ++failures;
  std::ostringstream text;
  text.precision(17);
  text << file << ":" << line << ": " << what << ": found " << actual << ", expected " << expected;
  std::fprintf(stderr, "%s\n", text.str().c_str());
}

// A test program's last line: prints the count and gives the exit status.
inline int report() {
  std::printf("%d checks, %d failed\n", total, failures);
  return failures == 0 && total > 0 ? 0 : 1;
}

}  // namespace check

#define CHECK_EQ(actual, expected) \
  check::equal((actual), (expected), #actual " == " #expected, __FILE__, __LINE__)
#define CHECK(condition) check::equal(bool(condition), true, #condition, __FILE__, __LINE__)

#endif  // EDGEKIT_CHECK_H_
