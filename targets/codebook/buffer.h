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
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace edgekit {

constexpr size_t kAlignment = 64;

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};

template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  Buffer() = default;

  // Uninitialized room for `size` elements; throws std::bad_alloc.
  explicit Buffer(size_t size) : size_(size) {
    if (size > (std::numeric_limits<size_t>::max() - kHugePage) / sizeof(T)) throw std::bad_alloc();
    // Large data is streamed: with huge pages the hardware prefetcher crosses fewer page
    // boundaries, and the translation cache holds all of it.
    const size_t alignment = size * sizeof(T) >= 2 * kHugePage ? kHugePage : kAlignment;
    const size_t bytes = (size * sizeof(T) + alignment - 1) / alignment * alignment;
    if (bytes == 0) return;
    data_.reset(static_cast<T*>(std::aligned_alloc(alignment, bytes)));
    if (!data_) throw std::bad_alloc();
#ifdef __linux__
    if (alignment == kHugePage) madvise(data_.get(), bytes, MADV_HUGEPAGE);  // a hint: may fail
#endif
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }

 private:
  static constexpr size_t kHugePage = size_t{2} << 20;

  std::unique_ptr<T, FreeDeleter> data_;
  size_t size_ = 0;
};

}  // namespace edgekit

#endif  // EDGEKIT_BUFFER_H_
