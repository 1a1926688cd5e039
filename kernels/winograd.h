// 3 x 3 convolutions with strides and dilations of 1 by Winograd's minimal filtering; see winograd.c.
#ifndef GRIDSCHED_WINOGRAD_H
#define GRIDSCHED_WINOGRAD_H

#include "correlate.h"

// y [n, outputs, oh, ow] = x [n, inputs, h, w] with the weights, + bias [outputs] if there is one. Samples of x and y lie `step_x`
// and `step_y` elements apart.
void winograd(const Correlation *with, const float *x, const float *weight, const float *bias, float *y, float *scratch, int32_t n, size_t step_x, size_t step_y);

// dweight [outputs, inputs, 3, 3] from dy and x.
void winograd_grad_weight(const Correlation *with, const float *dy, const float *x, float *dweight, float *scratch, int32_t n, size_t step_x, size_t step_y);

#endif
