// The C ABI: checks every argument, keeps exceptions inside, splits the work between threads.
#include "edgekit_codebook.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "direct.h"
#include "exact_score.h"
#include "packed.h"
#include "parallel.h"

struct edgekit_codebook {
  edgekit::Packed packed;
};

namespace edgekit {
namespace {

constexpr int64_t kMaxRows = (int64_t{1} << 31) - 1;
constexpr int64_t kMaxWidth = int64_t{1} << 24;

bool all_finite(const float* values, size_t count) {
  // A float is infinite or NaN when its exponent bits are all ones. Integers keep the loop
  // vectorizable, and memcpy keeps it valid for any alignment.
  constexpr uint32_t kExponent = 0x7f800000u;
  const auto* bytes = reinterpret_cast<const unsigned char*>(values);
  uint32_t found = 0;
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, bytes + i * sizeof bits, sizeof bits);
    found |= static_cast<uint32_t>((bits & kExponent) == kExponent);
  }
  return found == 0;
}

// Runs `body`, which returns a status, and turns an exception into one.
template <typename Body>
int guarded(const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return EDGEKIT_CODEBOOK_OUT_OF_MEMORY;
  } catch (...) {
    return EDGEKIT_CODEBOOK_INTERNAL;
  }
}

void pack(const float* codebook, int64_t n, int64_t d, int metric, Packed* packed) {
  const size_t count = static_cast<size_t>(n) * static_cast<size_t>(d);
  packed->n = n;
  packed->d = d;
  packed->metric = metric;
  packed->rows = Buffer<float>(count);
  std::memcpy(packed->rows.data(), codebook, count * sizeof(float));
  if (metric == EDGEKIT_CODEBOOK_L2) {
    packed->half_norms = Buffer<double>(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      const float* row = packed->row(i);
      packed->half_norms.data()[i] = exact_dot(row, row, d) / 2;
    }
  }
}

// Finds every vector's two best rows. The longer of the two axes is split between the threads.
std::vector<TopTwo> find(const Packed& packed, const float* x, int64_t m, int threads) {
  std::vector<TopTwo> results(static_cast<size_t>(m));
  const double work =
      static_cast<double>(m) * static_cast<double>(packed.n) * static_cast<double>(packed.d);
  const int parts = useful_threads(threads, work);
  if (parts == 1) {
    lookup_direct(packed, x, m, 0, packed.n, results.data());
  } else if (m >= packed.n) {
    run_parallel(parts, [&](int part) {
      const int64_t first = part_begin(m, parts, part);
      const int64_t last = part_begin(m, parts, part + 1);
      lookup_direct(packed, x + first * packed.d, last - first, 0, packed.n,
                    results.data() + first);
    });
  } else {
    std::vector<TopTwo> partial(static_cast<size_t>(m * parts));
    run_parallel(parts, [&](int part) {
      lookup_direct(packed, x, m, part_begin(packed.n, parts, part),
                    part_begin(packed.n, parts, part + 1), partial.data() + part * m);
    });
    for (int part = 0; part < parts; ++part) {
      for (int64_t i = 0; i < m; ++i) {
        results[static_cast<size_t>(i)].merge(partial[static_cast<size_t>(part * m + i)]);
      }
    }
  }
  return results;
}

template <typename T>
void store(T* array, int64_t i, T value) {
  std::memcpy(reinterpret_cast<unsigned char*>(array) + i * static_cast<int64_t>(sizeof(T)), &value,
              sizeof(T));
}

std::string describe(const Packed& packed) {
  char text[256];
  std::snprintf(text, sizeof text,
                R"({"n": %lld, "d": %lld, "metric": "%s", "path": "direct", "packed_bytes": %zu})",
                static_cast<long long>(packed.n), static_cast<long long>(packed.d),
                packed.metric == EDGEKIT_CODEBOOK_L2 ? "l2" : "dot", packed.bytes());
  return text;
}

}  // namespace
}  // namespace edgekit

extern "C" {

int edgekit_codebook_abi_version(void) { return EDGEKIT_CODEBOOK_ABI_VERSION; }

const char* edgekit_status_text(int status) {
  switch (status) {
    case EDGEKIT_CODEBOOK_OK:
      return "success";
    case EDGEKIT_CODEBOOK_INVALID_ARGUMENT:
      return "invalid argument: a null pointer, or a size, metric or thread count out of range";
    case EDGEKIT_CODEBOOK_NONFINITE_CODEBOOK:
      return "the codebook holds NaN or infinity";
    case EDGEKIT_CODEBOOK_NONFINITE_INPUT:
      return "the feature vectors hold NaN or infinity";
    case EDGEKIT_CODEBOOK_OUT_OF_MEMORY:
      return "out of memory";
    case EDGEKIT_CODEBOOK_INTERNAL:
      return "internal error: the operating system refused a resource, such as a thread";
    default:
      return "unknown status";
  }
}

int edgekit_codebook_pack(const float* codebook, int64_t n, int64_t d, int metric,
                          edgekit_codebook** out) {
  if (out == nullptr) return EDGEKIT_CODEBOOK_INVALID_ARGUMENT;
  *out = nullptr;
  if (codebook == nullptr || n < 1 || n > edgekit::kMaxRows || d < 1 || d > edgekit::kMaxWidth) {
    return EDGEKIT_CODEBOOK_INVALID_ARGUMENT;
  }
  if (metric != EDGEKIT_CODEBOOK_DOT && metric != EDGEKIT_CODEBOOK_L2) {
    return EDGEKIT_CODEBOOK_INVALID_ARGUMENT;
  }
  return edgekit::guarded([&]() -> int {
    if (!edgekit::all_finite(codebook, static_cast<size_t>(n) * static_cast<size_t>(d))) {
      return EDGEKIT_CODEBOOK_NONFINITE_CODEBOOK;
    }
    auto handle = std::make_unique<edgekit_codebook>();
    edgekit::pack(codebook, n, d, metric, &handle->packed);
    *out = handle.release();
    return EDGEKIT_CODEBOOK_OK;
  });
}

int edgekit_codebook_lookup(const edgekit_codebook* handle, const float* x, int64_t m,
                            int64_t* indices, float* best, float* margin, int threads) {
  if (handle == nullptr || m < 0 || threads < 0) return EDGEKIT_CODEBOOK_INVALID_ARGUMENT;
  if (m == 0) return EDGEKIT_CODEBOOK_OK;
  const edgekit::Packed& packed = handle->packed;
  if (x == nullptr || indices == nullptr || m > INT64_MAX / 64 / packed.d) {
    return EDGEKIT_CODEBOOK_INVALID_ARGUMENT;
  }
  return edgekit::guarded([&]() -> int {
    if (!edgekit::all_finite(x, static_cast<size_t>(m) * static_cast<size_t>(packed.d))) {
      return EDGEKIT_CODEBOOK_NONFINITE_INPUT;
    }
    const std::vector<edgekit::TopTwo> results = edgekit::find(packed, x, m, threads);
    for (int64_t i = 0; i < m; ++i) {
      const edgekit::TopTwo& result = results[static_cast<size_t>(i)];
      edgekit::store(indices, i, result.index);
      if (best != nullptr) edgekit::store(best, i, static_cast<float>(result.best));
      if (margin != nullptr) {
        edgekit::store(margin, i, static_cast<float>(result.best - result.second));
      }
    }
    return EDGEKIT_CODEBOOK_OK;
  });
}

size_t edgekit_codebook_describe(const edgekit_codebook* handle, char* buffer, size_t size) {
  if (handle == nullptr) return 0;
  size_t needed = 0;
  edgekit::guarded([&]() -> int {
    const std::string text = edgekit::describe(handle->packed);
    if (buffer != nullptr && size > 0) {
      const size_t copied = std::min(size - 1, text.size());
      std::memcpy(buffer, text.data(), copied);
      buffer[copied] = '\0';
    }
    needed = text.size() + 1;
    return EDGEKIT_CODEBOOK_OK;
  });
  return needed;
}

void edgekit_codebook_free(edgekit_codebook* handle) { delete handle; }

}  // extern "C"
