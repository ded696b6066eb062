// The threads that OpenVINO gave to the stream which an operator runs in.
#ifndef EDGEKIT_OPENVINO_STREAM_H_
#define EDGEKIT_OPENVINO_STREAM_H_

#include <cstdint>
#include <functional>

namespace edgekit {

// How many there are.
int stream_threads();

// Calls work(0) ... work(parts - 1) in them. An exception in one is thrown again here.
void in_stream(int64_t parts, const std::function<void(int64_t)>& work);

// An edgekit_codebook_crew; needs no context.
void lookup_in_stream(void* context, int parts, void (*run)(void* task, int part), void* task);

}  // namespace edgekit

#endif  // EDGEKIT_OPENVINO_STREAM_H_
