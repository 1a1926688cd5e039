// Softmax and its logarithm along rows, attention's masked softmax, and cross entropy.
#include "math.h"
#include "reduce.h"

// y = e^(x * scale - greatest) over the first `seen` columns, 0 beyond; returns 1 / sum.
static float exponentials(const float *x, float *y, int32_t columns, int32_t seen, float scale) {
    f4 found = splat4(-__builtin_inff());
    EACH_FOUR(seen, { found = max4(found, take4(x + i, left, -__builtin_inff()) * scale); });
    float greatest = lanes_max(found);
    EACH_FOUR(seen, { put4(y + i, exp4(take4(x + i, left, 0.0f) * scale - greatest), left); });
    for (int32_t i = seen; i < columns; i++) y[i] = 0.0f;
    return 1.0f / (float)sum_of(y, seen);
}

static void scale_row(float *y, int32_t n, float by) {
    EACH_FOUR(n, { put4(y + i, take4(y + i, left, 0.0f) * by, left); });
}

void softmax(const float *x, float *y, int32_t rows, int32_t columns) {
    for (int32_t row = 0; row < rows; row++, x += columns, y += columns) scale_row(y, columns, exponentials(x, y, columns, columns, 1.0f));
}

// dx = scale * y * (dy - sum(dy * y)).
static void row_grad(const float *dy, const float *y, float *dx, int32_t columns, float scale) {
    float along = (float)dot_of(dy, y, columns);
    EACH_FOUR(columns, {
        put4(dx + i, take4(y + i, left, 0.0f) * (take4(dy + i, left, 0.0f) - along) * scale, left);
    });
}

void softmax_grad(const float *dy, const float *y, float *dx, int32_t rows, int32_t columns) {
    for (int32_t row = 0; row < rows; row++, dy += columns, y += columns, dx += columns) row_grad(dy, y, dx, columns, 1.0f);
}

#define TERM(i, left) exp4(take4(x + (i), left, -__builtin_inff()) - greatest)
DEFINE_SUM(sum_of_exponentials, TERM, const float *x, float greatest)
#undef TERM

void log_softmax(const float *x, float *y, int32_t rows, int32_t columns) {
    for (int32_t row = 0; row < rows; row++, x += columns, y += columns) {
        float greatest = max_of(x, columns);
        float log_sum = log1((float)sum_of_exponentials(x, greatest, columns));
        EACH_FOUR(columns, {
            put4(y + i, (take4(x + i, left, 0.0f) - greatest) - log_sum, left);
        });
    }
}

// dx = dy - e^y * sum(dy).
void log_softmax_grad(const float *dy, const float *y, float *dx, int32_t rows, int32_t columns) {
    for (int32_t row = 0; row < rows; row++, dy += columns, y += columns, dx += columns) {
        float along = (float)sum_of(dy, columns);
        EACH_FOUR(columns, {
            put4(dx + i, take4(dy + i, left, 0.0f) - exp4(take4(y + i, left, 0.0f)) * along, left);
        });
    }
}

// Softmax of scale * scores by rows of each rows x columns matrix. A causal row sees the columns up to its own number.
void attention_softmax(const float *scores, float *y, int32_t matrices, int32_t rows, int32_t columns, float scale, int32_t causal) {
    for (int32_t at = 0; at < matrices * rows; at++, scores += columns, y += columns) {
        int32_t row = at % rows;
        int32_t seen = causal && row + 1 < columns ? row + 1 : columns;
        scale_row(y, seen, exponentials(scores, y, columns, seen, scale));
    }
}

// Where a score was masked, y is 0, and so is its gradient.
void attention_softmax_grad(const float *dy, const float *y, float *dscores, int32_t matrices, int32_t rows, int32_t columns, float scale) {
    for (int32_t at = 0; at < matrices * rows; at++, dy += columns, y += columns, dscores += columns) row_grad(dy, y, dscores, columns, scale);
}

static int32_t counted(const int64_t *target, int32_t rows, int32_t ignore) {
    int32_t count = 0;
    for (int32_t row = 0; row < rows; row++) count += target[row] != ignore;
    return count;
}

// The mean of -log p(target) over the rows whose target is not `ignore`, row after row in double precision; NaN if there is none,
// or if a target is no class. Leaves the log probabilities for the gradient.
void cross_entropy(const float *logits, const int64_t *target, float *log_probability, float *loss, int32_t rows, int32_t columns, int32_t ignore) {
    log_softmax(logits, log_probability, rows, columns);
    double total = 0.0;
    for (int32_t row = 0; row < rows; row++) {
        if (target[row] == ignore) continue;
        int known = target[row] >= 0 && target[row] < columns;
        total -= known ? (double)log_probability[row * columns + (int32_t)target[row]] : (double)__builtin_nanf("");
    }
    int32_t count = counted(target, rows, ignore);
    *loss = count ? (float)(total / (double)count) : __builtin_nanf("");
}

// dlogits = dloss / count * (p - 1[target]), 0 for ignored rows.
void cross_entropy_grad(const float *dloss, const float *log_probability, const int64_t *target, float *dlogits, int32_t rows, int32_t columns, int32_t ignore) {
    int32_t count = counted(target, rows, ignore);
    float share = *dloss / (float)(count ? count : 1);
    for (int32_t row = 0; row < rows; row++, log_probability += columns, dlogits += columns) {
        float by = target[row] == ignore ? 0.0f : share;
        EACH_FOUR(columns, {
            put4(dlogits + i, exp4(take4(log_probability + i, left, 0.0f)) * by, left);
        });
        if (target[row] != ignore && target[row] >= 0 && target[row] < columns) dlogits[target[row]] -= by;
    }
}

// How many rows have their (first) greatest output at the target.
void correct(const float *outputs, const int64_t *target, int32_t *count, int32_t rows, int32_t columns) {
    int32_t found = 0;
    for (int32_t row = 0; row < rows; row++, outputs += columns) {
        int32_t best = 0;
        for (int32_t i = 1; i < columns; i++) best = outputs[i] > outputs[best] ? i : best;
        found += target[row] == best;
    }
    *count = found;
}
