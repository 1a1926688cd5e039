// Functions of one number and their gradients, element by element; `a` and `b` are what the function is set by. Outputs may lie
// where an input lies.
#include "more_math.h"

// In the order of plan/rules_math.py.
enum {
    SCALE, SHIFT, DIVIDE, RELU, EXP, LOG, SQRT, RSQRT, TANH, SIGMOID, GELU, GELU_TANH, SILU, ELU, LEAKY_RELU, SOFTPLUS, CLAMP, ABS,
    SQUARE, RECIPROCAL, POW, ERF, SIGN, SIN, COS, FLOOR, CEIL, ROUND, LOG1P, EXPM1, HARDSIGMOID, HARDSWISH, MISH, HARDTANH
};

static const float SQRT_HALF = 0.70710678118654752f, SQRT_2_OVER_PI = 0.79788456080286536f, TWO_OVER_SQRT_PI = 1.12837916709551257f;

static inline f4 gelu_tanh_inner(f4 x) { return SQRT_2_OVER_PI * (x + 0.044715f * x * x * x); }

// min(max(x + 3, 0), 6)
static inline f4 hard_step(f4 x) { return min4(max4(x + 3.0f, zero4()), splat4(6.0f)); }

static inline f4 clamp4(f4 x, float low, float high) { return min4(max4(x, splat4(low)), splat4(high)); }

#define CASE(what, value)                                                                                              \
    case what:                                                                                                         \
        for (int32_t i = 0; i < n; i += 4) {                                                                           \
            f4 v = take4(x + i, n - i, 1.0f);                                                                          \
            put4(y + i, value, n - i);                                                                                 \
        }                                                                                                              \
        break;

void unary(const float *x, float *y, int32_t n, int32_t what, float a, float b) {
    switch (what) {
        CASE(SCALE, v * a)
        CASE(SHIFT, v + a)
        CASE(DIVIDE, v / a)
        CASE(RELU, max4(v, zero4()))
        CASE(EXP, exp4(v))
        CASE(LOG, log4(v))
        CASE(SQRT, sqrt4(v))
        CASE(RSQRT, 1.0f / sqrt4(v))
        CASE(TANH, tanh4(v))
        CASE(SIGMOID, sigmoid4(v))
        CASE(GELU, v * 0.5f * (1.0f + erf4(v * SQRT_HALF)))
        CASE(GELU_TANH, v * 0.5f * (1.0f + tanh4(gelu_tanh_inner(v))))
        CASE(SILU, v * sigmoid4(v))
        CASE(ELU, select4(v > 0.0f, v, a * expm1_4(v)))
        CASE(LEAKY_RELU, select4(v > 0.0f, v, v * a))
        CASE(SOFTPLUS, select4(v * a > b, v, softplus4(v * a) / a))
        CASE(CLAMP, clamp4(v, a, b))
        CASE(ABS, abs4(v))
        CASE(SQUARE, v * v)
        CASE(RECIPROCAL, 1.0f / v)
        CASE(POW, pow4(v, a))
        CASE(ERF, erf4(v))
        CASE(SIGN, select4(v > 0.0f, splat4(1.0f), select4(v < 0.0f, splat4(-1.0f), zero4())))
        CASE(SIN, sin4(v, 0))
        CASE(COS, sin4(v, 1))
        CASE(FLOOR, (f4)wasm_f32x4_floor((v128_t)v))
        CASE(CEIL, (f4)wasm_f32x4_ceil((v128_t)v))
        CASE(ROUND, (f4)wasm_f32x4_nearest((v128_t)v))
        CASE(LOG1P, log1p4(v))
        CASE(EXPM1, expm1_4(v))
        CASE(HARDSIGMOID, hard_step(v) / 6.0f)
        CASE(HARDSWISH, v * hard_step(v) / 6.0f)
        CASE(MISH, v * tanh4(softplus4(v)))
        CASE(HARDTANH, clamp4(v, a, b))
    }
}

static inline f4 gelu_slope(f4 v) {
    return 0.5f * (1.0f + erf4(v * SQRT_HALF)) + v * exp4(-0.5f * v * v) * (0.5f * TWO_OVER_SQRT_PI * SQRT_HALF);
}

static inline f4 gelu_tanh_slope(f4 v) {
    f4 t = tanh4(gelu_tanh_inner(v));
    return 0.5f * (1.0f + t) + 0.5f * v * (1.0f - t * t) * SQRT_2_OVER_PI * (1.0f + 3.0f * 0.044715f * v * v);
}

static inline f4 silu_slope(f4 v) {
    f4 s = sigmoid4(v);
    return s * (1.0f + v * (1.0f - s));
}

static inline f4 mish_slope(f4 v) {
    f4 t = tanh4(softplus4(v));
    return t + v * sigmoid4(v) * (1.0f - t * t);
}

static inline f4 hardswish_slope(f4 v) { return select4(v <= -3.0f, zero4(), select4(v >= 3.0f, splat4(1.0f), v / 3.0f + 0.5f)); }

static inline f4 pow_slope(f4 v, float a) { return a == 0 ? zero4() : a * pow4(v, a - 1.0f); }

#undef CASE
#define SLOPE(from, what, value)                                                                                       \
    case what:                                                                                                         \
        for (int32_t i = 0; i < n; i += 4) {                                                                           \
            f4 v = take4(from + i, n - i, 1.0f), d = take4(dy + i, n - i, 0.0f);                                       \
            put4(dx + i, value, n - i);                                                                                \
        }                                                                                                              \
        break;

// dx = dy times the slope, which comes from x or from y; the other of the two may be none, as plan/rules_math.py knows.
void unary_grad(const float *dy, const float *x, const float *y, float *dx, int32_t n, int32_t what, float a, float b) {
    switch (what) {
        SLOPE(y, RELU, select4(v > 0.0f, d, zero4()))
        SLOPE(y, EXP, d * v)
        SLOPE(x, LOG, d / v)
        SLOPE(y, SQRT, d / (2.0f * v))
        SLOPE(y, RSQRT, d * -0.5f * v * v * v)
        SLOPE(y, TANH, d * (1.0f - v * v))
        SLOPE(y, SIGMOID, d * (1.0f - v) * v)
        SLOPE(x, GELU, d * gelu_slope(v))
        SLOPE(x, GELU_TANH, d * gelu_tanh_slope(v))
        SLOPE(x, SILU, d * silu_slope(v))
        SLOPE(x, ELU, select4(v > 0.0f, d, d * a * exp4(v)))
        SLOPE(x, LEAKY_RELU, select4(v > 0.0f, d, d * a))
        SLOPE(x, SOFTPLUS, select4(v * a > b, d, d * sigmoid4(v * a)))
        SLOPE(x, CLAMP, select4((v >= a) & (v <= b), d, zero4()))
        SLOPE(x, ABS, select4(v > 0.0f, d, select4(v < 0.0f, -d, zero4())))
        SLOPE(x, SQUARE, d * 2.0f * v)
        SLOPE(y, RECIPROCAL, -d * v * v)
        SLOPE(x, POW, d * pow_slope(v, a))
        SLOPE(x, ERF, d * TWO_OVER_SQRT_PI * exp4(-v * v))
        SLOPE(x, SIN, d * sin4(v, 1))
        SLOPE(x, COS, -d * sin4(v, 0))
        SLOPE(x, LOG1P, d / (1.0f + v))
        SLOPE(y, EXPM1, d * (v + 1.0f))
        SLOPE(x, HARDSIGMOID, select4((v > -3.0f) & (v < 3.0f), d / 6.0f, zero4()))
        SLOPE(x, HARDSWISH, d * hardswish_slope(v))
        SLOPE(x, MISH, d * mish_slope(v))
        SLOPE(y, HARDTANH, select4((v > a) & (v < b), d, zero4()))
    }
}
