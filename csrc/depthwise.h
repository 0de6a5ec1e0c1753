/* The transposed convolution of a step whose convolution is depthwise: each channel has a kernel of
 * its own.
 *
 * What    The source has no pool and no gate, so that V has a value for every pixel and channel. A
 *         sum has one term for each tap, so no lists are needed. COLUMNS pixels of a row are
 *         computed together, since they share most of the pixels of V that they read.
 * Layout  V and result as in project.c; W (tap, channel).
 * Mix     Per tap and 64 lanes of a channel, on AVX-512: 4 loads, 1 broadcast, 4 FMA. Before that,
 *         the channel is copied once from each of the pixels of V.
 * Numbers float32, one vf_fma per tap, taps in row-major order, as in product.h.
 */
#ifndef FD_DEPTHWISE_H
#define FD_DEPTHWISE_H

#include "by_feature.h"

/* Pixels of a row that are computed together here, and in the first step (first_step.h). */
#if FD_REGISTERS >= 32
#define COLUMNS 12
#else
#define COLUMNS 6
#endif

/* One tap of an output pixel. */
typedef struct {
    int v;          /* index of the pixel of V that it reads */
    const float *w; /* the weights of all channels */
} tap;

/* The pixels of V that some output pixels of a row read. */
typedef struct {
    const float **v; /* these pixels */
    float *lanes;    /* one channel of all of them, copied */
    tap *taps;       /* (output pixels, taps) */
    int *n;          /* for each output pixel: how many taps it has */
    int places;      /* how many pixels of V there are */
} depthwise;

/* NV vectors of lanes of channel c. */
FD_INLINE void depthwise_lanes(const tap *taps, int n, const float *lanes, int c, const int NV,
                               const fd_post *after, float *out) {
    vf sum[FD_MAX_NV];
    FD_UNROLL
    for (int j = 0; j < NV; j++) sum[j] = vf_zero();
    for (int t = 0; t < n; t++) {
        const vf w = vf_set1(taps[t].w[c]);
        const float *v = lanes + taps[t].v * NV * VW;
        FD_UNROLL
        for (int j = 0; j < NV; j++) sum[j] = vf_fma(w, vf_load(v + j * VW), sum[j]);
    }
    FD_UNROLL
    for (int j = 0; j < NV; j++) vf_store(out + j * VW, post(sum[j], after, c, 1));
}

#define DEPTHWISE_CASE(NV) \
    case NV: depthwise_lanes(taps, n, lanes, c, NV, after, out); break;
FD_INLINE void depthwise_channel(const tap *taps, int n, const float *lanes, int c, int nv,
                                 const fd_post *after, float *out) {
    switch (nv) {
        DEPTHWISE_CASE(1) DEPTHWISE_CASE(2)
#if FD_MAX_NV == 4
        DEPTHWISE_CASE(3) DEPTHWISE_CASE(4)
#endif
    }
}

/* Prefetch distance, in channels, while a channel is copied. */
#define DEPTHWISE_AHEAD 4

static void depthwise_free(depthwise *p) {
    free(p->v);
    free(p->lanes);
    free(p->taps);
    free(p->n);
}

static int depthwise_init(depthwise *p, const fd_step *s) {
    const fd_window *k = &s->conv;
    const size_t taps = (size_t)COLUMNS * k->kh * k->kw;
    const size_t most = k->kh * ((COLUMNS + (k->kw - 1) * k->dw) / k->sw + 2);
    p->v = malloc(sizeof(float *) * most);
    p->lanes = fd_scratch(most * FD_MAX_NV * VW);
    p->taps = malloc(sizeof(tap) * taps);
    p->n = malloc(sizeof(int) * COLUMNS);
    if (p->v && p->lanes && p->taps && p->n) return 1;
    depthwise_free(p);
    return 0;
}

/* Finds the pixels of V that output pixels (Y, X..X+columns-1) read, and the taps that read
 * them. */
static void find_taps(depthwise *p, const fd_step *s, int Y, int X, int columns) {
    const fd_window *k = &s->conv;
    const int left = X + k->left - (k->kw - 1) * k->dw, right = X + columns - 1 + k->left;
    const int x0 = left > 0 ? (left + k->sw - 1) / k->sw : 0;
    const int x1 = right / k->sw < s->source.w ? right / k->sw + 1 : s->source.w;
    const int wide = x1 > x0 ? x1 - x0 : 0;
    p->places = 0;
    memset(p->n, 0, sizeof(int) * columns);
    for (int i = 0; i < k->kh; i++) {
        const int y = Y + k->top - i * k->dh;
        if (y < 0 || y % k->sh || y / k->sh >= s->source.h) continue;
        const float *row = s->v + (ptrdiff_t)(y / k->sh) * s->source.cells_w * s->cout * s->kp;
        for (int x = x0; x < x1; x++)
            p->v[p->places + x - x0] = row + (ptrdiff_t)x * s->cout * s->kp;
        for (int c = 0; c < columns; c++)
            for (int j = 0; j < k->kw; j++) {
                const int x = X + c + k->left - j * k->dw;
                if (x < 0 || x % k->sw || x / k->sw >= s->source.w) continue;
                p->taps[c * k->kh * k->kw + p->n[c]++] =
                    (tap){p->places + x / k->sw - x0, s->depthwise + (i * k->kw + j) * s->cout};
            }
        p->places += wide;
    }
}

static void depthwise_by_feature(const depthwise *p, const fd_step *s, const tap *taps, int n,
                          float *out) {
    const int channels = s->cout;
    for (int f = 0; f < s->kp; f++)
        for (int c = 0; c < channels; c += VW) {
            const int some = channels - c, at = f * channels + c;
            vf sum = vf_zero();
            for (int t = 0; t < n; t++)
                sum = vf_fma(load_part(taps[t].w + c, some),
                             load_part(p->v[taps[t].v] + at, some), sum);
            store_part(out + at, post(sum, &s->post, c, 0), some);
        }
}

/* Computes output pixels (Y, X..X+columns-1). Each channel of the pixels of V is first copied to
 * a small array: in V, the pixels often lie at distances at which they compete for a few sets of
 * L1. */
static void depthwise_columns(depthwise *p, const fd_step *s, int Y, int X, int columns,
                              float *out) {
    const ptrdiff_t most = s->conv.kh * s->conv.kw, pixel = (ptrdiff_t)s->cout * s->kp;
    const int step = s->nv * VW;
    const fd_post after = s->post;
    find_taps(p, s, Y, X, columns);
    if (!s->nv) {
        for (int i = 0; i < columns; i++)
            depthwise_by_feature(p, s, p->taps + i * most, p->n[i], out + i * pixel);
        return;
    }
    for (int c = 0; c < s->cout; c++)
        for (int f = 0; f < s->kp; f += step) {
            const ptrdiff_t at = (ptrdiff_t)c * s->kp + f;
            for (int v = 0; v < p->places; v++)
                for (int l = 0; l < step; l += VW) {
                    vf_store(p->lanes + v * step + l, vf_load(p->v[v] + at + l));
                    __builtin_prefetch(p->v[v] + at + l + DEPTHWISE_AHEAD * s->kp);
                }
            for (int i = 0; i < columns; i++)
                depthwise_channel(p->taps + i * most, p->n[i], p->lanes, c, s->nv, &after,
                                  out + i * pixel + at);
        }
}

#endif
