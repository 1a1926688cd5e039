// Greatest and mean of windows. A plane is one channel of one sample, h x w; windows reach ph (pw) rows (columns) beyond its edges.
#include "lanes.h"

typedef struct {
    int32_t top, bottom, left, right;
} Window;

// The part of window (oy, ox) that lies on the plane.
static inline Window window_of(int32_t oy, int32_t ox, int32_t h, int32_t w, int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw) {
    Window found = {oy * sh - ph, oy * sh - ph + kh, ox * sw - pw, ox * sw - pw + kw};
    if (found.top < 0) found.top = 0;
    if (found.left < 0) found.left = 0;
    if (found.bottom > h) found.bottom = h;
    if (found.right > w) found.right = w;
    return found;
}

// The greater by lanes, with its place: `other` where it is greater than `best` or no number.
static inline void keep_greater(f4 *best, i4 *place, f4 other, i4 its_place) {
    i4 greater = (other > *best) | (other != other);
    *best = select4(greater, other, *best);
    *place = (i4)select4(greater, (f4)its_place, (f4)*place);
}

// One row of windows of 2 x 2 side by side, of which `count` are whole ones: four at once; returns how many are done.
static int32_t max_of_squares(const float *x, float *y, int32_t *index, int32_t w, int32_t begin, int32_t count) {
    int32_t done = 0;
    for (; done + 4 <= count; done += 4) {
        const float *upper = x + 2 * done, *lower = upper + w;
        f4 a = load4(upper), b = load4(upper + 4), c = load4(lower), d = load4(lower + 4);
        i4 place = (i4){0, 2, 4, 6} + (begin + 2 * done);
        f4 best = __builtin_shufflevector(a, b, 0, 2, 4, 6);
        i4 found = place;
        keep_greater(&best, &found, __builtin_shufflevector(a, b, 1, 3, 5, 7), place + 1);
        keep_greater(&best, &found, __builtin_shufflevector(c, d, 0, 2, 4, 6), place + w);
        keep_greater(&best, &found, __builtin_shufflevector(c, d, 1, 3, 5, 7), place + w + 1);
        store4(y + done, best);
        wasm_v128_store(index + done, (v128_t)found);
    }
    return done;
}

// y: each window's greatest element; index: its place in the plane. The first of equals wins, a NaN wins over all.
void max_pool2d(const float *x, float *y, int32_t *index, int32_t planes, int32_t h, int32_t w, int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw, int32_t oh, int32_t ow) {
    int squares = kh == 2 && kw == 2 && sh == 2 && sw == 2 && ph == 0 && pw == 0;
    for (int32_t plane = 0; plane < planes; plane++, x += (size_t)h * w) {
        for (int32_t oy = 0; oy < oh; oy++, y += ow, index += ow) {
            int whole = squares && 2 * oy + 1 < h;
            int32_t ox = whole ? max_of_squares(x + 2 * oy * w, y, index, w, 2 * oy * w, ow < w / 2 ? ow : w / 2) : 0;
            for (; ox < ow; ox++) {
                Window seen = window_of(oy, ox, h, w, kh, kw, sh, sw, ph, pw);
                int32_t best = seen.top * w + seen.left;
                for (int32_t row = seen.top; row < seen.bottom; row++) {
                    for (int32_t at = row * w + seen.left; at < row * w + seen.right; at++) {
                        if (x[at] > x[best] || x[at] != x[at]) best = at;
                    }
                }
                y[ox] = x[best];
                index[ox] = best;
            }
        }
    }
}

void max_pool2d_grad(const float *dy, const int32_t *index, float *dx, int32_t planes, int32_t h, int32_t w, int32_t oh, int32_t ow) {
    memset(dx, 0, (size_t)planes * h * w * sizeof(float));
    for (int32_t plane = 0; plane < planes; plane++, dx += (size_t)h * w) {
        for (int32_t i = 0; i < oh * ow; i++) dx[*index++] += *dy++;
    }
}

// By how many elements window (oy, ox) divides: those on the plane, or also those on its padding (torch's count_include_pad).
static inline float divisor(Window seen, int32_t oy, int32_t ox, int32_t h, int32_t w, int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw, int32_t count_padding) {
    if (!count_padding) return (float)((seen.bottom - seen.top) * (seen.right - seen.left));
    int32_t height = h + ph - (oy * sh - ph), width = w + pw - (ox * sw - pw);
    return (float)((height < kh ? height : kh) * (width < kw ? width : kw));
}

void avg_pool2d(const float *x, float *y, int32_t planes, int32_t h, int32_t w, int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw, int32_t oh, int32_t ow, int32_t count_padding) {
    for (int32_t plane = 0; plane < planes; plane++, x += (size_t)h * w) {
        for (int32_t oy = 0; oy < oh; oy++) {
            for (int32_t ox = 0; ox < ow; ox++) {
                Window seen = window_of(oy, ox, h, w, kh, kw, sh, sw, ph, pw);
                float sum = 0.0f;
                for (int32_t row = seen.top; row < seen.bottom; row++) {
                    for (int32_t column = seen.left; column < seen.right; column++) sum += x[row * w + column];
                }
                *y++ = sum / divisor(seen, oy, ox, h, w, kh, kw, sh, sw, ph, pw, count_padding);
            }
        }
    }
}

void avg_pool2d_grad(const float *dy, float *dx, int32_t planes, int32_t h, int32_t w, int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw, int32_t oh, int32_t ow, int32_t count_padding) {
    memset(dx, 0, (size_t)planes * h * w * sizeof(float));
    for (int32_t plane = 0; plane < planes; plane++, dx += (size_t)h * w) {
        for (int32_t oy = 0; oy < oh; oy++) {
            for (int32_t ox = 0; ox < ow; ox++) {
                Window seen = window_of(oy, ox, h, w, kh, kw, sh, sw, ph, pw);
                float share = *dy++ / divisor(seen, oy, ox, h, w, kh, kw, sh, sw, ph, pw, count_padding);
                for (int32_t row = seen.top; row < seen.bottom; row++) {
                    for (int32_t column = seen.left; column < seen.right; column++) dx[row * w + column] += share;
                }
            }
        }
    }
}
