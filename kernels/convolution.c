// Two-dimensional convolution (torch's cross-correlation), NCHW, in one of three ways. 3 x 3 weights by Winograd's transforms
// (winograd.c). Others with strides of 1 from a padded copy of each sample (correlate.c). The rest by matrix products over unfolded samples, whose `columns` [c / groups * kh * kw, oh * ow] hold,
// for every weight, the inputs it meets (Chellapilla et al. 2006). Which way depends on the shapes alone, never on values.
#include "correlate.h"
#include "matmul.h"
#include "reduce.h"
#include "winograd.h"

typedef struct {
    int32_t c, h, w, kh, kw, sh, sw, ph, pw, dh, dw, oh, ow;
} Shape;

// `channels` of those that one group of weights sees.
static Shape shape_of(int32_t channels, int32_t h, int32_t w, int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw, int32_t dh, int32_t dw) {
    Shape shape = {channels, h, w, kh, kw, sh, sw, ph, pw, dh, dw, 0, 0};
    shape.oh = (h + 2 * ph - dh * (kh - 1) - 1) / sh + 1;
    shape.ow = (w + 2 * pw - dw * (kw - 1) - 1) / sw + 1;
    return shape;
}

static void unfold(const float *x, float *columns, const Shape *s) {
    for (int32_t channel = 0; channel < s->c; channel++, x += (size_t)s->h * s->w) {
        for (int32_t ky = 0; ky < s->kh; ky++) {
            for (int32_t kx = 0; kx < s->kw; kx++) {
                for (int32_t oy = 0; oy < s->oh; oy++) {
                    int32_t row = oy * s->sh - s->ph + ky * s->dh;
                    for (int32_t ox = 0; ox < s->ow; ox++) {
                        int32_t column = ox * s->sw - s->pw + kx * s->dw;
                        int seen = row >= 0 && row < s->h && column >= 0 && column < s->w;
                        *columns++ = seen ? x[row * s->w + column] : 0.0f;
                    }
                }
            }
        }
    }
}

// The transpose of unfold: adds every column entry to the input it came from.
static void fold(const float *columns, float *x, const Shape *s) {
    for (int32_t channel = 0; channel < s->c; channel++, x += (size_t)s->h * s->w) {
        for (int32_t ky = 0; ky < s->kh; ky++) {
            for (int32_t kx = 0; kx < s->kw; kx++) {
                for (int32_t oy = 0; oy < s->oh; oy++) {
                    int32_t row = oy * s->sh - s->ph + ky * s->dh;
                    for (int32_t ox = 0; ox < s->ow; ox++, columns++) {
                        int32_t column = ox * s->sw - s->pw + kx * s->dw;
                        if (row >= 0 && row < s->h && column >= 0 && column < s->w) x[row * s->w + column] += *columns;
                    }
                }
            }
        }
    }
}

// Fewer channels, and transforming the tiles would take longer than the products it spares.
static inline int tiled(const Shape *s, int32_t outputs) {
    int three = s->kh == 3 && s->kw == 3 && s->sh == 1 && s->sw == 1 && s->dh == 1 && s->dw == 1;
    return three && s->oh >= 5 && s->ow >= 5 && s->h >= 5 && s->w >= 5 && s->c * outputs >= 32;
}

// Narrow planes would leave most of correlate.c's lanes empty.
static inline int straight(const Shape *s) { return s->sh == 1 && s->sw == 1 && s->ow >= 5 && s->w >= 5; }

// The columns of a sample: itself, where every weight is 1 x 1 and meets every input.
static const float *columns_of(const float *x, float *scratch, const Shape *s) {
    if (s->kh == 1 && s->kw == 1 && s->sh == 1 && s->sw == 1 && s->ph == 0 && s->pw == 0) return x;
    unfold(x, scratch, s);
    return scratch;
}

static Correlation forward_of(const Shape *s, int32_t outputs) {
    int32_t area = s->kh * s->kw;
    return (Correlation){s->c, s->h, s->w, s->ph, s->pw, outputs, s->oh, s->ow, s->kh, s->kw, s->dh, s->dw, s->c * area, area, 0};
}

// dx is dy, padded by what the weights reach beyond x's own padding, with the weights turned about.
static Correlation backward_of(const Shape *s, int32_t outputs) {
    int32_t area = s->kh * s->kw, top = s->dh * (s->kh - 1) - s->ph, left = s->dw * (s->kw - 1) - s->pw;
    return (Correlation){outputs, s->oh, s->ow, top, left, s->c, s->h, s->w, s->kh, s->kw, s->dh, s->dw, area, s->c * area, 1};
}

// y [n, o, oh, ow] = x [n, c, h, w] with weight [o, c / groups, kh, kw], + bias [o] if there is one.
void conv2d(const float *x, const float *weight, const float *bias, float *y, float *scratch, int32_t n, int32_t c, int32_t h, int32_t w, int32_t o, int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw, int32_t dh, int32_t dw, int32_t groups) {
    Shape s = shape_of(c / groups, h, w, kh, kw, sh, sw, ph, pw, dh, dw);
    int32_t per_group = o / groups, taps = s.c * kh * kw, places = s.oh * s.ow;
    size_t step_x = (size_t)c * h * w, step_y = (size_t)o * places;
    for (int32_t group = 0; group < groups; group++, x += s.c * h * w, y += per_group * places, weight += (size_t)per_group * taps) {
        const float *begin = bias ? bias + group * per_group : 0;
        Correlation with = forward_of(&s, per_group);
        if (tiled(&s, per_group)) {
            winograd(&with, x, weight, begin, y, scratch, n, step_x, step_y);
            continue;
        }
        if (straight(&s)) {
            Workspace at = workspace_of(scratch, &with);
            pack_weights(&at, &with, weight);
            for (int32_t sample = 0; sample < n; sample++) correlate(&at, &with, x + sample * step_x, begin, y + sample * step_y);
            continue;
        }
        for (int32_t sample = 0; sample < n; sample++) {
            float *to = y + sample * step_y;
            for (int32_t i = 0; i < per_group * places; i++) to[i] = begin ? begin[i / places] : 0.0f;
            gemm(weight, columns_of(x + sample * step_x, scratch, &s), to, per_group, places, taps, 0, 0, 1);
        }
    }
}

void conv2d_grad_input(const float *dy, const float *weight, float *dx, float *scratch, int32_t n, int32_t c, int32_t h, int32_t w, int32_t o, int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw, int32_t dh, int32_t dw, int32_t groups) {
    Shape s = shape_of(c / groups, h, w, kh, kw, sh, sw, ph, pw, dh, dw);
    int32_t per_group = o / groups, taps = s.c * kh * kw, places = s.oh * s.ow;
    size_t step_x = (size_t)c * h * w, step_y = (size_t)o * places;
    if (!straight(&s)) memset(dx, 0, (size_t)n * step_x * sizeof(float));
    for (int32_t group = 0; group < groups; group++, dx += s.c * h * w, dy += per_group * places, weight += (size_t)per_group * taps) {
        Correlation with = backward_of(&s, per_group);
        if (tiled(&s, per_group)) {
            winograd(&with, dy, weight, 0, dx, scratch, n, step_y, step_x);
            continue;
        }
        if (straight(&s)) {
            Workspace at = workspace_of(scratch, &with);
            pack_weights(&at, &with, weight);
            for (int32_t sample = 0; sample < n; sample++) correlate(&at, &with, dy + sample * step_y, 0, dx + sample * step_x);
            continue;
        }
        for (int32_t sample = 0; sample < n; sample++) {
            gemm(weight, dy + sample * step_y, scratch, taps, places, per_group, 1, 0, 0);
            fold(scratch, dx + sample * step_x, &s);
        }
    }
}

static void grad_bias(const float *dy, float *dbias, int32_t n, int32_t o, int32_t places) {
    for (int32_t channel = 0; channel < o; channel++) {
        double total = 0.0;
        for (int32_t sample = 0; sample < n; sample++) total += sum_of(dy + ((size_t)sample * o + channel) * places, places);
        dbias[channel] = (float)total;
    }
}

// dweight and dbias are sums over samples in their order; either may be none.
void conv2d_grad_weight(const float *dy, const float *x, float *dweight, float *dbias, float *scratch, int32_t n, int32_t c, int32_t h, int32_t w, int32_t o, int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw, int32_t dh, int32_t dw, int32_t groups) {
    Shape s = shape_of(c / groups, h, w, kh, kw, sh, sw, ph, pw, dh, dw);
    int32_t per_group = o / groups, taps = s.c * kh * kw, places = s.oh * s.ow;
    size_t step_x = (size_t)c * h * w, step_y = (size_t)o * places;
    if (dbias) grad_bias(dy, dbias, n, o, places);
    if (!dweight) return;
    for (int32_t group = 0; group < groups; group++, x += s.c * h * w, dy += per_group * places, dweight += (size_t)per_group * taps) {
        Correlation with = forward_of(&s, per_group);
        if (tiled(&s, per_group)) {
            winograd_grad_weight(&with, dy, x, dweight, scratch, n, step_x, step_y);
            continue;
        }
        if (straight(&s)) {
            Workspace at = workspace_of(scratch, &with);
            clear_weight_sums(&at, &with);
            for (int32_t sample = 0; sample < n; sample++) add_weight_sums(&at, &with, dy + sample * step_y, x + sample * step_x);
            write_weight_sums(&at, &with, dweight);
            continue;
        }
        memset(dweight, 0, (size_t)per_group * taps * sizeof(float));
        for (int32_t sample = 0; sample < n; sample++) {
            gemm(dy + sample * step_y, columns_of(x + sample * step_x, scratch, &s), dweight, per_group, taps, places, 0, 1, 1);
        }
    }
}
