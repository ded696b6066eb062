/* Products of 8-bit vectors with a stored matrix of 8-bit weights, exact, in 32-bit integers.
 *
 *   sums[i][r] = sum over k of weights[r][k] * (codes[i][k] + offset)
 *
 * A layer with few vectors is as fast as its weights can be read. They are packed in the order in
 * which they are read, and leading zeros of a row are not stored: an upper triangle takes half the
 * bytes, and half the time.
 *
 * The rules of edgekit_codebook.h apply here too: nothing throws, prints or aborts, a handle is
 * immutable, any number of threads may use one, and EDGEKIT_LOOKUP_PATH chooses an instruction set
 * when a matrix is packed. Statuses are those of edgekit_codebook.h.
 */
#ifndef EDGEKIT_PRODUCT_H_
#define EDGEKIT_PRODUCT_H_

#include "edgekit_codebook.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct edgekit_product edgekit_product;

/* Copies the row-major `weights` (rows x columns) and sets *out to its handle. 1 <= rows < 2^31,
 * 1 <= columns <= 65535, which keeps every sum within 32 bits. On an error *out is null. */
EDGEKIT_CODEBOOK_API int edgekit_product_pack(const int8_t* weights, int64_t rows, int64_t columns,
                                              edgekit_product** out);

/* The sums of m vectors (m x columns, row-major; m may be 0), as m x rows integers.
 *
 * offset: added to every code, -128..128: codes of 0..255 are passed minus 128, with offset 128.
 * part, parts: computes one of `parts` shares of the rows, 0 <= part < parts, for a caller that has
 *              threads of its own; 0 and 1 compute all of them. Shares write disjoint sums. */
EDGEKIT_CODEBOOK_API int edgekit_product_multiply(const edgekit_product* handle,
                                                  const int8_t* codes, int64_t m, int offset,
                                                  int64_t part, int64_t parts, int32_t* sums);

/* Bytes of the packed weights, without the omitted zeros; 0 for a null handle. */
EDGEKIT_CODEBOOK_API size_t edgekit_product_bytes(const edgekit_product* handle);

/* Frees the handle; null is fine. It must not be in use. */
EDGEKIT_CODEBOOK_API void edgekit_product_free(edgekit_product* handle);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* EDGEKIT_PRODUCT_H_ */
