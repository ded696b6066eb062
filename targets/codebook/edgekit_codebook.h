/* The codebook lookup: which row of a codebook does a feature vector match best?
 *
 * The right answer, for a codebook row e_n and a feature vector x of D floats:
 *
 *   score_n = dot(x, e_n)                        metric EDGEKIT_CODEBOOK_DOT
 *   score_n = dot(x, e_n) - dot(e_n, e_n) / 2    metric EDGEKIT_CODEBOOK_L2
 *
 * computed in double from the stored floats; the index is that of the greatest score, with ties to
 * the lowest index. DOT is the cosine distance if the rows of the codebook are normalized (the
 * norm of x does not matter); L2 orders rows as the Euclidean distance |x - e_n| does.
 *
 * `dot` is a number, not an approximation: a product of two floats is exact in double, and the sum
 * has a fixed order. Sixteen lanes start at zero; lane j adds the products at j, j + 16, j + 32,
 * ... in that order; then lane j += lane j + 8 for j < 8, lane j += lane j + 4 for j < 4,
 * lane j += lane j + 2 for j < 2, and the result is lane 0 + lane 1. Every path of this library,
 * on every machine and with any number of threads, returns exactly the index, best score and margin
 * of these scores. docs/exact-lookup.md proves it for the paths that use approximate scores first.
 *
 * Functions never throw, never print and never abort. A handle is immutable: many threads may look
 * up in one at the same time. Pointers to floats may have any alignment.
 */
#ifndef EDGEKIT_CODEBOOK_H_
#define EDGEKIT_CODEBOOK_H_

#include <stddef.h>
#include <stdint.h>

#define EDGEKIT_CODEBOOK_ABI_VERSION 1

#if defined(__GNUC__)
#define EDGEKIT_CODEBOOK_API __attribute__((visibility("default")))
#else
#define EDGEKIT_CODEBOOK_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct edgekit_codebook edgekit_codebook;

enum edgekit_codebook_metric {
  EDGEKIT_CODEBOOK_DOT = 0,
  EDGEKIT_CODEBOOK_L2 = 1,
};

enum edgekit_codebook_status {
  EDGEKIT_CODEBOOK_OK = 0,
  EDGEKIT_CODEBOOK_INVALID_ARGUMENT = 1,   /* a null pointer, a size or metric out of range */
  EDGEKIT_CODEBOOK_NONFINITE_CODEBOOK = 2, /* the codebook holds NaN or infinity */
  EDGEKIT_CODEBOOK_NONFINITE_INPUT = 3,    /* x holds NaN or infinity */
  EDGEKIT_CODEBOOK_OUT_OF_MEMORY = 4,
  EDGEKIT_CODEBOOK_INTERNAL = 5, /* the operating system refused something, such as a thread */
  EDGEKIT_CODEBOOK_UNSUPPORTED_PATH = 6, /* see EDGEKIT_LOOKUP_PATH below */
};

/* The version of this interface that the library was built with. */
EDGEKIT_CODEBOOK_API int edgekit_codebook_abi_version(void);

/* One line in English for a status; never null, whatever the number. */
EDGEKIT_CODEBOOK_API const char* edgekit_status_text(int status);

/* The environment variable EDGEKIT_LOOKUP_PATH, read when a codebook is packed, replaces the choice
 * of the fastest path, for tests: an instruction set ("avx2"), a method ("double", "fp32", "int8"),
 * or both ("avx2-int8"). edgekit_codebook_describe lists what this machine has. Results do not
 * depend on it. */

/* Copies the n x d row-major `codebook` into the form that lookups use, and sets *out to its
 * handle. 1 <= n < 2^31, 1 <= d <= 2^24. On an error *out is null. */
EDGEKIT_CODEBOOK_API int edgekit_codebook_pack(const float* codebook, int64_t n, int64_t d,
                                               int metric, edgekit_codebook** out);

/* Finds the best row for each of the m row-major vectors in x (m x d; m may be 0).
 *
 * indices: m numbers in 0..n-1.
 * best:    null, or m floats: the best score, rounded to float (infinite beyond float's range).
 * margin:  null, or m floats: best score minus the second best (of another row), in double, then
 *          rounded; 0 for a tie, +infinity when n = 1. A margin costs time: a runner-up has to
 *          be exact as well.
 * threads: how many threads may work, this one included; 0 means one per CPU. Small lookups use
 *          fewer, and the result does not depend on it.
 *
 * On an error nothing is written to the outputs. */
EDGEKIT_CODEBOOK_API int edgekit_codebook_lookup(const edgekit_codebook* handle, const float* x,
                                                 int64_t m, int64_t* indices, float* best,
                                                 float* margin, int threads);

/* Runs work in the caller's threads: calls run(task, 0) ... run(task, parts - 1), each once and in
 * parallel if possible, and returns after all have returned. Must not throw; `run` does not either.
 */
typedef void (*edgekit_codebook_crew)(void* context, int parts, void (*run)(void* task, int part),
                                      void* task);

/* Like edgekit_codebook_lookup, but in the threads of `crew`, which is called with `context`. A
 * runtime with its own threads should pass them: otherwise, while they spin for their next piece of
 * work, they occupy the processors that this library's threads need. With a null crew, the library
 * starts its own threads. */
EDGEKIT_CODEBOOK_API int edgekit_codebook_lookup_by(const edgekit_codebook* handle, const float* x,
                                                    int64_t m, int64_t* indices, float* best,
                                                    float* margin, int threads,
                                                    edgekit_codebook_crew crew, void* context);

/* Writes a JSON object that describes the handle (sizes, bytes, instruction set, path) to `buffer`,
 * truncated to `size` bytes including the closing NUL. Returns the size of the whole text, NUL
 * included; call with (handle, NULL, 0) to learn it first. 0 for a null handle. */
EDGEKIT_CODEBOOK_API size_t edgekit_codebook_describe(const edgekit_codebook* handle, char* buffer,
                                                      size_t size);

/* Frees the handle; null is fine. No lookup may be running in it. */
EDGEKIT_CODEBOOK_API void edgekit_codebook_free(edgekit_codebook* handle);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* EDGEKIT_CODEBOOK_H_ */
