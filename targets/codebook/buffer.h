// Memory for packed data and scratch: aligned to a cache line, freed with its owner.
#ifndef EDGEKIT_BUFFER_H_
#define EDGEKIT_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>

namespace edgekit {

constexpr size_t kAlignment = 64;

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};

template <typename T>
class Buffer {
  static_assert(std::is_trivial_v<T>);

 public:
  Buffer() = default;

  // Uninitialized room for `size` elements; throws std::bad_alloc.
  explicit Buffer(size_t size) : size_(size) {
    if (size > (std::numeric_limits<size_t>::max() - kAlignment) / sizeof(T)) {
      throw std::bad_alloc();
    }
    const size_t bytes = (size * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    if (bytes == 0) return;
    data_.reset(static_cast<T*>(std::aligned_alloc(kAlignment, bytes)));
    if (!data_) throw std::bad_alloc();
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }

 private:
  std::unique_ptr<T, FreeDeleter> data_;
  size_t size_ = 0;
};

}  // namespace edgekit

#endif  // EDGEKIT_BUFFER_H_
