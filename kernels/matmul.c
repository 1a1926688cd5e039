// Matrix products and what goes with them, blocked for caches and registers (Goto and van de Geijn, Anatomy of High-Performance
// Matrix Multiplication, ACM TOMS 34, 2008).
//
// Order of summation: an element's products are added from the first k to the last within blocks of DEPTH, and the blocks' sums
// in their order. It depends on k alone: not on m, n, transposition, or where in a block the element lies.
#include "matmul.h"

enum { ROWS = 4, COLUMNS = 8, DEPTH = 256, PANEL_ROWS = 64, PANEL_COLUMNS = 512 };

// Panels as the inner loop reads them: ROWS (COLUMNS) elements of one k after another, padded by zeros.
static float packed_a[PANEL_ROWS * DEPTH] __attribute__((aligned(16)));
static float packed_b[PANEL_COLUMNS * DEPTH] __attribute__((aligned(16)));

// Element (i, p) of the source is at from[i * across + p * along]; `width` of them side by side are packed for each of `depth` p.
static void pack(float *to, const float *from, int32_t count, int32_t depth, int32_t across, int32_t along, int32_t width) {
    for (int32_t begin = 0; begin < count; begin += width) {
        int32_t filled = count - begin < width ? count - begin : width;
        for (int32_t p = 0; p < depth; p++) {
            const float *source = from + (size_t)begin * across + (size_t)p * along;
            for (int32_t i = 0; i < filled; i++) to[i] = source[(size_t)i * across];
            for (int32_t i = filled; i < width; i++) to[i] = 0.0f;
            to += width;
        }
    }
}

// One ROWS x COLUMNS piece of c, of which `rows` x `columns` exist. `add`: to what is there.
static void multiply_piece(const float *a, const float *b, float *c, int32_t depth, int32_t stride, int32_t rows, int32_t columns, int32_t add) {
    f4 sum[ROWS][2];
    for (int32_t i = 0; i < ROWS; i++) sum[i][0] = sum[i][1] = zero4();
    for (int32_t p = 0; p < depth; p++, a += ROWS, b += COLUMNS) {
        f4 left = load4(b), right = load4(b + 4);
        for (int32_t i = 0; i < ROWS; i++) {
            f4 by = splat4(a[i]);
            sum[i][0] += by * left;
            sum[i][1] += by * right;
        }
    }
    for (int32_t i = 0; i < rows; i++, c += stride) {
        for (int32_t half = 0; half < 2; half++) {
            int32_t left = columns - 4 * half;
            if (left <= 0) break;
            put4(c + 4 * half, add ? take4(c + 4 * half, left, 0.0f) + sum[i][half] : sum[i][half], left);
        }
    }
}

static inline int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

// A panel of packed rows times the panel of packed columns.
static void multiply_panels(float *c, int32_t rows, int32_t columns, int32_t depth, int32_t stride, int32_t add) {
    for (int32_t j = 0; j < columns; j += COLUMNS) {
        for (int32_t i = 0; i < rows; i += ROWS) {
            multiply_piece(packed_a + i * depth, packed_b + j * depth, c + (size_t)i * stride + j, depth, stride, least(rows - i, ROWS), least(columns - j, COLUMNS), add);
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
