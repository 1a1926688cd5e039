// Four float32 lanes, and the one order in which lanes are added. All code here is written over lanes; the last, partly filled
// vector of a row is padded, so that an element's bits do not depend on where in a vector it falls.
#ifndef GRIDSCHED_LANES_H
#define GRIDSCHED_LANES_H

#include "module.h"

typedef float f4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

static inline f4 load4(const float *from) { return (f4)wasm_v128_load(from); }
static inline void store4(float *to, f4 value) { wasm_v128_store(to, (v128_t)value); }
static inline f4 splat4(float value) { return (f4)wasm_f32x4_splat(value); }
static inline f4 zero4(void) { return splat4(0.0f); }

// Out of line: rare, and it would be most of the module.
__attribute__((noinline, unused)) static f4 take_last(const float *from, int32_t left, float padding) {
    f4 value = splat4(padding);
    if (left > 0) value[0] = from[0];
    if (left > 1) value[1] = from[1];
    if (left > 2) value[2] = from[2];
    return value;
}

// `left` elements, at most four; the other lanes are `padding`.
static inline f4 take4(const float *from, int32_t left, float padding) { return left >= 4 ? load4(from) : take_last(from, left, padding); }

__attribute__((noinline, unused)) static void put_last(float *to, f4 value, int32_t left) {
    if (left > 0) to[0] = value[0];
    if (left > 1) to[1] = value[1];
    if (left > 2) to[2] = value[2];
}

// The first `left` lanes, at most four.
static inline void put4(float *to, f4 value, int32_t left) {
    if (left >= 4) store4(to, value);
    else put_last(to, value, left);
}

// Runs the statements for i = 0, 4, 8 ... below n, with `left` elements from i on. Two copies: in the first all four lanes are filled,
// so that nothing in it is called and the sums and constants around it stay in registers.
#define EACH_FOUR(n, ...)                                                                       \
    do {                                                                                        \
        int32_t i = 0;                                                                          \
        for (; i + 4 <= (n); i += 4) {                                                          \
            const int32_t left = 4;                                                             \
            __VA_ARGS__                                                                         \
        }                                                                                       \
        if (i < (n)) {                                                                          \
            const int32_t left = (n) - i;                                                       \
            __VA_ARGS__                                                                         \
        }                                                                                       \
    } while (0)

static inline f4 select4(i4 where, f4 yes, f4 no) { return (f4)wasm_v128_bitselect((v128_t)yes, (v128_t)no, (v128_t)where); }
static inline f4 sqrt4(f4 x) { return (f4)wasm_f32x4_sqrt((v128_t)x); }
static inline f4 abs4(f4 x) { return (f4)wasm_f32x4_abs((v128_t)x); }
// A NaN in `a` stays, one in `b` is passed over. (The operations that keep both are eight instructions on x86, these one.)
static inline f4 max4(f4 a, f4 b) { return (f4)wasm_f32x4_pmax((v128_t)a, (v128_t)b); }
static inline f4 min4(f4 a, f4 b) { return (f4)wasm_f32x4_pmin((v128_t)a, (v128_t)b); }

static inline float lanes_sum(f4 x) { return (x[0] + x[2]) + (x[1] + x[3]); }
static inline float lanes_max(f4 x) { return max4(max4(x, splat4(x[2])), max4(splat4(x[1]), splat4(x[3])))[0]; }

// Four rows of four, turned into four columns.
static inline void turn4(f4 row[4]) {
    f4 a = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5), b = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
    f4 c = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7), d = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
    row[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
    row[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
    row[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
    row[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

#endif
