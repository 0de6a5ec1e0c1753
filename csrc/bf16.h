/* The gathered product with operands rounded to bfloat16 (AVX512_BF16), sums in float32.
 *
 * What    The product of product.h, with operands rounded to 8 bits of precision. One instruction
 *         multiplies two entries of the list with their weights and adds both products; gather.h
 *         makes the number of entries even.
 * Layout  The entries of a pixel are packed in pairs, one in the low and one in the high half of a
 *         32-bit lane, into two panels: V (pair, lane) and W (pair, channel). FD_PAIRS pairs are
 *         packed at a time, so that the panels stay in L1 and L2. The weights come from a table
 *         (row, channel), whose channels lie in groups of 32, in an order that unpacking 16-bit
 *         halves turns into the natural one.
 * Mix     Per pair and 64 lanes: to pack V, 8 loads, 4 conversions, 4 permutations, 4 stores; to
 *         pack W, 4 loads, 4 unpacks, 4 stores; then for every 6 channels 4 loads, 6 broadcasts,
 *         24 VDPBF16PS.
 * Numbers V and W are rounded to nearest, ties to even. Products are exact. VDPBF16PS adds the two
 *         products of a pair, then adds that to the sum, and flushes denormals to 0. A sum is off
 *         by up to 2^-8 of the sum of the absolute values of its terms (see the tests). The result
 *         does not depend on threads or on other lanes.
 */
#ifndef FD_BF16_H
#define FD_BF16_H

#include "by_feature.h"

/* Units that are compiled for tiles multiply bfloat16 in tiles instead (tile_product.h). */
#if defined(__AVX512F__) && !FD_WITH_TILES && (defined(__clang__) || __GNUC__ >= 10)
#define FD_HAS_BF16 1
#define FD_BF16_TARGET __attribute__((target("avx512bf16")))
#define BF16_INLINE FD_BF16_TARGET FD_INLINE

/* Pairs of entries that are packed at a time. */
#define FD_PAIRS 96

/* A block of results. */
typedef struct {
    const panel_block *panel;
    int w_stride;   /* numbers of 32 bits between rows of the panel of W */
    int begin, end; /* whether the sums begin with these pairs, and whether they end with them */
} bf16_block;

BF16_INLINE void bf16_product(const entry *list, int pairs, const lane_rows *rows,
                              const float *weights, const bf16_block *to, const int NC,
                              const int NV) {
    const float *v = rows->v;
    const panel_block *panel = to->panel;
    vf acc[MAX_NC][MAX_NV];
    (void)list;
    FD_UNROLL
    for (int i = 0; i < NC; i++)
        FD_UNROLL
        for (int j = 0; j < NV; j++)
            acc[i][j] = to->begin ? vf_zero() : vf_load(panel->out + i * panel->stride + j * VW);
    for (int e = 0; e < pairs; e++, v += NV * VW, weights += to->w_stride) {
        vf x[MAX_NV];
        FD_UNROLL
        for (int j = 0; j < NV; j++) x[j] = vf_load(v + j * VW);
        FD_UNROLL
        for (int i = 0; i < NC; i++) {
            const vf y = vf_set1(weights[i]);
            FD_UNROLL
            for (int j = 0; j < NV; j++)
                acc[i][j] = _mm512_dpbf16_ps(acc[i][j], (__m512bh)y, (__m512bh)x[j]);
        }
    }
    FD_UNROLL
    for (int i = 0; i < NC; i++)
        FD_UNROLL
        for (int j = 0; j < NV; j++)
            vf_store(panel->out + i * panel->stride + j * VW,
                     to->end ? post(acc[i][j], panel->post, panel->channel + i, 1) : acc[i][j]);
}

BLOCK_FUNCTIONS(bf16_product, bf16_block, FD_BF16_TARGET)

/* Packs the V rows of n entries in pairs, `lanes` wide (whole vectors). */
FD_BF16_TARGET static void pack_v(const entry *list, int n, const lane_rows *rows, int lanes,
                                  float *panel) {
    /* vcvtne2ps2bf16 puts all values of the second row behind all values of the first one. */
    const __m512i interleave = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
        19, 3, 18, 2, 17, 1, 16, 0);
    for (int e = 0; e < n; e += 2) {
        const float *a = rows->v + entry_v(list[e]) * rows->stride;
        const float *b = rows->v + entry_v(list[e + 1]) * rows->stride;
        const char *next = (const char *)(rows->v + entry_v(list[e + AHEAD]) * rows->stride);
        const char *after = (const char *)(rows->v + entry_v(list[e + 1 + AHEAD]) * rows->stride);
        for (int l = 0; l < lanes; l += VW, panel += VW) {
            __builtin_prefetch(next + l * sizeof(float));
            __builtin_prefetch(after + l * sizeof(float));
            const __m512bh both = _mm512_cvtne2ps_pbh(vf_load(b + l), vf_load(a + l));
            vf_store(panel, (vf)_mm512_permutexvar_epi16(interleave, (__m512i)both));
        }
    }
}

/* Packs the W rows of n entries in pairs. */
static void pack_w(const entry *list, int n, const uint16_t *table, int channels, float *panel) {
    for (int e = 0; e < n; e += 2) {
        const uint16_t *a = table + entry_w(list[e]) * channels;
        const uint16_t *b = table + entry_w(list[e + 1]) * channels;
        const uint16_t *next = table + entry_w(list[e + AHEAD]) * channels;
        const uint16_t *after = table + entry_w(list[e + 1 + AHEAD]) * channels;
        for (int c = 0; c < channels; c += 2 * VW, panel += 2 * VW) {
            __builtin_prefetch(next + c);
            __builtin_prefetch(after + c);
            const __m512i x = _mm512_loadu_si512(a + c);
            const __m512i y = _mm512_loadu_si512(b + c);
            vf_store(panel, (vf)_mm512_unpacklo_epi16(x, y));
            vf_store(panel + VW, (vf)_mm512_unpackhi_epi16(x, y));
        }
    }
}

/* Numbers in a row of the table of weights (of 16 bits) and in a row of its panel (of 32 bits). */
FD_INLINE int bf16_width(int channels) { return (channels + 2 * VW - 1) / (2 * VW) * (2 * VW); }

/* Floats of scratch space that the pixels of a step need. */
static size_t bf16_room(const fd_step *s) {
    if (!s->nv) return (FD_PAIRS + (size_t)bf16_width(s->cout)) * s->kp;
    return FD_PAIRS * ((size_t)s->nv * VW + bf16_width(s->cout));
}

/* Computes all channels of one pixel, whose list has n entries, and stores them at `out`. */
static void step_pixel_bf16(const fd_step *s, const entry *list, int n, float *scratch,
                            float *out) {
    const int lanes = s->nv * VW, nc = tile_nc[s->nv], w_stride = bf16_width(s->cout);
    float *w_panel = scratch + FD_PAIRS * lanes;
    int at = 0;
    do { /* an empty list needs one turn, too: it stores zeros */
        const int count = n - at < 2 * FD_PAIRS ? n - at : 2 * FD_PAIRS;
        pack_w(list + at, count, s->bf16, w_stride, w_panel);
        for (int k = 0; k < s->kp; k += lanes) {
            const lane_rows rows = {s->v + k, s->kp}, packed = {scratch, lanes};
            pack_v(list + at, count, &rows, lanes, scratch);
            for (int c = 0; c < s->cout; c += nc) {
                const panel_block panel = {out + (size_t)c * s->kp + k, s->kp, &s->post, c};
                const bf16_block to = {&panel, w_stride, at == 0, at + count == n};
                CALL_BLOCK(bf16_product, s->nv, list, count / 2, &packed, w_panel + c, &to,
                           s->cout - c < nc ? s->cout - c : nc);
            }
        }
        at += count;
    } while (at < n);
}

/* ---- few features: output channels in the lanes ---- */

/* Packs the values that a list names, rounded and in its order, one feature after the other. */
FD_BF16_TARGET static void pack_values(const entry *list, int n, const fd_step *s, float *panel) {
    const ptrdiff_t channels = s->source.channels;
    float values[2 * FD_PAIRS];
    for (int k = 0; k < s->kp; k++, panel += FD_PAIRS) {
        const float *v = s->v + k * channels;
        for (int e = 0; e < n; e++) {
            float value = v[entry_v(list[e])];
            /* Keeps the compiler from using a gathering load, which would take longer. */
            __asm__("" : "+x"(value));
            values[e] = value;
        }
        for (int e = n; e % (2 * VW); e++) values[e] = 0;
        for (int e = 0; e < n; e += 2 * VW)
            vf_store(panel + e / 2, (vf)_mm512_cvtne2ps_pbh(vf_load(values + e + VW),
                                                            vf_load(values + e)));
    }
}

/* Adds the products of a pair of entries to J vectors of sums of K features. a, b: the rows of W of
 * the two; v: their values, packed. */
BF16_INLINE void add_few(const uint16_t *a, const uint16_t *b, const float *v,
                         vf acc[MAX_FEATURES][4], const int K, const int J) {
    __m512bh x[MAX_FEATURES];
    FD_UNROLL
    for (int k = 0; k < K; k++) x[k] = (__m512bh)vf_set1(v[k * FD_PAIRS]);
    FD_UNROLL
    for (int j = 0; j < J; j += 2) {
        __m512i p = _mm512_loadu_si512(a + VW * j);
        __m512i q = _mm512_loadu_si512(b + VW * j);
        /* Keeps both in registers: as memory operands of both unpacks they would be loaded
         * twice. */
        __asm__("" : "+v"(p), "+v"(q));
        const __m512i low = _mm512_unpacklo_epi16(p, q), high = _mm512_unpackhi_epi16(p, q);
        FD_UNROLL
        for (int k = 0; k < K; k++) {
            acc[k][j] = _mm512_dpbf16_ps(acc[k][j], (__m512bh)low, x[k]);
            if (j + 1 < J) acc[k][j + 1] = _mm512_dpbf16_ps(acc[k][j + 1], (__m512bh)high, x[k]);
        }
    }
}

/* Adds the products of a list to the sums of J vectors of channels, from `channel` on, for K
 * features. panel: the packed values of the features, one after the other. */
BF16_INLINE void add_list(const entry *list, int n, const fd_step *s, const float *panel,
                          float *sums, int channel, const int K, const int J) {
    const int width = bf16_width(s->cout);
    const uint16_t *weights = s->bf16 + channel;
    vf acc[MAX_FEATURES][4];
    sums += channel;
    FD_UNROLL
    for (int k = 0; k < K; k++)
        FD_UNROLL
        for (int j = 0; j < J; j++) acc[k][j] = vf_load(sums + k * width + j * VW);
    for (int e = 0; e < n; e += 2, panel++) {
        const uint16_t *next = weights + entry_w(list[e + AHEAD]) * width;
        const uint16_t *after = weights + entry_w(list[e + 1 + AHEAD]) * width;
        FD_UNROLL
        for (int j = 0; j < J; j += 2) {
            __builtin_prefetch(next + VW * j);
            __builtin_prefetch(after + VW * j);
        }
        add_few(weights + entry_w(list[e]) * width, weights + entry_w(list[e + 1]) * width, panel,
                acc, K, J);
    }
    FD_UNROLL
    for (int k = 0; k < K; k++)
        FD_UNROLL
        for (int j = 0; j < J; j++) vf_store(sums + k * width + j * VW, acc[k][j]);
}

#define BF16_CASE(K, J) \
    case J: add_list(list, n, s, panel, sums, first * VW, K, J); break;
#define BF16_FEW(K)                                                                          \
    FD_BF16_TARGET static void add_list_##K(const entry *list, int n, const fd_step *s,      \
                                            const float *panel, float *sums) {               \
        const int vectors = padded(s->cout) / VW, most = FEATURE_VECTORS(K);                 \
        for (int first = 0; first < vectors; first += most)                                  \
            switch (vectors - first < most ? vectors - first : most) {                       \
                BF16_CASE(K, 1) BF16_CASE(K, 2) BF16_CASE(K, 3) BF16_CASE(K, 4)              \
            }                                                                                \
    }
BF16_FEW(1)
BF16_FEW(2)
BF16_FEW(3)
BF16_FEW(4)
BF16_FEW(5)
BF16_FEW(6)
BF16_FEW(7)
BF16_FEW(8)

/* Computes all channels of one pixel for few features, and stores them at `out`. The pixel's list
 * has n entries. */
static void step_pixel_bf16_by_feature(const fd_step *s, const entry *list, int n, float *scratch,
                                       float *out) {
    const int width = bf16_width(s->cout);
    float *panel = scratch, *sums = scratch + FD_PAIRS * s->kp;
    memset(sums, 0, sizeof(float) * width * s->kp);
    for (int at = 0; at < n; at += 2 * FD_PAIRS, list += 2 * FD_PAIRS) {
        const int count = n - at < 2 * FD_PAIRS ? n - at : 2 * FD_PAIRS;
        pack_values(list, count, s, panel);
        switch (s->kp) {
            case 1: add_list_1(list, count, s, panel, sums); break;
            case 2: add_list_2(list, count, s, panel, sums); break;
            case 3: add_list_3(list, count, s, panel, sums); break;
            case 4: add_list_4(list, count, s, panel, sums); break;
            case 5: add_list_5(list, count, s, panel, sums); break;
            case 6: add_list_6(list, count, s, panel, sums); break;
            case 7: add_list_7(list, count, s, panel, sums); break;
            case 8: add_list_8(list, count, s, panel, sums); break;
        }
    }
    store_by_feature(s, sums, width, out);
}

#else
#define FD_HAS_BF16 0
#endif
#endif
