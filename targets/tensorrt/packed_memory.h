// A packed codebook in the plugin's own device memory: made when it is first asked for, kept until
// another codebook comes.
#ifndef EDGEKIT_PACKED_MEMORY_H_
#define EDGEKIT_PACKED_MEMORY_H_

#include <cuda_runtime_api.h>

#include <cstddef>

#include "edgekit_codebook_cuda.h"

namespace edgekit::tensorrt {

class PackedMemory {
 public:
  PackedMemory() = default;
  ~PackedMemory();
  PackedMemory(const PackedMemory&) = delete;
  PackedMemory& operator=(const PackedMemory&) = delete;

  // Makes the request's codebook available in packed form on `stream` and says so in the request.
  // A status of edgekit_codebook_cuda_status.
  int provide(edgekit_codebook_cuda_request* request, cudaStream_t stream);

  // Packs again next time, whatever comes: the codebook's values may have changed.
  void forget() { known_ = false; }

 private:
  bool reserve(size_t bytes);

  void* memory_ = nullptr;
  size_t bytes_ = 0;
  bool known_ = false;  // whether memory_ holds the following in packed form
  const void* codebook_ = nullptr;
  int64_t n_ = 0;
  int64_t d_ = 0;
  int32_t type_ = 0;
};

}  // namespace edgekit::tensorrt

#endif  // EDGEKIT_PACKED_MEMORY_H_
