// Codebooks in the form that lookups use, shared by all in this process that need the same one.
#ifndef EDGEKIT_OPENVINO_PACKED_CODEBOOK_H_
#define EDGEKIT_OPENVINO_PACKED_CODEBOOK_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "edgekit_codebook.h"

namespace edgekit {

// N x D floats, row-major, at any alignment.
struct CodebookView {
  const void* floats;
  size_t rows;
  size_t width;
};

// Immutable: many threads may use one at the same time.
class PackedCodebook {
 public:
  // Packs a codebook, unless one with the same numbers is already packed: they share one form,
  // however often a model is read, cloned, compiled or streamed. It is freed with its last user.
  // Throws std::runtime_error if the codebook cannot be packed.
  static std::shared_ptr<const PackedCodebook> share(const CodebookView& codebook, int metric);

  // Packs a codebook for its caller alone.
  PackedCodebook(const CodebookView& codebook, int metric);
  ~PackedCodebook();
  PackedCodebook(const PackedCodebook&) = delete;
  PackedCodebook& operator=(const PackedCodebook&) = delete;

  // The best row for each of `count` vectors; `margins` may be null. Throws std::runtime_error,
  // for NaN and infinity with the number of the vector that holds one. At most `threads` of the
  // crew's threads work (null: new ones).
  void lookup(const void* vectors, size_t count, int64_t* indices, float* margins, int threads,
              edgekit_codebook_crew crew) const;

  size_t width() const { return width_; }

 private:
  size_t width_;
  edgekit_codebook* handle_ = nullptr;
};

}  // namespace edgekit

#endif  // EDGEKIT_OPENVINO_PACKED_CODEBOOK_H_
