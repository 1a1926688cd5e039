// Batch, layer and group normalisation (Ioffe and Szegedy 2015; Ba et al. 2016; Wu and He 2018). Means first, then squares about
// them: two passes, for one would cancel. Sums are those of reduce.h, over rows in double precision.
#include "reduce.h"

// weight[i] or, without weights, 1; bias[i] or 0.
static inline float or_one(const float *weight, int32_t i) { return weight ? weight[i] : 1.0f; }
static inline float or_zero(const float *bias, int32_t i) { return bias ? bias[i] : 0.0f; }

static inline float reciprocal_root(double variance, float eps) { return 1.0f / __builtin_sqrtf((float)variance + eps); }

// y = (x - mean) * scale + shift.
static void normalise(const float *x, float *y, int32_t n, float mean, float scale, float shift) {
    EACH_FOUR(n, { put4(y + i, (take4(x + i, left, 0.0f) - mean) * scale + shift, left); });
}

// dx = dy * a - (x - mean) * b - c.
static void normalise_grad(const float *dy, const float *x, float *dx, int32_t n, float mean, float a, float b, float c) {
    EACH_FOUR(n, {
        put4(dx + i, take4(dy + i, left, 0.0f) * a - (take4(x + i, left, 0.0f) - mean) * b - c, left);
    });
}

// x is [n, c, inner]. running_mean and running_var (unbiased) may be none; they move by `momentum` towards this batch's.
void batch_norm(const float *x, const float *weight, const float *bias, float *y, float *mean, float *rstd, float *running_mean, float *running_var, int32_t n, int32_t c, int32_t inner, float momentum, float eps) {
    double count = (double)n * inner;
    size_t step = (size_t)c * inner;
    for (int32_t channel = 0; channel < c; channel++) {
        const float *from = x + (size_t)channel * inner;
        float *to = y + (size_t)channel * inner;
        double total = 0.0, squares = 0.0;
        for (int32_t sample = 0; sample < n; sample++) total += sum_of(from + sample * step, inner);
        mean[channel] = (float)(total / count);
        for (int32_t sample = 0; sample < n; sample++) squares += squares_about(from + sample * step, mean[channel], inner);
        rstd[channel] = reciprocal_root(squares / count, eps);
        float scale = rstd[channel] * or_one(weight, channel);
        for (int32_t sample = 0; sample < n; sample++) normalise(from + sample * step, to + sample * step, inner, mean[channel], scale, or_zero(bias, channel));
        if (running_mean) running_mean[channel] = running_mean[channel] * (1.0f - momentum) + mean[channel] * momentum;
        if (running_var) running_var[channel] = running_var[channel] * (1.0f - momentum) + (float)(squares / (count - 1.0)) * momentum;
    }
}

void batch_norm_evaluate(const float *x, const float *weight, const float *bias, float *y, const float *running_mean, const float *running_var, int32_t n, int32_t c, int32_t inner, float eps) {
    for (int32_t sample = 0; sample < n; sample++) {
        for (int32_t channel = 0; channel < c; channel++, x += inner, y += inner) {
            float scale = reciprocal_root((double)running_var[channel], eps) * or_one(weight, channel);
            normalise(x, y, inner, running_mean[channel], scale, or_zero(bias, channel));
        }
    }
}

// dx, dweight and dbias may each be none, as in the kernels below.
void batch_norm_grad(const float *dy, const float *x, const float *weight, const float *mean, const float *rstd, float *dx, float *dweight, float *dbias, int32_t n, int32_t c, int32_t inner) {
    double count = (double)n * inner;
    size_t step = (size_t)c * inner;
    for (int32_t channel = 0; channel < c; channel++) {
        size_t at = (size_t)channel * inner;
        double total = 0.0, along = 0.0;
        for (int32_t sample = 0; sample < n; sample++, at += step) {
            total += sum_of(dy + at, inner);
            along += dot_about(dy + at, x + at, mean[channel], inner);
        }
        float root = rstd[channel], a = root * or_one(weight, channel);
        if (dweight) dweight[channel] = (float)along * root;
        if (dbias) dbias[channel] = (float)total;
        if (!dx) continue;
        float b = a * root * root * (float)(along / count), shift = a * (float)(total / count);
        at = (size_t)channel * inner;
        for (int32_t sample = 0; sample < n; sample++, at += step) normalise_grad(dy + at, x + at, dx + at, inner, mean[channel], a, b, shift);
    }
}

void layer_norm(const float *x, const float *weight, const float *bias, float *y, float *mean, float *rstd, int32_t rows, int32_t columns, float eps) {
    for (int32_t row = 0; row < rows; row++, x += columns, y += columns) {
        mean[row] = (float)(sum_of(x, columns) / columns);
        rstd[row] = reciprocal_root(squares_about(x, mean[row], columns) / columns, eps);
        EACH_FOUR(columns, {
            f4 value = (take4(x + i, left, 0.0f) - mean[row]) * rstd[row];
            if (weight) value *= take4(weight + i, left, 0.0f);
            if (bias) value += take4(bias + i, left, 0.0f);
            put4(y + i, value, left);
        });
    }
}

#define TERM(i, left) (weight ? take4(dy + (i), left, 0.0f) * take4(weight + (i), left, 0.0f) : take4(dy + (i), left, 0.0f))
DEFINE_SUM(weighted_sum, TERM, const float *dy, const float *weight)
#undef TERM

#define TERM(i, left) ((weight ? take4(dy + (i), left, 0.0f) * take4(weight + (i), left, 0.0f) : take4(dy + (i), left, 0.0f)) * (take4(x + (i), left, mean) - mean))
DEFINE_SUM(weighted_dot_about, TERM, const float *dy, const float *weight, const float *x, float mean)
#undef TERM

static void layer_norm_grad_input(const float *dy, const float *x, const float *weight, float mean, float rstd, float *dx, int32_t columns) {
    float shift = (float)(weighted_sum(dy, weight, columns) / columns);
    float along = (float)(weighted_dot_about(dy, weight, x, mean, columns) / columns) * rstd * rstd;
    EACH_FOUR(columns, {
        f4 d = take4(dy + i, left, 0.0f);
        if (weight) d *= take4(weight + i, left, 0.0f);
        put4(dx + i, (d - shift - (take4(x + i, left, 0.0f) - mean) * along) * rstd, left);
    });
}

// dweight and dbias are sums over rows in their order.
void layer_norm_grad(const float *dy, const float *x, const float *weight, const float *mean, const float *rstd, float *dx, float *dweight, float *dbias, int32_t rows, int32_t columns) {
    if (dweight) memset(dweight, 0, (size_t)columns * sizeof(float));
    if (dbias) memset(dbias, 0, (size_t)columns * sizeof(float));
    for (int32_t row = 0; row < rows; row++, dy += columns, x += columns) {
        EACH_FOUR(columns, {
            f4 d = take4(dy + i, left, 0.0f);
            if (dweight) put4(dweight + i, take4(dweight + i, left, 0.0f) + d * (take4(x + i, left, 0.0f) - mean[row]) * rstd[row], left);
            if (dbias) put4(dbias + i, take4(dbias + i, left, 0.0f) + d, left);
        });
        if (dx) layer_norm_grad_input(dy, x, weight, mean[row], rstd[row], dx + (size_t)row * columns, columns);
    }
}

// x is [n, c, inner]; mean and rstd are [n, groups].
void group_norm(const float *x, const float *weight, const float *bias, float *y, float *mean, float *rstd, int32_t n, int32_t c, int32_t inner, int32_t groups, float eps) {
    int32_t channels = c / groups, size = channels * inner;
    for (int32_t at = 0; at < n * groups; at++) {
        mean[at] = (float)(sum_of(x, size) / size);
        rstd[at] = reciprocal_root(squares_about(x, mean[at], size) / size, eps);
        for (int32_t i = 0; i < channels; i++, x += inner, y += inner) {
            int32_t channel = at % groups * channels + i;
            normalise(x, y, inner, mean[at], rstd[at] * or_one(weight, channel), or_zero(bias, channel));
        }
    }
}

void group_norm_grad(const float *dy, const float *x, const float *weight, const float *mean, const float *rstd, float *dx, float *dweight, float *dbias, int32_t n, int32_t c, int32_t inner, int32_t groups) {
    int32_t channels = c / groups;
    if (dweight) memset(dweight, 0, (size_t)c * sizeof(float));
    if (dbias) memset(dbias, 0, (size_t)c * sizeof(float));
    for (int32_t at = 0; at < n * groups; at++, dy += (size_t)channels * inner, x += (size_t)channels * inner) {
        double total = 0.0, along = 0.0;
        for (int32_t i = 0; i < channels; i++) {
            int32_t channel = at % groups * channels + i;
            double sum = sum_of(dy + i * inner, inner), dot = dot_about(dy + i * inner, x + i * inner, mean[at], inner);
            if (dweight) dweight[channel] += (float)dot * rstd[at];
            if (dbias) dbias[channel] += (float)sum;
            total += sum * (double)or_one(weight, channel);
            along += dot * (double)or_one(weight, channel);
        }
        if (!dx) continue;
        float root = rstd[at], size = (float)(channels * inner);
        float b = root * root * root * ((float)along / size), shift = root * ((float)total / size);
        for (int32_t i = 0; i < channels; i++, dx += inner) {
            normalise_grad(dy + i * inner, x + i * inner, dx, inner, mean[at], root * or_one(weight, at % groups * channels + i), b, shift);
        }
    }
}
