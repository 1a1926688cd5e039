// One step of a gated recurrent unit (Cho et al. 2014, with torch's place of the reset gate) and of a long short-term memory cell
// (Hochreiter and Schmidhuber 1997; Gers et al. 2000). The gates' products with input and hidden state are gemm's, biases and all.
#include "math.h"

// Gates in the order r, z, n. y = (1 - z) * n + z * h with n = tanh(input_n + r * hidden_n); saved: r, z, n, hidden_n.
void gru_cell(const float *input_gates, const float *hidden_gates, const float *hidden, float *y, float *saved, int32_t n, int32_t width) {
    for (int32_t row = 0; row < n; row++) {
        EACH_FOUR(width, {
            f4 reset = sigmoid4(take4(input_gates + i, left, 0.0f) + take4(hidden_gates + i, left, 0.0f));
            f4 update = sigmoid4(take4(input_gates + width + i, left, 0.0f) + take4(hidden_gates + width + i, left, 0.0f));
            f4 of_hidden = take4(hidden_gates + 2 * width + i, left, 0.0f);
            f4 fresh = tanh4(take4(input_gates + 2 * width + i, left, 0.0f) + reset * of_hidden);
            put4(y + i, (1.0f - update) * fresh + update * take4(hidden + i, left, 0.0f), left);
            put4(saved + i, reset, left);
            put4(saved + width + i, update, left);
            put4(saved + 2 * width + i, fresh, left);
            put4(saved + 3 * width + i, of_hidden, left);
        });
        input_gates += 3 * width, hidden_gates += 3 * width, hidden += width, y += width, saved += 4 * width;
    }
}

void gru_cell_grad(const float *dy, const float *hidden, const float *saved, float *dinput_gates, float *dhidden_gates, float *dhidden, int32_t n, int32_t width) {
    for (int32_t row = 0; row < n; row++) {
        EACH_FOUR(width, {
            f4 reset = take4(saved + i, left, 0.0f), update = take4(saved + width + i, left, 0.0f);
            f4 fresh = take4(saved + 2 * width + i, left, 0.0f), of_hidden = take4(saved + 3 * width + i, left, 0.0f);
            f4 d = take4(dy + i, left, 0.0f);
            f4 dfresh = d * (1.0f - update) * (1.0f - fresh * fresh);
            f4 dupdate = d * (take4(hidden + i, left, 0.0f) - fresh) * update * (1.0f - update);
            f4 dreset = dfresh * of_hidden * reset * (1.0f - reset);
            put4(dinput_gates + i, dreset, left);
            put4(dhidden_gates + i, dreset, left);
            put4(dinput_gates + width + i, dupdate, left);
            put4(dhidden_gates + width + i, dupdate, left);
            put4(dinput_gates + 2 * width + i, dfresh, left);
            put4(dhidden_gates + 2 * width + i, dfresh * reset, left);
            put4(dhidden + i, d * update, left);
        });
        dy += width, hidden += width, saved += 4 * width, dinput_gates += 3 * width, dhidden_gates += 3 * width, dhidden += width;
    }
}

// Gates in the order i, f, g, o. cell_y = f * cell + i * g, y = o * tanh(cell_y); saved: i, f, g, o, tanh(cell_y).
void lstm_cell(const float *input_gates, const float *hidden_gates, const float *cell, float *y, float *cell_y, float *saved, int32_t n, int32_t width) {
    for (int32_t row = 0; row < n; row++) {
        EACH_FOUR(width, {
            f4 gate[4];
            for (int32_t part = 0; part < 4; part++) {
                gate[part] = take4(input_gates + part * width + i, left, 0.0f) + take4(hidden_gates + part * width + i, left, 0.0f);
                gate[part] = part == 2 ? tanh4(gate[part]) : sigmoid4(gate[part]);
                put4(saved + part * width + i, gate[part], left);
            }
            f4 state = gate[1] * take4(cell + i, left, 0.0f) + gate[0] * gate[2];
            f4 bent = tanh4(state);
            put4(cell_y + i, state, left);
            put4(y + i, gate[3] * bent, left);
            put4(saved + 4 * width + i, bent, left);
        });
        input_gates += 4 * width, hidden_gates += 4 * width, cell += width, y += width, cell_y += width, saved += 5 * width;
    }
}

// dy or dcell_y may be none. dgates are those of both input_gates and hidden_gates.
void lstm_cell_grad(const float *dy, const float *dcell_y, const float *cell, const float *saved, float *dgates, float *dcell, int32_t n, int32_t width) {
    for (int32_t row = 0; row < n; row++) {
        EACH_FOUR(width, {
            f4 in = take4(saved + i, left, 0.0f), forget = take4(saved + width + i, left, 0.0f);
            f4 fresh = take4(saved + 2 * width + i, left, 0.0f), out = take4(saved + 3 * width + i, left, 0.0f);
            f4 bent = take4(saved + 4 * width + i, left, 0.0f);
            f4 d = dy ? take4(dy + i, left, 0.0f) : zero4();
            f4 dstate = d * out * (1.0f - bent * bent) + (dcell_y ? take4(dcell_y + i, left, 0.0f) : zero4());
            put4(dgates + i, dstate * fresh * in * (1.0f - in), left);
            put4(dgates + width + i, dstate * take4(cell + i, left, 0.0f) * forget * (1.0f - forget), left);
            put4(dgates + 2 * width + i, dstate * in * (1.0f - fresh * fresh), left);
            put4(dgates + 3 * width + i, d * bent * out * (1.0f - out), left);
            put4(dcell + i, dstate * forget, left);
        });
        dy = dy ? dy + width : dy, dcell_y = dcell_y ? dcell_y + width : dcell_y;
        cell += width, saved += 5 * width, dgates += 4 * width, dcell += width;
    }
}
