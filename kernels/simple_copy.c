// Copies between tensors laid out differently: permutations, slices, repetitions.
#include "strided.h"

#define COPY(type)                                                                                                     \
    FOR_ROWS(size, sx, sy, sy, {                                                                                       \
        const type *from = (const type *)x + at_a;                                                                     \
        type *to = (type *)y + at_b;                                                                                   \
        if (sx[5] == 1 && sy[5] == 1) __builtin_memcpy(to, from, (size_t)n * sizeof(type));                            \
        else for (int32_t i = 0; i < n; i++) to[i * sy[5]] = from[i * sx[5]];                                          \
    })

// Steps are in items of `item_bytes` (1, 4 or 8).
void copy(const void *x, void *y, int32_t item_bytes, SIX(size), SIX(step_x), SIX(step_y)) {
    const int32_t size[AXES] = LIST(size), sx[AXES] = LIST(step_x), sy[AXES] = LIST(step_y), n = size5;
    if (item_bytes == 4) COPY(uint32_t);
    else if (item_bytes == 8) COPY(uint64_t);
    else COPY(uint8_t);
}
