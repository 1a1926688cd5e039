// Fills, casts, sums, and functions of one tensor, element by element. Outputs may lie where an input of the same size lies.
#include "strided.h"

void fill(float *y, int32_t n, float value) {
    EACH(n) y[i] = value;
}

void fill_i64(int64_t *y, int32_t n, int32_t value) {
    EACH(n) y[i] = value;
}

void fill_u8(uint8_t *y, int32_t n, int32_t value) {
    __builtin_memset(y, value, (size_t)n);
}

void arange_i64(int64_t *y, int32_t n, int32_t start, int32_t step) {
    for (int32_t i = 0; i < n; i++) y[i] = (int64_t)start + (int64_t)i * step;
}

void add(const float *a, const float *b, float *y, int32_t n) {
    EACH(n) y[i] = a[i] + b[i];
}

void add_scaled(const float *x, float *y, const float *scale, int32_t n) {
    float share = *scale;
    EACH(n) y[i] += x[i] * share;
}

void affine_i64(const int64_t *x, int64_t *y, int32_t n, int32_t scale, int32_t offset) {
    EACH(n) y[i] = x[i] * scale + offset;
}

// What a float becomes as a whole number: towards zero; what no whole number can hold becomes the nearest that can, NaN becomes 0.
static int64_t whole(float x) {
    if (!(x > -9.2233720368547758e18f)) return x == x ? INT64_MIN : 0;
    return x >= 9.2233720368547758e18f ? INT64_MAX : (int64_t)x;
}

// Dtypes by the order of plan/rules_cast.py: float32, int64, int32, uint8, bool.
enum { F32, I64, I32, U8, BOOL };

#define CAST_TO(type, x)                                                                                               \
    switch (to) {                                                                                                      \
    case F32: for (int32_t i = 0; i < n; i++) ((float *)y)[i] = (float)(x); break;                                     \
    case I64: for (int32_t i = 0; i < n; i++) ((int64_t *)y)[i] = type(x); break;                                      \
    case I32: for (int32_t i = 0; i < n; i++) ((int32_t *)y)[i] = (int32_t)type(x); break;                             \
    case U8: for (int32_t i = 0; i < n; i++) ((uint8_t *)y)[i] = (uint8_t)type(x); break;                              \
    case BOOL: for (int32_t i = 0; i < n; i++) ((uint8_t *)y)[i] = (x) != 0; break;                                    \
    }

void cast(const void *x, void *y, int32_t n, int32_t from, int32_t to) {
    switch (from) {
    case F32: CAST_TO(whole, ((const float *)x)[i]) break;
    case I64: CAST_TO((int64_t), ((const int64_t *)x)[i]) break;
    case I32: CAST_TO((int64_t), ((const int32_t *)x)[i]) break;
    default: CAST_TO((int64_t), ((const uint8_t *)x)[i]) break;
    }
}
