#include "tiling_host.h"

#include <algorithm>
#include <memory>
#include <new>

#include "request.h"

namespace edgekit::cuda {
namespace {

constexpr int64_t kPackBlocks = 3;  // few, so that blocks go round more than once

template <typename E>
void pack(const edgekit_codebook_cuda_codebook& codebook) {
  const PackJob<E> job = pack_job<E>(codebook);
  PackMemory memory;
  const auto run = [&](int64_t blocks, const auto& work) {
    for (int64_t number = 0; number < blocks; ++number) {
      HostBlock<PackState> block(kPackThreads);
      work(block, number, blocks);
    }
  };
  using Block = HostBlock<PackState>;
  run(kPackBlocks,
      [&](Block& block, int64_t i, int64_t blocks) { pack_clear(block, &memory, job, i, blocks); });
  run(kPackBlocks,
      [&](Block& block, int64_t i, int64_t blocks) { pack_hash(block, &memory, job, i, blocks); });
  run(kPackBlocks, [&](Block& block, int64_t i, int64_t blocks) {
    pack_center(block, &memory, job, i, blocks);
  });
  run(1, [&](Block& block, int64_t i, int64_t blocks) {
    pack_center_norm(block, &memory, job, i, blocks);
  });
  run(kPackBlocks,
      [&](Block& block, int64_t i, int64_t blocks) { pack_rows(block, &memory, job, i, blocks); });
  run(kPackBlocks,
      [&](Block& block, int64_t i, int64_t blocks) { pack_ties(block, &memory, job, i, blocks); });
}

// Runs the blocks of a kernel one after another, and notes the most exact scores of one.
template <typename State, typename Memory, typename Work>
void run_blocks(int64_t blocks, int threads, int64_t* most, const Work& work) {
  const auto memory = std::make_unique<Memory>();
  for (int64_t number = 0; number < blocks; ++number) {
    HostBlock<State> block(threads);
    const int64_t before = exact_scores;
    work(block, memory.get(), number);
    *most = std::max(*most, exact_scores - before);
  }
}

template <int vectors, typename X, typename E>
void run_split(const Round<X, E>& round, int64_t* most) {
  const SplitJob<X, E> job = round.split();
  struct alignas(16) Codes {
    unsigned char bytes[kCodesHere];
  };
  const auto here = std::make_unique<Codes>();
  run_blocks<SplitState<vectors>, SplitMemory<vectors>>(
      round.plan.blocks_down * round.plan.parts, kSplitThreads, most,
      [&](auto& block, SplitMemory<vectors>* memory, int64_t number) {
        coarse_split<vectors>(block, memory, here->bytes, job, number);
      });
}

template <typename Shape, typename X, typename E>
void run_tiles(const Round<X, E>& round, int64_t* most) {
  const TilesJob job = round.tiles();
  run_blocks<TilesState<Shape>, TilesMemory<Shape>>(
      round.plan.blocks_down * round.plan.parts, Shape::kThreads, most,
      [&](auto& block, TilesMemory<Shape>* memory, int64_t number) {
        coarse_tiles<Shape>(block, memory, job, number);
      });
}

template <typename X, typename E>
void run(const Round<X, E>& round, int64_t* most) {
  const int64_t m = round.vectors.m;
  if (!round.plan.prepare_here) {
    const int64_t padded = divide_up(m, kBlockRows) * kBlockRows;
    run_blocks<PrepareState, PrepareMemory>(
        padded, kPrepareThreads, most, [&](auto& block, PrepareMemory* memory, int64_t v) {
          prepare_vectors(
              block, memory, round.vectors, round.packed.header, v, padded, kPrepareWarps,
              [&](int64_t, int64_t chunk) {
                return round.workspace.codes + chunk_offset(v, chunk, round.packed.stride);
              },
              [&](int64_t) { return round.workspace.facts + v; });
        });
  }
  switch (round.plan.kernel) {
    case kFew:
      run_split<kFewVectors>(round, most);
      return;
    case kSplit:
      run_split<32>(round, most);
      break;
    case kTile64x64:
      run_tiles<Tile64x64>(round, most);
      break;
    case kTile80x64:
      run_tiles<Tile80x64>(round, most);
      break;
    case kTile128x112:
      run_tiles<Tile128x112>(round, most);
      break;
    default:
      run_tiles<Tile128x208>(round, most);
  }
  const FinishJob<X, E> job = round.finish();
  run_blocks<FinishState, FinishMemory>(
      m * round.plan.slices, kFinishThreads, most,
      [&](auto& block, FinishMemory* memory, int64_t i) { finish(block, memory, job, i); });
}

template <typename X, typename E>
void run_rounds(const edgekit_codebook_cuda_request& request, int processors, int kernel,
                edgekit_tiling_report* report) {
  const Device device = {processors, 227};
  exact_scores = 0;
  for (int64_t v0 = 0; v0 < request.m; v0 += kRound) {
    Round<X, E> round = make_round<X, E>(request, v0, device);
    if (kernel >= 0) {
      round.plan = plan_with(kernel, round.vectors.m, request.n, request.d, device);
      round.vectors.width = width_bounds(round.plan, request.d);
    }
    run(round, &report->most_exact);
    report->parts = round.plan.parts;
    report->kernel = round.plan.kernel;
    report->rows = round.packed.header->rows;
  }
  report->exact_scores = exact_scores;
}

int lookup(const edgekit_codebook_cuda_request* request, int processors, int kernel,
           edgekit_tiling_report* report) {
  const int status = check_request(request);
  if (status != EDGEKIT_CODEBOOK_CUDA_OK) return status;
  if (processors < 1 || kernel >= kKernels || (kernel == kFew && request->m > kFewVectors)) {
    return EDGEKIT_CODEBOOK_CUDA_INVALID_ARGUMENT;
  }
  edgekit_tiling_report unwanted;
  if (report == nullptr) report = &unwanted;
  *report = {};
  if (request->x_type == EDGEKIT_CODEBOOK_CUDA_FLOAT) {
    run_rounds<float, float>(*request, processors, kernel, report);
  } else if (request->codebook_type == EDGEKIT_CODEBOOK_CUDA_FLOAT) {
    run_rounds<Half, float>(*request, processors, kernel, report);
  } else {
    run_rounds<Half, Half>(*request, processors, kernel, report);
  }
  return EDGEKIT_CODEBOOK_CUDA_OK;
}

}  // namespace
}  // namespace edgekit::cuda

extern "C" {

int edgekit_tiling_lookup(const edgekit_codebook_cuda_request* request, int processors, int kernel,
                          edgekit_tiling_report* report) {
  try {
    return edgekit::cuda::lookup(request, processors, kernel, report);
  } catch (const std::bad_alloc&) {
    return EDGEKIT_CODEBOOK_CUDA_SMALL_WORKSPACE;
  }
}

int edgekit_tiling_pack(const edgekit_codebook_cuda_codebook* codebook) {
  try {
    const int status = edgekit::cuda::check_codebook(codebook);
    if (status != EDGEKIT_CODEBOOK_CUDA_OK) return status;
    if (codebook->type == EDGEKIT_CODEBOOK_CUDA_FLOAT) {
      edgekit::cuda::pack<float>(*codebook);
    } else {
      edgekit::cuda::pack<edgekit::cuda::Half>(*codebook);
    }
    return EDGEKIT_CODEBOOK_CUDA_OK;
  } catch (const std::bad_alloc&) {
    return EDGEKIT_CODEBOOK_CUDA_SMALL_WORKSPACE;
  }
}

void edgekit_tiling_order(int last_thread_first) {
  edgekit::cuda::last_thread_first = last_thread_first != 0;
}

size_t edgekit_tiling_packed_bytes(int64_t n, int64_t d) {
  return edgekit::cuda::sizes_in_range(0, n, d) ? edgekit::cuda::packed_bytes(n, d) : 0;
}

size_t edgekit_tiling_workspace(int64_t m, int64_t n, int64_t d) {
  return edgekit::cuda::sizes_in_range(m, n, d) ? edgekit::cuda::workspace_bytes(m, n, d) : 0;
}

}  // extern "C"
