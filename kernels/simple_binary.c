// Functions of two tensors and choices between them, each repeated along the axes where it has one element only.
#include "strided.h"

// In the order of plan/rules_math.py.
enum { ADD, SUB, MUL, DIV, MAXIMUM, MINIMUM };
enum { EQ, NE, LT, LE, GT, GE };
enum { AND, OR, XOR };

// Innermost axes step by 1 or 0; a permuted tensor is copied before it comes here.
#define INNER(type, value)                                                                                             \
    {                                                                                                                  \
        const type *p = a + at_a, *q = b + at_b;                                                                       \
        if (sa[5] && sb[5]) { EACH(n) { type u = p[i], v = q[i]; z[i] = value; } }                                     \
        else if (sa[5]) { type v = *q; EACH(n) { type u = p[i]; z[i] = value; } }                                      \
        else if (sb[5]) { type u = *p; EACH(n) { type v = q[i]; z[i] = value; } }                                      \
        else { type u = *p, v = *q; EACH(n) z[i] = value; }                                                            \
    }
#define CASE(what, type, out, value)                                                                                   \
    case what: FOR_ROWS(size, sa, sb, sb, { out *z = y + row * n; INNER(type, value) }); break;
#define STRIDED const int32_t size[AXES] = LIST(size), sa[AXES] = LIST(step_a), sb[AXES] = LIST(step_b), n = size5;

void binary(const float *a, const float *b, float *y, int32_t what, SIX(size), SIX(step_a), SIX(step_b)) {
    STRIDED
    switch (what) {
        CASE(ADD, float, float, u + v)
        CASE(SUB, float, float, u - v)
        CASE(MUL, float, float, u * v)
        CASE(DIV, float, float, u / v)
        CASE(MAXIMUM, float, float, u != u ? u : v > u || v != v ? v : u)
        CASE(MINIMUM, float, float, u != u ? u : v < u || v != v ? v : u)
    }
}

void binary_i64(const int64_t *a, const int64_t *b, int64_t *y, int32_t what, SIX(size), SIX(step_a), SIX(step_b)) {
    STRIDED
    switch (what) {
        CASE(ADD, int64_t, int64_t, (int64_t)((uint64_t)u + (uint64_t)v))
        CASE(SUB, int64_t, int64_t, (int64_t)((uint64_t)u - (uint64_t)v))
        CASE(MUL, int64_t, int64_t, (int64_t)((uint64_t)u * (uint64_t)v))
    }
}

#define COMPARISONS(type)                                                                                              \
    switch (what) {                                                                                                    \
        CASE(EQ, type, uint8_t, u == v)                                                                                \
        CASE(NE, type, uint8_t, u != v)                                                                                \
        CASE(LT, type, uint8_t, u < v)                                                                                 \
        CASE(LE, type, uint8_t, u <= v)                                                                                \
        CASE(GT, type, uint8_t, u > v)                                                                                 \
        CASE(GE, type, uint8_t, u >= v)                                                                                \
    }

void compare(const float *a, const float *b, uint8_t *y, int32_t what, SIX(size), SIX(step_a), SIX(step_b)) {
    STRIDED
    COMPARISONS(float)
}

void compare_i64(const int64_t *a, const int64_t *b, uint8_t *y, int32_t what, SIX(size), SIX(step_a), SIX(step_b)) {
    STRIDED
    COMPARISONS(int64_t)
}

void logic(const uint8_t *a, const uint8_t *b, uint8_t *y, int32_t what, SIX(size), SIX(step_a), SIX(step_b)) {
    STRIDED
    switch (what) {
        CASE(AND, uint8_t, uint8_t, u && v)
        CASE(OR, uint8_t, uint8_t, u || v)
        CASE(XOR, uint8_t, uint8_t, !u != !v)
    }
}

void choose(const uint8_t *condition, const float *a, const float *b, float *y, SIX(size), SIX(step_c), SIX(step_a), SIX(step_b)) {
    STRIDED
    const int32_t sc[AXES] = LIST(step_c);
    FOR_ROWS(size, sa, sb, sc, {
        float *z = y + row * n;
        for (int32_t i = 0; i < n; i++) z[i] = condition[at_c + i * sc[5]] ? a[at_a + i * sa[5]] : b[at_b + i * sb[5]];
    });
}
