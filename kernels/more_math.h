// Functions made of those in math.h, over four lanes.
#ifndef GRIDSCHED_MORE_MATH_H
#define GRIDSCHED_MORE_MATH_H

#include "math.h"

// e^x - 1, which is 2t / (1 - t) with t = tanh(x/2): nothing cancels near 0. Beyond 2 it is taken as it is written.
static inline f4 expm1_4(f4 x) {
    f4 t = tanh4(0.5f * x);
    return select4(abs4(x) < 2.0f, 2.0f * t / (1.0f - t), exp4(x) - 1.0f);
}

// log(1 + x): the rounding of 1 + x is made good by the ratio of x to what was really added (Kahan's HP-15C formula).
static inline f4 log1p4(f4 x) {
    f4 u = 1.0f + x;
    f4 result = log4(u) * (x / (u - 1.0f));
    result = select4(u == 1.0f, x, result);
    return select4(x == __builtin_inff(), x, result);
}

// log(1 + e^x)
static inline f4 softplus4(f4 x) { return max4(x, zero4()) + log1p4(exp4(-abs4(x))); }

// sin x, or cos x where `cosine` is 1. The argument loses multiples of pi/2, given in three parts, and the rest is summed up by
// Taylor's series; good to 3 ulp of 1 for |x| up to 8,192.
static inline f4 sin4(f4 x, int32_t cosine) {
    f4 turns = (f4)wasm_f32x4_nearest((v128_t)(x * 0.636619772f));
    f4 r = ((x - turns * 1.5703125f) - turns * 4.83751297e-4f) - turns * 7.54978995e-8f;
    i4 quarter = (i4)wasm_i32x4_trunc_sat_f32x4((v128_t)turns) + cosine;
    f4 z = r * r;
    f4 sine = r + r * z * (-1.66666667e-1f + z * (8.33333333e-3f + z * (-1.98412698e-4f + z * 2.75573192e-6f)));
    f4 cosined = 1.0f + z * (-0.5f + z * (4.16666667e-2f + z * (-1.38888889e-3f + z * 2.48015873e-5f)));
    f4 result = select4((quarter & 1) == 1, cosined, sine);
    return select4((quarter & 2) == 2, -result, result);
}

// x to the power of `exponent`; by multiplication where that is a whole number, which negative x asks for.
static inline f4 pow4(f4 x, float exponent) {
    int32_t whole = exponent > -1024.0f && exponent < 1024.0f ? (int32_t)exponent : 0;
    if ((float)whole != exponent) return exp4(exponent * log4(x));
    f4 result = splat4(1.0f);
    for (int32_t left = whole < 0 ? -whole : whole; left; left >>= 1, x *= x) result = left & 1 ? result * x : result;
    return whole < 0 ? 1.0f / result : result;
}

#endif
