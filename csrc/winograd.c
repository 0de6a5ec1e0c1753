/* Winograd's algorithm for a 3x3 convolution followed by a 2x2 pool, fused with the pool and with
 * the epilogue between them.
 *
 * What    The result of fd_conv_pool_rows, with fewer multiplications. Tile 2, F(2x2, 3x3): a tile
 *         is one pool window and takes 16 products, where the direct kernel takes 36. Tile 4,
 *         F(4x4, 3x3): a tile is four windows and takes 36 products, where that takes 144.
 * Layout  Channels as in conv.c. The input of a batch of tiles is transformed to
 *         v[place][tile][input channel]. For every block of output channels, one matrix product per
 *         place gives m[place][tile][lane], which stays in L1 until it is transformed back, checked
 *         and pooled. Weights are packed as in conv.c, with the places (4 x 4 or 6 x 6) of the
 *         transformed filters instead of taps.
 * Mix     Per place and input channel, on AVX-512: 2 loads, 12 broadcasts, 24 FMA.
 * Numbers float32. Tile 4 rounds differently at different places of a tile, so ties in flat input
 *         are broken at random; nothing is done about it. Tile 2 gives
 *         - for the same input, exactly the switches of the direct kernel;
 *         - the same values, bit for bit, where the middle of a window's input does not change
 *           along a row or along a column, and where the order within a window is in doubt;
 *         - equal bits for windows with equal input, wherever they lie.
 *         So flat input gives flat output, and equal patches tie.
 *
 * Doubt   (when the order of the sums in a window could differ from the direct kernel's)
 *         Let x be the input of an output pixel (9 taps x cin), w its filter and u = 2^-24. A
 *         product is rounded in every sum that it is part of; r counts these. In one sum, product k
 *         of n has r = n - k; product k of a partial sum of s has r = s - k, and N - b more, if
 *         this is partial sum b of N. Direct kernel (n = 9 cin or s = part): |error| <= u sum_k
 *         (r_k + 2) |w_k| |x_k|. Winograd: with U the transformed filter and V the transformed
 *         input, product i of place q (n = cin or s = part) has an error of at most
 *         u (r_i + 10) |U_qi| |V|_qi, where |V| is the sum of the absolute inputs that make up V.
 *         The factor counts the roundings: those of the sums, one of U, two of V, four of the
 *         transform back and one of the bias. Both bounds are linear in |x|. With a_k the sum of
 *         the coefficients of |x_k|, the Cauchy-Schwarz inequality gives
 *         |winograd - direct| <= u ||a|| ||x||. ||a|| is computed when weights are
 *         packed; the largest ||x|| of a window's four pixels, while its input is transformed.
 *         Scale, shift and bias add roundings of their own: error = slope[channel] ||x|| +
 *         base[channel].
 *         A leaky ReLU with a positive slope keeps the order of the sums. For it the error is
 *         enlarged, so that multiplying by the slope does not round different sums to one number.
 *         Two sums that differ by more than twice the error have the same order in the direct
 *         kernel. Any other value is summed again, directly, and no value beside it, so that bits do
 *         not depend on the width of vectors. NaN, infinities and whatever might overflow make the
 *         error infinite.
 */
#include <math.h>
#include <stdlib.h>

#include "transform.h"
#include "windows.h"

#if FD_REGISTERS >= 32
#define BATCH 12
#else
#define BATCH 6
#endif
#define MAX_SIDE 6 /* places along a side of a transformed tile */

/* With a multiple of so many channels, the same channel of all tiles would compete for a few sets of
 * L1. */
#define SAME_SETS 256

/* TINY bounds what squares of inputs may lose to underflow. Products of a norm larger than
 * HUGE_NORM might overflow. */
#define TINY 0x1p-130f
#define HUGE_NORM 1e15f

/* A channel of a window. */
typedef struct {
    window at;
    int channel;
} value;

/* Values at a time: as many independent sums as hide the latency of a multiply-add. */
#define VALUES 4

typedef struct {
    const fd_conv *c;
    const fd_pool *p;
    const fd_winograd *w;
    int depth;          /* input channels in whole vectors */
    int step;           /* elements between tiles in v */
    float *v, *m;
    int n;
    struct {
        int y, x;       /* first pool window */
        float norm;
    } tiles[BATCH];
    value doubts[VALUES]; /* values to be summed again */
    int n_doubts;
} batch;

/* ---- transforms in one direction: P = M + 2 values to P; transform_back: P values to M ---- */

FD_INLINE void transform(const vf *d, vf *o, const int M) {
    if (M == 2) {
        to_places(d, o);
        return;
    }
    const vf four = vf_set1(4), five = vf_set1(-5), two = vf_set1(2), minus4 = vf_set1(-4);
    const vf a = vf_fma(minus4, d[2], d[4]), b = vf_fma(minus4, d[1], d[3]);
    const vf e = vf_sub(d[4], d[2]), f = vf_mul(two, vf_sub(d[3], d[1]));
    o[0] = vf_fma(five, d[2], vf_fma(four, d[0], d[4]));
    o[1] = vf_add(a, b);
    o[2] = vf_sub(a, b);
    o[3] = vf_add(e, f);
    o[4] = vf_sub(e, f);
    o[5] = vf_fma(five, d[3], vf_fma(four, d[1], d[5]));
}

FD_INLINE void transform_back(const vf *m, vf *o, const int M) {
    if (M == 2) {
        from_places(m, o);
        return;
    }
    const vf a = vf_add(m[1], m[2]), b = vf_sub(m[1], m[2]);
    const vf e = vf_add(m[3], m[4]), f = vf_sub(m[3], m[4]);
    o[0] = vf_add(vf_add(m[0], a), e);
    o[1] = vf_fma(vf_set1(2), f, b);
    o[2] = vf_fma(vf_set1(4), e, a);
    o[3] = vf_add(vf_fma(vf_set1(8), f, b), m[5]);
}

/* The largest of the norms of the inputs of a window's four pixels. square[y][x] has the sums of
 * squares of the 4 x 4 input: index 0 is its first row or column, 1 the middle two, 2 the last. */
static float window_norm(vf square[3][3]) {
    float largest = 0, all = 0;
    for (int y = 0; y < 3; y += 2)
        for (int x = 0; x < 3; x += 2) {
            const vf middle = vf_add(square[1][1], square[y][1]);
            const float sum = vf_lane_sum(vf_add(vf_add(square[1][x], square[y][x]), middle));
            all += sum;
            if (sum > largest) largest = sum;
        }
    const float norm = sqrtf(largest + TINY);
    return all < HUGE_NORM * HUGE_NORM && norm < HUGE_NORM ? norm : INFINITY;
}

/* Transforms the input of tile t to b->v. */
FD_INLINE void transform_tile(batch *b, int t, const int M) {
    const fd_conv *c = b->c;
    const int P = M + 2, y0 = 2 * b->tiles[t].y, x0 = 2 * b->tiles[t].x;
    const float *in = c->in + y0 * c->in_row + x0 * c->in_col;
    ptrdiff_t row[MAX_SIDE], col[MAX_SIDE];
    /* A tile of four windows may reach beyond the last window. What it reads there is not used, so
     * it reads the last row or column again. */
    const int last_row = 2 * b->p->out_h + 1 - y0, last_col = 2 * b->p->out_w + 1 - x0;
    FD_UNROLL
    for (int i = 0; i < P; i++) {
        row[i] = (i < 4 || i <= last_row ? i : last_row) * c->in_row;
        col[i] = (i < 4 || i <= last_col ? i : last_col) * c->in_col;
    }
    vf square[3][3];
    FD_UNROLL
    for (int i = 0; i < 9; i++) square[i / 3][i % 3] = vf_zero();
    const size_t place = (size_t)BATCH * b->step;
    float *v = b->v + (size_t)t * b->step;
    for (int i = 0; i < b->depth; i += VW) {
        vf half[MAX_SIDE][MAX_SIDE], d[MAX_SIDE], o[MAX_SIDE];
        FD_UNROLL
        for (int x = 0; x < P; x++) {
            FD_UNROLL
            for (int y = 0; y < P; y++) {
                d[y] = vf_load(in + row[y] + col[x] + i);
                if (M == 2) {
                    vf *s = &square[(y + 1) / 2][(x + 1) / 2];
                    *s = vf_fma(d[y], d[y], *s);
                }
            }
            transform(d, o, M);
            FD_UNROLL
            for (int y = 0; y < P; y++) half[y][x] = o[y];
        }
        FD_UNROLL
        for (int y = 0; y < P; y++) {
            transform(half[y], o, M);
            FD_UNROLL
            for (int x = 0; x < P; x++) vf_store(v + (y * P + x) * place + i, o[x]);
        }
    }
    if (M == 2) b->tiles[t].norm = window_norm(square);
}

/* ---- products ---- */

/* T tiles x NV vectors of channels at one place (three tiles share a pointer, as in conv_tile).
 * add: m already has the sums of the input channels before these. */
FD_INLINE void product_tile(const float *v, ptrdiff_t step, const float *w, int cin, float *m,
                            int add, const int T, const int NV) {
    vf acc[BATCH][2];
    const float *p[BATCH / 3];
    FD_UNROLL
    for (int q = 0; q < (T + 2) / 3; q++) p[q] = v + 3 * q * step;
    FD_UNROLL
    for (int x = 0; x < T; x++)
        FD_UNROLL
        for (int j = 0; j < NV; j++) acc[x][j] = vf_zero();
    for (int i = 0; i < cin; i++, w += NV * VW) {
        vf u[2];
        FD_UNROLL
        for (int j = 0; j < NV; j++) u[j] = vf_load(w + j * VW);
        FD_UNROLL
        for (int x = 0; x < T; x++) {
            const vf a = vf_set1(p[x / 3][(x % 3) * step + i]);
            FD_UNROLL
            for (int j = 0; j < NV; j++) acc[x][j] = vf_fma(a, u[j], acc[x][j]);
        }
    }
    if (add)
        FD_UNROLL
        for (int x = 0; x < T; x++)
            FD_UNROLL
            for (int j = 0; j < NV; j++)
                acc[x][j] = vf_add(vf_load(m + (x * NV + j) * VW), acc[x][j]);
    FD_UNROLL
    for (int x = 0; x < T; x++)
        FD_UNROLL
        for (int j = 0; j < NV; j++) vf_store(m + (x * NV + j) * VW, acc[x][j]);
}

#define PRODUCT(T, NV)                                                                    \
    static FD_NOINLINE void product_##T##_##NV(const float *v, ptrdiff_t step,            \
                                               const float *w, int cin, float *m,         \
                                               int add) {                                 \
        product_tile(v, step, w, cin, m, add, T, NV);                                     \
    }
PRODUCT(2, 1) PRODUCT(2, 2) PRODUCT(4, 1) PRODUCT(4, 2) PRODUCT(5, 1) PRODUCT(5, 2)
PRODUCT(6, 1) PRODUCT(6, 2)
#if BATCH == 12
PRODUCT(8, 1) PRODUCT(8, 2) PRODUCT(10, 1) PRODUCT(10, 2) PRODUCT(12, 1) PRODUCT(12, 2)
#endif

typedef void product(const float *v, ptrdiff_t step, const float *w, int cin, float *m, int add);

/* The function for n tiles, or for one more: what it reads and writes behind them is part of the
 * scratch space of the batch. */
static product *product_for(int n, int nv) {
    static product *const sizes[][2] = {
        {product_2_1, product_2_2},   {product_2_1, product_2_2},
        {product_4_1, product_4_2},   {product_4_1, product_4_2},
        {product_5_1, product_5_2},   {product_6_1, product_6_2},
#if BATCH == 12
        {product_8_1, product_8_2},   {product_8_1, product_8_2},
        {product_10_1, product_10_2}, {product_10_1, product_10_2},
        {product_12_1, product_12_2}, {product_12_1, product_12_2},
#endif
    };
    return sizes[n - 1][nv - 1];
}

/* ---- back to pixels, check, epilogue and pool ---- */

FD_INLINE vf linear_part(vf a, const fd_conv *c, int channel) {
    const fd_epilogue *e = &c->epilogue;
    a = vf_add(a, vf_load(c->bias + channel));
    if (e->scale1) a = vf_fma(a, vf_load(e->scale1 + channel), vf_load(e->shift1 + channel));
    return a;
}

/* Whether the direct kernel's sum certainly has the same sign. */
FD_INLINE vm sign_is_sure(vf a, vf error) {
    return vm_greater(vf_max(a, vf_sub(vf_zero(), a)), error);
}

/* Stores the maximum of a window. *sure: the lanes in which the direct kernel certainly finds it at
 * the same place. */
FD_INLINE void pool_window(const fd_conv *c, const window *k, vf a, vf b, vf d, vf e, vf error,
                           int channel, vm *sure) {
    const vf top = vf_max(a, b), bottom = vf_max(d, e);
    vf best = vf_max(top, bottom);
    vf second = vf_max(vf_min(top, bottom), vf_max(vf_min(a, b), vf_min(d, e)));
    vf index = vf_select(vm_greater(bottom, top),
                         vf_select(vm_greater(e, d), vf_from_bits(3), vf_from_bits(2)),
                         vf_select(vm_greater(b, a), vf_from_bits(1), vf_zero()));
    vm zero = vm_greater(vf_zero(), vf_zero());
    if (c->epilogue.activation.kind == FD_RELU) {
        const vf below = vf_sub(vf_zero(), error);
        zero = vm_greater(below, best);
        second = vf_max(second, below);
        index = vf_select(zero, vf_zero(), index);
    }
    *sure = vm_or(zero, vm_greater(vf_sub(best, second), vf_add(error, error)));
    if (c->epilogue.activation.kind == FD_RELU) best = vf_max(vf_zero(), best);
    if (c->epilogue.activation.kind == FD_LEAKY) { /* with a positive slope: the same order */
        *sure = vm_and(*sure, sign_is_sure(best, error));
        best = activation(best, &c->epilogue.activation, channel, FD_LEAKY);
    }
    vf_store(k->out + channel, best);
    vf_store_bytes(k->switches + channel, index);
}

/* Stores the mean of a window. *sure: the lanes in which the direct kernel certainly rectifies the
 * same pixels. */
FD_INLINE void average_window(const fd_conv *c, const window *k, vf a, vf b, vf d, vf e,
                              vf error, int channel, vm *sure) {
    const vf zero = vf_zero();
    vf x[4] = {a, b, d, e};
    *sure = vm_greater(vf_set1(1), zero);
    if (c->epilogue.activation.kind != FD_NO_ACTIVATION)
        FD_UNROLL
        for (int i = 0; i < 4; i++) {
            *sure = vm_and(*sure, sign_is_sure(x[i], error));
            x[i] = c->epilogue.activation.kind == FD_RELU
                       ? vf_max(zero, x[i])
                       : activation(x[i], &c->epilogue.activation, channel, FD_LEAKY);
        }
    vf_store(k->out + channel, mean_of(x[0], x[1], x[2], x[3]));
}

/* ---- values in doubt, summed directly ---- */

/* Sums the values in doubt of a batch directly. The four pixels of a window are in the lanes, so that
 * a channel takes a fraction of the work of its whole vector. Only for one group, and for
 * activations that are not is_later. */
static FD_NOINLINE void sum_doubts(batch *b) {
    if (!b->n_doubts) return;
    const fd_conv *c = b->c;
    const value *values = b->doubts;
    const float *w[VALUES];
    v4 acc[VALUES], total[VALUES];
    for (int n = b->n_doubts; n < VALUES; n++) b->doubts[n] = b->doubts[0];
    for (int n = 0; n < VALUES; n++) {
        w[n] = b->w->by_channel + (size_t)values[n].channel * c->ntaps * b->depth;
        total[n] = v4_set1(c->bias[values[n].channel]);
        acc[n] = in_parts(c) ? v4_set1(0) : total[n];
    }
    for (int t = 0; t < c->ntaps; t++)
        for (int i = 0; i < c->cin;) {
            for (const int end = part_end(c, i); i < end; i += 4) {
                const int inputs = end - i < 4 ? end - i : 4;
                FD_UNROLL
                for (int n = 0; n < VALUES; n++) {
                    const float *in = values[n].at.in + c->taps[t] + i, *below = in + c->in_row;
                    const float *weight = w[n] + t * b->depth + i;
                    v4 x[4] = {v4_load(in), v4_load(in + c->in_col), v4_load(below),
                               v4_load(below + c->in_col)};
                    v4_transpose(x);
                    if (inputs == 4)
                        FD_UNROLL
                        for (int j = 0; j < 4; j++)
                            acc[n] = v4_fma(x[j], v4_set1(weight[j]), acc[n]);
                    else
                        for (int j = 0; j < inputs; j++)
                            acc[n] = v4_fma(x[j], v4_set1(weight[j]), acc[n]);
                }
            }
            if (!in_parts(c)) continue;
            FD_UNROLL
            for (int n = 0; n < VALUES; n++) {
                total[n] = v4_add(total[n], acc[n]);
                acc[n] = v4_set1(0);
            }
        }
    for (int n = 0; n < VALUES; n++) {
        const window *k = &values[n].at;
        const int channel = values[n].channel, lane = channel % VW;
        float pixels[4], best[VW];
        uint8_t places[VW];
        v4_store(pixels, in_parts(c) ? total[n] : acc[n]);
        vf x[4], max, index;
        FD_UNROLL
        for (int i = 0; i < 4; i++) x[i] = vf_set1(pixels[i]);
        pooled(c, k, x, channel - lane, &max, &index);
        vf_store(best, max);
        k->out[channel] = best[lane];
        if (!k->switches) continue;
        vf_store_bytes(places, index);
        k->switches[channel] = places[lane];
    }
    b->n_doubts = 0;
}

/* From this number of values in doubt on, it takes less time to sum their whole vector. */
#define MANY_DOUBTS 4

/* Sums a whole vector directly. Values that are not in doubt stay as they are, so that bits do not
 * depend on the width of vectors. */
static void sum_vector(const fd_conv *c, const window *k, int channel, unsigned doubts) {
    float values[VW];
    uint8_t places[VW];
    memcpy(values, k->out + channel, sizeof values);
    if (k->switches) memcpy(places, k->switches + channel, sizeof places);
    const int v = channel / VW, vectors = (c->cout + VW - 1) / VW;
    const size_t vector = (size_t)c->ntaps * c->cin * VW;
    const int nv = (v | 1) < vectors ? 2 : 1;
    sum_windows_1_1(c, k, c->weight + (v & ~1) * vector + (v & 1) * VW, nv * VW, channel);
    for (int i = 0; i < VW; i++) {
        if (doubts >> i & 1) continue;
        k->out[channel + i] = values[i];
        if (k->switches) k->switches[channel + i] = places[i];
    }
}

/* Sum again, directly, the channels of a vector whose bits in `doubts` are set. */
static FD_NOINLINE void sum_again(batch *b, const window *k, int channel, unsigned doubts) {
    if (__builtin_popcount(doubts) >= MANY_DOUBTS) {
        sum_vector(b->c, k, channel, doubts);
        return;
    }
    for (; doubts; doubts &= doubts - 1) {
        b->doubts[b->n_doubts++] = (value){*k, channel + __builtin_ctz(doubts)};
        if (b->n_doubts == VALUES) sum_doubts(b);
    }
}

/* Transforms back, checks and pools one vector of channels of tile t. The places lie `step` floats
 * apart in m. */
FD_INLINE void finish_tile(batch *b, int t, const float *m, size_t step, int channel,
                           const int M, const int MEAN) {
    const fd_conv *c = b->c;
    const fd_pool *p = b->p;
    const int P = M + 2;
    vf half[MAX_SIDE][MAX_SIDE], pixel[MAX_SIDE][MAX_SIDE];
    FD_UNROLL
    for (int y = 0; y < P; y++) {
        vf in[MAX_SIDE], out[MAX_SIDE];
        FD_UNROLL
        for (int x = 0; x < P; x++) in[x] = vf_load(m + (y * P + x) * step);
        transform_back(in, out, M);
        FD_UNROLL
        for (int x = 0; x < M; x++) half[x][y] = out[x];
    }
    FD_UNROLL
    for (int x = 0; x < M; x++) {
        vf out[MAX_SIDE];
        transform_back(half[x], out, M);
        FD_UNROLL
        for (int y = 0; y < M; y++) pixel[y][x] = linear_part(out[y], c, channel);
    }
    const int y0 = b->tiles[t].y, x0 = b->tiles[t].x;
    vf error = vf_zero();
    if (M == 2)
        error = vf_fma(vf_set1(b->tiles[t].norm), vf_load(b->w->slope + channel),
                       vf_load(b->w->base + channel));
    FD_UNROLL
    for (int y = 0; y < M; y += 2)
        FD_UNROLL
        for (int x = 0; x < M; x += 2) {
            if (M > 2 && (y0 + y / 2 >= p->out_h || x0 + x / 2 >= p->out_w)) continue;
            const window k = window_at(c, p, y0 + y / 2, x0 + x / 2);
            vm sure;
            (MEAN ? average_window : pool_window)(
                c, &k, pixel[y][x], pixel[y][x + 1], pixel[y + 1][x], pixel[y + 1][x + 1], error,
                channel, &sure);
            if (M == 2 && !vm_all(sure)) sum_again(b, &k, channel, ~vm_bits(sure) & ((1u << VW) - 1));
        }
}

/* Prefetch what a tile of the next batch reads first: the input comes from memory, and its transform
 * waits for it. */
FD_INLINE void fetch_tile(const batch *b, int t) {
    const fd_conv *c = b->c;
    const int y = b->tiles[t].y, x = b->tiles[t].x + BATCH;
    if (x >= b->p->out_w) return;
    const float *in = c->in + (2 * y + 2) * c->in_row + (2 * x + 2) * c->in_col;
    for (int row = 0; row < 2; row++, in += c->in_row)
        for (int col = 0; col < 2; col++)
            for (int i = 0; i < c->cin; i += 16) __builtin_prefetch(in + col * c->in_col + i);
}

FD_INLINE void run_batch(batch *b, const int M, const int MEAN) {
    const int places = (M + 2) * (M + 2), cin = b->c->cin;
    const int vectors = (b->c->cout + VW - 1) / VW;
    const float *w = b->w->weight;
    for (int t = 0; t < b->n; t++) transform_tile(b, t, M);
    for (int v = 0; v < vectors; v += 2) {
        const int nv = vectors - v >= 2 ? 2 : 1;
        product *const multiply = product_for(b->n, nv);
        const size_t step = (size_t)BATCH * nv * VW;
        for (int q = 0; q < places; q++) {
            if (M == 2 && v == 0 && q < b->n) fetch_tile(b, q);
            const float *inputs = b->v + (size_t)q * BATCH * b->step;
            for (int i = 0, end; i < cin; i = end) {
                end = part_end(b->c, i);
                multiply(inputs + i, b->step, w, end - i, b->m + q * step, i > 0);
                w += (size_t)(end - i) * nv * VW;
            }
        }
        for (int t = 0; t < b->n; t++)
            for (int j = 0; j < nv; j++)
                finish_tile(b, t, b->m + (t * nv + j) * VW, step, (v + j) * VW, M, MEAN);
    }
    b->n = 0;
}

/* ---- rows of tiles ---- */

/* Whether the middle four inputs of a window do not change along a row, or along a column. That is
 * true wherever the input patch of an output pixel does not change along a row or column. */
static int flat(const fd_conv *c, const float *in, int depth) {
    const float *a = in + c->in_row + c->in_col, *d = a + c->in_row;
    int along_row = 0, along_col = 0;
    for (int i = 0; i < depth; i += VW) {
        const vf a0 = vf_load(a + i), a1 = vf_load(a + i + c->in_col);
        const vf d0 = vf_load(d + i), d1 = vf_load(d + i + c->in_col);
        along_row |= vm_any(vm_or(vm_differ(a0, a1), vm_differ(d0, d1)));
        along_col |= vm_any(vm_or(vm_differ(a0, d0), vm_differ(a1, d1)));
        if (along_row && along_col) return 0;
    }
    return 1;
}

/* Each case has a function of its own, so that compilers keep its accumulators in registers. */
static FD_NOINLINE void run_max_2(batch *b) { run_batch(b, 2, 0); }
static FD_NOINLINE void run_mean_2(batch *b) { run_batch(b, 2, 1); }
static FD_NOINLINE void run_max_4(batch *b) { run_batch(b, 4, 0); }
static FD_NOINLINE void run_mean_4(batch *b) { run_batch(b, 4, 1); }

static void rows_of_2(batch *b, int row0, int row1) {
    void (*const run)(batch *) = b->p->counts ? run_mean_2 : run_max_2;
    window direct[WINDOWS];
    int n = 0;
    for (int y = row0; y < row1; y++)
        for (int x = 0; x < b->p->out_w; x++) {
            const window k = window_at(b->c, b->p, y, x);
            if (flat(b->c, k.in, b->depth)) {
                direct[n++] = k;
                if (n < WINDOWS) continue;
                direct_windows(b->c, direct, n);
                n = 0;
            } else {
                b->tiles[b->n].y = y, b->tiles[b->n].x = x;
                if (++b->n == BATCH) run(b);
            }
        }
    direct_windows(b->c, direct, n);
    if (b->n) run(b);
    sum_doubts(b);
}

static void rows_of_4(batch *b, int row0, int row1) {
    void (*const run)(batch *) = b->p->counts ? run_mean_4 : run_max_4;
    for (int y = row0; y < row1; y++)
        for (int x = 0; x < b->p->out_w; x += 2) {
            b->tiles[b->n].y = 2 * y, b->tiles[b->n].x = x;
            if (++b->n == BATCH) run(b);
        }
    if (b->n) run(b);
}

/* Rows of tiles row0 <= row < row1. */
int FD_NAME(fd_winograd_rows)(const fd_conv *c, const fd_pool *p, const fd_winograd *w,
                              int row0, int row1) {
    const int places = (w->tile + 2) * (w->tile + 2), depth = padded(c->cin);
    const int step = depth % SAME_SETS ? depth : depth + VW;
    const size_t v = (size_t)places * BATCH * step, m = (size_t)places * BATCH * 2 * VW;
    float *scratch = fd_scratch(v + m);
    if (!scratch) return -1;
    memset(scratch, 0, sizeof(float) * v);
    batch b = {.c = c, .p = p, .w = w, .depth = depth, .step = step, .v = scratch, .m = scratch + v};
    if (w->tile == 2)
        rows_of_2(&b, row0, row1);
    else
        rows_of_4(&b, row0, row1);
    free(scratch);
    return 0;
}
