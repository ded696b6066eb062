// A folded VQ-SA head in 8-bit integers, from features to logits.
#ifndef EDGEKIT_FOLDED_HEAD_H_
#define EDGEKIT_FOLDED_HEAD_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "edgekit_product.h"
#include "parallel.h"

namespace edgekit {

// How floats become 8-bit codes: code = round(value / step) + zero, in -128..127 or 0..255.
struct Quantization {
  float step;
  int zero;
  bool is_signed;
};

// A matrix of 8-bit weights [rows, columns] and the step of each row.
class QuantizedLayer {
 public:
  QuantizedLayer(const int8_t* weights, const std::vector<float>& steps, size_t columns);

  size_t rows() const { return steps_.size(); }
  size_t bytes() const { return edgekit_product_bytes(handle_.get()); }
  // The value of one unit of a row's integer sum, for vectors of that quantization.
  float unit(size_t row, const Quantization& input) const { return steps_[row] * input.step; }
  // Share `part` of `parts` of edgekit_product_multiply's sums; throws std::runtime_error.
  void multiply(const int8_t* codes, size_t count, const Quantization& input, int64_t part,
                int64_t parts, int32_t* sums) const;

 private:
  struct Free {
    void operator()(edgekit_product* handle) const { edgekit_product_free(handle); }
  };
  std::unique_ptr<edgekit_product, Free> handle_;
  std::vector<float> steps_;
};

// Two rows of 16-bit integers per codeword, key and base, and their steps.
struct CodeTables {
  std::vector<int16_t> rows;  // [N, 2, D]
  std::vector<float> steps;   // [N, 2]
};

// The formula of edgekit/model/fold.py with tables. Immutable: many threads may run it at once.
class FoldedHead {
 public:
  // projection: [3D, D], which is U, P1 and P2 stacked. Sizes must agree.
  FoldedHead(size_t width, std::vector<float> norm, CodeTables tables, QuantizedLayer projection,
             Quantization rest, QuantizedLayer classifier, std::vector<float> bias,
             Quantization fused, bool residual);

  // For `count` features [count, D] with their codes, and the float codebook [N, D], at any
  // alignment, that those index:
  // logits [count, classes]. At most `threads` of the crew's threads work.
  void run(const float* features, const int64_t* codes, const void* codebook, size_t count,
           int threads, const Crew& crew, float* logits) const;

 private:
  void subtract(const float* feature, int64_t code, const void* codebook, float* rest) const;
  void fuse(const float* feature, int64_t code, const float* rest, const int32_t* sums,
            float* fused) const;

  size_t width_;
  std::vector<float> norm_;  // [N]
  CodeTables tables_;
  QuantizedLayer projection_;
  Quantization rest_;
  QuantizedLayer classifier_;
  std::vector<float> bias_;  // [classes]
  Quantization fused_;
  bool residual_;
};

}  // namespace edgekit

#endif  // EDGEKIT_FOLDED_HEAD_H_
