/* What follows a sum in the backward pass. */
#ifndef FD_POST_H
#define FD_POST_H

#include "units.h"

/* fd_post with one channel in all lanes, or a channel in each from `channel` on. */
FD_INLINE vf post(vf a, const fd_post *p, int channel, const int one_channel) {
    if (p->relu_before) a = vf_max(vf_zero(), a);
    if (p->scale) {
        const float *scale = p->scale + channel;
        a = vf_mul(a, one_channel ? vf_set1(*scale) : vf_load(scale));
    }
    if (p->relu_after) a = vf_max(vf_zero(), a);
    return a;
}

/* The same of one value. */
FD_INLINE float post_one(float a, const fd_post *p, int channel) {
    if (p->relu_before) a = 0 > a ? 0 : a;
    if (p->scale) a *= p->scale[channel];
    return p->relu_after && 0 > a ? 0 : a;
}

/* The factors of a pixel; NULL: none. */
FD_INLINE const float *factors(const fd_factor *f, int y, int x) {
    return f->values ? f->values + y * f->row + x * f->column : NULL;
}

/* What a view has at a pixel; NULL: nothing. */
FD_INLINE const float *viewed(const fd_view *of, int y, int x) {
    return of->v ? of->v + y * of->row + x * of->column : NULL;
}

#endif
