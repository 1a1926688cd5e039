// Rows and elements picked by index. An index outside its axis is an error of the data: the module traps, and the host says so.
#include "strided.h"

static inline int32_t checked(int64_t index, int32_t rows) {
    if (index < 0) index += rows;
    if (index < 0 || index >= rows) __builtin_trap();
    return (int32_t)index;
}

// x [outer, rows, inner] -> y [outer, n, inner]
void index_select(const float *x, const int64_t *index, float *y, int32_t outer, int32_t rows, int32_t n, int32_t inner) {
    for (int32_t o = 0; o < outer; o++, x += rows * inner)
        for (int32_t k = 0; k < n; k++, y += inner)
            __builtin_memcpy(y, x + checked(index[k], rows) * inner, (size_t)inner * sizeof(float));
}

// dx [outer, rows, inner] += dy [outer, n, inner] at the rows of `index`, in their order.
void index_add(const float *dy, const int64_t *index, float *dx, int32_t outer, int32_t rows, int32_t n, int32_t inner) {
    for (int32_t o = 0; o < outer; o++, dx += rows * inner)
        for (int32_t k = 0; k < n; k++, dy += inner) {
            float *to = dx + checked(index[k], rows) * inner;
            EACH(inner) to[i] += dy[i];
        }
}

// x [outer, rows, inner], index and y [outer, n, inner]
void gather(const float *x, const int64_t *index, float *y, int32_t outer, int32_t rows, int32_t n, int32_t inner) {
    for (int32_t o = 0; o < outer; o++, x += rows * inner)
        for (int32_t k = 0; k < n; k++, y += inner, index += inner)
            for (int32_t i = 0; i < inner; i++) y[i] = x[checked(index[i], rows) * inner + i];
}

void gather_add(const float *dy, const int64_t *index, float *dx, int32_t outer, int32_t rows, int32_t n, int32_t inner) {
    for (int32_t o = 0; o < outer; o++, dx += rows * inner)
        for (int32_t k = 0; k < n; k++, dy += inner, index += inner)
            for (int32_t i = 0; i < inner; i++) dx[checked(index[i], rows) * inner + i] += dy[i];
}

void one_hot(const int64_t *index, int64_t *y, int32_t n, int32_t classes) {
    __builtin_memset(y, 0, (size_t)n * (size_t)classes * sizeof(int64_t));
    for (int32_t k = 0; k < n; k++, y += classes) y[checked(index[k], classes)] = 1;
}
