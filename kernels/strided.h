// Tensors of up to six axes, walked in row-major order; a step of 0 repeats an axis.
#ifndef GRIDSCHED_STRIDED_H
#define GRIDSCHED_STRIDED_H

#include "module.h"

#define AXES 6
#define SIX(name) int32_t name##0, int32_t name##1, int32_t name##2, int32_t name##3, int32_t name##4, int32_t name##5
#define LIST(name) {name##0, name##1, name##2, name##3, name##4, name##5}

// The loops over the outer five axes: BODY sees `row`, the position of the innermost axis' first element in row-major order counted
// in rows, and the offsets at_a, at_b and at_c of that element in three tensors.
#define FOR_ROWS(size, a, b, c, BODY)                                                                                  \
    do {                                                                                                               \
        int32_t row = 0;                                                                                               \
        for (int32_t i0 = 0; i0 < size[0]; i0++)                                                                       \
            for (int32_t i1 = 0; i1 < size[1]; i1++)                                                                   \
                for (int32_t i2 = 0; i2 < size[2]; i2++)                                                               \
                    for (int32_t i3 = 0; i3 < size[3]; i3++)                                                           \
                        for (int32_t i4 = 0; i4 < size[4]; i4++, row++) {                                              \
                            int32_t at_a = i0 * a[0] + i1 * a[1] + i2 * a[2] + i3 * a[3] + i4 * a[4];                  \
                            int32_t at_b = i0 * b[0] + i1 * b[1] + i2 * b[2] + i3 * b[3] + i4 * b[4];                  \
                            int32_t at_c = i0 * c[0] + i1 * c[1] + i2 * c[2] + i3 * c[3] + i4 * c[4];                  \
                            (void)at_b, (void)at_c;                                                                    \
                            BODY                                                                                       \
                        }                                                                                              \
    } while (0)

// A loop whose output is one of its inputs or apart from all of them, so that elements never wait for each other.
#define EACH(n) _Pragma("clang loop vectorize(assume_safety)") for (int32_t i = 0; i < (n); i++)

#endif
