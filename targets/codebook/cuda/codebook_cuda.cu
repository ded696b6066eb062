// The kernels and their launch; the work of their blocks is in the headers.
#include <cuda_runtime.h>

#include "edgekit_codebook_cuda.h"
#include "request.h"

namespace edgekit::cuda {
namespace {

template <int vectors, typename X, typename E>
__global__ void __launch_bounds__(kRowThreads) rows_kernel(CoarseJob<X, E> job) {
  __shared__ RowsMemory<vectors> memory;
  DeviceBlock<RowsState<vectors>> block;
  coarse_rows<vectors>(block, &memory, job, blockIdx.x);
}

template <int tile, typename X, typename E>
__global__ void __launch_bounds__(TileShape<tile>::kThreads) tiles_kernel(CoarseJob<X, E> job) {
  __shared__ TilesMemory<tile> memory;
  DeviceBlock<TilesState<tile>> block;
  coarse_tiles<tile>(block, &memory, job, blockIdx.x);
}

template <typename X, typename E, typename Margin>
__global__ void __launch_bounds__(kFinishThreads) finish_kernel(FinishJob<X, E, Margin> job) {
  __shared__ FinishMemory memory;
  DeviceBlock<FinishState> block;
  finish(block, &memory, job, blockIdx.x);
}

template <typename X, typename E, typename Margin>
void launch_finish(const edgekit_codebook_cuda_request& request, const Plan& plan,
                   cudaStream_t stream) {
  const auto job = finish_job<X, E, Margin>(request, plan);
  finish_kernel<<<static_cast<unsigned>(request.m), kFinishThreads, 0, stream>>>(job);
}

template <typename X, typename E>
void launch(const edgekit_codebook_cuda_request& request, const Plan& plan, cudaStream_t stream) {
  const CoarseJob<X, E> job = coarse_job<X, E>(request, plan);
  const auto blocks = static_cast<unsigned>(plan.blocks_down * plan.parts);
  if (plan.tile == kLargeTile) {
    constexpr int kThreads = TileShape<kLargeTile>::kThreads;
    tiles_kernel<kLargeTile><<<blocks, kThreads, 0, stream>>>(job);
  } else if (plan.tile == kSmallTile) {
    constexpr int kThreads = TileShape<kSmallTile>::kThreads;
    tiles_kernel<kSmallTile><<<blocks, kThreads, 0, stream>>>(job);
  } else if (plan.vectors == 1) {
    rows_kernel<1><<<blocks, kRowThreads, 0, stream>>>(job);
  } else if (plan.vectors == 4) {
    rows_kernel<4><<<blocks, kRowThreads, 0, stream>>>(job);
  } else {
    rows_kernel<8><<<blocks, kRowThreads, 0, stream>>>(job);
  }
  if constexpr (sizeof(X) == sizeof(Half)) {
    if (request.margin_type == EDGEKIT_CODEBOOK_CUDA_HALF) {
      launch_finish<X, E, Half>(request, plan, stream);
      return;
    }
  }
  launch_finish<X, E, float>(request, plan, stream);
}

// Multiprocessors of the current device; 0 without one.
int count_processors() {
  int device = 0;
  int count = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
    return 0;
  }
  return count;
}

}  // namespace
}  // namespace edgekit::cuda

extern "C" {

int edgekit_codebook_cuda_abi_version(void) { return EDGEKIT_CODEBOOK_CUDA_ABI_VERSION; }

const char* edgekit_codebook_cuda_status_text(int status) {
  switch (status) {
    case EDGEKIT_CODEBOOK_CUDA_OK:
      return "success";
    case EDGEKIT_CODEBOOK_CUDA_INVALID_ARGUMENT:
      return "invalid argument: a null or misaligned pointer, or a size, type or metric out of "
             "range";
    case EDGEKIT_CODEBOOK_CUDA_SMALL_WORKSPACE:
      return "the workspace is smaller than edgekit_codebook_cuda_workspace says";
    case EDGEKIT_CODEBOOK_CUDA_LAUNCH_FAILED:
      return "CUDA refused the launch: no device, or this library has no code for its architecture";
    default:
      return "unknown status";
  }
}

size_t edgekit_codebook_cuda_workspace(int64_t m, int64_t n) {
  return edgekit::cuda::sizes_in_range(m, n) ? edgekit::cuda::workspace_bytes(m, n) : 0;
}

int edgekit_codebook_cuda_lookup(const edgekit_codebook_cuda_request* request, void* stream) {
  using edgekit::cuda::Half;
  const int status = edgekit::cuda::check_request(request);
  if (status != EDGEKIT_CODEBOOK_CUDA_OK || request->m == 0) return status;
  const int processors = edgekit::cuda::count_processors();
  if (processors == 0) return EDGEKIT_CODEBOOK_CUDA_LAUNCH_FAILED;
  const auto plan = edgekit::cuda::make_plan(request->m, request->n, processors);
  const auto queue = static_cast<cudaStream_t>(stream);
  if (request->x_type == EDGEKIT_CODEBOOK_CUDA_FLOAT) {
    edgekit::cuda::launch<float, float>(*request, plan, queue);
  } else if (request->codebook_type == EDGEKIT_CODEBOOK_CUDA_FLOAT) {
    edgekit::cuda::launch<Half, float>(*request, plan, queue);
  } else {
    edgekit::cuda::launch<Half, Half>(*request, plan, queue);
  }
  return cudaPeekAtLastError() == cudaSuccess ? EDGEKIT_CODEBOOK_CUDA_OK
                                              : EDGEKIT_CODEBOOK_CUDA_LAUNCH_FAILED;
}

}  // extern "C"
