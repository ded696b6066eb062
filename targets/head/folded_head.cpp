#include "folded_head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace edgekit {
namespace {

constexpr size_t kLanes = 16;  // sums that the compiler computes in parallel

// Bytes of weights from which a second thread is worth waking.
constexpr size_t kBytesPerThread = size_t{1} << 18;

int useful_parts(const QuantizedLayer& layer, int threads) {
  const auto worth = static_cast<int64_t>(layer.bytes() / kBytesPerThread);
  return static_cast<int>(std::clamp<int64_t>(worth, 1, std::max(threads, 1)));
}

float sum_of(const float* lanes) {
  float total = 0;
  for (size_t j = 0; j < kLanes; ++j) total += lanes[j];
  return total;
}

// The sum of value(i) for i < count.
template <typename Value>
float sum_over(size_t count, const Value& value) {
  float lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] += value(i + j);
  }
  for (; i < count; ++i) lanes[0] += value(i);
  return sum_of(lanes);
}

float sigmoid(float x) { return 1.0F / (1.0F + std::exp(-x)); }

// Codes, minus 128 if they are unsigned; `multiply` adds it again.
void quantize(const float* values, size_t count, const Quantization& to, int8_t* codes) {
  const float low = to.is_signed ? -128.0F : 0.0F;
  const float high = low + 255.0F;
  const int less = to.is_signed ? 0 : 128;
  const auto zero = static_cast<float>(to.zero);
  const float scale = 1.0F / to.step;
  for (size_t i = 0; i < count; ++i) {
    const float code = values[i] * scale + zero;
    // Written so that NaN becomes the lowest code.
    const float bounded = code > low ? (code < high ? code : high) : low;
    codes[i] = static_cast<int8_t>(static_cast<int>(std::lrint(bounded)) - less);
  }
}

}  // namespace

QuantizedLayer::QuantizedLayer(const int8_t* weights, const std::vector<float>& steps,
                               size_t columns)
    : steps_(steps) {
  edgekit_product* handle = nullptr;
  const int status = edgekit_product_pack(weights, static_cast<int64_t>(steps.size()),
                                          static_cast<int64_t>(columns), &handle);
  if (status != EDGEKIT_CODEBOOK_OK) throw std::runtime_error(edgekit_status_text(status));
  handle_.reset(handle);
}

void QuantizedLayer::multiply(const int8_t* codes, size_t count, const Quantization& input,
                              int64_t part, int64_t parts, int32_t* sums) const {
  const int offset = (input.is_signed ? 0 : 128) - input.zero;
  const int status = edgekit_product_multiply(handle_.get(), codes, static_cast<int64_t>(count),
                                              offset, part, parts, sums);
  if (status != EDGEKIT_CODEBOOK_OK) throw std::runtime_error(edgekit_status_text(status));
}

FoldedHead::FoldedHead(size_t width, std::vector<float> norm, CodeTables tables,
                       QuantizedLayer projection, Quantization rest, QuantizedLayer classifier,
                       std::vector<float> bias, Quantization fused, bool residual)
    : width_(width),
      norm_(std::move(norm)),
      tables_(std::move(tables)),
      projection_(std::move(projection)),
      rest_(rest),
      classifier_(std::move(classifier)),
      bias_(std::move(bias)),
      fused_(fused),
      residual_(residual) {}

void FoldedHead::run(const float* features, const int64_t* codes, const void* codebook,
                     size_t count, int threads, const Crew& crew, float* logits) const {
  const size_t classes = classifier_.rows();
  std::vector<float> rest(count * width_);
  std::vector<int8_t> quantized(count * width_);
  std::vector<int32_t> sums(count * std::max(3 * width_, classes));
  for (size_t i = 0; i < count; ++i) {
    subtract(features + i * width_, codes[i], codebook, rest.data() + i * width_);
  }
  quantize(rest.data(), rest.size(), rest_, quantized.data());
  const int parts = useful_parts(projection_, threads);
  run_parallel(crew, parts, [&](int part) {
    projection_.multiply(quantized.data(), count, rest_, part, parts, sums.data());
  });
  for (size_t i = 0; i < count; ++i) {
    float* residue = rest.data() + i * width_;  // no longer needed once it is fused
    fuse(features + i * width_, codes[i], residue, sums.data() + i * 3 * width_, residue);
  }
  quantize(rest.data(), rest.size(), fused_, quantized.data());
  const int shares = useful_parts(classifier_, threads);
  run_parallel(crew, shares, [&](int share) {
    classifier_.multiply(quantized.data(), count, fused_, share, shares, sums.data());
  });
  for (size_t i = 0; i < count; ++i) {
    const int32_t* sum = sums.data() + i * classes;
    for (size_t k = 0; k < classes; ++k) {
      logits[i * classes + k] = static_cast<float>(sum[k]) * classifier_.unit(k, fused_) + bias_[k];
    }
  }
}

// The part of the feature that the codeword does not explain.
void FoldedHead::subtract(const float* feature, int64_t code, const void* codebook,
                          float* rest) const {
  const auto n = static_cast<size_t>(code);
  const size_t row_bytes = width_ * sizeof(float);
  // The codebook may have any alignment.
  std::memcpy(rest, static_cast<const char*>(codebook) + n * row_bytes, row_bytes);
  for (size_t k = 0; k < width_; ++k) rest[k] = feature[k] - rest[k] * norm_[n];
}

// `fused` may be `rest`: every value is written after it was last read.
void FoldedHead::fuse(const float* feature, int64_t code, const float* rest, const int32_t* sums,
                      float* fused) const {
  const size_t n = static_cast<size_t>(code);
  const int16_t* key = tables_.rows.data() + 2 * n * width_;
  const int16_t* base = key + width_;
  const float key_step = tables_.steps[2 * n];
  const float base_step = tables_.steps[2 * n + 1];
  const auto projected = [&](size_t row) {
    return static_cast<float>(sums[row]) * projection_.unit(row, rest_);
  };
  const float first =
      key_step * sum_over(width_, [&](size_t k) { return rest[k] * static_cast<float>(key[k]); });
  const float second = sum_over(width_, [&](size_t k) { return rest[k] * projected(k); });
  const float weight1 = sigmoid(first);
  const float weight2 = sigmoid(first + second);
  for (size_t k = 0; k < width_; ++k) {
    const float value = static_cast<float>(base[k]) * base_step + weight1 * projected(width_ + k) +
                        weight2 * projected(2 * width_ + k);
    fused[k] = residual_ ? feature[k] + value : std::max(value, 0.0F);
  }
}

}  // namespace edgekit
