// Exact integer products with the int8 kernels of the lookup.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "buffer.h"
#include "dispatch.h"
#include "edgekit_product.h"
#include "guarded.h"
#include "kernels.h"
#include "parallel.h"

// Groups of kGroup rows, laid out as the kernels read them, each from its first nonzero column on.
struct edgekit_product {
  int64_t rows;
  int64_t columns;
  int64_t padded;                      // columns, up to a multiple of kWidthStep
  const edgekit::Kernels* kernels;     // null: no int8 kernel on this machine
  std::vector<int64_t> first_columns;  // of each group, a multiple of kWidthStep
  std::vector<int64_t> starts;         // where each group's codes begin
  edgekit::Buffer<uint8_t> codes;      // 128 added where the kernels need unsigned rows
  std::vector<int32_t> row_sums;       // of the weights, for every row of every group
};

namespace edgekit {
namespace {

constexpr int64_t kMaxProductRows = (int64_t{1} << 31) - 1;
constexpr int64_t kMaxProductColumns = 65535;  // 128 * 256 * 65535 < 2^31
constexpr int kFullLevels = 127;

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// The best instruction set with an int8 kernel, unless the environment names one.
bool choose_kernels(const Kernels** chosen) {
  PathRequest request;
  if (!read_path_request(&request)) return false;
  *chosen = nullptr;
  if (request.kernels != nullptr) {
    if (request.kernels->int8_vectors > 0) *chosen = request.kernels;
    return true;
  }
  for (const Kernels* const* entry = available_kernels(); *entry != nullptr; ++entry) {
    if ((*entry)->int8_vectors == 0) continue;
    *chosen = *entry;
    break;
  }
  return true;
}

// The first column in which any of the rows is not zero, rounded down to the kernels' step.
int64_t first_column(const int8_t* weights, int64_t columns, int64_t first, int64_t last) {
  int64_t least = columns;
  for (int64_t row = first; row < last; ++row) {
    const int8_t* from = weights + row * columns;
    least = std::find_if(from, from + least, [](int8_t w) { return w != 0; }) - from;
  }
  return std::min(least / kWidthStep * kWidthStep, (columns - 1) / kWidthStep * kWidthStep);
}

void pack_group(const int8_t* weights, int64_t group, edgekit_product* handle) {
  const int64_t columns = handle->columns;
  const int64_t first = handle->first_columns[static_cast<size_t>(group)];
  const bool is_unsigned = handle->kernels != nullptr && handle->kernels->unsigned_codes;
  const uint8_t zero = is_unsigned ? 128 : 0;
  uint8_t* to = handle->codes.data() + handle->starts[static_cast<size_t>(group)];
  std::memset(to, zero, static_cast<size_t>((handle->padded - first) * kGroup));
  const int64_t last_row = std::min((group + 1) * kGroup, handle->rows);
  for (int64_t row = group * kGroup; row < last_row; ++row) {
    const int8_t* from = weights + row * columns;
    int32_t total = 0;
    for (int64_t k = first; k < columns; ++k) {
      const int64_t at = (k - first) / 4 * (4 * kGroup) + (row - group * kGroup) * 4 + k % 4;
      to[at] = static_cast<uint8_t>(static_cast<uint8_t>(from[k]) + zero);
      total += from[k];
    }
    handle->row_sums[static_cast<size_t>(row)] = total;
  }
}

int pack(const int8_t* weights, int64_t rows, int64_t columns, edgekit_product** out) {
  auto handle = std::make_unique<edgekit_product>();
  if (!choose_kernels(&handle->kernels)) return EDGEKIT_CODEBOOK_UNSUPPORTED_PATH;
  handle->rows = rows;
  handle->columns = columns;
  handle->padded = round_up(columns, kWidthStep);
  const int64_t groups = (rows + kGroup - 1) / kGroup;
  int64_t bytes = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t last = std::min((g + 1) * kGroup, rows);
    handle->first_columns.push_back(first_column(weights, columns, g * kGroup, last));
    handle->starts.push_back(bytes);
    bytes += (handle->padded - handle->first_columns.back()) * kGroup;
  }
  handle->codes = Buffer<uint8_t>(static_cast<size_t>(bytes));
  handle->row_sums.resize(static_cast<size_t>(groups * kGroup));
  for (int64_t g = 0; g < groups; ++g) pack_group(weights, g, handle.get());
  *out = handle.release();
  return EDGEKIT_CODEBOOK_OK;
}

// dot_int8 of kernels.h for one vector, in plain code.
void plain_dot(const uint8_t* rows, const int8_t* vector, int64_t padded, int32_t* out) {
  std::fill(out, out + kGroup, 0);
  for (int64_t k = 0; k < padded; k += 4) {
    const uint8_t* codes = rows + k * kGroup;
    for (int row = 0; row < kGroup; ++row) {
      for (int j = 0; j < 4; ++j) {
        out[row] += static_cast<int8_t>(codes[4 * row + j]) * vector[k + j];
      }
    }
  }
}

// The sum of a vector's codes from every multiple of kWidthStep on.
void sum_up(const int8_t* vector, int64_t columns, int32_t* sums) {
  int32_t total = 0;
  for (int64_t step = (columns - 1) / kWidthStep; step >= 0; --step) {
    const int64_t end = std::min((step + 1) * kWidthStep, columns);
    for (int64_t k = step * kWidthStep; k < end; ++k) total += vector[k];
    sums[step] = total;
  }
}

// Vectors in the kernels' form: padded and, where an instruction would overflow with all eight
// bits, split into two planes: code = 2 * first + second.
struct Vectors {
  int planes;
  std::vector<int8_t> codes;
  std::vector<int32_t> rests;  // [m, padded / kWidthStep]: sums of the codes from each step on

  Vectors(const edgekit_product& handle, const int8_t* from, int64_t m)
      : planes(handle.kernels != nullptr && handle.kernels->int8_levels < kFullLevels ? 2 : 1),
        codes(static_cast<size_t>(m * planes * handle.padded)),
        rests(static_cast<size_t>(m * (handle.padded / kWidthStep))) {
    for (int64_t i = 0; i < m; ++i) {
      const int8_t* vector = from + i * handle.columns;
      sum_up(vector, handle.columns, rests.data() + i * (handle.padded / kWidthStep));
      int8_t* first = codes.data() + i * planes * handle.padded;
      if (planes == 1) {
        std::copy(vector, vector + handle.columns, first);
        continue;
      }
      int8_t* second = first + handle.padded;
      for (int64_t k = 0; k < handle.columns; ++k) {
        first[k] = static_cast<int8_t>(vector[k] >> 1);
        second[k] = static_cast<int8_t>(vector[k] & 1);
      }
    }
  }
};

void multiply_group(const edgekit_product& handle, int64_t group, int64_t m, int offset,
                    const Vectors& vectors, int32_t* products, int32_t* sums) {
  const auto g = static_cast<size_t>(group);
  const int64_t first = handle.first_columns[g];
  const int64_t width = handle.padded - first;
  const uint8_t* codes = handle.codes.data() + handle.starts[g];
  const uint8_t* next = g + 1 < handle.starts.size() ? codes + width * kGroup : codes;
  const int planes = vectors.planes;
  const bool is_unsigned = handle.kernels != nullptr && handle.kernels->unsigned_codes;
  const int most = handle.kernels != nullptr ? handle.kernels->int8_vectors / planes : 1;
  const int64_t count = std::min<int64_t>(kGroup, handle.rows - group * kGroup);
  for (int64_t i = 0; i < m; i += most) {
    const int taken = static_cast<int>(std::min<int64_t>(most, m - i));
    const int8_t* from = vectors.codes.data() + i * planes * handle.padded + first;
    if (handle.kernels != nullptr) {
      handle.kernels->dot_int8(codes, from, handle.padded, taken * planes, width,
                               reinterpret_cast<const char*>(next), products);
    } else {
      plain_dot(codes, from, width, products);
    }
    for (int v = 0; v < taken; ++v) {
      const int64_t at = (i + v) * (handle.padded / kWidthStep) + first / kWidthStep;
      const int32_t added = is_unsigned ? 128 * vectors.rests[static_cast<size_t>(at)] : 0;
      const int32_t* product = products + v * planes * kGroup;
      int32_t* to = sums + (i + v) * handle.rows + group * kGroup;
      for (int64_t row = 0; row < count; ++row) {
        const int32_t whole = planes == 2 ? 2 * product[row] + product[kGroup + row] : product[row];
        to[row] =
            whole - added + offset * handle.row_sums[static_cast<size_t>(group * kGroup + row)];
      }
    }
  }
}

// The first group of a share of the packed bytes; the number of groups for the share past the last.
int64_t share_begin(const edgekit_product& handle, int64_t parts, int64_t part) {
  const auto bytes = static_cast<int64_t>(handle.codes.size());
  const auto begin = handle.starts.begin();
  if (part == parts) return static_cast<int64_t>(handle.starts.size());
  return std::lower_bound(begin, handle.starts.end(), part_begin(bytes, parts, part)) - begin;
}

int multiply(const edgekit_product& handle, const int8_t* codes, int64_t m, int offset,
             int64_t part, int64_t parts, int32_t* sums) {
  const int64_t last = share_begin(handle, parts, part + 1);
  const Vectors vectors(handle, codes, m);
  alignas(kAlignment) int32_t products[kMaxVectors * kGroup];
  for (int64_t group = share_begin(handle, parts, part); group < last; ++group) {
    multiply_group(handle, group, m, offset, vectors, products, sums);
  }
  return EDGEKIT_CODEBOOK_OK;
}

}  // namespace
}  // namespace edgekit

extern "C" {

int edgekit_product_pack(const int8_t* weights, int64_t rows, int64_t columns,
                         edgekit_product** out) {
  if (out == nullptr) return EDGEKIT_CODEBOOK_INVALID_ARGUMENT;
  *out = nullptr;
  if (weights == nullptr || rows < 1 || rows > edgekit::kMaxProductRows || columns < 1 ||
      columns > edgekit::kMaxProductColumns) {
    return EDGEKIT_CODEBOOK_INVALID_ARGUMENT;
  }
  return edgekit::guarded([&]() -> int { return edgekit::pack(weights, rows, columns, out); });
}

int edgekit_product_multiply(const edgekit_product* handle, const int8_t* codes, int64_t m,
                             int offset, int64_t part, int64_t parts, int32_t* sums) {
  if (handle == nullptr || m < 0 || offset < -128 || offset > 128 || part < 0 || part >= parts) {
    return EDGEKIT_CODEBOOK_INVALID_ARGUMENT;
  }
  if (m == 0) return EDGEKIT_CODEBOOK_OK;
  if (codes == nullptr || sums == nullptr || m > INT64_MAX / 16 / handle->padded ||
      m > INT64_MAX / 16 / handle->rows) {
    return EDGEKIT_CODEBOOK_INVALID_ARGUMENT;
  }
  return edgekit::guarded(
      [&]() -> int { return edgekit::multiply(*handle, codes, m, offset, part, parts, sums); });
}

size_t edgekit_product_bytes(const edgekit_product* handle) {
  return handle == nullptr ? 0 : handle->codes.bytes();
}

void edgekit_product_free(edgekit_product* handle) { delete handle; }

}  // extern "C"
