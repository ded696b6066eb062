#include "stream.h"

#include <openvino/core/parallel.hpp>

namespace edgekit {

int stream_threads() { return parallel_get_max_threads(); }

void stream_crew(void* /*context*/, int parts, void (*run)(void* task, int part), void* task) {
  if (parts == 1) {
    run(task, 0);
    return;
  }
  ov::parallel_for(parts, [&](int part) { run(task, part); });
}

}  // namespace edgekit
