// The checks and the preparation that the device's and the host's lookup share.
#ifndef EDGEKIT_CUDA_REQUEST_H_
#define EDGEKIT_CUDA_REQUEST_H_

#include <cstdint>

#include "coarse_split.h"
#include "coarse_tiles.h"
#include "edgekit_codebook_cuda.h"
#include "finish.h"
#include "pack.h"
#include "plan.h"

namespace edgekit::cuda {

inline bool sizes_in_range(int64_t m, int64_t n, int64_t d) {
  return m >= 0 && m <= kMaxVectors && n >= 1 && n <= kMaxRows && d >= 1 && d <= kMaxWidth &&
         m <= INT64_MAX / 64 / d;
}

inline size_t packed_bytes(int64_t n, int64_t d) {
  size_t bytes = 0;
  view_packed(nullptr, n, d, &bytes);
  return bytes;
}

inline size_t workspace_bytes(int64_t m, int64_t n, int64_t d) {
  return view_workspace(nullptr, m, n, d).bytes;
}

inline bool is_type(int32_t type) {
  return type == EDGEKIT_CODEBOOK_CUDA_FLOAT || type == EDGEKIT_CODEBOOK_CUDA_HALF;
}

inline bool is_aligned(const void* pointer, uintptr_t bytes) {
  return pointer != nullptr && reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

inline int check_codebook(const edgekit_codebook_cuda_codebook* codebook) {
  if (codebook == nullptr || !sizes_in_range(0, codebook->n, codebook->d) ||
      !is_type(codebook->type) || codebook->codebook == nullptr ||
      !is_aligned(codebook->packed, 256)) {
    return EDGEKIT_CODEBOOK_CUDA_INVALID_ARGUMENT;
  }
  return codebook->packed_bytes < packed_bytes(codebook->n, codebook->d)
             ? EDGEKIT_CODEBOOK_CUDA_SMALL_WORKSPACE
             : EDGEKIT_CODEBOOK_CUDA_OK;
}

inline int check_request(const edgekit_codebook_cuda_request* request) {
  if (request == nullptr || !sizes_in_range(request->m, request->n, request->d) ||
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
      !is_aligned(request->workspace, 16) || !is_aligned(request->packed, 256)) {
    return EDGEKIT_CODEBOOK_CUDA_INVALID_ARGUMENT;
  }
  if (request->workspace_bytes < workspace_bytes(request->m, request->n, request->d) ||
      request->packed_bytes < packed_bytes(request->n, request->d)) {
    return EDGEKIT_CODEBOOK_CUDA_SMALL_WORKSPACE;
  }
  return EDGEKIT_CODEBOOK_CUDA_OK;
}

template <typename T>
bool wide_loads(const void* matrix, int64_t d) {
  return d % 4 == 0 && reinterpret_cast<uintptr_t>(matrix) % (4 * sizeof(T)) == 0;
}

template <typename E>
PackJob<E> pack_job(const edgekit_codebook_cuda_codebook& codebook) {
  PackJob<E> job;
  size_t bytes;
  job.codebook = static_cast<const E*>(codebook.codebook);
  job.n = codebook.n;
  job.d = codebook.d;
  job.aligned = wide_loads<E>(codebook.codebook, codebook.d);
  job.packed = view_packed(codebook.packed, codebook.n, codebook.d, &bytes);
  return job;
}

// Tiles sum all columns in one go; else eight warps share the chunks, with two sums each.
inline WidthBounds width_bounds(const Plan& plan, int64_t d) {
  const int64_t chunks = count_chunks(d);
  const bool shared = plan.kernel == kFew || plan.kernel == kSplit;
  return make_bounds(d, shared ? divide_up(chunks, kSplitWarps) : 2 * chunks);
}

// One round of a lookup: up to kRound vectors.
template <typename X, typename E>
struct Round {
  Plan plan;
  Packed packed;
  Workspace workspace;
  VectorJob<X> vectors;
  ExactJob<X, E> exact;
  AnswerJob answers;
  bool want_second;

  SplitJob<X, E> split() const {
    return {vectors, exact, answers, packed, plan, workspace, want_second};
  }
  TilesJob tiles() const { return {vectors.m, packed, plan, workspace, want_second}; }
  FinishJob<X, E> finish() const { return {exact, answers, packed, plan, workspace, want_second}; }
};

// The round from vector v0 on.
template <typename X, typename E>
Round<X, E> make_round(const edgekit_codebook_cuda_request& request, int64_t v0,
                       const Device& device) {
  Round<X, E> round;
  size_t bytes;
  const int64_t m = std::min(request.m - v0, kRound);
  const X* x = static_cast<const X*>(request.x) + v0 * request.d;
  const bool x_aligned = wide_loads<X>(request.x, request.d);
  round.plan = make_plan(m, request.n, request.d, device);
  round.packed = view_packed(request.packed, request.n, request.d, &bytes);
  round.workspace = view_workspace(request.workspace, request.m, request.n, request.d);
  round.vectors = {x,
                   m,
                   request.d,
                   x_aligned,
                   request.metric == EDGEKIT_CODEBOOK_CUDA_L2,
                   width_bounds(round.plan, request.d)};
  round.exact = {x,
                 static_cast<const E*>(request.codebook),
                 request.n,
                 request.d,
                 x_aligned,
                 wide_loads<E>(request.codebook, request.d),
                 request.metric == EDGEKIT_CODEBOOK_CUDA_L2};
  const bool half = request.margin_type == EDGEKIT_CODEBOOK_CUDA_HALF;
  round.answers = {request.n,
                   request.indices + v0,
                   request.best != nullptr ? request.best + v0 : nullptr,
                   request.margin != nullptr
                       ? static_cast<char*>(request.margin) + v0 * (half ? 2 : 4)
                       : nullptr,
                   half,
                   request.nonfinite};
  round.want_second = request.margin != nullptr;
  return round;
}

}  // namespace edgekit::cuda

#endif  // EDGEKIT_CUDA_REQUEST_H_
