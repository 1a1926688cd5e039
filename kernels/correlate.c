// Convolution with strides of 1 as a matrix product whose second matrix is never written: element (tap, place) of the unfolded
// sample is the padded sample at place + reach[tap].
//
// Order of summation: an output's products one after another, by input channel, then row, then column of the weight. A weight's
// gradient: within a sample four running sums of every fourth column, row after row, added in the order of lanes_sum; then sample
// after sample.
#include "correlate.h"

enum { OUTPUTS = 4, PLACES = 8, LANES = 4 };

static inline int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t rounded_up(int32_t count, int32_t to) { return (count + to - 1) / to * to; }

Workspace workspace_of(float *scratch, const Correlation *with) {
    Workspace at;
    at.taps = with->inputs * with->kh * with->kw;
    at.row = rounded_up(with->ow, PLACES) + with->dw * (with->kw - 1);
    at.plane = at.row * (with->oh + with->dh * (with->kh - 1));
    at.padded = scratch;
    at.packed = at.padded + (size_t)with->inputs * at.plane;
    at.reach = (int32_t *)(at.packed + (size_t)rounded_up(with->outputs, OUTPUTS) * at.taps);
    at.padded_dy = (float *)(at.reach + at.taps);
    int32_t *reach = at.reach;
    for (int32_t input = 0; input < with->inputs; input++) {
        for (int32_t ky = 0; ky < with->kh; ky++) {
            for (int32_t kx = 0; kx < with->kw; kx++) *reach++ = input * at.plane + ky * with->dh * at.row + kx * with->dw;
        }
    }
    return at;
}

// OUTPUTS weights of one tap after another; zeros where there is no output.
void pack_weights(const Workspace *at, const Correlation *with, const float *weight) {
    int32_t area = with->kh * with->kw;
    float *to = at->packed;
    for (int32_t output = 0; output < with->outputs; output += OUTPUTS) {
        for (int32_t tap = 0; tap < at->taps; tap++) {
            int32_t input = tap / area, place = with->turned ? area - 1 - tap % area : tap % area;
            const float *from = weight + (size_t)input * with->step_input + place;
            for (int32_t i = output; i < output + OUTPUTS; i++) *to++ = i < with->outputs ? from[(size_t)i * with->step_output] : 0.0f;
        }
    }
}

void pad_planes(const float *x, float *to, int32_t count, int32_t h, int32_t w, int32_t rows, int32_t row, int32_t top, int32_t left) {
    memset(to, 0, (size_t)count * rows * row * sizeof(float));
    int32_t skipped = left < 0 ? -left : 0, taken = least(w - skipped, row - left - skipped);
    for (int32_t plane = 0; plane < count; plane++, x += (size_t)h * w, to += (size_t)rows * row) {
        for (int32_t y = 0; y < h; y++) {
            if (y + top < 0 || y + top >= rows || taken <= 0) continue;
            const float *from = x + (size_t)y * w + skipped;
            float *into = to + (size_t)(y + top) * row + left + skipped;
            int32_t i = 0;
            for (; i + LANES <= taken; i += LANES) store4(into + i, load4(from + i));
            for (; i < taken; i++) into[i] = from[i];
        }
    }
}

static void pad_input(const Workspace *at, const Correlation *with, const float *x) {
    pad_planes(x, at->padded, with->inputs, with->h, with->w, at->plane / at->row, at->row, with->top, with->left);
}

// PLACES outputs side by side in each of OUTPUTS planes that lie `step` apart; each begins at its plane's lane of `start`. Calls
// nothing: see multiply_piece in matmul.c.
__attribute__((noinline)) static void correlate_piece(const float *x, const float *weight, const int32_t *reach, int32_t taps, f4 start, float *y, int32_t step) {
    f4 a0 = __builtin_shufflevector(start, start, 0, 0, 0, 0), b0 = a0, a1 = __builtin_shufflevector(start, start, 1, 1, 1, 1), b1 = a1;
    f4 a2 = __builtin_shufflevector(start, start, 2, 2, 2, 2), b2 = a2, a3 = __builtin_shufflevector(start, start, 3, 3, 3, 3), b3 = a3;
    for (int32_t tap = 0; tap < taps; tap++, weight += OUTPUTS) {
        const float *from = x + reach[tap];
        f4 left = load4(from), right = load4(from + 4), by = load4(weight);
        f4 by0 = __builtin_shufflevector(by, by, 0, 0, 0, 0), by1 = __builtin_shufflevector(by, by, 1, 1, 1, 1);
        f4 by2 = __builtin_shufflevector(by, by, 2, 2, 2, 2), by3 = __builtin_shufflevector(by, by, 3, 3, 3, 3);
        a0 += by0 * left, b0 += by0 * right;
        a1 += by1 * left, b1 += by1 * right;
        a2 += by2 * left, b2 += by2 * right;
        a3 += by3 * left, b3 += by3 * right;
    }
    store4(y, a0), store4(y + 4, b0);
    store4(y + step, a1), store4(y + step + 4, b1);
    store4(y + 2 * step, a2), store4(y + 2 * step + 4, b2);
    store4(y + 3 * step, a3), store4(y + 3 * step + 4, b3);
}

void correlate(const Workspace *at, const Correlation *with, const float *x, const float *bias, float *y) {
    pad_input(at, with, x);
    int32_t places = with->oh * with->ow;
    for (int32_t output = 0; output < with->outputs; output += OUTPUTS) {
        int32_t planes = least(with->outputs - output, OUTPUTS);
        const float *weight = at->packed + (size_t)output * at->taps;
        f4 start = bias ? take4(bias + output, planes, 0.0f) : zero4();
        for (int32_t row = 0; row < with->oh; row++) {
            for (int32_t column = 0; column < with->ow; column += PLACES) {
                const float *from = at->padded + row * at->row + column;
                float *to = y + (size_t)output * places + row * with->ow + column;
                int32_t width = least(with->ow - column, PLACES);
                if (planes == OUTPUTS && width == PLACES) {
                    correlate_piece(from, weight, at->reach, at->taps, start, to, places);
                    continue;
                }
                float piece[OUTPUTS * PLACES];
                correlate_piece(from, weight, at->reach, at->taps, start, piece, PLACES);
                for (int32_t i = 0; i < planes; i++) memcpy(to + (size_t)i * places, piece + i * PLACES, (size_t)width * sizeof(float));
            }
        }
    }
}

void clear_weight_sums(const Workspace *at, const Correlation *with) {
    memset(at->packed, 0, (size_t)rounded_up(with->outputs, OUTPUTS) * at->taps * sizeof(float));
}

static inline f4 sum_of_lanes(f4 a, f4 b, f4 c, f4 d) {
    f4 low = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
    f4 high = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
    return __builtin_shufflevector(low, high, 0, 1, 4, 5) + __builtin_shufflevector(low, high, 2, 3, 6, 7);
}

// Adds to `sums` of two taps, OUTPUTS each, what `rows` rows of dy (`row_dy` wide, planes `step` apart) and x give them. Calls nothing.
__attribute__((noinline)) static void gradient_piece(const float *dy, const float *x0, const float *x1, float *sum0, float *sum1, int32_t rows, int32_t row_dy, int32_t row_x, int32_t step) {
    f4 a0 = zero4(), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
    for (int32_t row = 0; row < rows; row++, x0 += row_x, x1 += row_x) {
        for (int32_t i = 0; i < row_dy; i += LANES, dy += LANES) {
            f4 first = load4(x0 + i), second = load4(x1 + i);
            f4 d0 = load4(dy), d1 = load4(dy + step), d2 = load4(dy + 2 * step), d3 = load4(dy + 3 * step);
            a0 += d0 * first, b0 += d0 * second;
            a1 += d1 * first, b1 += d1 * second;
            a2 += d2 * first, b2 += d2 * second;
            a3 += d3 * first, b3 += d3 * second;
        }
    }
    store4(sum0, load4(sum0) + sum_of_lanes(a0, a1, a2, a3));
    store4(sum1, load4(sum1) + sum_of_lanes(b0, b1, b2, b3));
}

void add_weight_sums(const Workspace *at, const Correlation *with, const float *dy, const float *x) {
    pad_input(at, with, x);
    int32_t row = rounded_up(with->ow, LANES), step = row * with->oh, outputs = rounded_up(with->outputs, OUTPUTS);
    memset(at->padded_dy + (size_t)with->outputs * step, 0, (size_t)(outputs - with->outputs) * step * sizeof(float));
    pad_planes(dy, at->padded_dy, with->outputs, with->oh, with->ow, with->oh, row, 0, 0);
    float nowhere[OUTPUTS];
    for (int32_t output = 0; output < outputs; output += OUTPUTS) {
        const float *from = at->padded_dy + (size_t)output * step;
        float *sums = at->packed + (size_t)output * at->taps;
        for (int32_t tap = 0; tap < at->taps; tap += 2) {
            int last = tap + 1 == at->taps;
            const float *x0 = at->padded + at->reach[tap], *x1 = last ? x0 : at->padded + at->reach[tap + 1];
            gradient_piece(from, x0, x1, sums + tap * OUTPUTS, last ? nowhere : sums + (tap + 1) * OUTPUTS, with->oh, row, at->row, step);
        }
    }
}

void write_weight_sums(const Workspace *at, const Correlation *with, float *dweight) {
    for (int32_t output = 0; output < with->outputs; output++) {
        const float *from = at->packed + (size_t)(output / OUTPUTS * OUTPUTS) * at->taps + output % OUTPUTS;
        for (int32_t tap = 0; tap < at->taps; tap++) *dweight++ = from[tap * OUTPUTS];
    }
}
