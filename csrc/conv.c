/* Direct convolution of channels-last activations, fused with its epilogue and its pool.
 *
 * What    out[y][x][o] = epilogue(bias[o] + sum over taps t and input channels i of
 *         weight[o][i][t] * in[y][x][t][i]), for rows row0 <= y < row1. Where a pool follows, the
 *         result is pooled (with switches) before it is stored: the full-size map never exists.
 * Layout  Output channels are in the lanes, two vectors at a time. The sums of TILE neighbouring
 *         output columns are kept in registers; where rows are shorter than that, those of TILE
 *         pixels of one row or several (pixels_tile). A job may be a range of output channels
 *         instead of rows, so that small maps read each weight once. Whoever produced the input has
 *         padded it, so that no tap has to test for a border. Packed weights: for every block of
 *         channels (two vectors; the last block may be one) [tap][input channel][lane], with zeros
 *         for channels beyond cout. Where the channels of a group are not whole vectors, a vector
 *         of output channels spans groups: it is computed alone, and every lane gathers the input
 *         of its own group. In a depthwise convolution, where every channel is a group, lanes can
 *         load it.
 * Mix     Per tap and input channel, on AVX-512: 2 loads, 12 broadcasts, 24 FMA. 3 x 3
 *         taps of a single input channel before a 2 x 2 pool: per three windows and vector of
 *         channels, 32 broadcasts, 108 FMA.
 * Numbers float32. A sum starts from the bias, then taps are added in row-major order, input
 *         channels innermost, with one vf_fma each. In parts, each tap has partial sums for
 *         `part` input channels at a time, which start from zero and are added in the same order.
 *         Every output pixel gets the same sequence of operations wherever it lies in a tile: equal
 *         patches give equal bits.
 */
#include <stdlib.h>

#include "pool.h"
#include "windows.h"

#if FD_REGISTERS >= 32
#define TILE 12
#else
#define TILE 6
#endif

/* Output columns of a depthwise convolution that are summed together. */
#define DEPTHWISE_TILE 8

/* Prefetches the cache lines to which `vectors` vectors will be stored, before they are summed. The
 * activations of a forward pass do not fit in the caches, and a store has to wait for its line. */
FD_INLINE void fetch_for_writing(const float *at, const int vectors) {
    FD_UNROLL
    for (int j = 0; j * 64 < vectors * VW * (int)sizeof(float); j++)
        __builtin_prefetch((const char *)at + 64 * j, 1);
}

/* The same for reading. */
FD_INLINE void fetch(const float *at, const int vectors) {
    FD_UNROLL
    for (int j = 0; j * 64 < vectors * VW * (int)sizeof(float); j++)
        __builtin_prefetch((const char *)at + 64 * j);
}

/* Prefetch distance, in input channels, of the weights of rows that are shorter than a tile: they
 * come from L2 or from memory. */
#define WEIGHTS_AHEAD 32

/* Applies the epilogue to a vector of channels of T columns, and stores it. */
FD_INLINE void store_finished(vf *sums, const fd_epilogue *e, int channel, float *out,
                              ptrdiff_t out_col, const int T) {
    finish_all(sums, e, channel, T);
    FD_UNROLL
    for (int x = 0; x < T; x++) vf_store(out + x * out_col, sums[x]);
}

/* Elements of the sums of a tile. They are the caller's: compilers would copy an array of the tile's
 * own to and fro, also where it is not needed. */
#define TILE_SIZE (TILE * 2 * VW)

/* Adds the products of input channel i to the sums of a tile. */
FD_INLINE void add_input(const float *const *p, ptrdiff_t step, int i, const float *w,
                         vf acc[][2], const int T, const int NV) {
    vf b[2];
    FD_UNROLL
    for (int j = 0; j < NV; j++) b[j] = vf_load(w + j * VW);
    FD_UNROLL
    for (int x = 0; x < T; x++) {
        const vf v = vf_set1(p[x / 3][(x % 3) * step + i]);
        FD_UNROLL
        for (int j = 0; j < NV; j++) acc[x][j] = vf_fma(v, b[j], acc[x][j]);
    }
}

/* T columns x NV vectors of channels; T, NV and PARTS (in_parts) are constants after inlining.
 * total: TILE_SIZE elements, used with PARTS. */
FD_INLINE void conv_tile(const fd_conv *c, const float *origin, const float *w, int channel,
                         float *out, ptrdiff_t out_col, float *total, const int T,
                         const int NV, const int PARTS) {
    vf acc[TILE][2];
    const ptrdiff_t step = c->in_col;
    FD_UNROLL
    for (int x = 0; x < T; x++)
        FD_UNROLL
        for (int j = 0; j < NV; j++) acc[x][j] = vf_load(c->bias + channel + j * VW);
    if (PARTS) begin_parts(total, acc, T, NV);
    FD_UNROLL
    for (int x = 0; x < T; x++) fetch_for_writing(out + x * out_col, NV);
    for (int t = 0; t < c->ntaps; t++) {
        /* One pointer serves three columns: x86 addresses [p], [p + step] and [p + 2 * step]. */
        const float *p[TILE / 3];
        FD_UNROLL
        for (int q = 0; q < TILE / 3; q++) p[q] = origin + c->taps[t] + 3 * q * step;
        if (!PARTS)
            for (int i = 0; i < c->cin; i++, w += NV * VW) add_input(p, step, i, w, acc, T, NV);
        else
            for (int i = 0; i < c->cin;) {
                for (const int end = part_end(c, i); i < end; i++, w += NV * VW)
                    add_input(p, step, i, w, acc, T, NV);
                end_part(total, acc, T, NV);
            }
    }
    if (PARTS) end_parts(total, acc, T, NV);
    FD_UNROLL
    for (int j = 0; j < NV; j++) {
        vf sums[TILE];
        FD_UNROLL
        for (int x = 0; x < T; x++) sums[x] = acc[x][j];
        store_finished(sums, &c->epilogue, channel + j * VW, out + j * VW, out_col, T);
    }
}

#define TILE_CASE(n, NV, PARTS) \
    case n: conv_tile(c, origin, w, channel, out, out_col, total, n, NV, PARTS); break;
#define TILE_FUNCTION(NAME, NV, PARTS)                                                   \
    static void NAME(const fd_conv *c, const float *origin, const float *w, int channel,  \
                     float *out, ptrdiff_t out_col, float *total, int columns) {          \
        switch (columns) {                                                               \
            TILE_CASES(NV, PARTS)                                                        \
        }                                                                                \
    }
#define TILE_CASES_6(NV, PARTS) \
    TILE_CASE(1, NV, PARTS) TILE_CASE(2, NV, PARTS) TILE_CASE(3, NV, PARTS) \
    TILE_CASE(4, NV, PARTS) TILE_CASE(5, NV, PARTS) TILE_CASE(6, NV, PARTS)
#if TILE == 12
#define TILE_CASES(NV, PARTS) \
    TILE_CASES_6(NV, PARTS) \
    TILE_CASE(7, NV, PARTS) TILE_CASE(8, NV, PARTS) TILE_CASE(9, NV, PARTS) \
    TILE_CASE(10, NV, PARTS) TILE_CASE(11, NV, PARTS) TILE_CASE(12, NV, PARTS)
#else
#define TILE_CASES(NV, PARTS) TILE_CASES_6(NV, PARTS)
#endif
TILE_FUNCTION(conv_tile_1, 1, 0)
TILE_FUNCTION(conv_tile_2, 2, 0)
TILE_FUNCTION(conv_tile_1_in_parts, 1, 1)
TILE_FUNCTION(conv_tile_2_in_parts, 2, 1)

typedef void tile_function(const fd_conv *c, const float *origin, const float *w, int channel,
                           float *out, ptrdiff_t out_col, float *total, int columns);

/* `vectors` vectors of output channels of one group, from channel `first` on. Returns the weights
 * of the channels after them. */
static const float *conv_row_block(const fd_conv *c, const float *origin, const float *w,
                                   int first, int vectors, float *out, ptrdiff_t out_col) {
    static tile_function *const tiles[][2] = {
        {conv_tile_1, conv_tile_2}, {conv_tile_1_in_parts, conv_tile_2_in_parts},
    };
    float total[TILE_SIZE] FD_ALIGNED;
    for (int v = 0; v < vectors; v += 2) {
        const int nv = vectors - v >= 2 ? 2 : 1, channel = first + v * VW;
        tile_function *const sum = tiles[in_parts(c)][nv - 1];
        for (int x = 0; x < c->cols; x += TILE) {
            const int n = c->cols - x < TILE ? c->cols - x : TILE;
            sum(c, origin + x * c->in_col, w, channel, out + x * out_col + channel, out_col, total,
                n);
        }
        w += (size_t)c->ntaps * c->cin * nv * VW;
    }
    return w;
}

/* T columns of the vector of channels that begins at `channel`, in a depthwise convolution. */
FD_INLINE void depthwise_tile(const fd_conv *c, const float *origin, const float *w, int channel,
                              float *out, ptrdiff_t out_col, const int T) {
    vf acc[DEPTHWISE_TILE];
    const ptrdiff_t step = c->in_col;
    FD_UNROLL
    for (int x = 0; x < T; x++) acc[x] = vf_load(c->bias + channel);
    for (int t = 0; t < c->ntaps; t++) {
        const float *p = origin + c->taps[t] + channel;
        const vf b = vf_load(w + t * VW);
        FD_UNROLL
        for (int x = 0; x < T; x++) acc[x] = vf_fma(vf_load(p + x * step), b, acc[x]);
    }
    store_finished(acc, &c->epilogue, channel, out + channel, out_col, T);
}

/* All vectors of channels of T columns: every pixel is read from its first channel to its last, as
 * it lies in memory. */
FD_INLINE void depthwise_columns(const fd_conv *c, const float *origin, int vectors, float *out,
                                 ptrdiff_t out_col, const int T) {
    const float *w = c->weight;
    for (int v = 0; v < vectors; v++, w += (size_t)c->ntaps * VW)
        depthwise_tile(c, origin, w, v * VW, out, out_col, T);
}

/* Computes those vectors of channels whose input can be loaded as a whole, and returns how many
 * they are. The last vector is one of them only where pixels of the input are padded. */
static int conv_row_depthwise(const fd_conv *c, const float *origin, float *out,
                              ptrdiff_t out_col) {
    const int vectors = (c->in_pixel % VW == 0 ? padded(c->cout) : c->cout) / VW;
    int x = 0;
#define COLUMNS(T)                                                                          \
    for (; x + T <= c->cols; x += T)                                                        \
        depthwise_columns(c, origin + x * c->in_col, vectors, out + x * out_col, out_col, T);
    COLUMNS(DEPTHWISE_TILE) COLUMNS(4) COLUMNS(2) COLUMNS(1)
#undef COLUMNS
    return vectors;
}

/* Groups whose channels are not whole vectors: every lane reads the input of its own group. */
static void conv_row_gather(const fd_conv *c, const float *origin, float *out,
                            ptrdiff_t out_col) {
    const int per_group = c->cout / c->groups, vectors = (c->cout + VW - 1) / VW;
    const int depthwise = per_group == 1 && c->cin == 1;
    const int done = depthwise ? conv_row_depthwise(c, origin, out, out_col) : 0;
    const size_t each = (size_t)c->ntaps * c->cin * VW;
    const float *w0 = c->weight + done * each;
    for (int v = done; v < vectors; v++, w0 += each) {
        int from[VW];
        for (int l = 0; l < VW; l++) {
            const int o = v * VW + l < c->cout ? v * VW + l : c->cout - 1;
            from[l] = o / per_group * c->cin;
        }
        for (int x = 0; x < c->cols; x++) {
            vf total = vf_load(c->bias + v * VW), acc = in_parts(c) ? vf_zero() : total;
            const float *w = w0;
            for (int t = 0; t < c->ntaps; t++) {
                const float *p = origin + x * c->in_col + c->taps[t];
                for (int i = 0; i < c->cin;) {
                    for (const int end = part_end(c, i); i < end; i++, w += VW) {
                        float lane[VW];
                        for (int l = 0; l < VW; l++) lane[l] = p[from[l] + i];
                        acc = vf_fma(vf_load(lane), vf_load(w), acc);
                    }
                    if (!in_parts(c)) continue;
                    total = vf_add(total, acc);
                    acc = vf_zero();
                }
            }
            if (in_parts(c)) acc = total;
            store_finished(&acc, &c->epilogue, v * VW, out + x * out_col + v * VW, out_col, 1);
        }
    }
}

static void sum_row(const fd_conv *c, int y, float *out, ptrdiff_t out_col) {
    const float *origin = c->in + y * c->in_row;
    if (c->groups == 1) {
        conv_row_block(c, origin, c->weight, 0, (c->cout + VW - 1) / VW, out, out_col);
        return;
    }
    const int per_group = c->cout / c->groups;
    if (per_group % VW) {
        conv_row_gather(c, origin, out, out_col);
        return;
    }
    const float *w = c->weight;
    for (int g = 0; g < c->groups; g++)
        w = conv_row_block(c, origin + g * c->cin, w, g * per_group, per_group / VW, out,
                           out_col);
}

static void conv_row(const fd_conv *c, int y, float *out, ptrdiff_t out_col) {
    sum_row(c, y, out, out_col);
    /* The whole row at a time, since a load that soon follows a store to the same 64 bytes waits
     * until the stored data are in L1. */
    if (is_later(&c->epilogue)) complete_row(&c->epilogue, out, out_col, c->cols, c->cout);
}

/* ---- rows shorter than a tile: the pixels of a tile may be in several rows ---- */

/* Where a pixel is read and written, at channel 0. */
typedef struct {
    const float *in;
    float *out;
} pixel;

/* T pixels x NV vectors of channels, as conv_tile. */
FD_INLINE void pixels_tile(const fd_conv *c, const pixel *at, const float *w, int channel,
                           float *total, const int T, const int NV) {
    vf acc[TILE][2];
    FD_UNROLL
    for (int x = 0; x < T; x++)
        FD_UNROLL
        for (int j = 0; j < NV; j++) acc[x][j] = vf_load(c->bias + channel + j * VW);
    if (in_parts(c)) begin_parts(total, acc, T, NV);
    for (int t = 0; t < c->ntaps; t++) {
        const float *p[TILE];
        FD_UNROLL
        for (int x = 0; x < T; x++) p[x] = at[x].in + c->taps[t];
        for (int i = 0; i < c->cin;) {
            for (const int end = part_end(c, i); i < end; i++, w += NV * VW) {
                vf b[2];
                fetch(w + WEIGHTS_AHEAD * NV * VW, NV);
                FD_UNROLL
                for (int j = 0; j < NV; j++) b[j] = vf_load(w + j * VW);
                FD_UNROLL
                for (int x = 0; x < T; x++) {
                    const vf v = vf_set1(p[x][i]);
                    FD_UNROLL
                    for (int j = 0; j < NV; j++) acc[x][j] = vf_fma(v, b[j], acc[x][j]);
                }
            }
            if (in_parts(c)) end_part(total, acc, T, NV);
        }
    }
    if (in_parts(c)) end_parts(total, acc, T, NV);
    FD_UNROLL
    for (int j = 0; j < NV; j++) {
        vf sums[TILE];
        FD_UNROLL
        for (int x = 0; x < T; x++) sums[x] = acc[x][j];
        finish_all(sums, &c->epilogue, channel + j * VW, T);
        FD_UNROLL
        for (int x = 0; x < T; x++) vf_store(at[x].out + channel + j * VW, sums[x]);
    }
}

#define PIXELS(T, NV)                                                                        \
    static FD_NOINLINE void pixels_##T##_##NV(const fd_conv *c, const pixel *at,             \
                                              const float *w, int channel, float *total) {   \
        pixels_tile(c, at, w, channel, total, T, NV);                                        \
    }
PIXELS(3, 1) PIXELS(3, 2) PIXELS(6, 1) PIXELS(6, 2)
#if TILE == 12
PIXELS(9, 1) PIXELS(9, 2) PIXELS(12, 1) PIXELS(12, 2)
#endif

/* A tile of n pixels. Up to two more are computed, which must be the last one again. */
static void sum_pixels(const fd_conv *c, const pixel *at, int n, const float *w, int channel,
                       int nv) {
    typedef void sum(const fd_conv *, const pixel *, const float *, int, float *);
    float total[TILE_SIZE] FD_ALIGNED;
    static sum *const sizes[][2] = {
        {pixels_3_1, pixels_3_2}, {pixels_6_1, pixels_6_2},
#if TILE == 12
        {pixels_9_1, pixels_9_2}, {pixels_12_1, pixels_12_2},
#endif
    };
    sizes[(n - 1) / 3][nv - 1](c, at, w, channel, total);
}

/* Where pixels lie a multiple of so many elements apart, the same channel of all pixels of a tile
 * competes for a few sets of L1, which have 8 ways. */
#define SAME_SETS 512

/* A copy of all pixels of the input that rows row0..row1-1 read, further apart. Sets `in`, its
 * strides and `taps`, of which `copy` has as many as `c`. */
static float *spread_pixels(const fd_conv *c, int row0, int row1, fd_conv *copy, ptrdiff_t *taps) {
    const ptrdiff_t from = c->in_pixel, to = from + VW;
    ptrdiff_t first = c->taps[0], last = c->taps[0];
    for (int t = 1; t < c->ntaps; t++) {
        if (c->taps[t] < first) first = c->taps[t];
        if (c->taps[t] > last) last = c->taps[t];
    }
    const float *in = c->in + row0 * c->in_row + first;
    const ptrdiff_t pixels =
        ((row1 - 1 - row0) * c->in_row + (c->cols - 1) * c->in_col + last - first) / from + 1;
    float *spread = fd_scratch((size_t)pixels * to);
    if (!spread) return NULL;
    for (ptrdiff_t i = 0; i < pixels; i++)
        memcpy(spread + i * to, in + i * from, sizeof(float) * c->cin);
    for (int t = 0; t < c->ntaps; t++) taps[t] = (c->taps[t] - first) / from * to;
    copy->in_row = c->in_row / from * to;
    copy->in_col = c->in_col / from * to;
    copy->in = spread - row0 * copy->in_row;
    copy->taps = taps;
    return spread;
}

/* Rows row0..row1-1 of a convolution without groups. The weights of two vectors of channels are used
 * for all pixels before those of the next two: with many channels they come from memory. */
static int sum_short_rows(const fd_conv *c, int row0, int row1) {
    const int vectors = (c->cout + VW - 1) / VW;
    const ptrdiff_t n = (ptrdiff_t)(row1 - row0) * c->cols;
    pixel *at = malloc(sizeof *at * (n + 2)), *end = at;
    if (!at) return -1;
    for (int y = row0; y < row1; y++)
        for (int x = 0; x < c->cols; x++)
            *end++ = (pixel){c->in + y * c->in_row + x * c->in_col,
                             c->out + y * c->out_row + x * c->out_col};
    end[0] = end[1] = end[-1];
    const float *w = c->weight;
    for (int v = 0; v < vectors; v += 2) {
        const int nv = vectors - v >= 2 ? 2 : 1;
        for (ptrdiff_t i = 0; i < n; i += TILE)
            sum_pixels(c, at + i, n - i < TILE ? (int)(n - i) : TILE, w, v * VW, nv);
        w += (size_t)c->ntaps * c->cin * nv * VW;
    }
    free(at);
    if (is_later(&c->epilogue))
        for (int y = row0; y < row1; y++)
            complete_row(&c->epilogue, c->out + y * c->out_row, c->out_col, c->cols, c->cout);
    return 0;
}

static int conv_short_rows(const fd_conv *c, int row0, int row1) {
    if (TILE <= 8 || c->in_pixel % SAME_SETS || !c->ntaps) return sum_short_rows(c, row0, row1);
    fd_conv copy = *c;
    ptrdiff_t *taps = malloc(sizeof *taps * c->ntaps);
    float *spread = taps ? spread_pixels(c, row0, row1, &copy, taps) : NULL;
    const int status = spread ? sum_short_rows(&copy, row0, row1) : -1;
    free(taps);
    free(spread);
    return status;
}

int FD_NAME(fd_conv_rows)(const fd_conv *c, int row0, int row1) {
    if (c->groups == 1 && c->cols < TILE && row1 - row0 > 1)
        return conv_short_rows(c, row0, row1);
    for (int y = row0; y < row1; y++) conv_row(c, y, c->out + y * c->out_row, c->out_col);
    return 0;
}

/* As fd_conv_rows, but `out` has the layout planes: out_row and out_col are strides in a plane. */
int FD_NAME(fd_conv_planes_rows)(const fd_conv *c, int row0, int row1) {
    const int channels = padded(c->cout);
    float *row = fd_scratch((size_t)channels * c->cols);
    if (!row) return -1;
    for (int y = row0; y < row1; y++) {
        conv_row(c, y, row, channels);
        for (int o = 0; o < c->cout; o++) {
            float *plane = c->out + o * c->out_plane + y * c->out_row;
            for (int x = 0; x < c->cols; x++) plane[x * c->out_col] = row[x * channels + o];
        }
    }
    free(row);
    return 0;
}

/* ---- pooling of convolution rows that are still in cache ---- */

/* Whether an input of one channel is convolved with 3 x 3 taps side by side. */
static int is_3x3_of_one(const fd_conv *c) {
    if (c->cin != 1 || c->ntaps != 9 || is_later(&c->epilogue)) return 0;
    for (int t = 0; t < 9; t++)
        if (c->taps[t] != t / 3 * c->in_row + t % 3 * c->in_col) return 0;
    return 1;
}

/* N windows side by side x one vector of channels of such a convolution: every input is loaded once
 * for all taps that it meets, which is in their order for every pixel. */
FD_INLINE void windows_of_one(const fd_conv *c, const window *k, const vf *w, int channel,
                              const int N) {
    const ptrdiff_t row = c->in_row, col = c->in_col;
    vf acc[2][2 * WINDOWS];
    FD_UNROLL
    for (int x = 0; x < 4 * N; x++) acc[x % 2][x / 2] = vf_load(c->bias + channel);
    FD_UNROLL
    for (int y = 0; y < 4; y++)
        FD_UNROLL
        for (int x = 0; x < 2 * N + 2; x++) {
            const vf v = vf_set1(k->in[y * row + x * col]);
            FD_UNROLL
            for (int i = 0; i < 2; i++)
                FD_UNROLL
                for (int j = 0; j < 2 * N; j++)
                    if (y - i >= 0 && y - i < 3 && x - j >= 0 && x - j < 3)
                        acc[i][j] = vf_fma(v, w[(y - i) * 3 + x - j], acc[i][j]);
        }
    FD_UNROLL
    for (int n = 0; n < N; n++) {
        vf x[4] = {acc[0][2 * n], acc[0][2 * n + 1], acc[1][2 * n], acc[1][2 * n + 1]};
        pool_pixels(c, k + n, x, channel);
    }
}

static FD_NOINLINE void pool_row_of_one(const fd_conv *c, const fd_pool *p, int y) {
    const int vectors = (c->cout + VW - 1) / VW;
    for (int v = 0; v < vectors; v++) {
        const int nv = (v | 1) < vectors ? 2 : 1;
        const float *packed = c->weight + (size_t)(v & ~1) * 9 * VW + (v & 1) * VW;
        vf w[9];
        FD_UNROLL
        for (int t = 0; t < 9; t++) w[t] = vf_load(packed + t * nv * VW);
        int x = 0;
        for (; x + WINDOWS <= p->out_w; x += WINDOWS) {
            window k[WINDOWS];
            FD_UNROLL
            for (int n = 0; n < WINDOWS; n++) k[n] = window_at(c, p, y, x + n);
            windows_of_one(c, k, w, v * VW, WINDOWS);
        }
        for (; x < p->out_w; x++) {
            const window k = window_at(c, p, y, x);
            windows_of_one(c, &k, w, v * VW, 1);
        }
    }
}

static void pool_plain_row(const fd_conv *c, const fd_pool *p, int y) {
    window k[WINDOWS];
    for (int x = 0; x < p->out_w; x += WINDOWS) {
        const int n = p->out_w - x < WINDOWS ? p->out_w - x : WINDOWS;
        for (int i = 0; i < n; i++) k[i] = window_at(c, p, y, x + i);
        direct_windows(c, k, n);
    }
}

/* A pool of any window. A ring keeps each row of the convolution until no window needs it any
 * more. */
static int pool_any_rows(const fd_conv *c, const fd_pool *p, int row0, int row1) {
    const fd_window *k = &p->window;
    const int extent = (k->kh - 1) * k->dh + 1;
    const size_t row_size = (size_t)p->in_w * p->channels;
    float *ring = fd_scratch(row_size * extent);
    int *held = malloc(sizeof(int) * extent);
    const float **rows = malloc(sizeof *rows * k->kh);
    const int ok = ring && held && rows;
    if (ok) {
        for (int i = 0; i < extent; i++) held[i] = -1;
        for (int y = row0; y < row1; y++) {
            for (int i = 0; i < k->kh; i++) {
                const int line = y * k->sh - k->top + i * k->dh;
                rows[i] = NULL;
                if (line < 0 || line >= p->in_h) continue;
                const int slot = line % extent;
                rows[i] = ring + slot * row_size;
                if (held[slot] == line) continue;
                conv_row(c, line, ring + slot * row_size, p->channels);
                held[slot] = line;
            }
            pool_row(p, rows, p->channels, y);
        }
    }
    free(ring);
    free(held);
    free(rows);
    return ok ? 0 : -1;
}

int FD_NAME(fd_conv_pool_rows)(const fd_conv *c, const fd_pool *p, int row0, int row1) {
    if (!plain_windows(c, p)) return pool_any_rows(c, p, row0, row1);
    void (*const pool)(const fd_conv *, const fd_pool *, int) =
        is_3x3_of_one(c) ? pool_row_of_one : pool_plain_row;
    for (int y = row0; y < row1; y++) pool(c, p, y);
    return 0;
}
