/* The backward pass through branches and joins of the network.
 *
 * What    combine: where several layers read the same activation, the values that come back from
 *         them are added. A product of two activations sends back to each of them what arrives,
 *         multiplied by the other one. reduce: if one of them was a single pixel that was repeated
 *         all over the map, it gets the sum of that over all pixels.
 * Layout  (h, w, channel, lane), or by feature (h, w, feature, channel). A tensor that is read may
 *         be a part of another one, or a single pixel that stands for all (fd_view).
 * Mix     Per term and vector of lanes 1 load, 1 addition and, with a factor, 1 multiplication:
 *         bound by memory.
 * Numbers float32. Terms are added in their order. Pixels are summed row by row, and then the rows
 *         from the top, whatever the number of threads.
 */
#include <string.h>

#include "post.h"

/* One value of a term, multiplied by its factor. */
FD_INLINE float term_one(const float *from, const float *factor, ptrdiff_t at, int channel) {
    return factor ? from[at] * factor[channel] : from[at];
}

static void combine_by_feature(const fd_combine *o, int y, int x, float *out) {
    const float *last = factors(&o->factor, y, x);
    for (int k = 0; k < o->kp; k++)
        for (int c = 0; c < o->channels; c++) {
            float sum = 0;
            for (int i = 0; i < o->count; i++) {
                const float *from = viewed(o->terms + i, y, x);
                const float one = term_one(from, factors(o->factors + i, y, x),
                                           k * o->terms[i].feature + c, c);
                sum = i ? sum + one : one;
            }
            sum = post_one(sum, &o->post, c);
            out[k * o->channels + c] = last ? sum * last[c] : sum;
        }
}

/* The sum of all terms for one vector of lanes of channel c, after `post` and the last factor. */
FD_INLINE vf combined(const float *const *from, const float *const *by, int count, ptrdiff_t at,
                      int c, const fd_post *after, const float *last) {
    vf sum = vf_load(from[0] + at);
    if (by[0]) sum = vf_mul(sum, vf_set1(by[0][c]));
    for (int i = 1; i < count; i++) {
        vf one = vf_load(from[i] + at);
        if (by[i]) one = vf_mul(one, vf_set1(by[i][c]));
        sum = vf_add(sum, one);
    }
    sum = post(sum, after, c, 1);
    return last ? vf_mul(sum, vf_set1(last[c])) : sum;
}

static void combine_lanes(const fd_combine *o, int y, int x, float *out) {
    const float *from[FD_MOST_TERMS], *by[FD_MOST_TERMS];
    const float *last = factors(&o->factor, y, x);
    const fd_post after = o->post;
    const int kp = o->kp, count = o->count;
    for (int i = 0; i < count; i++) {
        from[i] = viewed(o->terms + i, y, x);
        by[i] = factors(o->factors + i, y, x);
    }
    for (int c = 0; c < o->channels; c++)
        for (int k = 0; k < kp; k += VW) {
            const ptrdiff_t at = (ptrdiff_t)c * kp + k;
            /* One and two terms are by far the most frequent: with a constant number, the loop is
             * unrolled. */
            const vf sum = count == 2   ? combined(from, by, 2, at, c, &after, last)
                           : count == 1 ? combined(from, by, 1, at, c, &after, last)
                                        : combined(from, by, count, at, c, &after, last);
            vf_store(out + at, sum);
        }
}

void FD_NAME(fd_combine_rows)(const fd_combine *o, int row0, int row1) {
    const size_t pixel = (size_t)o->channels * o->kp;
    for (int y = row0; y < row1; y++)
        for (int x = 0; x < o->w; x++)
            (o->by_feature ? combine_by_feature : combine_lanes)(o, y, x,
                                                   o->out + ((size_t)y * o->w + x) * pixel);
}

/* Adds channels from..to-1 of a pixel to `sums` (channel, lane). */
static void add_pixel(const fd_reduce *r, int y, int x, int from, int to, float *sums) {
    const float *v = viewed(&r->of, y, x), *factor = factors(&r->factor, y, x);
    const int kp = r->kp;
    for (int c = from; c < to; c++, sums += kp) {
        if (r->by_feature) {
            for (int k = 0; k < kp; k++)
                sums[k] += term_one(v, factor, k * r->of.feature + c, c);
            continue;
        }
        const vf by = vf_set1(factor ? factor[c] : 1);
        const float *lanes = v + (ptrdiff_t)c * kp;
        for (int k = 0; k < kp; k += VW) {
            const vf one = vf_mul(vf_load(lanes + k), by);
            vf_store(sums + k, vf_add(vf_load(sums + k), one));
        }
    }
}

int FD_NAME(fd_reduce_channels)(const fd_reduce *r, int channel0, int channel1) {
    const size_t size = (size_t)(channel1 - channel0) * r->kp;
    float *total = fd_scratch(2 * size);
    if (!total) return -1;
    float *row = total + size;
    memset(total, 0, sizeof(float) * size);
    for (int y = 0; y < r->h; y++) {
        memset(row, 0, sizeof(float) * size);
        for (int x = 0; x < r->w; x++) add_pixel(r, y, x, channel0, channel1, row);
        for (size_t i = 0; i < size; i++) total[i] += row[i];
    }
    for (int c = channel0; c < channel1; c++)
        for (int k = 0; k < r->kp; k++) {
            const size_t at = r->by_feature ? (size_t)k * r->channels + c : (size_t)c * r->kp + k;
            r->out[at] = total[(size_t)(c - channel0) * r->kp + k];
        }
    free(total);
    return 0;
}
