// The kernels and their launch; the work of their blocks is in the headers.
#include <cuda_runtime.h>

#include "edgekit_codebook_cuda.h"
#include "request.h"

namespace edgekit::cuda {
namespace {

enum PackStep : int { kClear, kHash, kCenter, kCenterNorm, kRows, kTies };

template <int step, typename E>
__global__ void __launch_bounds__(kPackThreads) pack_kernel(PackJob<E> job) {
  __shared__ PackMemory memory;
  DeviceBlock<PackState> block;
  const int64_t number = blockIdx.x;
  const int64_t blocks = gridDim.x;
  if constexpr (step == kClear) pack_clear(block, &memory, job, number, blocks);
  if constexpr (step == kHash) pack_hash(block, &memory, job, number, blocks);
  if constexpr (step == kCenter) pack_center(block, &memory, job, number, blocks);
  if constexpr (step == kCenterNorm) pack_center_norm(block, &memory, job, number, blocks);
  if constexpr (step == kRows) pack_rows(block, &memory, job, number, blocks);
  if constexpr (step == kTies) pack_ties(block, &memory, job, number, blocks);
}

template <typename X>
__global__ void __launch_bounds__(kPrepareThreads)
    prepare_kernel(VectorJob<X> job, Packed packed, Workspace workspace) {
  __shared__ PrepareMemory memory;
  DeviceBlock<PrepareState> block;
  prepare_vectors(
      block, &memory, job, packed.header, blockIdx.x, gridDim.x, kPrepareWarps,
      [&](int64_t v, int64_t chunk) {
        return workspace.codes + chunk_offset(v, chunk, packed.stride);
      },
      [&](int64_t v) { return workspace.facts + v; });
}

extern __shared__ __align__(16) unsigned char shared_memory[];

template <int vectors, typename X, typename E>
__global__ void __launch_bounds__(kSplitThreads) split_kernel(SplitJob<X, E> job) {
  using Memory = SplitMemory<vectors>;
  DeviceBlock<SplitState<vectors>> block;
  coarse_split<vectors>(block, reinterpret_cast<Memory*>(shared_memory),
                        shared_memory + (sizeof(Memory) + 15) / 16 * 16, job, blockIdx.x);
}

template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads) tiles_kernel(TilesJob job) {
  DeviceBlock<TilesState<Shape>> block;
  coarse_tiles<Shape>(block, reinterpret_cast<TilesMemory<Shape>*>(shared_memory), job, blockIdx.x);
}

template <typename X, typename E>
__global__ void __launch_bounds__(kFinishThreads, 5) finish_kernel(FinishJob<X, E> job) {
  __shared__ FinishMemory memory;
  DeviceBlock<FinishState> block;
  finish(block, &memory, job, blockIdx.x);
}

template <typename... Arguments>
bool launch(void (*kernel)(Arguments...), int64_t blocks, int threads, size_t shared,
            cudaStream_t stream, Arguments... arguments) {
  if (shared > 48 * 1024 && cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(shared)) != cudaSuccess) {
    return false;
  }
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared, stream>>>(
      arguments...);
  return cudaPeekAtLastError() == cudaSuccess;
}

template <int vectors, typename X, typename E>
bool launch_split(const Round<X, E>& round, cudaStream_t stream) {
  static_assert(sizeof(SplitMemory<vectors>) + 16 <=
                kShapes[vectors == kFewVectors ? kFew : kSplit].shared * 1024);
  const size_t codes =
      round.plan.prepare_here
          ? static_cast<size_t>(round.vectors.m * round.packed.chunks * kChunkBytes)
          : 0;
  return launch(split_kernel<vectors, X, E>, round.plan.blocks_down * round.plan.parts,
                kSplitThreads, (sizeof(SplitMemory<vectors>) + 15) / 16 * 16 + codes, stream,
                round.split());
}

template <int kernel, typename Shape, typename X, typename E>
bool launch_tiles(const Round<X, E>& round, cudaStream_t stream) {
  static_assert(sizeof(TilesMemory<Shape>) <= kShapes[kernel].shared * 1024);
  static_assert(Shape::kRows == kShapes[kernel].rows && Shape::kVectors == kShapes[kernel].vectors);
  return launch(tiles_kernel<Shape>, round.plan.blocks_down * round.plan.parts, Shape::kThreads,
                sizeof(TilesMemory<Shape>), stream, round.tiles());
}

template <typename X, typename E>
bool launch_coarse(const Round<X, E>& round, cudaStream_t stream) {
  switch (round.plan.kernel) {
    case kFew:
      return launch_split<kFewVectors>(round, stream);
    case kSplit:
      return launch_split<32>(round, stream);
    case kTile64x64:
      return launch_tiles<kTile64x64, Tile64x64>(round, stream);
    case kTile80x64:
      return launch_tiles<kTile80x64, Tile80x64>(round, stream);
    case kTile128x112:
      return launch_tiles<kTile128x112, Tile128x112>(round, stream);
    default:
      return launch_tiles<kTile128x208, Tile128x208>(round, stream);
  }
}

template <typename X, typename E>
bool launch_round(const Round<X, E>& round, cudaStream_t stream) {
  const int64_t m = round.vectors.m;
  if (!round.plan.prepare_here &&
      !launch(prepare_kernel<X>, divide_up(m, kBlockRows) * kBlockRows, kPrepareThreads, 0, stream,
              round.vectors, round.packed, round.workspace)) {
    return false;
  }
  if (!launch_coarse(round, stream)) return false;
  return round.plan.kernel == kFew || launch(finish_kernel<X, E>, m * round.plan.slices,
                                             kFinishThreads, 0, stream, round.finish());
}

template <typename X, typename E>
int launch_rounds(const edgekit_codebook_cuda_request& request, const Device& device,
                  cudaStream_t stream) {
  for (int64_t v0 = 0; v0 < request.m; v0 += kRound) {
    if (!launch_round(make_round<X, E>(request, v0, device), stream)) {
      return EDGEKIT_CODEBOOK_CUDA_LAUNCH_FAILED;
    }
  }
  return EDGEKIT_CODEBOOK_CUDA_OK;
}

template <typename E>
int launch_pack(const edgekit_codebook_cuda_codebook& codebook, const Device& device,
                cudaStream_t stream) {
  const PackJob<E> job = pack_job<E>(codebook);
  const int64_t blocks = int64_t{device.processors} * 4;
  const int64_t warps = std::min(blocks, divide_up(job.n, kPackWarps));
  const int64_t columns = std::min(blocks, job.packed.chunks);
  const bool good = launch(pack_kernel<kClear, E>, blocks, kPackThreads, 0, stream, job) &&
                    launch(pack_kernel<kHash, E>, warps, kPackThreads, 0, stream, job) &&
                    launch(pack_kernel<kCenter, E>, columns, kPackThreads, 0, stream, job) &&
                    launch(pack_kernel<kCenterNorm, E>, int64_t{1}, kPackThreads, 0, stream, job) &&
                    launch(pack_kernel<kRows, E>, warps, kPackThreads, 0, stream, job) &&
                    launch(pack_kernel<kTies, E>, warps, kPackThreads, 0, stream, job);
  return good ? EDGEKIT_CODEBOOK_CUDA_OK : EDGEKIT_CODEBOOK_CUDA_LAUNCH_FAILED;
}

// The current device; false without one.
bool find_device(Device* found) {
  int device = 0;
  int bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&found->processors, cudaDevAttrMultiProcessorCount, device) !=
          cudaSuccess ||
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
          cudaSuccess) {
    return false;
  }
  found->shared = bytes / 1024;
  return true;
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
      return "the workspace is smaller than edgekit_codebook_cuda_workspace says, or the packed "
             "codebook than edgekit_codebook_cuda_packed_bytes";
    case EDGEKIT_CODEBOOK_CUDA_LAUNCH_FAILED:
      return "CUDA refused the launch: no device, or this library has no code for its architecture";
    default:
      return "unknown status";
  }
}

size_t edgekit_codebook_cuda_packed_bytes(int64_t n, int64_t d) {
  return edgekit::cuda::sizes_in_range(0, n, d) ? edgekit::cuda::packed_bytes(n, d) : 0;
}

int edgekit_codebook_cuda_pack(const edgekit_codebook_cuda_codebook* codebook, void* stream) {
  const int status = edgekit::cuda::check_codebook(codebook);
  if (status != EDGEKIT_CODEBOOK_CUDA_OK) return status;
  edgekit::cuda::Device device;
  if (!edgekit::cuda::find_device(&device)) return EDGEKIT_CODEBOOK_CUDA_LAUNCH_FAILED;
  const auto queue = static_cast<cudaStream_t>(stream);
  return codebook->type == EDGEKIT_CODEBOOK_CUDA_FLOAT
             ? edgekit::cuda::launch_pack<float>(*codebook, device, queue)
             : edgekit::cuda::launch_pack<edgekit::cuda::Half>(*codebook, device, queue);
}

size_t edgekit_codebook_cuda_workspace(int64_t m, int64_t n, int64_t d) {
  return edgekit::cuda::sizes_in_range(m, n, d) ? edgekit::cuda::workspace_bytes(m, n, d) : 0;
}

int edgekit_codebook_cuda_lookup(const edgekit_codebook_cuda_request* request, void* stream) {
  using edgekit::cuda::Half;
  const int status = edgekit::cuda::check_request(request);
  if (status != EDGEKIT_CODEBOOK_CUDA_OK || request->m == 0) return status;
  edgekit::cuda::Device device;
  if (!edgekit::cuda::find_device(&device)) return EDGEKIT_CODEBOOK_CUDA_LAUNCH_FAILED;
  const auto queue = static_cast<cudaStream_t>(stream);
  if (request->x_type == EDGEKIT_CODEBOOK_CUDA_FLOAT) {
    return edgekit::cuda::launch_rounds<float, float>(*request, device, queue);
  }
  if (request->codebook_type == EDGEKIT_CODEBOOK_CUDA_FLOAT) {
    return edgekit::cuda::launch_rounds<Half, float>(*request, device, queue);
  }
  return edgekit::cuda::launch_rounds<Half, Half>(*request, device, queue);
}

}  // extern "C"
