#include "dispatch.h"

#include <cstdlib>
#include <cstring>
#include <string_view>

#include "bounds.h"

namespace edgekit {
namespace {

constexpr Method kMethods[] = {Method::kDouble, Method::kFp32, Method::kInt8};

// From how large a codebook on, and up to how many vectors at once, int8 scores are fastest: see
// benchmarks/lookup.py, which prints the table that these come from.
struct Int8Range {
  const char* kernels;
  int64_t min_rows;
  int64_t min_width;
  int64_t max_vectors;
};

constexpr int64_t kAnyNumber = INT64_MAX;
constexpr Int8Range kInt8Ranges[] = {
    {"avx512vnni", 256, 64, kAnyNumber},
    {"avxvnni", 256, 64, kAnyNumber},
    {"avx512", 256, 256, 4},
    {"avx2", 256, 256, 4},
    {"neondot", 256, 64, kAnyNumber},
};

// Below this many values the bounds cost more than they save.
constexpr int64_t kMinWidthFp32 = 16;
constexpr int64_t kMinRowsFp32 = 32;

const Int8Range* int8_range(const Kernels& kernels) {
  for (const Int8Range& range : kInt8Ranges) {
    if (std::strcmp(range.kernels, kernels.name) == 0) return &range;
  }
  return nullptr;
}

// Rows and columns are padded: small codebooks would take more memory than an int8 path is worth.
bool padding_pays(int64_t n, int64_t d) {
  const int64_t rows = (n + kGroup - 1) / kGroup * kGroup;
  const int64_t width = (d + kWidthStep - 1) / kWidthStep * kWidthStep;
  const auto bytes = static_cast<double>(rows) *
                     static_cast<double>(width + static_cast<int64_t>(sizeof(RowGroup)) / kGroup);
  return bytes <= 2.5 * static_cast<double>(n) * static_cast<double>(d);
}

bool method_runs(const Kernels& kernels, Method method) {
  return method != Method::kInt8 || kernels.int8_vectors > 0;
}

}  // namespace

const char* method_name(Method method) {
  switch (method) {
    case Method::kDouble:
      return "double";
    case Method::kFp32:
      return "fp32";
    case Method::kInt8:
      return "int8";
  }
  return "unknown";
}

bool read_path_request(PathRequest* request) {
  *request = PathRequest{};
  const char* text = std::getenv("EDGEKIT_LOOKUP_PATH");
  if (text == nullptr || *text == '\0') return true;
  const std::string_view wanted = text;
  for (Method method : kMethods) {
    if (wanted == method_name(method)) {
      request->any_method = false;
      request->method = method;
      return method_runs(*available_kernels()[0], method);
    }
  }
  for (const Kernels* const* entry = available_kernels(); *entry != nullptr; ++entry) {
    const std::string name = (*entry)->name;
    request->kernels = *entry;
    if (wanted == name) return true;
    for (Method method : kMethods) {
      if (wanted == name + "-" + method_name(method) && method_runs(**entry, method)) {
        request->any_method = false;
        request->method = method;
        return true;
      }
    }
  }
  return false;
}

bool method_possible(const Kernels& kernels, Method method, int64_t n, int64_t d) {
  if (method == Method::kDouble) return true;
  const Int8Range* range = int8_range(kernels);
  const bool int8 = range != nullptr && n >= range->min_rows && d >= range->min_width &&
                    d <= kMaxInt8Width && padding_pays(n, d);
  if (method == Method::kInt8) return int8;
  if (int8 && range->max_vectors == kAnyNumber) return false;  // it would never be chosen
  return n >= kMinRowsFp32 && d >= kMinWidthFp32;
}

Method fastest_method(const Packed& packed, int64_t m) {
  if (packed.int8_groups.size() > 0) {
    const Int8Range* range = int8_range(*packed.kernels);
    const bool pays = range == nullptr || m <= range->max_vectors;
    if (pays || packed.fp32_groups.size() == 0) return Method::kInt8;
  }
  return packed.fp32_groups.size() > 0 ? Method::kFp32 : Method::kDouble;
}

int useful_planes(const Packed& packed, int64_t m) {
  // A single vector waits for memory: its second plane is free and halves the bounds.
  return m == 1 && packed.kernels->int8_vectors >= kMaxPlanes ? 2 : 1;
}

std::string quoted_paths() {
  std::string text;
  for (const Kernels* const* entry = available_kernels(); *entry != nullptr; ++entry) {
    for (Method method : kMethods) {
      if (!method_runs(**entry, method)) continue;
      if (!text.empty()) text += ", ";
      text += std::string("\"") + (*entry)->name + "-" + method_name(method) + "\"";
    }
  }
  return text;
}

}  // namespace edgekit
