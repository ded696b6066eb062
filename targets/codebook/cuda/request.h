// The checks and the preparation that the device's and the host's lookup share.
#ifndef EDGEKIT_CUDA_REQUEST_H_
#define EDGEKIT_CUDA_REQUEST_H_

#include <cstdint>

#include "coarse_rows.h"
#include "coarse_tiles.h"
#include "edgekit_codebook_cuda.h"
#include "finish.h"
#include "plan.h"

namespace edgekit::cuda {

inline bool sizes_in_range(int64_t m, int64_t n) {
  return m >= 0 && m <= kMaxVectors && n >= 1 && n <= kMaxRows;
}

inline int check_request(const edgekit_codebook_cuda_request* request) {
  const auto is_type = [](int32_t type) {
    return type == EDGEKIT_CODEBOOK_CUDA_FLOAT || type == EDGEKIT_CODEBOOK_CUDA_HALF;
  };
  if (request == nullptr || !sizes_in_range(request->m, request->n) || request->d < 1 ||
      request->d > kMaxWidth || request->m > INT64_MAX / 64 / request->d ||
      !is_type(request->x_type) || !is_type(request->codebook_type) ||
      !is_type(request->margin_type) ||
      (request->x_type == EDGEKIT_CODEBOOK_CUDA_FLOAT &&
       (request->codebook_type == EDGEKIT_CODEBOOK_CUDA_HALF ||
        request->margin_type == EDGEKIT_CODEBOOK_CUDA_HALF)) ||
      (request->metric != EDGEKIT_CODEBOOK_CUDA_DOT &&
       request->metric != EDGEKIT_CODEBOOK_CUDA_L2)) {
    return EDGEKIT_CODEBOOK_CUDA_INVALID_ARGUMENT;
  }
  if (request->m == 0) return EDGEKIT_CODEBOOK_CUDA_OK;
  if (request->x == nullptr || request->codebook == nullptr || request->indices == nullptr ||
      request->workspace == nullptr || reinterpret_cast<uintptr_t>(request->workspace) % 16 != 0) {
    return EDGEKIT_CODEBOOK_CUDA_INVALID_ARGUMENT;
  }
  if (request->workspace_bytes < workspace_bytes(request->m, request->n)) {
    return EDGEKIT_CODEBOOK_CUDA_SMALL_WORKSPACE;
  }
  return EDGEKIT_CODEBOOK_CUDA_OK;
}

template <typename T>
bool wide_loads(const void* matrix, int64_t d) {
  return d % 4 == 0 && reinterpret_cast<uintptr_t>(matrix) % (4 * sizeof(T)) == 0;
}

template <typename X, typename E>
CoarseJob<X, E> coarse_job(const edgekit_codebook_cuda_request& request, const Plan& plan) {
  CoarseJob<X, E> job;
  job.x = static_cast<const X*>(request.x);
  job.codebook = static_cast<const E*>(request.codebook);
  job.m = request.m;
  job.n = request.n;
  job.d = request.d;
  job.bounds =
      make_bounds(request.d, plan.tile != 0 ? tiles_depth(request.d) : rows_depth(request.d),
                  request.metric == EDGEKIT_CODEBOOK_CUDA_L2);
  job.plan = plan;
  job.want_second = request.margin != nullptr;
  job.x_aligned = wide_loads<X>(request.x, request.d);
  job.codebook_aligned = wide_loads<E>(request.codebook, request.d);
  job.lists = static_cast<Shortlist*>(request.workspace);
  return job;
}

template <typename X, typename E, typename Margin>
FinishJob<X, E, Margin> finish_job(const edgekit_codebook_cuda_request& request, const Plan& plan) {
  FinishJob<X, E, Margin> job;
  job.x = static_cast<const X*>(request.x);
  job.codebook = static_cast<const E*>(request.codebook);
  job.n = request.n;
  job.d = request.d;
  job.plan = plan;
  job.l2 = request.metric == EDGEKIT_CODEBOOK_CUDA_L2;
  job.lists = static_cast<const Shortlist*>(request.workspace);
  job.indices = request.indices;
  job.best = request.best;
  job.margin = static_cast<Margin*>(request.margin);
  job.nonfinite = request.nonfinite;
  return job;
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_REQUEST_H_
