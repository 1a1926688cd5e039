// exp, log, tanh, erf and the logistic function: our own, for every host's library gives other last bits.
//
// Written once over four lanes; a scalar is lane 0 of a splat, and so has the same bits. Each reduces its argument to a small
// interval (Cody and Waite, Software Manual for the Elementary Functions, 1980; Muller, Elementary Functions, 3rd ed. 2016) and
// evaluates there a polynomial fitted for the least greatest error in the result (Lawson's iterated weights, in double precision,
// rounded to float32). Errors are measured over all of float32's exponents in tests/kernels/test_math.py.
#ifndef GRIDSCHED_MATH_H
#define GRIDSCHED_MATH_H

#include "lanes.h"

// 2 to the power of whole numbers in [-252, 254], in two factors, so that results below the normal range round once.
static inline f4 scaled4(f4 x, i4 power) {
    i4 half = power >> 1;
    return x * (f4)((half + 127) << 23) * (f4)((power - half + 127) << 23);
}

// e^x. Under 2 ulp; 0 below -104, infinity above 88.8.
static inline f4 exp4(f4 x) {
    x = min4(max4(x, splat4(-104.0f)), splat4(89.0f));
    // Rounded to a whole number by what 1.5 * 2^23 leaves room for; its last bits then are that number.
    f4 shifted = x * 1.44269504f + 12582912.0f, power = shifted - 12582912.0f;
    // ln 2 in two parts, the first short enough to be multiplied by `power` exactly.
    f4 r = (x - power * 0.693145752f) - power * 1.42860677e-6f;
    f4 p = 0.0013950478751f + zero4();
    p = p * r + 0.0083688823506f;
    p = p * r + 0.0416662059724f;
    p = p * r + 0.1666651964188f;
    p = p * r + 0.5f;
    p = (p * r) * r + r + 1.0f;
    return scaled4(p, (i4)shifted - 0x4b400000);
}

// Natural logarithm. Under 2 ulp; minus infinity at 0, NaN below.
static inline f4 log4(f4 x) {
    i4 tiny = x < 1.17549435e-38f;
    f4 normal = select4(tiny, x * 8388608.0f, x);
    // x = 2^power * (1 + f) with 1 + f in [sqrt(1/2), sqrt 2).
    i4 bits = (i4)normal - 0x3f3504f3;
    i4 power = (bits >> 23) - (tiny & 23);
    f4 f = (f4)((bits & 0x007fffff) + 0x3f3504f3) - 1.0f;
    // log(1 + f) = 2 atanh(s) with s = f / (2 + f), written around f - f^2/2, which is nearly all of it.
    f4 s = f / (f + 2.0f), z = s * s;
    f4 q = 0.2358215153f + zero4();
    q = q * z + 0.2853730917f;
    q = q * z + 0.4000033438f;
    q = q * z + 0.6666666269f;
    q = q * z;
    f4 half = 0.5f * f * f;
    f4 n = (f4)wasm_f32x4_convert_i32x4((v128_t)power);
    f4 result = n * 0.693145752f - ((half - (s * (half + q) + n * 1.42860677e-6f)) - f);
    result = select4(x == 0.0f, splat4(-__builtin_inff()), result);
    result = select4(x == __builtin_inff(), x, result);
    return select4(x >= 0.0f, result, splat4(__builtin_nanf("")));
}

// Hyperbolic tangent. Under 3 ulp.
static inline f4 tanh4(f4 x) {
    f4 size = abs4(x), z = x * x;
    f4 p = -0.0057170446967f + zero4();
    p = p * z + 0.0206505861133f;
    p = p * z - 0.0537434965372f;
    p = p * z + 0.1333149075508f;
    p = p * z - 0.3333328366280f;
    f4 small = p * z * x + x;
    f4 large = 1.0f - 2.0f / (exp4(size + size) + 1.0f);
    large = (f4)(((i4)large & 0x7fffffff) | ((i4)x & (int32_t)0x80000000));
    return select4(size < 0.625f, small, large);
}

// The logistic function 1 / (1 + e^-x). Under 4 ulp.
static inline f4 sigmoid4(f4 x) { return 1.0f / (1.0f + exp4(-x)); }

// The error function. Under 4 ulp.
static inline f4 erf4(f4 x) {
    f4 size = abs4(x), z = x * x;
    f4 p = -0.0005976895918f + zero4();
    p = p * z + 0.0049909809604f;
    p = p * z - 0.0267655681819f;
    p = p * z + 0.1128180250525f;
    p = p * z - 0.3761249482632f;
    p = p * z + 0.1283791512251f;
    f4 small = p * x + x;
    // Beyond, 1 - e^-u(|x|) with u = -log(erfc); past 4 it is 1.
    f4 t = min4(size, splat4(4.0f));
    f4 u = -0.00019821971364f + zero4();
    u = u * t + 0.00306549086236f;
    u = u * t - 0.02231521531940f;
    u = u * t + 0.10411368310451f;
    u = u * t + 0.63697606325149f;
    u = u * t + 1.12779724597931f;
    u = u * t + 0.00016644725110f;
    f4 large = 1.0f - exp4(-u);
    large = (f4)(((i4)large & 0x7fffffff) | ((i4)x & (int32_t)0x80000000));
    return select4(size < 0.93f, small, large);
}

static inline float exp1(float x) { return exp4(splat4(x))[0]; }
static inline float log1(float x) { return log4(splat4(x))[0]; }
static inline float tanh1(float x) { return tanh4(splat4(x))[0]; }
static inline float sigmoid1(float x) { return sigmoid4(splat4(x))[0]; }
static inline float erf1(float x) { return erf4(splat4(x))[0]; }

#endif
