/* Direct convolution for 2 x 2 pool windows: the four pixels of a window are summed together, and
 * pooled before anything is stored. conv.c and winograd.c both use it, and must agree bit for bit.
 *
 * Layout  As in conv.c: output channels in the lanes, two vectors of them at a time.
 * Mix     For three windows and two vectors of channels, per tap and input channel, on AVX-512:
 *         2 loads, 12 broadcasts, 24 FMA.
 * Numbers As in conv.c: see in_parts.
 */
#ifndef FD_WINDOWS_H
#define FD_WINDOWS_H

#include "activate.h"
#include "take.h"

/* Windows that are summed together. Each needs 4 pixels x 2 vectors of accumulators, and all of
 * them must fit in the registers. */
#if FD_REGISTERS >= 32
#define WINDOWS 3
#else
#define WINDOWS 1
#endif

/* What one pool window reads and writes, at channel 0. */
typedef struct {
    const float *in;
    float *out;
    uint8_t *switches;      /* NULL: the pool takes means */
} window;

FD_INLINE window window_at(const fd_conv *c, const fd_pool *p, int y, int x) {
    const size_t cell = (size_t)y * p->out_w + x;
    return (window){
        c->in + 2 * (y * c->in_row + x * c->in_col),
        p->out + y * p->out_row + x * p->out_col,
        p->counts ? NULL : (uint8_t *)p->switches + cell * p->switch_cell,
    };
}

/* Applies the epilogue to n sums in registers. An activation that would need too many registers
 * more is not applied here: then is_later() is true, and complete() applies the whole epilogue when
 * the sums are in memory. */
FD_INLINE void finish_all(vf *a, const fd_epilogue *e, int channel, const int n) {
    if (is_later(e)) return;
    if (e->scale1) {
        const vf scale = vf_load(e->scale1 + channel), shift = vf_load(e->shift1 + channel);
        FD_UNROLL
        for (int i = 0; i < n; i++) a[i] = vf_fma(a[i], scale, shift);
    }
#define FINISH(KIND)                                                                           \
    if (e->activation.kind == KIND)                                                            \
        FD_UNROLL                                                                              \
        for (int i = 0; i < n; i++) a[i] = activation(a[i], &e->activation, channel, KIND);
    FINISH(FD_RELU) FINISH(FD_LEAKY) FINISH(FD_HARDSWISH)
#undef FINISH
    if (e->scale2) {
        const vf scale = vf_load(e->scale2 + channel), shift = vf_load(e->shift2 + channel);
        FD_UNROLL
        for (int i = 0; i < n; i++) a[i] = vf_fma(a[i], scale, shift);
    }
}

/* Whether there are partial sums. */
FD_INLINE int in_parts(const fd_conv *c) { return c->part > 0; }

/* The end of the channels that are summed in one go from channel i on. */
FD_INLINE int part_end(const fd_conv *c, int i) {
    return !in_parts(c) || c->cin - i < c->part ? c->cin : i + c->part;
}

/* With in_parts, the accumulators of T x NV vectors of channels hold the partial sums, and `total`,
 * in memory, what they have come to: at first the bias. */
FD_INLINE void begin_parts(float *total, vf acc[][2], const int T, const int NV) {
    FD_UNROLL
    for (int x = 0; x < T; x++)
        FD_UNROLL
        for (int j = 0; j < NV; j++) {
            vf_store(total + (x * NV + j) * VW, acc[x][j]);
            acc[x][j] = vf_zero();
        }
}

FD_INLINE void end_part(float *total, vf acc[][2], const int T, const int NV) {
    FD_UNROLL
    for (int x = 0; x < T; x++)
        FD_UNROLL
        for (int j = 0; j < NV; j++) {
            float *at = total + (x * NV + j) * VW;
            vf_store(at, vf_add(vf_load(at), acc[x][j]));
            acc[x][j] = vf_zero();
        }
}

FD_INLINE void end_parts(const float *total, vf acc[][2], const int T, const int NV) {
    FD_UNROLL
    for (int x = 0; x < T; x++)
        FD_UNROLL
        for (int j = 0; j < NV; j++) acc[x][j] = vf_load(total + (x * NV + j) * VW);
}

/* Sums N windows x NV vectors of channels (constants after inlining), and stores
 * sums[window][pixel][vector]. Weights of neighbouring input channels lie w_step floats apart. */
FD_INLINE void sum_tile(const fd_conv *c, const window *k, const float *w, ptrdiff_t w_step,
                        int channel, float *sums, const int N, const int NV) {
    vf acc[4 * WINDOWS][2];
    const ptrdiff_t col = c->in_col;
    FD_UNROLL
    for (int x = 0; x < 4 * N; x++)
        FD_UNROLL
        for (int j = 0; j < NV; j++) acc[x][j] = vf_load(c->bias + channel + j * VW);
    if (in_parts(c)) begin_parts(sums, acc, 4 * N, NV);
    for (int t = 0; t < c->ntaps; t++) {
        const float *p[2 * WINDOWS];
        FD_UNROLL
        for (int r = 0; r < 2 * N; r++) p[r] = k[r / 2].in + c->taps[t] + r % 2 * c->in_row;
        for (int i = 0; i < c->cin;) {
            for (const int end = part_end(c, i); i < end; i++, w += w_step) {
                vf b[2];
                FD_UNROLL
                for (int j = 0; j < NV; j++) b[j] = vf_load(w + j * VW);
                FD_UNROLL
                for (int x = 0; x < 4 * N; x++) {
                    const vf v = vf_set1(p[x / 2][x % 2 * col + i]);
                    FD_UNROLL
                    for (int j = 0; j < NV; j++) acc[x][j] = vf_fma(v, b[j], acc[x][j]);
                }
            }
            if (in_parts(c)) end_part(sums, acc, 4 * N, NV);
        }
    }
    if (in_parts(c)) return;
    FD_UNROLL
    for (int x = 0; x < 4 * N; x++)
        FD_UNROLL
        for (int j = 0; j < NV; j++) vf_store(sums + (x * NV + j) * VW, acc[x][j]);
}

/* The mean of a window's pixels, in the order of pool.h. */
FD_INLINE vf mean_of(vf a, vf b, vf d, vf e) {
    return vf_mul(vf_set1(0.25f), vf_add(vf_add(a, b), vf_add(d, e)));
}

/* Pools one vector of channels of a window. x: the sums of its four pixels. *best is their maximum
 * and *index its place; in a window without switches *best is their mean. */
FD_INLINE void pooled(const fd_conv *c, const window *k, vf x[4], int channel, vf *best,
                      vf *index) {
    finish_all(x, &c->epilogue, channel, 4);
    *index = vf_zero();
    if (!k->switches) {
        *best = mean_of(x[0], x[1], x[2], x[3]);
        return;
    }
    *best = x[0];
    FD_UNROLL
    for (int i = 1; i < 4; i++) take(x[i], (uint32_t)i, best, index);
}

/* The same, stored. */
FD_INLINE void pool_pixels(const fd_conv *c, const window *k, vf x[4], int channel) {
    vf best, index;
    pooled(c, k, x, channel, &best, &index);
    vf_store(k->out + channel, best);
    if (k->switches) vf_store_bytes(k->switches + channel, index);
}

/* The same, from sums in memory that lie `step` floats apart. */
FD_INLINE void pool_sums(const fd_conv *c, const window *k, const float *sums, ptrdiff_t step,
                         int channel) {
    vf x[4];
    FD_UNROLL
    for (int i = 0; i < 4; i++) x[i] = vf_load(sums + i * step);
    pool_pixels(c, k, x, channel);
}

/* Every size has a function that is not inlined, and passes its sums to the pool through memory:
 * otherwise compilers do not keep the accumulators in registers. */
#define SUM_WINDOWS(N, NV)                                                                     \
    static FD_NOINLINE void sum_windows_##N##_##NV(const fd_conv *c, const window *k,          \
                                                   const float *w, ptrdiff_t w_step,           \
                                                   int channel) {                              \
        float sums[4 * N * NV * VW] FD_ALIGNED;                                                \
        sum_tile(c, k, w, w_step, channel, sums, N, NV);                                       \
        if (is_later(&c->epilogue))                                                            \
            for (int j = 0; j < NV; j++)                                                       \
                complete(&c->epilogue, sums + j * VW, NV * VW, 4 * N, channel + j * VW);       \
        for (int n = 0; n < N; n++)                                                            \
            for (int j = 0; j < NV; j++)                                                       \
                pool_sums(c, k + n, sums + (4 * n * NV + j) * VW, NV * VW, channel + j * VW);  \
    }
SUM_WINDOWS(1, 1)
SUM_WINDOWS(1, 2)
#if WINDOWS == 3
SUM_WINDOWS(2, 1)
SUM_WINDOWS(2, 2)
SUM_WINDOWS(3, 1)
SUM_WINDOWS(3, 2)
#endif

#define SUM_ALL_CHANNELS(N)                                                                    \
    static void sum_all_channels_##N(const fd_conv *c, const window *k) {                      \
        const int vectors = (c->cout + VW - 1) / VW;                                           \
        const size_t vector = (size_t)c->ntaps * c->cin * VW;                                  \
        const float *w = c->weight;                                                            \
        int v = 0;                                                                             \
        for (; v + 2 <= vectors; v += 2, w += 2 * vector)                                      \
            sum_windows_##N##_2(c, k, w, 2 * VW, v * VW);                                      \
        if (v < vectors) sum_windows_##N##_1(c, k, w, VW, v * VW);                             \
    }
SUM_ALL_CHANNELS(1)
#if WINDOWS == 3
SUM_ALL_CHANNELS(2)
SUM_ALL_CHANNELS(3)
#endif

/* All channels of n <= WINDOWS windows of a convolution without groups. */
static void direct_windows(const fd_conv *c, const window *k, int n) {
#if WINDOWS == 3
    if (n == 3)
        sum_all_channels_3(c, k);
    else if (n == 2)
        sum_all_channels_2(c, k);
    else
#endif
    if (n == 1)
        sum_all_channels_1(c, k);
}

/* Whether these kernels can compute the convolution and its pool: it has no groups, and the windows
 * are 2 x 2, lie side by side and never reach over an edge. */
FD_INLINE int plain_windows(const fd_conv *c, const fd_pool *p) {
    const fd_window *k = &p->window;
    return c->groups == 1 && k->kh == 2 && k->kw == 2 && k->sh == 2 && k->sw == 2 &&
           k->dh == 1 && k->dw == 1 && k->top == 0 && k->left == 0 &&
           2 * p->out_h <= p->in_h && 2 * p->out_w <= p->in_w;
}

#endif
