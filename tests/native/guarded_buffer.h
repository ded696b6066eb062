// Buffers with pages that nobody may touch right before and right behind them.
#ifndef EDGEKIT_GUARDED_BUFFER_H_
#define EDGEKIT_GUARDED_BUFFER_H_

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace guarded {

// At which end the first or last byte beyond the buffer is forbidden.
enum class Side { kBefore, kBehind };

template <typename T>
class Buffer {
 public:
  Buffer(size_t count, Side side) : count_(count) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t room = (std::max<size_t>(count * sizeof(T), 1) + page - 1) / page * page;
    size_ = room + 2 * page;
    start_ =
        static_cast<char*>(mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (start_ == MAP_FAILED || mprotect(start_ + page, room, PROT_READ | PROT_WRITE) != 0) {
      std::abort();
    }
    char* const first = start_ + page + (side == Side::kBefore ? 0 : room - count * sizeof(T));
    data_ = reinterpret_cast<T*>(first);
  }
  Buffer(const std::vector<T>& values, Side side) : Buffer(values.size(), side) {
    std::copy(values.begin(), values.end(), data_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { munmap(start_, size_); }

  T* data() const { return data_; }
  T& operator[](size_t index) const { return data_[index]; }
  std::vector<T> values() const { return std::vector<T>(data_, data_ + count_); }

 private:
  size_t count_;
  size_t size_ = 0;
  char* start_ = nullptr;
  T* data_ = nullptr;
};

}  // namespace guarded

#endif  // EDGEKIT_GUARDED_BUFFER_H_
