/* Pooling of any window: of the rows of a convolution while they are in cache (conv.c), or of an
 * activation (pool.c).
 *
 * What    The maximum of each window with its place (the switch), or the mean.
 * Layout  Channels last, channels in the lanes. Switches (out_h, out_w, switch_cell).
 * Mix     Per place of a window and vector of channels, 1 load and either 1 comparison with 2
 *         selects or 1 addition: bound by memory.
 * Numbers float32. Maxima as in take.h. A mean is a sum of the rows of the window, each in blocks
 *         of SUM_AT_ONCE columns, which is divided once. So equal windows give equal bits, and a
 *         long sum loses little.
 */
#ifndef FD_POOL_H
#define FD_POOL_H

#include <string.h>

#include "take.h"

#define SUM_AT_ONCE 32

static void store_switches(void *switches, int bytes, size_t at, vf index) {
    float lanes[VW];
    uint32_t bits[VW];
    vf_store(lanes, index);
    memcpy(bits, lanes, sizeof bits);
    if (bytes == 1)
        for (int l = 0; l < VW; l++) ((uint8_t *)switches)[at + l] = (uint8_t)bits[l];
    else if (bytes == 2)
        for (int l = 0; l < VW; l++) ((uint16_t *)switches)[at + l] = (uint16_t)bits[l];
    else
        memcpy((uint32_t *)switches + at, bits, sizeof bits);
}

/* The maxima of all channels of the window that begins in column x0. */
static void window_max(const fd_pool *p, const float *const *rows, ptrdiff_t col, int x0,
                       size_t cell, float *out) {
    const fd_window *k = &p->window;
    for (int c = 0; c < p->channels; c += VW) {
        vf best = vf_zero(), at = vf_zero();
        int seen = 0;
        for (int i = 0; i < k->kh; i++) {
            if (!rows[i]) continue;
            for (int j = 0; j < k->kw; j++) {
                const int column = x0 + j * k->dw;
                if (column < 0 || column >= p->in_w) continue;
                const vf a = vf_load(rows[i] + column * col + c);
                const uint32_t index = (uint32_t)(i * k->kw + j);
                if (seen)
                    take(a, index, &best, &at);
                else
                    best = a, at = vf_from_bits(index), seen = 1;
            }
        }
        vf_store(out + c, best);
        store_switches(p->switches, p->switch_bytes, cell * p->switch_cell + c, at);
    }
}

/* The sum of n vectors, which lie `col` apart. */
FD_INLINE vf sum_of_row(const float *in, ptrdiff_t col, int n) {
    vf sum = vf_zero();
    for (int x = 0; x < n; x += SUM_AT_ONCE) {
        const int end = n - x < SUM_AT_ONCE ? n : x + SUM_AT_ONCE;
        vf part = vf_load(in + x * col);
        for (int i = x + 1; i < end; i++) part = vf_add(part, vf_load(in + i * col));
        sum = vf_add(sum, part);
    }
    return sum;
}

/* The same for means. Windows of means have no dilation. */
static void window_mean(const fd_pool *p, const float *const *rows, ptrdiff_t col, int x0,
                        size_t cell, float *out) {
    const fd_window *k = &p->window;
    const int left = x0 > 0 ? x0 : 0, right = x0 + k->kw < p->in_w ? x0 + k->kw : p->in_w;
    const vf count = vf_set1(p->counts[cell]);
    for (int c = 0; c < p->channels; c += VW) {
        vf sum = vf_zero();
        for (int i = 0; i < k->kh; i++)
            if (rows[i]) sum = vf_add(sum, sum_of_row(rows[i] + left * col + c, col, right - left));
        vf_store(out + c, vf_div(sum, count));
    }
}

/* Pools output row y. rows[i]: the input row that row i of the windows reads, or NULL in the
 * padding. Its pixels lie `col` elements apart. */
static void pool_row(const fd_pool *p, const float *const *rows, ptrdiff_t col, int y) {
    for (int x = 0; x < p->out_w; x++) {
        const int x0 = x * p->window.sw - p->window.left;
        const size_t cell = (size_t)y * p->out_w + x;
        float *out = p->out + y * p->out_row + x * p->out_col;
        (p->counts ? window_mean : window_max)(p, rows, col, x0, cell, out);
    }
}

#endif
