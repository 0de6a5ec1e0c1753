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

/* The factors of a pixel, which come after that; NULL: none. */
FD_INLINE const float *factors(const fd_post *p, int y, int x) {
    return p->factor ? p->factor + y * p->factor_row + x * p->factor_column : NULL;
}

#endif
