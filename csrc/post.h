/* What is applied to a finished sum of the backward pass.
 *
 * What    ReLU, scale, ReLU (fd_post), and where the factors and the other tensor of a pixel are
 *         (fd_factor, fd_view).
 * Layout  A vector has lanes of one channel, or a channel in every lane.
 * Numbers float32; the order of operations is that of fastdeconv.h.
 */
#ifndef FD_POST_H
#define FD_POST_H

#include "units.h"

/* Applies fd_post to a vector. one_channel: all lanes belong to `channel`; otherwise lane i belongs
 * to channel + i. */
FD_INLINE vf post(vf a, const fd_post *p, int channel, const int one_channel) {
    if (p->relu_before) a = vf_max(vf_zero(), a);
    if (p->scale) {
        const float *scale = p->scale + channel;
        a = vf_mul(a, one_channel ? vf_set1(*scale) : vf_load(scale));
    }
    if (p->relu_after) a = vf_max(vf_zero(), a);
    return a;
}

/* The same as a maximum with least_of(p), unless there are scales: several results in a row would
 * need three branches each. */
FD_INLINE vf post_at_least(vf a, vf least, const fd_post *p, int channel, const int one_channel) {
    return p->scale ? post(a, p, channel, one_channel) : vf_max(least, a);
}

/* What fd_post leaves of a sum is at least this, if it has no scales. */
FD_INLINE vf least_of(const fd_post *p) {
    return vf_set1(p->relu_before || p->relu_after ? 0.0f : -__builtin_inff());
}

/* The same for a single value. */
FD_INLINE float post_one(float a, const fd_post *p, int channel) {
    if (p->relu_before) a = 0 > a ? 0 : a;
    if (p->scale) a *= p->scale[channel];
    return p->relu_after && 0 > a ? 0 : a;
}

/* The factors of a pixel, or NULL: all are 1. */
FD_INLINE const float *factors(const fd_factor *f, int y, int x) {
    return f->values ? f->values + y * f->row + x * f->column : NULL;
}

/* The values of a view at a pixel, or NULL where the view is empty. */
FD_INLINE const float *viewed(const fd_view *of, int y, int x) {
    return of->v ? of->v + y * of->row + x * of->column : NULL;
}

#endif
