#include "dispatch.h"

#include <cstdlib>
#include <string_view>

#include "bounds.h"

namespace edgekit {
namespace {

constexpr Method kMethods[] = {Method::kDouble, Method::kFp32, Method::kInt8};

// The choice, as measured by `benchmarks/lookup.py --paths` on each instruction set (NEON: on none;
// it is assumed to behave like AVX-VNNI). Where there is an int8 kernel it was fastest from one
// full group of rows on, for every width and number of vectors: for 64 rows by 1 to 1.5 times, for
// 1000 by 2 to 5. Below that, float scores beat exact ones from about this many values on.
constexpr int64_t kMinRowsInt8 = kGroup;
constexpr int64_t kMinValuesFp32 = 2048;
constexpr int64_t kMinWidthFp32 = 16;

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
  const std::string_view requested = text;
  for (Method method : kMethods) {
    if (requested == method_name(method)) {
      request->any_method = false;
      request->method = method;
      return method_runs(*available_kernels()[0], method);
    }
  }
  for (const Kernels* const* entry = available_kernels(); *entry != nullptr; ++entry) {
    const std::string name = (*entry)->name;
    request->kernels = *entry;
    if (requested == name) return true;
    for (Method method : kMethods) {
      if (requested == name + "-" + method_name(method) && method_runs(**entry, method)) {
        request->any_method = false;
        request->method = method;
        return true;
      }
    }
  }
  return false;
}

Method fastest_method(const Kernels& kernels, int64_t n, int64_t d) {
  if (method_runs(kernels, Method::kInt8) && n >= kMinRowsInt8 && d <= kMaxInt8Width &&
      padding_pays(n, d)) {
    return Method::kInt8;
  }
  return n * d >= kMinValuesFp32 && d >= kMinWidthFp32 ? Method::kFp32 : Method::kDouble;
}

int useful_planes(int64_t m) {
  // A single vector is memory-bound: a second plane costs almost nothing and halves the bounds.
  return m == 1 ? 2 : 1;
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
