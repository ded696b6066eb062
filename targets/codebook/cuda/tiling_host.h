/* The device's lookup run on the host: the same blocks, tiles, bounds and shortlists, one thread
 * after another. It exists to be compared with the definition where there is no GPU, and is slow.
 */
#ifndef EDGEKIT_TILING_HOST_H_
#define EDGEKIT_TILING_HOST_H_

#include "edgekit_codebook_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct edgekit_tiling_report {
  int64_t parts;        /* parts of the codebook */
  int64_t kernel;       /* which kernel computed the approximate scores: see plan.h */
  int64_t rows;         /* distinct rows of the codebook */
  int64_t exact_scores; /* scores that were computed in double */
  int64_t most_exact;   /* the most of them by one block */
} edgekit_tiling_report;

/* All pointers are host pointers. `processors` is the number of multiprocessors to plan for;
 * `kernel` is -1 for the plan's own choice; `report` may be null. */
EDGEKIT_CODEBOOK_CUDA_API int edgekit_tiling_lookup(const edgekit_codebook_cuda_request* request,
                                                    int processors, int kernel,
                                                    edgekit_tiling_report* report);

/* Whether a block's threads run each phase from the last to the first from now on. */
EDGEKIT_CODEBOOK_CUDA_API void edgekit_tiling_order(int last_thread_first);

/* As edgekit_codebook_cuda_pack, _packed_bytes and _workspace. */
EDGEKIT_CODEBOOK_CUDA_API int edgekit_tiling_pack(const edgekit_codebook_cuda_codebook* codebook);
EDGEKIT_CODEBOOK_CUDA_API size_t edgekit_tiling_packed_bytes(int64_t n, int64_t d);
EDGEKIT_CODEBOOK_CUDA_API size_t edgekit_tiling_workspace(int64_t m, int64_t n, int64_t d);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* EDGEKIT_TILING_HOST_H_ */
