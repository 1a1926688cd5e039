// Matrix product for other kernels; see matmul.c.
#ifndef GRIDSCHED_MATMUL_H
#define GRIDSCHED_MATMUL_H

#include "lanes.h"

// c [m, n] = op(a) op(b), or += it. op(a) is [m, k], stored [k, m] if transposed; op(b) is [k, n], stored [n, k] if transposed.
void gemm(const float *a, const float *b, float *c, int32_t m, int32_t n, int32_t k, int32_t transpose_a, int32_t transpose_b, int32_t accumulate);

enum { ROWS = 4, COLUMNS = 8 };

// to [ROWS, COLUMNS], rows `stride` apart, = a piece of a product, or += it. a and b are packed: ROWS (COLUMNS) elements of one k
// after another, `depth` of them.
void multiply_piece(const float *a, const float *b, float *to, int32_t depth, int32_t stride, int32_t add);

#endif
