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

/* A finished pixel times its factors, while it is in cache: (channels, kp) or, of few features,
 * (kp, channels). */
static void times_factors(const fd_post *p, int y, int x, float *out, int channels, int kp,
                          int few) {
    const float *factor = factors(p, y, x);
    if (!factor) return;
    if (few) {
        for (int k = 0; k < kp; k++)
            for (int c = 0; c < channels; c++) out[k * channels + c] *= factor[c];
        return;
    }
    for (int c = 0; c < channels; c++) {
        const vf f = vf_set1(factor[c]);
        float *to = out + (size_t)c * kp;
        for (int k = 0; k < kp; k += VW) vf_store(to + k, vf_mul(vf_load(to + k), f));
    }
}

#endif
