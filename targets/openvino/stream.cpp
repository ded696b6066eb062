#include "stream.h"

#include <openvino/core/parallel.hpp>

namespace edgekit {

int stream_threads() { return parallel_get_max_threads(); }

void in_stream(int64_t parts, const std::function<void(int64_t)>& work) {
  if (parts == 1) {
    work(0);
    return;
  }
  ov::parallel_for(parts, work);
}

void lookup_in_stream(void* /*context*/, int parts, void (*run)(void* task, int part), void* task) {
  in_stream(parts, [&](int64_t part) { run(task, static_cast<int>(part)); });
}

}  // namespace edgekit
