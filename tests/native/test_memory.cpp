// What a handle costs, that lookups allocate nothing once warm, and that the caller's
// floating-point environment neither matters nor changes.
#include <cfenv>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "check.h"
#include "edgekit_codebook.h"
#include "reference.h"
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define EDGEKIT_OWN_MALLOC 1
#endif

namespace {
int64_t allocations = 0;
}

#ifndef EDGEKIT_OWN_MALLOC
// Every allocation of the process passes here. A sanitizer brings its own, which must stay.
extern "C" {
void* __libc_malloc(size_t);
void* __libc_memalign(size_t, size_t);
void* malloc(size_t size) {
  ++allocations;
  return __libc_malloc(size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  ++allocations;
  return __libc_memalign(alignment, size);
}
}
#endif

namespace {

edgekit_codebook* pack(const reference::Case& c, int64_t n, int64_t d, const char* path) {
  setenv("EDGEKIT_LOOKUP_PATH", path, 1);
  edgekit_codebook* handle = nullptr;
  return edgekit_codebook_pack(c.rows.data(), n, d, 0, &handle) == 0 ? handle : nullptr;
}

void no_allocations() {
  const reference::Case c = reference::make_case("relu", 600, 200, 300, 1);
  std::vector<int64_t> index(300);
  std::vector<float> margin(300);
  for (const char* path : {"double", "fp32", "int8", ""}) {
    edgekit_codebook* handle = pack(c, 600, 200, path);
    if (handle == nullptr) continue;
    int64_t after_first = 0;
    for (int call = 0; call < 4; ++call) {
      edgekit_codebook_lookup(handle, c.x.data(), 300, index.data(), nullptr, margin.data(), 1);
      edgekit_codebook_lookup(handle, c.x.data(), 1, index.data(), nullptr, nullptr, 1);
      if (call == 0) after_first = allocations;
    }
    CHECK_EQ(allocations, after_first);
    edgekit_codebook_free(handle);
  }
#ifndef EDGEKIT_OWN_MALLOC
  CHECK(allocations > 0);  // they are counted at all
#endif
}

// At most 1.35 times the bytes of the values in float and in int8.
void packed_size() {
  for (int64_t n : {1, 10, 260, 1000}) {
    for (int64_t d : {8, 33, 64, 65, 512, 1280}) {
      const reference::Case c = reference::make_case("integers", n, d, 1, 1);
      edgekit_codebook* handle = pack(c, n, d, "");
      std::string text(edgekit_codebook_describe(handle, nullptr, 0), '\0');
      edgekit_codebook_describe(handle, text.data(), text.size());
      const std::string key = "\"packed_bytes\": ";
      const double bytes = std::atof(text.c_str() + text.find(key) + key.size());
      const double limit = 1.35 * 5 * static_cast<double>(n * d);
      CHECK(bytes >= 4 * static_cast<double>(n * d));
      CHECK(bytes <= limit);
      if (bytes > limit) std::fprintf(stderr, "  N = %d, D = %d\n", int(n), int(d));
      edgekit_codebook_free(handle);
    }
  }
}

// A runtime may have set its threads to flush denormals, or to round another way.
void floating_point_environment() {
  const reference::Case c = reference::make_case("denormal", 100, 70, 9, 1);
  const int64_t m = 9;
  for (const char* path : {"double", "fp32", "int8"}) {
    edgekit_codebook* handle = pack(c, 100, 70, path);
    if (handle == nullptr) continue;
    std::vector<int64_t> index(m);
    std::vector<float> best(m);
#if defined(__SSE2__)
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);  // flush to zero, denormals are zero
#endif
    std::fesetround(FE_UPWARD);
    edgekit_codebook_lookup(handle, c.x.data(), m, index.data(), best.data(), nullptr, 1);
    CHECK_EQ(std::fegetround(), FE_UPWARD);
    std::fesetround(FE_TONEAREST);
#if defined(__SSE2__)
    CHECK_EQ(_mm_getcsr() & 0x8040u, 0x8040u);
    _mm_setcsr(before);
#endif
    for (int64_t i = 0; i < m; ++i) {
      const reference::Answer answer =
          reference::lookup(c.rows, 100, 70, false, c.x.data() + i * 70);
      CHECK_EQ(index[static_cast<size_t>(i)], answer.index);
      CHECK_EQ(best[static_cast<size_t>(i)], answer.best);
    }
    edgekit_codebook_free(handle);
  }
}

}  // namespace

int main() {
  no_allocations();
  packed_size();
  floating_point_environment();
  return check::report();
}
