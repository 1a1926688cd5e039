// Winograd's F(4 x 4, 3 x 3): a tile of 4 x 4 outputs is made of 36 products with transformed weights instead of 144 (Winograd 1980;
// Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015, whose matrices B, G and A these are). Over all channels,
// each of the 36 places of a transformed tile is a matrix product.
//
// Order of summation: the transforms as written, then for each place channel after channel (for a weight's gradient, tile after tile).
// The transforms weigh by up to 8, so rounding is some ten times that of the plain sum; tests/kernels states it.
#include "winograd.h"

#include "matmul.h"

enum { OUTER = 6, INNER = 4, PLACES = OUTER * OUTER, TILES = 64, QUADS = TILES / 4 };

// Between the places of transformed tiles, for steps of whole kilobytes would put all 36 into the same set of a cache. 64 bytes.
enum { SKEW = 16 };

static inline int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t rounded_up(int32_t count, int32_t to) { return (count + to - 1) / to * to; }

// B^T v: of six inputs.
static inline void transform_input(const f4 v[6], f4 to[6]) {
    f4 a = v[4] - 4.0f * v[2], b = v[3] - 4.0f * v[1], c = v[4] - v[2], d = 2.0f * (v[3] - v[1]);
    to[0] = 4.0f * v[0] - 5.0f * v[2] + v[4];
    to[1] = a + b;
    to[2] = a - b;
    to[3] = c + d;
    to[4] = c - d;
    to[5] = 4.0f * v[1] - 5.0f * v[3] + v[5];
}

// A^T v: four outputs.
static inline void transform_output(const f4 v[6], f4 to[4]) {
    f4 a = v[1] + v[2], b = v[1] - v[2], c = v[3] + v[4], d = v[3] - v[4];
    to[0] = v[0] + a + c;
    to[1] = b + 2.0f * d;
    to[2] = a + 4.0f * c;
    to[3] = b + 8.0f * d + v[5];
}

// A v: of four outputs' gradients.
static inline void transform_gradient(const f4 v[4], f4 to[6]) {
    f4 a = v[0] + v[2], b = v[1] + v[3], c = v[0] + 4.0f * v[2], d = 2.0f * v[1] + 8.0f * v[3];
    to[0] = v[0];
    to[1] = a + b;
    to[2] = a - b;
    to[3] = c + d;
    to[4] = c - d;
    to[5] = v[3];
}

// G v and G^T v, of weights and of their gradients.
static inline void transform_weight(const float *v, int32_t step, float to[6]) {
    float a = v[0] + v[2 * step], b = v[step], c = v[0] + 4.0f * v[2 * step];
    to[0] = v[0] / 4.0f;
    to[1] = -(a + b) / 6.0f;
    to[2] = -(a - b) / 6.0f;
    to[3] = (c + 2.0f * b) / 24.0f;
    to[4] = (c - 2.0f * b) / 24.0f;
    to[5] = v[2 * step];
}

static inline void transform_back(const float *v, int32_t step, float to[3]) {
    float a = v[step] + v[2 * step], b = v[2 * step] - v[step], c = v[3 * step] + v[4 * step], d = v[3 * step] - v[4 * step];
    to[0] = v[0] / 4.0f - a / 6.0f + c / 24.0f;
    to[1] = b / 6.0f + d / 12.0f;
    to[2] = (c - a) / 6.0f + v[5 * step];
}

// Four tiles at once, one a lane, from where each begins; rows of the source are `row` apart, places of the result `step`.
static void take_inputs(const float *const from[4], int32_t row, float *to, int32_t step) {
    f4 across[OUTER][OUTER];
    for (int32_t y = 0; y < OUTER; y++) {
        f4 left[4], right[4], column[OUTER];
        for (int32_t i = 0; i < 4; i++) left[i] = load4(from[i] + y * row), right[i] = load4(from[i] + y * row + 4);
        turn4(left);
        turn4(right);
        column[0] = left[0], column[1] = left[1], column[2] = left[2], column[3] = left[3], column[4] = right[0], column[5] = right[1];
        transform_input(column, across[y]);
    }
    for (int32_t x = 0; x < OUTER; x++) {
        f4 column[OUTER] = {across[0][x], across[1][x], across[2][x], across[3][x], across[4][x], across[5][x]}, done[OUTER];
        transform_input(column, done);
        for (int32_t y = 0; y < OUTER; y++) store4(to + (size_t)(y * OUTER + x) * step, done[y]);
    }
}

static void take_gradients(const float *const from[4], int32_t row, float *to, int32_t step) {
    f4 across[INNER][OUTER];
    for (int32_t y = 0; y < INNER; y++) {
        f4 column[4];
        for (int32_t i = 0; i < 4; i++) column[i] = load4(from[i] + y * row);
        turn4(column);
        transform_gradient(column, across[y]);
    }
    for (int32_t x = 0; x < OUTER; x++) {
        f4 column[INNER] = {across[0][x], across[1][x], across[2][x], across[3][x]}, done[OUTER];
        transform_gradient(column, done);
        for (int32_t y = 0; y < OUTER; y++) store4(to + (size_t)(y * OUTER + x) * step, done[y]);
    }
}

// The 4 x 4 outputs of four tiles: result[y][i] is row y of tile i.
static void give_outputs(const float *from, size_t step, float bias, f4 result[INNER][4]) {
    f4 down[INNER][OUTER];
    for (int32_t x = 0; x < OUTER; x++) {
        f4 column[OUTER], done[INNER];
        for (int32_t y = 0; y < OUTER; y++) column[y] = load4(from + (y * OUTER + x) * step);
        transform_output(column, done);
        for (int32_t y = 0; y < INNER; y++) down[y][x] = done[y];
    }
    for (int32_t y = 0; y < INNER; y++) {
        transform_output(down[y], result[y]);
        for (int32_t i = 0; i < 4; i++) result[y][i] += bias;
        turn4(result[y]);
    }
}

// How a plane is cut into tiles, and the padded copy of a sample's planes.
typedef struct {
    int32_t across, tiles, row, plane, row_dy, plane_dy;
} Tiling;

static Tiling tiling_of(const Correlation *with) {
    int32_t down = (with->oh + INNER - 1) / INNER, across = (with->ow + INNER - 1) / INNER;
    Tiling of = {across, down * across, INNER * across + 4, 0, INNER * across, 0};
    of.plane = of.row * (INNER * down + 2);
    of.plane_dy = of.row_dy * INNER * down;
    return of;
}

static inline int32_t corner_of(const Tiling *of, int32_t tile, int32_t row) {
    tile = least(tile, of->tiles - 1);
    return tile / of->across * INNER * row + tile % of->across * INNER;
}

// Transformed weights by place, as multiply_piece reads its first matrix: ROWS outputs of one input after another.
static void take_weights(const Correlation *with, const float *weight, float *to) {
    int32_t padded = rounded_up(with->outputs, ROWS);
    memset(to, 0, (size_t)PLACES * padded * with->inputs * sizeof(float));
    for (int32_t output = 0; output < with->outputs; output++) {
        for (int32_t input = 0; input < with->inputs; input++) {
            const float *from = weight + (size_t)output * with->step_output + (size_t)input * with->step_input;
            float turned[9], down[18], across[OUTER];
            for (int32_t i = 0; i < 9; i++) turned[i] = from[with->turned ? 8 - i : i];
            for (int32_t x = 0; x < 3; x++) {
                transform_weight(turned + x, 3, across);
                for (int32_t y = 0; y < OUTER; y++) down[y * 3 + x] = across[y];
            }
            float *into = to + ((size_t)(output / ROWS) * with->inputs + input) * ROWS + output % ROWS;
            for (int32_t y = 0; y < OUTER; y++) {
                transform_weight(down + y * 3, 1, across);
                for (int32_t x = 0; x < OUTER; x++) into[(size_t)(y * OUTER + x) * padded * with->inputs] = across[x];
            }
        }
    }
}

static void put_outputs(const Correlation *with, const Tiling *of, const float *products, size_t step, const float *bias, float *y, int32_t quad) {
    for (int32_t output = 0; output < with->outputs; output++, products += TILES, y += (size_t)with->oh * with->ow) {
        f4 result[INNER][4];
        give_outputs(products, step, bias ? bias[output] : 0.0f, result);
        for (int32_t i = 0; i < least(of->tiles - 4 * quad, 4); i++) {
            int32_t tile = 4 * quad + i, top = tile / of->across * INNER, left = tile % of->across * INNER;
            for (int32_t row = 0; row < least(with->oh - top, INNER); row++) {
                put4(y + (size_t)(top + row) * with->ow + left, result[row][i], with->ow - left);
            }
        }
    }
}

void winograd(const Correlation *with, const float *x, const float *weight, const float *bias, float *y, float *scratch, int32_t n, size_t step_x, size_t step_y) {
    Tiling of = tiling_of(with);
    int32_t padded = rounded_up(with->outputs, ROWS), quads = (of.tiles + 3) / 4;
    float *sample_copy = scratch, *weights = sample_copy + (size_t)with->inputs * of.plane;
    int32_t step_inputs = with->inputs * TILES + SKEW, step_products = padded * TILES + SKEW;
    float *inputs = weights + (size_t)PLACES * padded * with->inputs, *products = inputs + (size_t)PLACES * step_inputs;
    take_weights(with, weight, weights);
    for (int32_t begin = 0; begin < n * quads; begin += QUADS) {
        int32_t count = least(n * quads - begin, QUADS);
        for (int32_t i = 0; i < count; i++) {
            int32_t sample = (begin + i) / quads, quad = (begin + i) % quads;
            if (quad == 0) pad_planes(x + sample * step_x, sample_copy, with->inputs, with->h, with->w, of.plane / of.row, of.row, with->top, with->left);
            for (int32_t input = 0; input < with->inputs; input++) {
                const float *from[4];
                for (int32_t tile = 0; tile < 4; tile++) from[tile] = sample_copy + (size_t)input * of.plane + corner_of(&of, 4 * quad + tile, of.row);
                take_inputs(from, of.row, inputs + ((size_t)(i / 2) * with->inputs + input) * COLUMNS + i % 2 * 4, step_inputs);
            }
        }
        for (int32_t place = 0; place < PLACES; place++) {
            const float *a = weights + (size_t)place * padded * with->inputs, *b = inputs + (size_t)place * step_inputs;
            float *to = products + (size_t)place * step_products;
            for (int32_t row = 0; row < padded; row += ROWS) {
                for (int32_t column = 0; column < 4 * count; column += COLUMNS) {
                    multiply_piece(a + (size_t)row * with->inputs, b + (size_t)column * with->inputs, to + (size_t)row * TILES + column, with->inputs, TILES, 0);
                }
            }
        }
        for (int32_t i = 0; i < count; i++) put_outputs(with, &of, products + 4 * i, step_products, bias, y + (begin + i) / quads * step_y, (begin + i) % quads);
    }
}

static void put_weight_gradients(const Correlation *with, const float *sums, float *dweight) {
    int32_t wide = rounded_up(with->outputs, COLUMNS);
    size_t step = (size_t)rounded_up(with->inputs, ROWS) * wide;
    for (int32_t output = 0; output < with->outputs; output++) {
        for (int32_t input = 0; input < with->inputs; input++, dweight += 9) {
            const float *from = sums + (size_t)input * wide + output;
            float places[PLACES], down[18];
            for (int32_t i = 0; i < PLACES; i++) places[i] = from[i * step];
            for (int32_t x = 0; x < OUTER; x++) {
                float column[3];
                transform_back(places + x, OUTER, column);
                for (int32_t y = 0; y < 3; y++) down[y * OUTER + x] = column[y];
            }
            for (int32_t y = 0; y < 3; y++) transform_back(down + y * OUTER, 1, dweight + 3 * y);
        }
    }
}

// Four channels of one tile, one a lane; where there are fewer, the last again, for sums that nobody reads.
static void channels_of(const float *planes, int32_t first, int32_t count, int32_t plane, int32_t corner, const float *from[4]) {
    for (int32_t i = 0; i < 4; i++) from[i] = planes + (size_t)least(first + i, count - 1) * plane + corner;
}

void winograd_grad_weight(const Correlation *with, const float *dy, const float *x, float *dweight, float *scratch, int32_t n, size_t step_x, size_t step_y) {
    Tiling of = tiling_of(with);
    int32_t high = rounded_up(with->inputs, ROWS), wide = rounded_up(with->outputs, COLUMNS);
    float *x_copy = scratch, *dy_copy = x_copy + (size_t)with->inputs * of.plane;
    int32_t step_inputs = high * TILES + SKEW, step_gradients = wide * TILES + SKEW;
    float *inputs = dy_copy + (size_t)with->outputs * of.plane_dy, *gradients = inputs + (size_t)PLACES * step_inputs;
    float *sums = gradients + (size_t)PLACES * step_gradients;
    memset(sums, 0, (size_t)PLACES * high * wide * sizeof(float));
    for (int32_t begin = 0; begin < n * of.tiles; begin += TILES) {
        int32_t count = least(n * of.tiles - begin, TILES);
        for (int32_t i = 0; i < count; i++) {
            int32_t sample = (begin + i) / of.tiles, tile = (begin + i) % of.tiles;
            const float *from[4];
            if (tile == 0) {
                pad_planes(x + sample * step_x, x_copy, with->inputs, with->h, with->w, of.plane / of.row, of.row, with->top, with->left);
                pad_planes(dy + sample * step_y, dy_copy, with->outputs, with->oh, with->ow, of.plane_dy / of.row_dy, of.row_dy, 0, 0);
            }
            for (int32_t input = 0; input < with->inputs; input += ROWS) {
                channels_of(x_copy, input, with->inputs, of.plane, corner_of(&of, tile, of.row), from);
                take_inputs(from, of.row, inputs + (size_t)input * TILES + i * ROWS, step_inputs);
            }
            for (int32_t output = 0; output < with->outputs; output += 4) {
                channels_of(dy_copy, output, with->outputs, of.plane_dy, corner_of(&of, tile, of.row_dy), from);
                take_gradients(from, of.row_dy, gradients + (size_t)(output / COLUMNS) * COLUMNS * TILES + i * COLUMNS + output % COLUMNS, step_gradients);
            }
        }
        for (int32_t place = 0; place < PLACES; place++) {
            const float *a = inputs + (size_t)place * step_inputs, *b = gradients + (size_t)place * step_gradients;
            float *to = sums + (size_t)place * high * wide;
            for (int32_t row = 0; row < high; row += ROWS) {
                for (int32_t column = 0; column < wide; column += COLUMNS) {
                    multiply_piece(a + (size_t)row * TILES, b + (size_t)column * TILES, to + (size_t)row * wide + column, count, wide, 1);
                }
            }
        }
    }
    put_weight_gradients(with, sums, dweight);
}
