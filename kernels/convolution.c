// Two-dimensional convolution (torch's cross-correlation), NCHW, by matrix products over unfolded samples: a sample's `columns`
// [c / groups * kh * kw, oh * ow] hold, for every weight, the inputs it meets (Chellapilla et al. 2006).
#include "matmul.h"
#include "reduce.h"

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

// y [n, o, oh, ow] = x [n, c, h, w] with weight [o, c / groups, kh, kw], + bias [o] if there is one.
void conv2d(const float *x, const float *weight, const float *bias, float *y, float *scratch, int32_t n, int32_t c, int32_t h, int32_t w, int32_t o, int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw, int32_t dh, int32_t dw, int32_t groups) {
    Shape s = shape_of(c / groups, h, w, kh, kw, sh, sw, ph, pw, dh, dw);
    int32_t per_group = o / groups, taps = s.c * kh * kw, places = s.oh * s.ow;
    for (int32_t sample = 0; sample < n; sample++) {
        for (int32_t group = 0; group < groups; group++, x += s.c * h * w) {
            unfold(x, scratch, &s);
            for (int32_t channel = 0; channel < per_group; channel++) {
                float begin = bias ? bias[group * per_group + channel] : 0.0f;
                for (int32_t i = 0; i < places; i++) y[channel * places + i] = begin;
            }
            gemm(weight + (size_t)group * per_group * taps, scratch, y, per_group, places, taps, 0, 0, 1);
            y += per_group * places;
        }
    }
}

void conv2d_grad_input(const float *dy, const float *weight, float *dx, float *scratch, int32_t n, int32_t c, int32_t h, int32_t w, int32_t o, int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw, int32_t dh, int32_t dw, int32_t groups) {
    Shape s = shape_of(c / groups, h, w, kh, kw, sh, sw, ph, pw, dh, dw);
    int32_t per_group = o / groups, taps = s.c * kh * kw, places = s.oh * s.ow;
    memset(dx, 0, (size_t)n * c * h * w * sizeof(float));
    for (int32_t sample = 0; sample < n; sample++) {
        for (int32_t group = 0; group < groups; group++, dx += s.c * h * w, dy += per_group * places) {
            gemm(weight + (size_t)group * per_group * taps, dy, scratch, taps, places, per_group, 1, 0, 0);
            fold(scratch, dx, &s);
        }
    }
}

// dweight and dbias are sums over samples in their order; either may be none.
void conv2d_grad_weight(const float *dy, const float *x, float *dweight, float *dbias, float *scratch, int32_t n, int32_t c, int32_t h, int32_t w, int32_t o, int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw, int32_t dh, int32_t dw, int32_t groups) {
    Shape s = shape_of(c / groups, h, w, kh, kw, sh, sw, ph, pw, dh, dw);
    int32_t per_group = o / groups, taps = s.c * kh * kw, places = s.oh * s.ow;
    if (dweight) memset(dweight, 0, (size_t)o * taps * sizeof(float));
    for (int32_t channel = 0; dbias && channel < o; channel++) {
        double total = 0.0;
        for (int32_t sample = 0; sample < n; sample++) total += sum_of(dy + ((size_t)sample * o + channel) * places, places);
        dbias[channel] = (float)total;
    }
    for (int32_t sample = 0; dweight && sample < n; sample++) {
        for (int32_t group = 0; group < groups; group++, x += s.c * h * w, dy += per_group * places) {
            unfold(x, scratch, &s);
            gemm(dy, scratch, dweight + (size_t)group * per_group * taps, per_group, taps, places, 0, 1, 1);
        }
    }
}
