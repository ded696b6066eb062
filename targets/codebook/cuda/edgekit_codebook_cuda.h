/* The codebook lookup on a CUDA device: the same question and the same answer, bit for bit, as
 * edgekit_codebook.h (the score in double with a fixed order of additions, ties to the lowest
 * index), asynchronously on a stream.
 *
 * The rules for 16-bit input: a half is converted to float exactly, and everything after that is
 * the float lookup. A half vector therefore has the same index as its float copy has on a CPU.
 *
 * How: a codebook is packed once, as halves. A lookup computes every score from these on tensor
 * cores, together with a proven bound on its error; rows that the bound cannot exclude are scored
 * again in double by the definition. The M x N scores never exist in memory. See
 * docs/exact-lookup.md and docs/targets-tensorrt.md.
 *
 * Functions never throw, print, allocate or synchronize, so packing and lookups can be captured in
 * a CUDA graph. All pointers are device pointers; `codebook` and `x` must be aligned to their type.
 */
#ifndef EDGEKIT_CODEBOOK_CUDA_H_
#define EDGEKIT_CODEBOOK_CUDA_H_

#include <stddef.h>
#include <stdint.h>

#define EDGEKIT_CODEBOOK_CUDA_ABI_VERSION 2

#if defined(__GNUC__)
#define EDGEKIT_CODEBOOK_CUDA_API __attribute__((visibility("default")))
#else
#define EDGEKIT_CODEBOOK_CUDA_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum edgekit_codebook_cuda_type {
  EDGEKIT_CODEBOOK_CUDA_FLOAT = 0,
  EDGEKIT_CODEBOOK_CUDA_HALF = 1,
};

enum edgekit_codebook_cuda_metric {
  EDGEKIT_CODEBOOK_CUDA_DOT = 0,
  EDGEKIT_CODEBOOK_CUDA_L2 = 1,
};

enum edgekit_codebook_cuda_status {
  EDGEKIT_CODEBOOK_CUDA_OK = 0,
  EDGEKIT_CODEBOOK_CUDA_INVALID_ARGUMENT = 1, /* a null pointer, a size or enum out of range */
  EDGEKIT_CODEBOOK_CUDA_SMALL_WORKSPACE = 2,  /* or too little memory for the packed codebook */
  EDGEKIT_CODEBOOK_CUDA_LAUNCH_FAILED = 3,    /* no device, or no code for this device's SM */
};

typedef struct edgekit_codebook_cuda_request {
  const void* x;        /* m x d, row-major */
  const void* codebook; /* n x d, row-major */
  int64_t m;            /* 0 <= m < 2^31 */
  int64_t n;            /* 1 <= n < 2^31 */
  int64_t d;            /* 1 <= d <= 2^24 */
  int32_t x_type;
  int32_t codebook_type; /* half only where x is half as well */
  int32_t metric;
  int32_t margin_type; /* of the array `margin`; half only where x is half as well */
  int64_t* indices;    /* m numbers in 0..n-1 */
  float* best;         /* null, or m best scores */
  void* margin;        /* null, or m margins: 0 for a tie, +infinity when n = 1 */
  /* Null, or one number that the caller has set to 0: it becomes 1 when a vector or the codebook
   * holds NaN or infinity. Such a vector's index is 0, its best score and margin are NaN. */
  int32_t* nonfinite;
  void* workspace; /* aligned to 16 bytes; what it holds does not matter */
  size_t workspace_bytes;
  /* What edgekit_codebook_cuda_pack made of this very codebook. Lookups leave notes in it for
   * themselves: those that share it must come one after another, as on one stream. */
  void* packed;
  size_t packed_bytes;
} edgekit_codebook_cuda_request;

typedef struct edgekit_codebook_cuda_codebook {
  const void* codebook; /* n x d, row-major; lookups read it too */
  int64_t n;
  int64_t d;
  int32_t type;
  void* packed; /* aligned to 256 bytes */
  size_t packed_bytes;
} edgekit_codebook_cuda_codebook;

/* The version of this interface that the library was built with. */
EDGEKIT_CODEBOOK_CUDA_API int edgekit_codebook_cuda_abi_version(void);

/* One line in English for a status; never null, whatever the number. */
EDGEKIT_CODEBOOK_CUDA_API const char* edgekit_codebook_cuda_status_text(int status);

/* The memory that a packed codebook of n rows of d values takes, on any device; 0 for sizes out of
 * range. A little over half of what the codebook takes in floats. */
EDGEKIT_CODEBOOK_CUDA_API size_t edgekit_codebook_cuda_packed_bytes(int64_t n, int64_t d);

/* Enqueues the packing on `stream` (a cudaStream_t; null is the default stream). Whoever changes
 * the codebook packs it again. */
EDGEKIT_CODEBOOK_CUDA_API int edgekit_codebook_cuda_pack(
    const edgekit_codebook_cuda_codebook* codebook, void* stream);

/* The workspace that a lookup of up to m vectors in a codebook of up to n rows of d values needs,
 * on any device; 0 for sizes out of range. */
EDGEKIT_CODEBOOK_CUDA_API size_t edgekit_codebook_cuda_workspace(int64_t m, int64_t n, int64_t d);

/* Enqueues the lookup on `stream`. */
EDGEKIT_CODEBOOK_CUDA_API int edgekit_codebook_cuda_lookup(
    const edgekit_codebook_cuda_request* request, void* stream);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* EDGEKIT_CODEBOOK_CUDA_H_ */
