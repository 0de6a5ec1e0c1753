/* What    Sums of the last step (last_step.h) that stay in registers: 3 x 3 taps with stride 1, one
 *         output channel.
 *         - Few features below a 2 x 2 pool, which most networks have: the four places of a pixel
 *           reach a square of 4 x 4 outputs, which is one vector, or two. For every feature it stays
 *           in registers while the places are added to it one after the other, in the same order as
 *           elsewhere. Its right half is the left half of the next pixel's square. In memory every
 *           output would have to wait for the store of the place before.
 *         - Without a pool, pairs of neighbouring pixels: few features as two places of a pixel, whose
 *           square has three rows, and one vector of lanes.
 * Layout  Few features: (feature, channel). W [channel][16], a lane for each tap.
 * Mix     Few features: a vector of taps (AVX2: two) and a broadcast per feature a multiply-add. In
 *         lanes, per channel of two pixels: 2 loads, 9 broadcasts, 18 FMA.
 * Numbers float32, the same bits as the other kernels of the last step.
 */
#ifndef FD_SQUARES_H
#define FD_SQUARES_H

#include "by_feature.h"
#include "ring.h"

#if VW >= 8
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
        const __m128 none = _mm_setzero_ps();
        const __m128 upper = _mm_loadl_pi(none, (const __m64 *)(p->rows[2 * i] + column + 2));
        const __m128 lower = _mm_loadl_pi(none, (const __m64 *)(p->rows[2 * i + 1] + column + 2));
        const vf right = _mm256_insertf128_ps(_mm256_castps128_ps256(upper), lower, 1);
        next.v[i] = _mm256_shuffle_ps(old.v[i], right, _MM_SHUFFLE(1, 0, 3, 2));
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
    /* 0 times 0, not infinity. A sum of -0 becomes +0, which the ring does not notice. */
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
#endif
