/* The step to the network's input, fused with the step above it. Each pixel of that step (channels x
 * lanes, the panel) is scattered into a ring of output rows while it is in cache; the tensor between
 * the two steps never exists. Where a pool with overlapping windows (overlap.c) lies between the
 * two, that tensor is needed as a whole and is read from memory.
 *
 * Bands   Work is divided into bands of rows of a fixed height. Rows that two bands contribute to are
 *         kept aside, and added in `fd_last_seam`. Where the step above computes two rows together,
 *         both are scattered meanwhile (produce_rows).
 * Layout  As in project.c; every pair (tap, channel) counts as an output channel.
 * Mix     See product.h; for few features, one vector of taps a multiply-add (scatter_squares).
 *         Without a pool, on AVX-512, per channel of two pixels in lanes: 2 loads, 9 broadcasts,
 *         18 FMA (scatter_pairs_of_lanes).
 * Numbers float32, vf_fma in list order, then sums from left to right and from the upper row down.
 */
#ifndef FD_LAST_STEP_H
#define FD_LAST_STEP_H

#include "layout.h"
#include "step.h"

typedef struct {
    const fd_last *f;
    int reach, advance;   /* output rows that one row of cells contributes to; output rows from
                           * one row of cells to the next */
    ptrdiff_t row;        /* elements of one output row, margins included. Of few features each has
                           * a row of its own, one after the other */
    ptrdiff_t feature;    /* elements of one of these rows */
    int margin;           /* columns left of column 0 */
    int ring_rows;
    float *ring;          /* output rows, which are being summed: as many as the rows of cells that
                           * are computed together contribute to */
    float **rows;         /* `reach` of them, in the order in which the current row of cells sees
                           * them */
    entry *list;          /* the channels at one place of a cell, ... */
    const int32_t *listed; /* ... which are these; NULL: it is empty */
    float **targets;      /* where the sum of each (tap, channel) of one place is added; of few
                           * features: for the first one, of all places of the cell in column 0 */
    float *sums;          /* by feature: the sums of one place, [feature][(tap, channel)] */
} scatterer;

static void last_reach(const fd_last *f, int *reach, int *advance, ptrdiff_t *row) {
    const fd_window *k = &f->conv, *p = &f->source.pool;
    const int span = (p->kh - 1) * p->dh * k->sh + (k->kh - 1) * k->dh + 1;
    const int right = (f->source.w - 1) * k->sw - k->left + (k->kw - 1) * k->dw + 1;
    *advance = p->sh * k->sh;
    /* With a large stride, rows may lie between two rows of cells that neither contributes to. They
     * count as the upper one's. */
    *reach = span > *advance ? span : *advance;
    *row = (ptrdiff_t)(k->left + (right > f->out_w ? right : f->out_w)) * f->cout * f->kp;
}

static void scatterer_free(scatterer *p) {
    free(p->ring);
    free(p->rows);
    free(p->list);
    free(p->targets);
    free(p->sums);
}

static int scatterer_init(scatterer *p, const fd_last *f, int together) {
    p->f = f;
    last_reach(f, &p->reach, &p->advance, &p->row);
    p->feature = p->row / f->kp;
    p->margin = f->conv.left;
    p->ring_rows = p->reach + (together - 1) * p->advance;
    p->ring = fd_scratch((size_t)p->ring_rows * p->row);
    p->rows = malloc(sizeof(float *) * p->reach);
    p->list = malloc(sizeof(entry) * ((size_t)f->source.channels + FD_LIST_ROOM));
    const int places = f->nv ? 1 : f->source.pool.kh * f->source.pool.kw;
    p->targets = malloc(sizeof(float *) * places * f->conv.kh * f->conv.kw * f->cout);
    p->sums = fd_scratch((size_t)padded(f->conv.kh * f->conv.kw * f->cout) * f->kp);
    if (!p->ring || !p->rows || !p->list || !p->targets || !p->sums) {
        scatterer_free(p);
        return 0;
    }
    p->listed = NULL;
    memset(p->ring, 0, sizeof(float) * p->ring_rows * p->row);
    return 1;
}

static float *ring_row(const scatterer *p, int cell_row, int i) {
    return p->ring + (size_t)(((long)cell_row * p->advance + i) % p->ring_rows) * p->row;
}

/* Finds the targets of place (i, j) of a cell in column X. */
static void find_targets(scatterer *p, int X, int i, int j) {
    const fd_last *f = p->f;
    const fd_window *k = &f->conv, *pool = &f->source.pool;
    const int x = X * pool->sw - pool->left + j * pool->dw, lanes = f->nv ? f->kp : 1;
    float **target = p->targets;
    for (int a = 0; a < k->kh; a++) {
        float *row = p->rows[i * pool->dh * k->sh + a * k->dh];
        for (int b = 0; b < k->kw; b++) {
            /* The margin is as wide as the padding. A place left of it lies in the pool's own
             * padding: no switch names it, so nothing is stored there. */
            const ptrdiff_t column = x * k->sw + b * k->dw;
            for (int c = 0; c < f->cout; c++)
                *target++ = row + (column * f->cout + c) * lanes;
        }
    }
}

/* NV vectors of the (tap, channel) sums of one place, for a single feature. `width`: floats in a
 * row of W. */
FD_INLINE void place_product(const int32_t *from, int n, const float *panel, const float *weight,
                             const int width, float *sums, const int NV) {
    vf acc[4];
    FD_UNROLL
    for (int j = 0; j < NV; j++) acc[j] = vf_zero();
    for (int e = 0; e < n; e++) {
        const float *w = weight + (ptrdiff_t)from[e] * width;
        const vf x = vf_set1(panel[from[e]]);
        FD_UNROLL
        for (int j = 0; j < NV; j++) acc[j] = vf_fma(vf_load(w + j * VW), x, acc[j]);
    }
    FD_UNROLL
    for (int j = 0; j < NV; j++) vf_store(sums + j * VW, acc[j]);
}

#define PLACE_CASE(NV) \
    case NV: place_product(from, n, panel, f->weight, NV * VW, p->sums, NV); break;

/* Sums what channels from[0..n-1] of a cell send, for a single feature. */
static void sum_place_of_one(const scatterer *p, const int32_t *from, int n, const float *panel,
                             int outs) {
    const fd_last *f = p->f;
    const int width = padded(outs);
    switch (width / VW) {
        PLACE_CASE(1) PLACE_CASE(2) PLACE_CASE(3) PLACE_CASE(4)
        default:
            for (int o = 0; o < width; o += VW)
                place_product(from, n, panel, f->weight + o, width, p->sums + o, 1);
    }
}

/* p->list: channels from[0..n-1] of a cell. */
static void list_channels(scatterer *p, const int32_t *from, int n) {
    /* Where there are no switches all cells have the same channels. */
    if (from == p->listed) return;
    append(p->list, from, n, 0);
    end_list(p->list, n);
    p->listed = from;
}

/* The same for few features: p->sums[feature][(tap, channel)]. */
static void sum_place(scatterer *p, const int32_t *from, int n, const float *panel, int outs) {
    static const fd_post nothing = {0};
    const fd_last *f = p->f;
    const feature_block b = {panel, f->source.channels, f->weight, padded(outs), p->sums, outs,
                             outs, &nothing, 0};
    list_channels(p, from, n);
    product_by_feature(&b, p->list, n, f->kp);
}

static void scatter_lanes(scatterer *p, const entry *list, int n, const float *panel, int outs) {
    const fd_last *f = p->f;
    const int nc = tile_nc[f->nv];
    for (int k = 0; k < f->kp; k += f->nv * VW) {
        const lane_rows v = {panel + k, f->kp};
        for (int o = 0; o < outs; o += nc) {
            const ring_block to = {p->targets + o};
            CALL_BLOCK(product_to_ring, f->nv, list, n, &v,
                       f->weight + (size_t)f->source.channels * o, &to,
                       outs - o < nc ? outs - o : nc);
        }
        for (int o = 0; o < outs; o++) p->targets[o] += f->nv * VW;
    }
}

/* Finds the targets of all places of the cell in column 0 of the current row of cells. */
static void find_first_targets(scatterer *p) {
    const fd_window *pool = &p->f->source.pool;
    const int outs = p->f->conv.kh * p->f->conv.kw * p->f->cout;
    float **all = p->targets;
    for (int i = 0; i < pool->kh; i++)
        for (int j = 0; j < pool->kw; j++, p->targets += outs) find_targets(p, 0, i, j);
    p->targets = all;
}

/* Adds what one cell sends to the ring, for few features. */
static void scatter_by_feature(scatterer *p, int Y, int X, const float *panel) {
    const fd_last *f = p->f;
    const fd_source *s = &f->source;
    const int places = s->pool.kh * s->pool.kw, outs = f->conv.kh * f->conv.kw * f->cout;
    /* From the targets of the cell in column 0 to those of this one. */
    const ptrdiff_t x = (ptrdiff_t)X * s->pool.sw * f->conv.sw * f->cout;
    for (int q = 0; q < places; q++) {
        int n;
        const int32_t *from = at_place(s, Y, X, q, &n);
        float *const *to = p->targets + q * outs;
        if (!n) continue;
        if (f->kp == 1)
            sum_place_of_one(p, from, n, panel, outs);
        else
            sum_place(p, from, n, panel, outs);
        for (int k = 0; k < f->kp; k++)
            for (int o = 0; o < outs; o++) to[o][x + k * p->feature] += p->sums[k * outs + o];
    }
}

#if VW >= 8
/* Few features through 3 x 3 taps below a 2 x 2 pool, which most networks have:
 *
 * The four places of a pixel reach a square of 4 x 4 outputs, which is one vector, or two. For
 * every feature it stays in registers while the places are added to it one after the other, in the
 * same order as elsewhere. Its right half is the left half of the next pixel's square. In memory
 * every output would have to wait for the store of the place before. */
typedef struct {
    vf v[16 / VW];
} square;

/* Whether all of these squares lie in the ring. */
static int sums_squares(const fd_last *f) {
    const fd_window *k = &f->conv, *pool = &f->source.pool;
    return !f->nv && f->cout == 1 && k->kh == 3 && k->kw == 3 && k->sh == 1 && k->sw == 1 &&
           k->dh == 1 && k->dw == 1 && pool->kh == 2 && pool->kw == 2 && pool->sh == 2 &&
           pool->sw == 2 && pool->dh == 1 && pool->dw == 1 && !pool->top && !pool->left &&
           f->source.w >= 2 * f->source.cells_w;
}

/* How many rows a square has is a constant: 4, or 3 where the fourth is not needed. */

#if VW == 16
/* Column `column` of the current rows and three more of them. */
FD_INLINE square load_square(const scatterer *p, ptrdiff_t column, const int rows) {
    vf a = _mm512_zextps128_ps512(_mm_loadu_ps(p->rows[0] + column));
    a = _mm512_insertf32x4(a, _mm_loadu_ps(p->rows[1] + column), 1);
    a = _mm512_insertf32x4(a, _mm_loadu_ps(p->rows[2] + column), 2);
    if (rows == 4) a = _mm512_insertf32x4(a, _mm_loadu_ps(p->rows[3] + column), 3);
    return (square){{a}};
}

FD_INLINE void store_square(const scatterer *p, ptrdiff_t column, square a, const int rows) {
    _mm_storeu_ps(p->rows[0] + column, _mm512_castps512_ps128(a.v[0]));
    _mm_storeu_ps(p->rows[1] + column, _mm512_extractf32x4_ps(a.v[0], 1));
    _mm_storeu_ps(p->rows[2] + column, _mm512_extractf32x4_ps(a.v[0], 2));
    if (rows == 4) _mm_storeu_ps(p->rows[3] + column, _mm512_extractf32x4_ps(a.v[0], 3));
}

/* The square two columns further on: of the old one only what is new is loaded. */
FD_INLINE square next_square(const scatterer *p, ptrdiff_t column, square old, const int rows) {
    const __m512i from = _mm512_setr_epi32(2, 3, 16, 17, 6, 7, 18, 19, 10, 11, 20, 21, 14, 15, 22,
                                           23);
    const __m128 none = _mm_setzero_ps();
    const __m128 upper = _mm_loadh_pi(_mm_loadl_pi(none, (const __m64 *)(p->rows[0] + column + 2)),
                                      (const __m64 *)(p->rows[1] + column + 2));
    __m128 lower = _mm_loadl_pi(none, (const __m64 *)(p->rows[2] + column + 2));
    if (rows == 4) lower = _mm_loadh_pi(lower, (const __m64 *)(p->rows[3] + column + 2));
    const vf right = _mm512_insertf32x4(_mm512_castps128_ps512(upper), lower, 1);
    return (square){{_mm512_permutex2var_ps(old.v[0], from, right)}};
}

/* Adds the 9 sums of place q of every feature to its square. */
FD_INLINE void add_place(square *to, const square *sum, const int q, const int K) {
    /* Of the 16 outputs, which of a place's 9 sums they get; place 0 sends to the 9 of SENDS. */
    enum { SENDS = 0x0777 };
    const __m512i taps = _mm512_setr_epi32(0, 1, 2, 0, 3, 4, 5, 0, 6, 7, 8, 0, 0, 0, 0, 0);
    const __m512i outputs = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const int shift = q / 2 * 4 + q % 2;
    const __m512i at = _mm512_permutexvar_epi32(_mm512_sub_epi32(outputs, _mm512_set1_epi32(shift)),
                                                taps);
    FD_UNROLL
    for (int k = 0; k < K; k++)
        to[k].v[0] = _mm512_mask_add_ps(to[k].v[0], (__mmask16)(SENDS << shift), to[k].v[0],
                                        _mm512_permutexvar_ps(at, sum[k].v[0]));
}

/* One of `most` channels that are added to sums at a time, which may be one too many. */
typedef __mmask16 keep;
FD_INLINE keep keeps(int is_there) { return (keep)-is_there; }
FD_INLINE vf add_kept(vf w, vf x, vf sum, keep own) {
    return _mm512_mask3_fmadd_ps(w, x, sum, own);
}
#else /* VW == 8, where squares have 4 rows */
FD_INLINE vf two_rows(const float *upper, const float *lower) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(upper)), _mm_loadu_ps(lower),
                                1);
}

FD_INLINE square load_square(const scatterer *p, ptrdiff_t column, const int rows) {
    (void)rows;
    return (square){{two_rows(p->rows[0] + column, p->rows[1] + column),
                     two_rows(p->rows[2] + column, p->rows[3] + column)}};
}

FD_INLINE void store_square(const scatterer *p, ptrdiff_t column, square a, const int rows) {
    (void)rows;
    FD_UNROLL
    for (int i = 0; i < 2; i++) {
        _mm_storeu_ps(p->rows[2 * i] + column, _mm256_castps256_ps128(a.v[i]));
        _mm_storeu_ps(p->rows[2 * i + 1] + column, _mm256_extractf128_ps(a.v[i], 1));
    }
}

FD_INLINE square next_square(const scatterer *p, ptrdiff_t column, square old, const int rows) {
    (void)rows;
    square next;
    FD_UNROLL
    for (int i = 0; i < 2; i++) {
        const double *upper = (const double *)(p->rows[2 * i] + column + 2);
        const double *lower = (const double *)(p->rows[2 * i + 1] + column + 2);
        const __m256d right = _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_load_sd(upper)),
                                                   _mm_load_sd(lower), 1);
        next.v[i] = (vf)_mm256_shuffle_pd((__m256d)old.v[i], right, 0x5);
    }
    return next;
}

FD_INLINE void add_place(square *to, const square *sum, const int q, const int K) {
    /* Which of the sums each output gets; -1: none. */
    static const int32_t sums[4][16] = {
        {0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, -1, -1, -1, -1},
        {-1, 0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, -1, -1, -1},
        {-1, -1, -1, -1, 0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1},
        {-1, -1, -1, -1, -1, 0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8},
    };
    FD_UNROLL
    for (int i = 0; i < 2; i++) {
        const __m256i at = _mm256_loadu_si256((const __m256i *)(sums[q] + i * VW));
        const vf none = (vf)_mm256_srai_epi32(at, 31);
        FD_UNROLL
        for (int k = 0; k < K; k++) {
            /* Sums 1 to 8 are the lower outputs', and 8 is where 0 was. */
            const vf from = i ? _mm256_blend_ps(sum[k].v[0], sum[k].v[1], 1) : sum[k].v[0];
            const vf sent = _mm256_andnot_ps(none, _mm256_permutevar8x32_ps(from, at));
            /* An output that gets none does not change: it is never -0. */
            to[k].v[i] = vf_add(to[k].v[i], sent);
        }
    }
}

typedef vf keep;
FD_INLINE keep keeps(int is_there) { return vf_from_bits((uint32_t)-is_there); }
FD_INLINE vf add_kept(vf w, vf x, vf sum, keep own) {
    /* 0 times 0, not infinity; and a sum is never -0. */
    return vf_fma(vm_and(w, own), vm_and(x, own), sum);
}
#endif

/* The sums of what channels from[0..n-1] send, one lane for each tap, of K features, whose values
 * lie `channels` elements apart. `most` of them, a constant number, are added at a time, without
 * those beyond n: where a place has only a few channels, no processor foresees after how many a
 * loop ends. */
FD_INLINE void sum_taps(const int32_t *from, int n, const float *panel, ptrdiff_t channels,
                        const float *weight, square *sum, const int K, const int most) {
    enum { VECTORS = 16 / VW };
    FD_UNROLL
    for (int k = 0; k < K; k++)
        FD_UNROLL
        for (int i = 0; i < VECTORS; i++) sum[k].v[i] = vf_zero();
    for (int left = n; left > 0; left -= most, from += most) {
        FD_UNROLL
        for (int e = 0; e < most; e++) {
            const keep own = keeps(e < left);
            const float *w = weight + (ptrdiff_t)from[e] * 16, *value = panel + from[e];
            FD_UNROLL
            for (int k = 0; k < K; k++) {
                const vf x = vf_set1(value[k * channels]);
                FD_UNROLL
                for (int i = 0; i < VECTORS; i++) {
                    vf *s = &sum[k].v[i];
                    const vf y = vf_load(w + i * VW);
                    *s = most == 1 ? vf_fma(y, x, *s) : add_kept(y, x, *s, own);
                }
            }
        }
    }
}

#if FD_REGISTERS < 32
/* The same where sums and squares need more registers than there are. Not inlined: compilers would
 * then keep sums in memory rather than squares. */
#define TAPS_APART(K)                                                                             \
    static FD_NOINLINE void sum_taps_##K(const int32_t *from, int n, const float *panel,         \
                                         ptrdiff_t channels, const float *weight, square *sum) { \
        square own[K];                                                                           \
        sum_taps(from, n, panel, channels, weight, own, K, 1);                                   \
        memcpy(sum, own, sizeof own);                                                            \
    }
TAPS_APART(3)
TAPS_APART(4)
#endif

/* Adds `columns` pixels of a row, from X on, to the ring, for K features. */
FD_INLINE void scatter_squares(const scatterer *p, int Y, int X, int columns, const float *panel,
                               const int K, const int most) {
    const fd_last *f = p->f;
    const fd_source *s = &f->source;
    const float *weight = f->weight;
    const ptrdiff_t channels = s->channels, feature = p->feature;
    square squares[MAX_FEATURES];
    FD_UNROLL
    for (int k = 0; k < K; k++) squares[k] = load_square(p, 2 * (ptrdiff_t)X + k * feature, 4);
    for (int x = X; x < X + columns; x++, panel += K * channels) {
        FD_UNROLL
        for (int k = 0; x > X && k < K; k++)
            squares[k] = next_square(p, 2 * (ptrdiff_t)x + k * feature, squares[k], 4);
        FD_UNROLL
        for (int q = 0; q < 4; q++) {
            int n;
            const int32_t *from = at_place(s, Y, x, q, &n);
            if (!n) continue;
            square sums[MAX_FEATURES];
#if FD_REGISTERS < 32
            if (K == 3)
                sum_taps_3(from, n, panel, channels, weight, sums);
            else if (K == 4)
                sum_taps_4(from, n, panel, channels, weight, sums);
            else
#endif
                sum_taps(from, n, panel, channels, weight, sums, K, most);
            add_place(squares, sums, q, K);
        }
        FD_UNROLL
        for (int k = 0; k < K; k++) store_square(p, 2 * (ptrdiff_t)x + k * feature, squares[k], 4);
    }
}

#define SQUARES(K, MOST)                                                                         \
    static void scatter_squares_##K##_##MOST(const scatterer *p, int Y, int X, int columns,      \
                                             const float *panel) {                               \
        scatter_squares(p, Y, X, columns, panel, K, MOST);                                       \
    }
SQUARES(1, 8)
SQUARES(1, 1)
SQUARES(2, 1)
SQUARES(3, 1)
SQUARES(4, 1)
#if VW == 16
SQUARES(5, 1)
SQUARES(6, 1)
SQUARES(7, 1)
SQUARES(8, 1)
#endif

static void scatter_all_squares(const scatterer *p, int Y, int X, int columns,
                                const float *panel) {
    static void (*const functions[])(const scatterer *, int, int, int, const float *) = {
        scatter_squares_1_8, scatter_squares_1_1, scatter_squares_2_1,
        scatter_squares_3_1, scatter_squares_4_1,
#if VW == 16
        scatter_squares_5_1, scatter_squares_6_1, scatter_squares_7_1, scatter_squares_8_1,
#endif
    };
    const int kp = p->f->kp;
    /* A place has a quarter of the channels on average: of 16 hardly ever more than 8. */
    functions[kp == 1 && p->f->source.channels <= 16 ? 0 : kp](p, Y, X, columns, panel);
}

#if VW == 16
/* The same without a pool, for pairs of neighbouring pixels: they are as two places of a window,
 * whose square has three rows. All channels are there. PAIRS pairs are summed at a time. */
FD_INLINE void scatter_pairs(const scatterer *p, int X, int pairs, const float *panel, const int K,
                             const int PAIRS) {
    enum { MOST = 16 };
    const int channels = p->f->source.channels;
    const ptrdiff_t feature = p->feature;
    square squares[MAX_FEATURES];
    FD_UNROLL
    for (int k = 0; k < K; k++) squares[k] = load_square(p, X + k * feature, 3);
    for (int x = X; x < X + 2 * pairs; x += 2 * PAIRS, panel += 2 * PAIRS * K * channels) {
        /* The last ones may not be PAIRS any more. */
        const int left = (X + 2 * pairs - x) / 2;
        const float *pixel[2 * PAIRS];
        square sum[MOST];
        FD_UNROLL
        for (int i = 0; i < 2 * PAIRS; i++)
            pixel[i] = panel + (i / 2 < left ? i : 0) * K * channels;
        FD_UNROLL
        for (int i = 0; i < 2 * PAIRS * K; i++) sum[i].v[0] = vf_zero();
        for (int c = 0; c < channels; c++) {
            const vf w = vf_load(p->f->weight + (ptrdiff_t)c * VW);
            FD_UNROLL
            for (int i = 0; i < 2 * PAIRS * K; i++)
                sum[i].v[0] = vf_fma(w, vf_set1(pixel[i / K][i % K * channels + c]), sum[i].v[0]);
        }
        FD_UNROLL
        for (int i = 0; i < PAIRS; i++) {
            if (i >= left) break;
            const ptrdiff_t column = x + 2 * i;
            if (column > X)
                FD_UNROLL
                for (int k = 0; k < K; k++)
                    squares[k] = next_square(p, column + k * feature, squares[k], 3);
            add_place(squares, sum + 2 * i * K, 0, K);
            add_place(squares, sum + (2 * i + 1) * K, 1, K);
            FD_UNROLL
            for (int k = 0; k < K; k++) store_square(p, column + k * feature, squares[k], 3);
        }
    }
}

#define PAIRS(K, N)                                                                              \
    static void scatter_pairs_##K(const scatterer *p, int X, int pairs, const float *panel) {    \
        scatter_pairs(p, X, pairs, panel, K, N);                                                 \
    }
PAIRS(1, 4)
PAIRS(2, 2)
PAIRS(3, 2)
PAIRS(4, 2)
PAIRS(5, 1)
PAIRS(6, 1)
PAIRS(7, 1)
PAIRS(8, 1)

static void scatter_all_pairs(const scatterer *p, int X, int pairs, const float *panel) {
    static void (*const functions[])(const scatterer *, int, int, const float *) = {
        NULL, scatter_pairs_1, scatter_pairs_2, scatter_pairs_3, scatter_pairs_4,
        scatter_pairs_5, scatter_pairs_6, scatter_pairs_7, scatter_pairs_8,
    };
    functions[p->f->kp](p, X, pairs, panel);
}

/* In lanes. An output that both pixels of a pair reach stays in its register. */
static void scatter_pairs_of_lanes(const scatterer *p, int X, int pairs, const float *panel) {
    const fd_last *f = p->f;
    const int channels = f->source.channels, kp = f->kp;
    const ptrdiff_t pixel = (ptrdiff_t)channels * kp;
    for (int x = X; x < X + 2 * pairs; x += 2, panel += 2 * pixel)
        for (int k = 0; k < kp; k += VW) {
            const float *v = panel + k, *w = f->weight;
            vf sum[2][9];
            FD_UNROLL
            for (int t = 0; t < 9; t++) sum[0][t] = sum[1][t] = vf_zero();
            for (int c = 0; c < channels; c++, v += kp, w += 9) {
                const vf a = vf_load(v), b = vf_load(v + pixel);
                FD_UNROLL
                for (int t = 0; t < 9; t++) {
                    const vf y = vf_set1(w[t]);
                    sum[0][t] = vf_fma(y, a, sum[0][t]);
                    sum[1][t] = vf_fma(y, b, sum[1][t]);
                }
            }
            FD_UNROLL
            for (int i = 0; i < 3; i++) {
                float *out = p->rows[i] + (ptrdiff_t)x * kp + k;
                FD_UNROLL
                for (int j = 0; j < 4; j++, out += kp) {
                    vf to = vf_load(out);
                    if (j < 3) to = vf_add(to, sum[0][3 * i + j]);
                    if (j > 0) to = vf_add(to, sum[1][3 * i + j - 1]);
                    vf_store(out, to);
                }
            }
        }
}

/* Whether neighbouring pixels can be taken in pairs: no pool precedes the 3 x 3 taps, and every
 * pixel has all channels. */
static int sums_pairs(const fd_last *f) {
    const fd_window *k = &f->conv, *pool = &f->source.pool;
    return f->nv <= 1 && f->cout == 1 && k->kh == 3 && k->kw == 3 && k->sh == 1 && k->sw == 1 &&
           k->dh == 1 && k->dw == 1 && pool->kh == 1 && pool->kw == 1 && pool->sh == 1 &&
           pool->sw == 1 && !pool->top && !pool->left && !f->source.order_cell;
}
#endif
#endif

/* Adds what one cell, whose values are `panel` (channels x lanes), sends to the ring. */
static void scatter(scatterer *p, int Y, int X, const float *panel) {
    const fd_last *f = p->f;
    const fd_source *s = &f->source;
    const int kw = s->pool.kw, places = s->pool.kh * kw;
    const int outs = f->conv.kh * f->conv.kw * f->cout;
    if (!f->nv) {
        scatter_by_feature(p, Y, X, panel);
        return;
    }
    for (int q = 0; q < places; q++) {
        int n;
        const int32_t *from = at_place(s, Y, X, q, &n);
        if (!n) continue;
        list_channels(p, from, n);
        find_targets(p, X, q / kw, q % kw);
        scatter_lanes(p, p->list, n, panel, outs);
    }
}

/* The same for several neighbouring cells. */
static void scatter_columns(scatterer *p, int Y, int X, int columns, const float *panel) {
    const ptrdiff_t pixel = (ptrdiff_t)p->f->source.channels * p->f->kp;
#if VW >= 8
    if (sums_squares(p->f)) {
        scatter_all_squares(p, Y, X, columns, panel);
        return;
    }
#endif
#if VW == 16
    if (columns > 1 && sums_pairs(p->f)) {
        const int pairs = columns / 2;
        if (p->f->nv)
            scatter_pairs_of_lanes(p, X, pairs, panel);
        else
            scatter_all_pairs(p, X, pairs, panel);
        X += 2 * pairs;
        columns -= 2 * pairs;
        panel += 2 * pairs * pixel;
    }
#endif
    for (int i = 0; i < columns; i++) scatter(p, Y, X + i, panel + i * pixel);
}

/* Copies a finished output row to the output planes, where it belongs to the output. */
static void flush_row(const scatterer *p, const float *row, int y) {
    const fd_last *f = p->f;
    if (y < 0 || y >= f->out_h) return;
    const ptrdiff_t lanes = f->nv ? f->kp : 1, pixel = f->cout * lanes;
    float *out = f->out + y * f->out_row;
    row += p->margin * pixel;
    for (int c = 0; c < f->cout; c++, row += lanes, out += f->out_plane) {
        if (f->nv)
            fd_transpose(row, pixel, out, f->out_feature, f->rows, f->out_w, f->features);
        for (int k = 0; !f->nv && k < f->features; k++)
            fd_transpose(row + k * p->feature, pixel, out, f->out_feature, f->rows + k, f->out_w,
                         1);
    }
}

/* The first output row that cell row Y contributes to; it may lie above the output. */
static int base_row(const fd_last *f, int Y) {
    return (Y * f->source.pool.sh - f->source.pool.top) * f->conv.sh - f->conv.top;
}

/* The first row of cells of a band. */
static int band_row(const fd_last *f, int band) { return band ? band * f->band - f->skip : 0; }

static float *side_row(const scatterer *p, int band, int bottom, int i) {
    const int shared = p->reach - p->advance;
    return p->f->side + (((size_t)band * 2 + bottom) * shared + i) * p->row;
}

/* Rows first..last-1 of those that cell row Y contributes to have got everything that this band
 * sends them. Takes them out of the ring: to the output, or aside if the band above contributes to
 * them as well. */
static void retire_rows(scatterer *p, int band, int Y, int first, int last) {
    const fd_last *f = p->f;
    const int shared = p->reach - p->advance, offset = (Y - band_row(f, band)) * p->advance;
    for (int i = first; i < last; i++) {
        float *row = ring_row(p, Y, i);
        if (band > 0 && offset + i < shared)
            memcpy(side_row(p, band, 0, offset + i), row, sizeof(float) * p->row);
        else
            flush_row(p, row, base_row(f, Y) + i);
        memset(row, 0, sizeof(float) * p->row);
    }
}

static void begin_row(scatterer *p, int Y) {
    for (int i = 0; i < p->reach; i++) p->rows[i] = ring_row(p, Y, i);
}

/* How many columns behind the cells of the upper row those of a lower row are scattered where two
 * rows are computed together. They then reach no output that the upper row still contributes to, so
 * that every output gets its sums in the same order as row by row. */
static int lag(const fd_last *f) {
    const fd_window *k = &f->conv, *pool = &f->source.pool;
    const int span = (pool->kw - 1) * pool->dw * k->sw + (k->kw - 1) * k->dw + 1;
    return (span - 1) / (pool->sw * k->sw);
}

/* Rows of cells Y..Y+n-1, which the step above computes together. In `panel` every row has room for
 * the pixels that wait to be scattered. */
static void produce_rows(scatterer *p, stepper *above, int Y, int n, float *panel) {
    const fd_last *f = p->f;
    const ptrdiff_t pixel = (ptrdiff_t)f->source.channels * f->kp;
    const int columns = f->source.cells_w, behind = lag(f), room = behind + 1;
    for (int x = 0; x < columns + (n - 1) * behind; x++) {
        if (x < columns)
            step_pixels_below(above, Y, n, x, panel + x % room * pixel, room * pixel);
        for (int i = 0; i < n; i++) {
            const int column = x - i * behind;
            if (column < 0 || column >= columns) continue;
            begin_row(p, Y + i);
            scatter(p, Y + i, column, panel + (i * room + column % room) * pixel);
        }
    }
}

static void produce_row(scatterer *p, stepper *above, int Y, float *panel) {
    const fd_last *f = p->f;
    const int columns = f->source.cells_w;
    begin_row(p, Y);
    if (!f->nv) find_first_targets(p);
    if (f->step) {
        for (int x = 0, n; x < columns; x += n) {
            n = columns_from(f->step, x, columns);
            scatter_columns(p, Y, x, n, step_columns(above, Y, x, n, panel));
        }
        return;
    }
    if (f->v) {
        const size_t row = (size_t)f->source.channels * f->kp * columns;
        scatter_columns(p, Y, 0, columns, f->v + Y * row);
        return;
    }
    const ptrdiff_t pixel = (ptrdiff_t)f->first->cout * f->kp;
    /* In a strided convolution only every stride-th column has the same taps. But columns must be
     * added to the ring from left to right, so they are computed one by one. */
    const int most = f->first->conv.sw == 1 ? COLUMNS : 1;
    for (int x = 0; x < columns; x += most) {
        const int n = columns - x < most ? columns - x : most;
        first_columns(f->first, Y, x, n, panel, pixel);
        scatter_columns(p, Y, x, n, panel);
    }
}

static void produce_band(scatterer *p, stepper *above, int band, float *panel) {
    const fd_last *f = p->f;
    const int cells = f->source.cells_h, row0 = band_row(f, band), next = band_row(f, band + 1);
    const int row1 = next < cells ? next : cells;
    for (int y = row0, n; (n = f->step ? next_rows(above, row1 - y) : y < row1); y += n) {
        if (n > 1)
            produce_rows(p, above, y, n, panel);
        else
            produce_row(p, above, y, panel);
        for (int i = 0; i < n; i++) retire_rows(p, band, y + i, 0, p->advance);
    }
    if (row1 == cells) {
        retire_rows(p, band, row1 - 1, p->advance, p->reach);
        /* Output rows below, which nothing contributes to: any row of the ring will do, as all of
         * them are zero now. */
        for (int y = base_row(f, row1 - 1) + p->reach; y < f->out_h; y++)
            flush_row(p, p->ring, y);
        return;
    }
    for (int i = p->advance; i < p->reach; i++) {
        float *row = ring_row(p, row1 - 1, i);
        memcpy(side_row(p, band, 1, i - p->advance), row, sizeof(float) * p->row);
        memset(row, 0, sizeof(float) * p->row);
    }
}

#endif
