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
  int64_t parts;      /* parts of the codebook */
  int64_t tile;       /* tile size; 0 for the path for few vectors */
  int64_t candidates; /* rows that were scored exactly, but for spilled parts */
  int64_t spilled;    /* shortlists without room: their part was scored exactly */
} edgekit_tiling_report;

/* The request's pointers are host pointers and its margin is float; `processors` is the number of
 * multiprocessors to plan for; `report` may be null. */
EDGEKIT_CODEBOOK_CUDA_API int edgekit_tiling_lookup(const edgekit_codebook_cuda_request* request,
                                                    int processors, edgekit_tiling_report* report);

/* As edgekit_codebook_cuda_workspace. */
EDGEKIT_CODEBOOK_CUDA_API size_t edgekit_tiling_workspace(int64_t m, int64_t n);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* EDGEKIT_TILING_HOST_H_ */
