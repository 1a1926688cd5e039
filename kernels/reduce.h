// Sums along a row, in one order: sixteen running sums of every sixteenth element over at most 4,096 elements, folded by halves,
// then block after block in double precision. Rounding grows with 256 additions, not with the length of the row.
#ifndef GRIDSCHED_REDUCE_H
#define GRIDSCHED_REDUCE_H

#include "lanes.h"

enum { SUM_BLOCK = 4096 };

// Defines `name(parameters)`: the sum over `i` of the f4 that `term` gives for elements i to i + 3, padded by zeros beyond `left`.
#define DEFINE_SUM(name, term, ...)                                                             \
    static inline double name(__VA_ARGS__, int32_t n) {                                         \
        double total = 0.0;                                                                     \
        for (int32_t begin = 0; begin < n; begin += SUM_BLOCK) {                                \
            int32_t end = n - begin < SUM_BLOCK ? n : begin + SUM_BLOCK;                        \
            f4 sum[4] = {zero4(), zero4(), zero4(), zero4()};                                   \
            int32_t i = begin;                                                                  \
            for (; i + 16 <= end; i += 16) {                                                    \
                for (int32_t part = 0; part < 4; part++) sum[part] += term(i + 4 * part, 4);    \
            }                                                                                   \
            for (int32_t part = 0; i < end; i += 4, part++) sum[part] += term(i, end - i);      \
            total += (double)lanes_sum((sum[0] + sum[2]) + (sum[1] + sum[3]));                  \
        }                                                                                       \
        return total;                                                                           \
    }

#define TERM(i, left) take4(x + (i), left, 0.0f)
DEFINE_SUM(sum_of, TERM, const float *x)
#undef TERM

#define TERM(i, left) (take4(x + (i), left, 0.0f) * take4(y + (i), left, 0.0f))
DEFINE_SUM(dot_of, TERM, const float *x, const float *y)
#undef TERM

// Squares of the distances to `mean`; padding lies on the mean.
#define TERM(i, left) ((take4(x + (i), left, mean) - mean) * (take4(x + (i), left, mean) - mean))
DEFINE_SUM(squares_about, TERM, const float *x, float mean)
#undef TERM

// dy * (x - mean).
#define TERM(i, left) (take4(dy + (i), left, 0.0f) * (take4(x + (i), left, mean) - mean))
DEFINE_SUM(dot_about, TERM, const float *dy, const float *x, float mean)
#undef TERM

static inline float max_of(const float *x, int32_t n) {
    f4 found = splat4(-__builtin_inff());
    EACH_FOUR(n, { found = max4(found, take4(x + i, left, -__builtin_inff())); });
    return lanes_max(found);
}

#endif
