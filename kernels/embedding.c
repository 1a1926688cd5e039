// Rows of a table by their numbers, and the gradient of that.
#include "module.h"

// weight [rows, width]. A number that is no row is an error of the data: the module traps, and the host says so.
void embedding(const float *weight, const int64_t *index, float *y, int32_t n, int32_t width, int32_t rows) {
    for (int32_t i = 0; i < n; i++) {
        if (index[i] < 0 || index[i] >= rows) __builtin_trap();
        memcpy(y + (size_t)i * width, weight + (size_t)index[i] * width, (size_t)width * sizeof(float));
    }
}

// dweight [rows, width] is the sum of dy over each row's uses, in their order. Uses of `padding` (-1: no such row) give nothing.
void embedding_grad(const float *dy, const int64_t *index, float *dweight, int32_t n, int32_t width, int32_t rows, int32_t padding) {
    memset(dweight, 0, (size_t)rows * width * sizeof(float));
    for (int32_t i = 0; i < n; i++, dy += width) {
        if (index[i] < 0 || index[i] >= rows || index[i] == padding) continue;
        float *into = dweight + (size_t)index[i] * width;
        for (int32_t column = 0; column < width; column++) into[column] += dy[column];
    }
}
