#include "tiling_host.h"

#include <memory>
#include <new>

#include "request.h"

namespace edgekit::cuda {
namespace {

template <int vectors, typename X, typename E>
void run_rows(const CoarseJob<X, E>& job) {
  const auto memory = std::make_unique<RowsMemory<vectors>>();
  for (int64_t number = 0; number < job.plan.blocks_down * job.plan.parts; ++number) {
    HostBlock<RowsState<vectors>> block(kRowThreads);
    coarse_rows<vectors>(block, memory.get(), job, number);
  }
}

template <int tile, typename X, typename E>
void run_tiles(const CoarseJob<X, E>& job) {
  const auto memory = std::make_unique<TilesMemory<tile>>();
  for (int64_t number = 0; number < job.plan.blocks_down * job.plan.parts; ++number) {
    HostBlock<TilesState<tile>> block(TileShape<tile>::kThreads);
    coarse_tiles<tile>(block, memory.get(), job, number);
  }
}

template <typename X, typename E>
void run(const edgekit_codebook_cuda_request& request, const Plan& plan) {
  const CoarseJob<X, E> job = coarse_job<X, E>(request, plan);
  if (plan.tile == kLargeTile) {
    run_tiles<kLargeTile>(job);
  } else if (plan.tile == kSmallTile) {
    run_tiles<kSmallTile>(job);
  } else if (plan.vectors == 1) {
    run_rows<1>(job);
  } else if (plan.vectors == 4) {
    run_rows<4>(job);
  } else {
    run_rows<8>(job);
  }
  const auto last = finish_job<X, E, float>(request, plan);
  const auto memory = std::make_unique<FinishMemory>();
  for (int64_t v = 0; v < request.m; ++v) {
    HostBlock<FinishState> block(kFinishThreads);
    finish(block, memory.get(), last, v);
  }
}

void describe(const edgekit_codebook_cuda_request& request, const Plan& plan,
              edgekit_tiling_report* report) {
  *report = {plan.parts, plan.tile, 0, 0};
  for (int64_t v = 0; v < request.m; ++v) {
    const auto* lists = static_cast<const Shortlist*>(request.workspace) + v * plan.parts;
    Two lower = no_values();
    for (int64_t part = 0; part < plan.parts; ++part) merge(&lower, lists[part].lower);
    const float least = threshold(lower, request.margin != nullptr);
    for (int64_t part = 0; part < plan.parts; ++part) {
      report->spilled += lists[part].spill != 0;
      for (int i = 0; i < lists[part].count && i < Shortlist::kRoom; ++i) {
        report->candidates += lists[part].upper[i] >= least;
      }
    }
  }
}

int lookup(const edgekit_codebook_cuda_request* request, int processors,
           edgekit_tiling_report* report) {
  const int status = check_request(request);
  if (status != EDGEKIT_CODEBOOK_CUDA_OK) return status;
  if (processors < 1 || request->margin_type != EDGEKIT_CODEBOOK_CUDA_FLOAT) {
    return EDGEKIT_CODEBOOK_CUDA_INVALID_ARGUMENT;
  }
  if (report != nullptr) *report = {};
  if (request->m == 0) return EDGEKIT_CODEBOOK_CUDA_OK;
  const Plan plan = make_plan(request->m, request->n, processors);
  if (request->x_type == EDGEKIT_CODEBOOK_CUDA_FLOAT) {
    run<float, float>(*request, plan);
  } else if (request->codebook_type == EDGEKIT_CODEBOOK_CUDA_FLOAT) {
    run<Half, float>(*request, plan);
  } else {
    run<Half, Half>(*request, plan);
  }
  if (report != nullptr) describe(*request, plan, report);
  return EDGEKIT_CODEBOOK_CUDA_OK;
}

}  // namespace
}  // namespace edgekit::cuda

extern "C" {

int edgekit_tiling_lookup(const edgekit_codebook_cuda_request* request, int processors,
                          edgekit_tiling_report* report) {
  try {
    return edgekit::cuda::lookup(request, processors, report);
  } catch (const std::bad_alloc&) {
    return EDGEKIT_CODEBOOK_CUDA_SMALL_WORKSPACE;
  }
}

size_t edgekit_tiling_workspace(int64_t m, int64_t n) {
  return edgekit::cuda::sizes_in_range(m, n) ? edgekit::cuda::workspace_bytes(m, n) : 0;
}

}  // extern "C"
