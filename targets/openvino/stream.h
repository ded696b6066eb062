// The threads that OpenVINO gave to the stream in which an operator runs.
#ifndef EDGEKIT_OPENVINO_STREAM_H_
#define EDGEKIT_OPENVINO_STREAM_H_

namespace edgekit {

// How many there are.
int stream_threads();

// Runs work in them: an edgekit_codebook_crew that needs no context.
void stream_crew(void* context, int parts, void (*run)(void* task, int part), void* task);

}  // namespace edgekit

#endif  // EDGEKIT_OPENVINO_STREAM_H_
