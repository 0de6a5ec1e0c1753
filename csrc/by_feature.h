/* The gathered product for few features: output channels are in the lanes, features are broadcast.
 *
 * What    out[feature][channel] = sum over entries of W[entry][channel] * V[entry][feature]. "Few"
 *         are features that fill at most half a vector: in the layout `lanes` most lanes would
 *         be empty. A single feature, and more of them behind a rectifier, are computed by
 *         sparse_columns (sparse.h) instead, except in grouped convolutions; there the lists of a
 *         single feature are made without its zeros (fd_filter_cells).
 * Layout  V (h, w, feature, channel), result [feature][channel]. W (tap, input channel, output
 *         channel), output channels padded with zeros to whole vectors.
 * Mix     Per entry, on AVX-512, for one feature: 4 loads, 1 broadcast, 4 FMA, 4 prefetches. Bound
 *         by reading weights from L2.
 * Numbers The same lists as for product.h and the same order of sums, so the same bits.
 */
#ifndef FD_BY_FEATURE_H
#define FD_BY_FEATURE_H

#include "product.h"

/* FEATURE_VECTORS(K): vectors of channels that are summed together for K features, as many as fit
 * in the registers. */
#define MAX_FEATURES (VW / 2)
#define FEATURE_VECTORS(K) ((K) <= 4 && FD_REGISTERS >= 32 ? 4 : 2)

/* A product whose results go to out[feature][channel]. */
typedef struct {
    const float *v;
    ptrdiff_t in_feature;  /* between features of V */
    const float *w;
    int width;             /* floats in a row of W: whole vectors */
    float *out;
    ptrdiff_t out_feature;
    int channels;          /* output channels; the rest of the width is padding */
    const fd_post *post;
    int channel;           /* the number of the first channel, which `post` needs */
} feature_block;

static vf load_part(const float *from, int count) {
    if (count >= VW) return vf_load(from);
    float lanes[VW] = {0};
    for (int l = 0; l < count; l++) lanes[l] = from[l];
    return vf_load(lanes);
}

static void store_part(float *to, vf a, int count) {
    if (count >= VW) {
        vf_store(to, a);
        return;
    }
    float lanes[VW];
    vf_store(lanes, a);
    for (int l = 0; l < count; l++) to[l] = lanes[l];
}

/* Applies the step's `post` to the sums of few features, which lie `stride` apart, and stores them
 * as a pixel of the result. */
static void store_by_feature(const fd_step *s, const float *sums, ptrdiff_t stride, float *out) {
    const fd_post after = s->post;
    for (int k = 0; k < s->kp; k++, sums += stride, out += s->cout)
        for (int c = 0; c < s->cout; c += VW)
            store_part(out + c, post(vf_load(sums + c), &after, c, 0), s->cout - c);
}

/* J vectors of channels, from vector `first` on, for K features. J and K are constants after
 * inlining. */
FD_INLINE void feature_product(const feature_block *f, const entry *list, int n, int first,
                           const int K, const int J) {
    vf acc[MAX_FEATURES][4];
    const float *w = f->w + first * VW;
    FD_UNROLL
    for (int k = 0; k < K; k++)
        FD_UNROLL
        for (int j = 0; j < J; j++) acc[k][j] = vf_zero();
    for (int e = 0; e < n; e++) {
        const float *a = f->v + entry_v(list[e]), *b = w + entry_w(list[e]) * f->width;
        const float *next = w + entry_w(list[e + AHEAD]) * f->width;
        FD_UNROLL
        for (int j = 0; j < J; j++) __builtin_prefetch(next + j * VW);
        vf y[4];
        FD_UNROLL
        for (int j = 0; j < J; j++) y[j] = vf_load(b + j * VW);
        FD_UNROLL
        for (int k = 0; k < K; k++) {
            const vf x = vf_set1(a[k * f->in_feature]);
            FD_UNROLL
            for (int j = 0; j < J; j++) acc[k][j] = vf_fma(y[j], x, acc[k][j]);
        }
    }
    FD_UNROLL
    for (int j = 0; j < J; j++) {
        const int channel = (first + j) * VW;
        FD_UNROLL
        for (int k = 0; k < K; k++)
            store_part(f->out + k * f->out_feature + channel,
                       post(acc[k][j], f->post, f->channel + channel, 0),
                       f->channels - channel);
    }
}

#define FEATURE_CASE(K, J) \
    case J: feature_product(f, list, n, first, K, J); break;
#define FEATURE_FUNCTION(K)                                                          \
    static void feature_product_##K(const feature_block *f, const entry *list, int n) {  \
        const int vectors = f->width / VW, most = FEATURE_VECTORS(K);                \
        for (int first = 0; first < vectors; first += most)                      \
            switch (vectors - first < most ? vectors - first : most) {           \
                FEATURE_CASE(K, 1) FEATURE_CASE(K, 2) FEATURE_CASE(K, 3) FEATURE_CASE(K, 4)       \
            }                                                                    \
    }
FEATURE_FUNCTION(1)
FEATURE_FUNCTION(2)
#if VW >= 8
FEATURE_FUNCTION(3)
FEATURE_FUNCTION(4)
#endif
#if VW >= 16
FEATURE_FUNCTION(5)
FEATURE_FUNCTION(6)
FEATURE_FUNCTION(7)
FEATURE_FUNCTION(8)
#endif

static void product_by_feature(const feature_block *f, const entry *list, int n, int features) {
    switch (features) {
        case 1: feature_product_1(f, list, n); break;
        case 2: feature_product_2(f, list, n); break;
#if VW >= 8
        case 3: feature_product_3(f, list, n); break;
        case 4: feature_product_4(f, list, n); break;
#endif
#if VW >= 16
        case 5: feature_product_5(f, list, n); break;
        case 6: feature_product_6(f, list, n); break;
        case 7: feature_product_7(f, list, n); break;
        case 8: feature_product_8(f, list, n); break;
#endif
    }
}

#endif
