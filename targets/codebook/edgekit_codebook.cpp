// The C ABI: checks every argument, lets no exception escape, splits the work between threads.
#include "edgekit_codebook.h"

#include <algorithm>
#include <cfenv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "arena.h"
#include "bounds.h"
#include "dispatch.h"
#include "guarded.h"
#include "lookup.h"
#include "packed.h"
#include "parallel.h"
#include "top_two.h"

struct edgekit_codebook {
  edgekit::Packed packed;
  edgekit::Method method;
  mutable edgekit::ArenaPool arenas;
};

namespace edgekit {
namespace {

constexpr int64_t kMaxRows = (int64_t{1} << 31) - 1;
constexpr int64_t kMaxWidth = int64_t{1} << 24;

// The default floating-point environment during its lifetime. A runtime that calls us may have
// set the processor to flush denormals to zero, or another rounding mode: scores would change.
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatingPoint() { std::fesetenv(&saved_); }
  DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
  DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;

 private:
  std::fenv_t saved_;
};

bool all_finite(const Kernels& kernels, const float* values, int64_t count) {
  return kernels.largest_bits(values, count) < 0x7f800000u;
}

// Writes one result to the caller's arrays, which may have any alignment.
struct Outputs {
  int64_t* indices;
  float* best;
  float* margin;

  void write(int64_t i, const TopTwo& result) const;
};

template <typename T>
void store(T* array, int64_t i, T value) {
  std::memcpy(reinterpret_cast<unsigned char*>(array) + i * static_cast<int64_t>(sizeof(T)), &value,
              sizeof(T));
}

void Outputs::write(int64_t i, const TopTwo& result) const {
  store(indices, i, result.index);
  if (best != nullptr) store(best, i, static_cast<float>(result.best));
  if (margin != nullptr) store(margin, i, static_cast<float>(result.best - result.second));
}

// Vectors first..last-1 against all rows, in the caller's thread.
void lookup_vectors(const Job& job, const float* x, int64_t first, int64_t last, Arena& arena,
                    const Outputs& outputs) {
  const Packed& packed = job.packed;
  const int64_t tiles = (last - first + arena.tile - 1) / arena.tile;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t start = first + part_begin(last - first, tiles, tile);
    const int64_t count = first + part_begin(last - first, tiles, tile + 1) - start;
    lookup_tile(job, x + start * packed.d, count, 0, packed.groups(), arena);
    for (int64_t i = 0; i < count; ++i) outputs.write(start + i, arena.results.data()[i]);
  }
}

// All vectors (one tile at most) against a part of the rows in each thread.
void lookup_row_parts(const Job& job, ArenaPool& pool, const Crew& crew, const float* x, int64_t m,
                      int parts, const Outputs& outputs) {
  const int64_t groups = job.packed.groups();
  std::vector<std::unique_ptr<ArenaLease>> leases;
  for (int part = 0; part < parts; ++part) {
    leases.push_back(std::make_unique<ArenaLease>(pool, job.packed));
  }
  run_parallel(crew, parts, [&](int part) {
    const DefaultFloatingPoint environment;
    lookup_tile(job, x, m, part_begin(groups, parts, part), part_begin(groups, parts, part + 1),
                **leases[static_cast<size_t>(part)]);
  });
  for (int64_t i = 0; i < m; ++i) {
    TopTwo result;
    for (const auto& lease : leases) result.merge((**lease).results.data()[i]);
    outputs.write(i, result);
  }
}

void lookup(const edgekit_codebook& handle, const float* x, int64_t m, int threads,
            const Crew& crew, const Outputs& outputs) {
  const Packed& packed = handle.packed;
  const double work =
      static_cast<double>(m) * static_cast<double>(packed.n) * static_cast<double>(packed.d);
  const int parts = useful_threads(crew, threads, work);
  Job job{packed, handle.method, useful_planes(m), {outputs.margin != nullptr, true}};
  // With few vectors, each thread takes a part of the rows and reads it only once.
  const bool split_rows = parts > 1 && m < 16 * parts && packed.groups() >= parts;
  ArenaLease lease(handle.arenas, packed);
  if (split_rows && m <= (*lease).tile) {
    lookup_row_parts(job, handle.arenas, crew, x, m, parts, outputs);
    return;
  }
  job.requested.score = outputs.best != nullptr;
  const int vector_parts = static_cast<int>(std::min<int64_t>(parts, m));
  if (vector_parts == 1) {
    lookup_vectors(job, x, 0, m, *lease, outputs);
    return;
  }
  run_parallel(crew, vector_parts, [&](int part) {
    const DefaultFloatingPoint environment;
    ArenaLease own(handle.arenas, packed);
    lookup_vectors(job, x, part_begin(m, vector_parts, part), part_begin(m, vector_parts, part + 1),
                   *own, outputs);
  });
}

int pack(const float* codebook, int64_t n, int64_t d, int metric, edgekit_codebook** out) {
  PathRequest request;
  if (!read_path_request(&request)) return EDGEKIT_CODEBOOK_UNSUPPORTED_PATH;
  const Kernels* kernels = request.kernels;
  if (kernels == nullptr) kernels = available_kernels()[0];
  if (!all_finite(*kernels, codebook, n * d)) return EDGEKIT_CODEBOOK_NONFINITE_CODEBOOK;
  const Method method = request.any_method ? fastest_method(*kernels, n, d) : request.method;
  if (method == Method::kInt8 && d > kMaxInt8Width) return EDGEKIT_CODEBOOK_UNSUPPORTED_PATH;
  auto handle = std::make_unique<edgekit_codebook>();
  handle->method = method;
  Packed& packed = handle->packed;
  packed.kernels = kernels;
  pack_rows(codebook, n, d, metric, &packed);
  if (method == Method::kFp32) pack_fp32(&packed);
  if (method == Method::kInt8) pack_int8(&packed);
  *out = handle.release();
  return EDGEKIT_CODEBOOK_OK;
}

std::string describe(const edgekit_codebook& handle) {
  const Packed& packed = handle.packed;
  char text[256];
  std::snprintf(text, sizeof text,
                R"({"n": %lld, "d": %lld, "metric": "%s", "path": "%s-%s", "packed_bytes": %zu, )",
                static_cast<long long>(packed.n), static_cast<long long>(packed.d),
                packed.metric == EDGEKIT_CODEBOOK_L2 ? "l2" : "dot", packed.kernels->name,
                method_name(handle.method), packed.bytes());
  return text + ("\"available\": [" + quoted_paths()) + "]}";
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
    case EDGEKIT_CODEBOOK_UNSUPPORTED_PATH:
      return "EDGEKIT_LOOKUP_PATH names a path that this machine or codebook cannot use";
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
    const edgekit::DefaultFloatingPoint environment;
    return edgekit::pack(codebook, n, d, metric, out);
  });
}

int edgekit_codebook_lookup(const edgekit_codebook* handle, const float* x, int64_t m,
                            int64_t* indices, float* best, float* margin, int threads) {
  return edgekit_codebook_lookup_by(handle, x, m, indices, best, margin, threads, nullptr, nullptr);
}

int edgekit_codebook_lookup_by(const edgekit_codebook* handle, const float* x, int64_t m,
                               int64_t* indices, float* best, float* margin, int threads,
                               edgekit_codebook_crew crew, void* context) {
  if (handle == nullptr || m < 0 || threads < 0) return EDGEKIT_CODEBOOK_INVALID_ARGUMENT;
  if (m == 0) return EDGEKIT_CODEBOOK_OK;
  const edgekit::Packed& packed = handle->packed;
  if (x == nullptr || indices == nullptr || m > INT64_MAX / 64 / packed.d) {
    return EDGEKIT_CODEBOOK_INVALID_ARGUMENT;
  }
  return edgekit::guarded([&]() -> int {
    const edgekit::DefaultFloatingPoint environment;
    if (!edgekit::all_finite(*packed.kernels, x, m * packed.d)) {
      return EDGEKIT_CODEBOOK_NONFINITE_INPUT;
    }
    edgekit::lookup(*handle, x, m, threads, {crew, context}, {indices, best, margin});
    return EDGEKIT_CODEBOOK_OK;
  });
}

size_t edgekit_codebook_describe(const edgekit_codebook* handle, char* buffer, size_t size) {
  if (handle == nullptr) return 0;
  size_t needed = 0;
  edgekit::guarded([&]() -> int {
    const std::string text = edgekit::describe(*handle);
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
