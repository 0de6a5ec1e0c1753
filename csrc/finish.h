/* What is done to a pixel of a step as soon as it is summed: other branches' sums are added, then it
 * is multiplied by the derivatives of an activation, and its products are summed by row
 * (`fd_finish`).
 *
 * Layout  A pixel is (channels, lanes), or of few features (features, channels).
 * Mix     Loads and stores; the pixel is in L1.
 * Numbers float32, one operation at a time, in the order above.
 */
#ifndef FD_FINISH_H
#define FD_FINISH_H

#include "post.h"

/* Adds a finished pixel, multiplied by `counts`, to the sums of its row. */
static void add_to_sums(const fd_finish *f, int y, int x, const float *pixel, int channels, int kp,
                        int by_feature) {
    const float *by = factors(&f->counts, y, x);
    float *sums = f->sums + (ptrdiff_t)y * channels * kp;
    if (by_feature) {
        for (int k = 0; k < kp; k++)
            for (int c = 0; c < channels; c++)
                sums[k * channels + c] += pixel[k * channels + c] * by[c];
        return;
    }
    for (int c = 0; c < channels; c++, pixel += kp, sums += kp)
        for (int k = 0; k < kp; k += VW)
            vf_store(sums + k, vf_add(vf_load(sums + k),
                                      vf_mul(vf_load(pixel + k), vf_set1(by[c]))));
}

/* Whether finish_pixel has anything to do. */
static int finishes(const fd_finish *f) { return f->more.v || f->factor.values || f->sums; }

/* Applies `fd_finish` to a pixel while it is in cache. The pixel is (channels, kp), or by feature
 * (kp, channels). */
static void finish_pixel(const fd_finish *f, int y, int x, float *out, int channels, int kp,
                         int by_feature) {
    const float *factor = factors(&f->factor, y, x), *more = viewed(&f->more, y, x);
    if (by_feature && (factor || more)) {
        for (int k = 0; k < kp; k++)
            for (int c = 0; c < channels; c++) {
                float *to = out + k * channels + c;
                if (more) *to = post_one(*to + more[k * f->more.feature + c], &f->post, c);
                if (factor) *to *= factor[c];
            }
    } else if (factor || more) {
        const fd_post after = f->post;
        for (int c = 0; c < channels; c++) {
            const vf by = vf_set1(factor ? factor[c] : 1);
            const ptrdiff_t at = (ptrdiff_t)c * kp;
            float *to = out + at;
            for (int k = 0; k < kp; k += VW) {
                vf a = vf_load(to + k);
                if (more) a = post(vf_add(a, vf_load(more + at + k)), &after, c, 1);
                vf_store(to + k, factor ? vf_mul(a, by) : a);
            }
        }
    }
    if (f->sums) add_to_sums(f, y, x, out, channels, kp, by_feature);
}

#endif
