// Convolution with strides of 1, straight from a padded copy of a sample; see correlate.c.
#ifndef GRIDSCHED_CORRELATE_H
#define GRIDSCHED_CORRELATE_H

#include "lanes.h"

// One group's part of a convolution with strides of 1: `inputs` planes of h x w, `top` and `left` zeros before them, to `outputs`
// planes of oh x ow. Weight (output, input, tap) lies at weight[output * step_output + input * step_input + tap], taps counted from
// the last where `turned`.
typedef struct {
    int32_t inputs, h, w, top, left, outputs, oh, ow, kh, kw, dh, dw;
    int32_t step_output, step_input, turned;
} Correlation;

// A correlation's places in scratch, and the steps between rows and planes of the padded copy.
typedef struct {
    float *padded, *packed, *padded_dy;
    int32_t *reach;
    int32_t taps, row, plane;
} Workspace;

// `count` planes of h x w into planes of `rows` x `row`, `top` rows and `left` columns from their corners, zeros around.
void pad_planes(const float *x, float *to, int32_t count, int32_t h, int32_t w, int32_t rows, int32_t row, int32_t top, int32_t left);

// Lays out scratch and finds each tap's distance from an output's first input.
Workspace workspace_of(float *scratch, const Correlation *with);
void pack_weights(const Workspace *at, const Correlation *with, const float *weight);
// y [outputs, oh, ow] = x [inputs, h, w] with the packed weights, + bias [outputs] if there is one.
void correlate(const Workspace *at, const Correlation *with, const float *x, const float *bias, float *y);

// Sums of dweight are gathered in `packed`, cleared before the first sample and written out after the last.
void clear_weight_sums(const Workspace *at, const Correlation *with);
void add_weight_sums(const Workspace *at, const Correlation *with, const float *dy, const float *x);
void write_weight_sums(const Workspace *at, const Correlation *with, float *dweight);

#endif
