#include "packed_memory.h"

namespace edgekit::tensorrt {

PackedMemory::~PackedMemory() { cudaFree(memory_); }

bool PackedMemory::reserve(size_t bytes) {
  if (bytes <= bytes_) return true;
  // An allocation is no part of a graph that the calling thread may be capturing.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  cudaThreadExchangeStreamCaptureMode(&mode);
  cudaFree(memory_);
  bytes_ = cudaMalloc(&memory_, bytes) == cudaSuccess ? bytes : 0;
  if (bytes_ == 0) memory_ = nullptr;
  cudaThreadExchangeStreamCaptureMode(&mode);
  return bytes_ != 0;
}

int PackedMemory::provide(edgekit_codebook_cuda_request* request, cudaStream_t stream) {
  const bool same = known_ && codebook_ == request->codebook && n_ == request->n &&
                    d_ == request->d && type_ == request->codebook_type;
  const size_t bytes = edgekit_codebook_cuda_packed_bytes(request->n, request->d);
  if (!same) {
    known_ = false;
    if (!reserve(bytes)) return EDGEKIT_CODEBOOK_CUDA_SMALL_WORKSPACE;
    const edgekit_codebook_cuda_codebook codebook = {request->codebook,      request->n, request->d,
                                                     request->codebook_type, memory_,    bytes};
    const int status = edgekit_codebook_cuda_pack(&codebook, stream);
    if (status != EDGEKIT_CODEBOOK_CUDA_OK) return status;
    codebook_ = request->codebook;
    n_ = request->n;
    d_ = request->d;
    type_ = request->codebook_type;
    // What was captured has not run, and may never: the graph packs for itself each time.
    cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
    known_ = cudaStreamIsCapturing(stream, &capturing) == cudaSuccess &&
             capturing == cudaStreamCaptureStatusNone;
  }
  request->packed = memory_;
  request->packed_bytes = bytes;
  return EDGEKIT_CODEBOOK_CUDA_OK;
}

}  // namespace edgekit::tensorrt
