#include "packed.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "bounds.h"
#include "edgekit_codebook.h"
#include "rotation.h"

namespace edgekit {
namespace {

// Computing in double leaves relative errors below 2^-40 of a norm (kMaxInt8Width terms); twice
// that and the rounding to float are well within this.
constexpr double kDoubleInflate = 1 + 0x1p-30;
constexpr double kDoubleError = 0x1p-40;

// Partial sums, so that additions need not wait for each other; widths are multiples of kWidthStep.
constexpr int kSums = 8;

double total(const double* sums) {
  double result = 0;
  for (int j = 0; j < kSums; ++j) result += sums[j];
  return result;
}

double norm(const double* v, int64_t count) {
  double squares[kSums] = {};
  for (int64_t k = 0; k < count; k += kSums) {
    for (int j = 0; j < kSums; ++j) squares[j] += v[k + j] * v[k + j];
  }
  return std::sqrt(total(squares));
}

double largest_magnitude(const double* v, int64_t count) {
  double peaks[kSums] = {};
  for (int64_t k = 0; k < count; k += kSums) {
    for (int j = 0; j < kSums; ++j) peaks[j] = std::max(peaks[j], std::fabs(v[k + j]));
  }
  return *std::max_element(peaks, peaks + kSums);
}

// Nearest integer of |v| < 2^51: adding 1.5 * 2^52 rounds away the fraction.
double nearest(double v) {
  constexpr double kMagic = 0x1.8p52;
  return (v + kMagic) - kMagic;
}

RowGroup empty_group() {
  RowGroup group{};
  std::fill(group.norm, group.norm + kGroup, std::numeric_limits<float>::infinity());
  return group;
}

// Half the squared norm of a scaled row; what the half-squared norms mean once both are scaled.
float scaled_half(const Packed& packed, int64_t row) {
  return static_cast<float>(std::ldexp(packed.offset(row), -2 * packed.exponent));
}

// Subtracting a shorter mean row would not help, and its multiples could overflow.
constexpr double kLeastMeanNorm = 0x1p-40;

void set_mean(Packed* packed) {
  const auto width = static_cast<size_t>(packed->d);
  const auto padded = static_cast<size_t>(packed->padded);
  std::vector<double> sums(width);
  for (int64_t i = 0; i < packed->n; ++i) {
    const float* row = packed->row(i);
    for (size_t k = 0; k < width; ++k) sums[k] += static_cast<double>(row[k]);
  }
  std::vector<double> mean(padded);
  for (size_t k = 0; k < width; ++k) {
    const double average = std::ldexp(sums[k] / static_cast<double>(packed->n), -packed->exponent);
    mean[k] = static_cast<double>(static_cast<float>(average));
  }
  if (norm(mean.data(), packed->padded) < kLeastMeanNorm) std::fill(mean.begin(), mean.end(), 0.0);
  packed->mean_norm = norm(mean.data(), packed->padded) * kDoubleInflate;
  packed->mean_square = packed->mean_norm * packed->mean_norm;
  packed->mean = Buffer<float>(padded);
  packed->signed_mean = Buffer<float>(padded);
  packed->signs = Buffer<float>(padded);
  for (size_t k = 0; k < padded; ++k) {
    const float sign = rotation_sign(static_cast<int64_t>(k));
    packed->mean.data()[k] = static_cast<float>(mean[k]);
    packed->signed_mean.data()[k] = sign * static_cast<float>(mean[k]);
    packed->signs.data()[k] = sign;
  }
}

// Centers, rotates and quantizes one row; writes its codes (padded of them) and its bounds.
void quantize_row(const Packed& packed, int64_t i, double* work, int8_t* codes, RowGroup* group) {
  const int64_t padded = packed.padded;
  const double unit = std::ldexp(1.0, -packed.exponent);
  const float* row = packed.row(i);
  const float* mean = packed.mean.data();
  const float* signs = packed.signs.data();
  for (int64_t k = 0; k < padded; ++k) {
    const double value = k < packed.d ? static_cast<double>(row[k]) * unit : 0.0;
    work[k] = value - static_cast<double>(mean[k]);
  }
  double centers[kSums] = {};
  for (int64_t k = 0; k < padded; k += kSums) {
    for (int j = 0; j < kSums; ++j) centers[j] += work[k + j] * static_cast<double>(mean[k + j]);
  }
  const double centered_norm = norm(work, padded);
  for (int64_t k = 0; k < padded; ++k) work[k] *= static_cast<double>(signs[k]);
  rotate_row(packed.rotation, work);
  const double rotated_norm = norm(work, padded);

  const float scale = static_cast<float>(largest_magnitude(work, padded) / 127);
  const double inverse = scale > 0 ? 1 / static_cast<double>(scale) : 0;
  for (int64_t k = 0; k < padded; ++k) {
    // |work| / scale exceeds 127 only by the scale's rounding, unless the scale is denormal.
    const double code = nearest(std::min(std::max(work[k] * inverse, -127.0), 127.0));
    codes[k] = static_cast<int8_t>(static_cast<int32_t>(code));
    work[k] -= code * static_cast<double>(scale);
  }
  const int64_t r = i % kGroup;
  const double row_norm = std::max(centered_norm, rotated_norm) * kDoubleInflate;
  group->scale[r] = scale;
  group->center[r] = static_cast<float>(total(centers));
  group->norm[r] = float_above(row_norm);
  group->residual[r] = float_above(norm(work, padded) * kDoubleInflate + row_norm * kDoubleError);
  group->half[r] = scaled_half(packed, i);
}

// Stores a row's codes at its place among the kGroup rows of a group. Adding 128 to a byte is the
// same as flipping its top bit.
void interleave(const int8_t* codes, int64_t padded, int64_t r, bool add_128, uint8_t* group) {
  const uint32_t flip = add_128 ? 0x80808080u : 0;
  for (int64_t k = 0; k < padded; k += 4) {
    uint32_t four;
    std::memcpy(&four, codes + k, sizeof four);
    four ^= flip;
    std::memcpy(group + k * kGroup + r * 4, &four, sizeof four);
  }
}

}  // namespace

size_t Packed::bytes() const {
  return rows.bytes() + half_norms.bytes() + fp32_groups.bytes() + int8_groups.bytes() +
         codes.bytes() + mean.bytes() + signed_mean.bytes() + signs.bytes();
}

void pack_rows(const float* codebook, int64_t n, int64_t d, int metric, Packed* packed) {
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
      packed->half_norms.data()[i] = packed->kernels->exact_dot(row, row, d) / 2;
    }
  }
  float peak = 0;
  for (size_t k = 0; k < count; ++k) peak = std::max(peak, std::fabs(packed->rows.data()[k]));
  if (peak > 0) packed->exponent = std::ilogb(peak) + 1;
}

void pack_fp32(Packed* packed) {
  const int64_t d = packed->d;
  packed->fp32_groups = Buffer<RowGroup>(static_cast<size_t>(packed->groups()));
  for (int64_t g = 0; g < packed->groups(); ++g) {
    RowGroup& group = packed->fp32_groups.data()[g] = empty_group();
    for (int64_t i = g * kGroup; i < std::min(packed->n, (g + 1) * kGroup); ++i) {
      const int64_t r = i % kGroup;
      const double square = packed->kernels->exact_dot(packed->row(i), packed->row(i), d);
      group.scale[r] = 1;
      group.norm[r] =
          float_above(std::ldexp(std::sqrt(square), -packed->exponent) * kDoubleInflate);
      group.half[r] = scaled_half(*packed, i);
    }
  }
}

void pack_int8(Packed* packed) {
  const int64_t padded = (packed->d + kWidthStep - 1) / kWidthStep * kWidthStep;
  packed->padded = padded;
  packed->rotation = make_rotation(padded);
  set_mean(packed);
  packed->int8_groups = Buffer<RowGroup>(static_cast<size_t>(packed->groups()));
  packed->codes = Buffer<uint8_t>(static_cast<size_t>(packed->groups() * kGroup * padded));
  std::vector<double> work(static_cast<size_t>(padded));
  std::vector<int8_t> codes(static_cast<size_t>(padded));
  for (int64_t g = 0; g < packed->groups(); ++g) {
    RowGroup& group = packed->int8_groups.data()[g] = empty_group();
    uint8_t* place = packed->codes.data() + g * kGroup * padded;
    for (int64_t i = g * kGroup; i < (g + 1) * kGroup; ++i) {
      if (i < packed->n) {
        quantize_row(*packed, i, work.data(), codes.data(), &group);
      } else {
        std::fill(codes.begin(), codes.end(), int8_t{0});
      }
      interleave(codes.data(), padded, i % kGroup, packed->kernels->unsigned_codes, place);
    }
  }
}

}  // namespace edgekit
