// Matrix products and what goes with them, blocked for caches and registers (Goto and van de Geijn, Anatomy of High-Performance
// Matrix Multiplication, ACM TOMS 34, 2008).
//
// Order of summation: an element's products one after another from the first k to the last, upon what is there if they accumulate.
// It does not depend on m, n, transposition, or where in a block the element lies.
#include "matmul.h"

enum { DEPTH = 256, PANEL_ROWS = 64, PANEL_COLUMNS = 512 };

// Panels as the inner loop reads them: ROWS (COLUMNS) elements of one k after another, padded by zeros.
static float packed_a[PANEL_ROWS * DEPTH] __attribute__((aligned(16)));
static float packed_b[PANEL_COLUMNS * DEPTH] __attribute__((aligned(16)));

static inline int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

// Four neighbours, `filled` of which exist, of each of `depth` p, at to[p * width]. Neighbours lie side by side.
static void pack_beside(float *to, const float *from, int32_t filled, int32_t depth, int32_t along, int32_t width) {
    for (int32_t p = 0; p < depth; p++, from += along, to += width) store4(to, take4(from, filled, 0.0f));
}

// The same where each neighbour's p lie side by side, and the neighbours `across` apart.
static void pack_turned(float *to, const float *from, int32_t filled, int32_t depth, int32_t across, int32_t width) {
    for (int32_t p = 0; p < depth; p += 4, from += 4) {
        f4 row[4];
        for (int32_t i = 0; i < 4; i++) row[i] = i < filled ? take4(from + (size_t)i * across, depth - p, 0.0f) : zero4();
        turn4(row);
        int32_t left = least(depth - p, 4);
        for (int32_t i = 0; i < 4; i++, to += width) {
            if (i < left) store4(to, row[i]);
        }
    }
}

// Element (i, p) of the source is at from[i * across + p * along], and one of the two steps is 1; `width` of them side by side are
// packed for each of `depth` p.
static void pack(float *to, const float *from, int32_t count, int32_t depth, int32_t across, int32_t along, int32_t width) {
    for (int32_t begin = 0; begin < count; begin += width, to += width * depth) {
        for (int32_t i = 0; i < width; i += 4) {
            const float *source = from + (size_t)(begin + i) * across;
            int32_t filled = count - begin - i;
            if (across == 1) pack_beside(to + i, source, filled, depth, along, width);
            else pack_turned(to + i, source, filled, depth, across, width);
        }
    }
}

// A function of its own that calls none: then the sums stay in registers in every host's compiler. One load and four shuffles serve a
// column of a; a load for each of its elements would be turned into two instructions apiece.
__attribute__((noinline)) void multiply_piece(const float *a, const float *b, float *to, int32_t depth, int32_t stride, int32_t add) {
    f4 sum[ROWS][2];
#pragma clang loop unroll(full)
    for (int32_t i = 0; i < ROWS; i++) {
        sum[i][0] = add ? load4(to + i * stride) : zero4();
        sum[i][1] = add ? load4(to + i * stride + 4) : zero4();
    }
    for (int32_t p = 0; p < depth; p++, a += ROWS, b += COLUMNS) {
        f4 left = load4(b), right = load4(b + 4), by = load4(a);
        f4 by0 = __builtin_shufflevector(by, by, 0, 0, 0, 0), by1 = __builtin_shufflevector(by, by, 1, 1, 1, 1);
        f4 by2 = __builtin_shufflevector(by, by, 2, 2, 2, 2), by3 = __builtin_shufflevector(by, by, 3, 3, 3, 3);
        sum[0][0] += by0 * left, sum[0][1] += by0 * right;
        sum[1][0] += by1 * left, sum[1][1] += by1 * right;
        sum[2][0] += by2 * left, sum[2][1] += by2 * right;
        sum[3][0] += by3 * left, sum[3][1] += by3 * right;
    }
#pragma clang loop unroll(full)
    for (int32_t i = 0; i < ROWS; i++) {
        store4(to + i * stride, sum[i][0]);
        store4(to + i * stride + 4, sum[i][1]);
    }
}

// The same at an edge of c, where only `rows` x `columns` of a piece exist.
static void multiply_edge(const float *a, const float *b, float *c, int32_t depth, int32_t stride, int32_t rows, int32_t columns, int32_t add) {
    static float piece[ROWS * COLUMNS] __attribute__((aligned(16)));
    for (int32_t i = 0; add && i < rows; i++) memcpy(piece + i * COLUMNS, c + (size_t)i * stride, (size_t)columns * sizeof(float));
    multiply_piece(a, b, piece, depth, COLUMNS, add);
    for (int32_t i = 0; i < rows; i++) memcpy(c + (size_t)i * stride, piece + i * COLUMNS, (size_t)columns * sizeof(float));
}

// A panel of packed rows times the panel of packed columns.
static void multiply_panels(float *c, int32_t rows, int32_t columns, int32_t depth, int32_t stride, int32_t add) {
    for (int32_t j = 0; j < columns; j += COLUMNS) {
        for (int32_t i = 0; i < rows; i += ROWS) {
            const float *a = packed_a + i * depth, *b = packed_b + j * depth;
            float *to = c + (size_t)i * stride + j;
            if (rows - i >= ROWS && columns - j >= COLUMNS) multiply_piece(a, b, to, depth, stride, add);
            else multiply_edge(a, b, to, depth, stride, least(rows - i, ROWS), least(columns - j, COLUMNS), add);
        }
    }
}

void gemm(const float *a, const float *b, float *c, int32_t m, int32_t n, int32_t k, int32_t transpose_a, int32_t transpose_b, int32_t accumulate) {
    if (k <= 0 && !accumulate) memset(c, 0, (size_t)m * n * sizeof(float));
    int32_t a_across = transpose_a ? 1 : k, a_along = transpose_a ? m : 1;
    int32_t b_across = transpose_b ? k : 1, b_along = transpose_b ? 1 : n;
    for (int32_t column = 0; column < n; column += PANEL_COLUMNS) {
        int32_t columns = least(n - column, PANEL_COLUMNS);
        for (int32_t p = 0; p < k; p += DEPTH) {
            int32_t depth = least(k - p, DEPTH);
            pack(packed_b, b + (size_t)column * b_across + (size_t)p * b_along, columns, depth, b_across, b_along, COLUMNS);
            for (int32_t row = 0; row < m; row += PANEL_ROWS) {
                int32_t rows = least(m - row, PANEL_ROWS);
                pack(packed_a, a + (size_t)row * a_across + (size_t)p * a_along, rows, depth, a_across, a_along, ROWS);
                multiply_panels(c + (size_t)row * n + column, rows, columns, depth, n, accumulate || p > 0);
            }
        }
    }
}

// `batch` products; the matrices of each lie `step_a`, `step_b`, `step_c` elements behind those of the one before.
void gemm_batched(const float *a, const float *b, float *c, int32_t m, int32_t n, int32_t k, int32_t transpose_a, int32_t transpose_b, int32_t accumulate, int32_t batch, int32_t step_a, int32_t step_b, int32_t step_c) {
    for (int32_t i = 0; i < batch; i++, a += step_a, b += step_b, c += step_c) gemm(a, b, c, m, n, k, transpose_a, transpose_b, accumulate);
}

// y [rows, columns] += bias [columns], in every row.
void add_to_rows(const float *bias, float *y, int32_t rows, int32_t columns) {
    for (int32_t row = 0; row < rows; row++, y += columns) {
        for (int32_t i = 0; i < columns; i += 4) {
            put4(y + i, take4(y + i, columns - i, 0.0f) + take4(bias + i, columns - i, 0.0f), columns - i);
        }
    }
}

enum { ROW_BLOCK = 64 };

// y [columns] = the sum of x's rows, or += it: row after row within blocks of ROW_BLOCK, then block after block.
void sum_of_rows(const float *x, float *y, int32_t rows, int32_t columns, int32_t accumulate) {
    for (int32_t i = 0; i < columns; i += 4) {
        int32_t left = columns - i;
        f4 total = accumulate ? take4(y + i, left, 0.0f) : zero4();
        for (int32_t begin = 0; begin < rows; begin += ROW_BLOCK) {
            int32_t end = least(rows, begin + ROW_BLOCK);
            f4 sum = zero4();
            for (int32_t row = begin; row < end; row++) sum += take4(x + (size_t)row * columns + i, left, 0.0f);
            total += sum;
        }
        put4(y + i, total, left);
    }
}
