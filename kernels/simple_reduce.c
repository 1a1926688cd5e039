// Sums, products and extremes along one axis of [outer, n, inner], in the order of the axis.
#include "reduce.h"
#include "strided.h"

// In the order of plan/rules_reduce.py.
enum { SUM, PRODUCT, MAX, MIN };

static inline float joined(int32_t what, float u, float v) {
    if (what == SUM) return u + v;
    if (what == PRODUCT) return u * v;
    if (u != u) return u;
    if (what == MAX) return v > u || v != v ? v : u;
    return v < u || v != v ? v : u;
}

void reduce(const float *x, float *y, int32_t outer, int32_t n, int32_t inner, int32_t what) {
    if (inner == 1 && what == SUM) {
        for (int32_t o = 0; o < outer; o++) y[o] = (float)sum_of(x + o * n, n);
        return;
    }
    for (int32_t o = 0; o < outer; o++, y += inner) {
        __builtin_memcpy(y, x, (size_t)inner * sizeof(float));
        x += inner;
        for (int32_t k = 1; k < n; k++, x += inner)
            for (int32_t i = 0; i < inner; i++) y[i] = joined(what, y[i], x[i]);
    }
}

// Where along the axis the extreme is: the first of equals, as in torch; a NaN counts as the extreme.
void reduce_index(const float *x, int64_t *index, int32_t outer, int32_t n, int32_t inner, int32_t what) {
    for (int32_t o = 0; o < outer; o++)
        for (int32_t i = 0; i < inner; i++) {
            const float *column = x + o * n * inner + i;
            int32_t best = 0;
            for (int32_t k = 1; k < n; k++) {
                float held = column[best * inner], other = column[k * inner];
                if (held == held && (other != other || (what == MAX ? other > held : other < held))) best = k;
            }
            index[o * inner + i] = best;
        }
}
