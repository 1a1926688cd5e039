// What gridsched/train/torch_optimizers.py does with gradients, element by element.
#include "lanes.h"

// torch/optim/sgd.py without dampening. No buffer without momentum; a buffer starts at minus zero.
void sgd(float *parameter, const float *gradient, float *momentum_buffer, int32_t n, float lr, float momentum, float weight_decay) {
    EACH_FOUR(n, {
        f4 value = take4(parameter + i, left, 0.0f), change = take4(gradient + i, left, 0.0f);
        if (weight_decay != 0.0f) change += value * weight_decay;
        if (momentum != 0.0f) {
            change += take4(momentum_buffer + i, left, 0.0f) * momentum;
            put4(momentum_buffer + i, change, left);
        }
        put4(parameter + i, value - change * lr, left);
    });
}

// x^n by squaring, from the lowest bit of n up.
static double power(double x, int32_t n) {
    double result = 1.0;
    for (; n > 0; n >>= 1, x *= x) result = n & 1 ? result * x : result;
    return result;
}

// torch/optim/adam.py with decoupled weight decay (Loshchilov and Hutter 2019). `step` counts from 1. The settings come as float64,
// because 1 - beta2 of a beta2 that was rounded to float32 is off by some 1e-5 of itself.
void adamw(float *parameter, const float *gradient, float *mean, float *square, const int32_t *step, int32_t n, double lr, double beta1, double beta2, float eps, double weight_decay) {
    float shrink = (float)(1.0 - lr * weight_decay), keep2 = (float)beta2;
    float new1 = (float)(1.0 - beta1), new2 = (float)(1.0 - beta2);
    float step_size = (float)(lr / (1.0 - power(beta1, *step)));
    float correction = (float)__builtin_sqrt(1.0 - power(beta2, *step));
    EACH_FOUR(n, {
        f4 g = take4(gradient + i, left, 0.0f), m = take4(mean + i, left, 0.0f), s = take4(square + i, left, 0.0f);
        m += (g - m) * new1;
        s = s * keep2 + g * new2 * g;
        put4(mean + i, m, left);
        put4(square + i, s, left);
        f4 scale = sqrt4(s) / correction + eps;
        put4(parameter + i, take4(parameter + i, left, 0.0f) * shrink - m * step_size / scale, left);
    });
}

// Adds the gradient of prox/2 * |parameter - anchor|^2 (FedProx: Li et al. 2020).
void pull_back(float *gradient, const float *parameter, const float *anchor, int32_t n, float prox) {
    EACH_FOUR(n, {
        f4 away = take4(parameter + i, left, 0.0f) - take4(anchor + i, left, 0.0f);
        put4(gradient + i, take4(gradient + i, left, 0.0f) + away * prox, left);
    });
}
