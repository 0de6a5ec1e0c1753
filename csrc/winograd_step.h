/* A transposed convolution of a lane tensor by Winograd's algorithm.
 *
 * What    A step whose source has no pool and no gate, with a 3 x 3 kernel, stride 1, dilation 1 and
 *         one group, is a 3 x 3 convolution of the lane tensor with the kernel turned around.
 *         F(2 x 2, 3 x 3) computes a tile of 2 x 2 pixels from 4 x 4 pixels of V with 16 products
 *         of matrices where the gathered product has 36.
 * Tiles   lie at the same places of the whole map whatever part of it is computed: fd_step says
 *         where the first one begins. A tile that the part cuts is computed whole.
 * V       is in memory, or the first step computes its rows when the tiles come to them. A row of
 *         tiles reads four rows, two of which it shares with the next one.
 * Layout  A batch of tiles, which may go on in the next row of tiles, is transformed to
 *         v[place][channel][tile, lane]; of few features to v[place][tile, feature][channel]. For
 *         each of the 16 places a product gives m[place][channel][tile, lane], or m[place][tile,
 *         feature][channel], which is stored where v of the place before was. Packed weights: for
 *         every place blocks of MATRIX_ROWS output channels (the last may be smaller),
 *         [place][block][input channel][block's channels]; of few features blocks of FD_MAX_NV
 *         vectors of output channels, padded to whole vectors.
 * Mix     product, on AVX-512, per input channel of a block: 4 loads, 6 broadcasts, 24 FMA. Of few
 *         features, per input channel of 6 rows and 64 channels, the same. Transforms, per vector
 *         of V: 8 loads, 24 additions, 16 stores; per vector of the result: 16 loads, 24
 *         additions, 4 stores.
 * Numbers float32; sums over channels by vf_fma in ascending order. A pixel depends on the 9 pixels
 *         of V under its kernel and on nothing else, not even in its rounding: where these are 0, it
 *         is 0. Its bits depend on its place in its tile. They do not depend on threads, on the
 *         other lanes, or on the layout.
 */
#ifndef FD_WINOGRAD_STEP_H
#define FD_WINOGRAD_STEP_H

#include "by_feature.h"
#include "transform.h"

#define PLACES 16
#define MATRIX_ROWS FD_WINOGRAD_ROWS /* rows of a product at a time */
#define MOST_TILES FD_WINOGRAD_FEW_ROWS /* of a batch: where one feature has all rows */

/* A tile of a batch. */
typedef struct {
    int Y, X;
    float *out[4]; /* where its pixels go; NULL: not wanted */
} tile;

typedef struct {
    float *places;      /* PLACES + 1 slots: m of place q in slot q, v in the one after it */
    ptrdiff_t slot;     /* elements from one to the next; not a power of two: places would share a
                         * few sets of L1 */
    float *nothing;     /* a pixel of zeros */
    float *v_rows;      /* with fd_step.first: the last V_ROWS rows of V, row y in place y % V_ROWS;
                         * else NULL */
    int v_next;         /* the row of V that comes after them */
    int tiles;          /* of a batch */
    tile batch[MOST_TILES];
    int count;          /* how many of the batch have been transformed */
    float *rows;        /* a row of tiles, where the result is asked for pixel by pixel: 2 rows */
    int held;           /* the first of them; NONE_HELD: none */
} winograd;

#define NONE_HELD (-2)
#define V_ROWS 4 /* that a row of tiles reads */

static void winograd_free(winograd *p) {
    free(p->places);
    free(p->nothing);
    free(p->v_rows);
    free(p->rows);
}

/* Elements of a row of V. */
static size_t v_row_size(const fd_step *s) {
    return (size_t)s->source.cells_w * s->source.channels * s->kp;
}

static float *kept_row(const winograd *p, const fd_step *s, int y) {
    return p->v_rows + y % V_ROWS * v_row_size(s);
}

/* Row y of V. */
static const float *v_row(const winograd *p, const fd_step *s, int y) {
    return p->v_rows ? kept_row(p, s, y) : s->v + y * v_row_size(s);
}

static int winograd_init(winograd *p, const fd_step *s) {
    const int channels = s->source.channels;
    ptrdiff_t v, m;
    p->tiles = fd_winograd_tiles(s->kp, s->nv, FD_MAX_NV * VW);
    p->count = 0;
    if (s->nv) {
        v = (ptrdiff_t)channels * p->tiles * s->kp;
        m = (ptrdiff_t)s->cout * p->tiles * s->kp;
    } else {
        const int rows = p->tiles * s->kp;
        v = (ptrdiff_t)rows * channels;
        m = (ptrdiff_t)rows * padded(s->cout);
    }
    const ptrdiff_t larger = v > m ? v : m, line = 16;
    p->slot = ((larger + VW + line - 1) / line | 1) * line;
    p->held = NONE_HELD;
    p->places = fd_scratch((size_t)(PLACES + 1) * p->slot);
    p->nothing = fd_scratch((size_t)channels * s->kp + VW);
    p->v_rows = s->first ? fd_scratch(V_ROWS * v_row_size(s)) : NULL;
    p->v_next = 0;
    p->rows = fd_scratch((size_t)2 * s->out_w * s->cout * s->kp);
    if (!p->places || !p->nothing || !p->rows || (s->first && !p->v_rows)) {
        winograd_free(p);
        return 0;
    }
    memset(p->places, 0, sizeof(float) * (PLACES + 1) * p->slot);
    memset(p->nothing, 0, sizeof(float) * ((size_t)channels * s->kp + VW));
    return 1;
}

/* ---- transforms ---- */

/* Element `at` of a column of four pixels of V, and of the following lanes, transformed; the first
 * `count` of these elements are wanted. */
FD_INLINE void transform_column(const float *const *pixels, ptrdiff_t at, int count, vf *o) {
    vf d[4];
    FD_UNROLL
    for (int y = 0; y < 4; y++)
        d[y] = count < VW ? load_part(pixels[y] + at, count) : vf_load(pixels[y] + at);
    to_places(d, o);
}

/* The same of all tiles of a batch, which lie `apart` elements apart in `to`. A tile shares two
 * columns with the one before. */
FD_INLINE void transform_vector(const winograd *p, const float *const (*pixels)[4], ptrdiff_t at,
                                int count, int tiles, float *to, ptrdiff_t apart) {
    const ptrdiff_t slot = p->slot;
    vf half[4][4];
    transform_column(pixels[0], at, count, half[2]);
    transform_column(pixels[1], at, count, half[3]);
    for (int t = 0; t < tiles; t++, to += apart) {
        FD_UNROLL
        for (int y = 0; y < 4; y++) {
            half[0][y] = half[2][y];
            half[1][y] = half[3][y];
        }
        transform_column(pixels[2 * t + 2], at, count, half[2]);
        transform_column(pixels[2 * t + 3], at, count, half[3]);
        FD_UNROLL
        for (int y = 0; y < 4; y++) {
            const vf d[4] = {half[0][y], half[1][y], half[2][y], half[3][y]};
            vf o[4];
            to_places(d, o);
            FD_UNROLL
            for (int x = 0; x < 4; x++) vf_store(to + (y * 4 + x) * slot, o[x]);
        }
    }
}

/* The pixels of V that tiles read, the first of which is at (Y, X), column by column. */
static void find_pixels(const winograd *p, const fd_step *s, int Y, int X, int columns,
                        const float *(*pixels)[4]) {
    const fd_source *f = &s->source;
    const ptrdiff_t pixel = (ptrdiff_t)f->channels * s->kp;
    for (int i = 0; i < 4; i++) {
        const int y = Y + s->conv.top - 2 + i;
        const float *row = y >= 0 && y < f->cells_h ? v_row(p, s, y) : NULL;
        for (int j = 0; j < columns; j++) {
            const int x = X + s->conv.left - 2 + j;
            pixels[j][i] = row && x >= 0 && x < f->cells_w ? row + x * pixel : p->nothing;
        }
    }
}

/* Tiles of a row, of which the first one is at (Y, X): numbers first, first + 1, ... of the batch. */
static void transform_tiles(const winograd *p, const fd_step *s, int Y, int X, int first,
                            int tiles) {
    const float *found[2 * MOST_TILES + 2][4];
    const float *const(*pixels)[4] = (const float *const(*)[4])found;
    const int channels = s->source.channels, kp = s->kp;
    float *v = p->places + p->slot;
    find_pixels(p, s, Y, X, 2 * tiles + 2, found);
    if (s->nv) {
        const ptrdiff_t row = (ptrdiff_t)p->tiles * kp;
        v += (ptrdiff_t)first * kp;
        for (int c = 0; c < channels; c++, v += row)
            for (int k = 0; k < kp; k += VW)
                transform_vector(p, pixels, (ptrdiff_t)c * kp + k, VW, tiles, v + k, kp);
        return;
    }
    const ptrdiff_t all = (ptrdiff_t)kp * channels;
    const int rest = (int)(all % VW);
    v += first * all;
    /* At first, since it also stores something where the next tile begins. */
    if (rest) transform_vector(p, pixels, all - rest, rest, tiles, v + all - rest, all);
    for (ptrdiff_t at = 0; at + VW <= all; at += VW)
        transform_vector(p, pixels, at, VW, tiles, v + at, all);
}

/* ---- products ---- */

/* m[i][j] = sum over c of a[i, c] b[c, j]: NI rows, NV vectors. */
FD_INLINE void matrix_block(const float *a, const ptrdiff_t a_row, const ptrdiff_t a_channel,
                            const float *b, ptrdiff_t b_row, int channels, float *m,
                            ptrdiff_t m_row, const int NI, const int NV) {
    vf acc[MATRIX_ROWS][FD_MAX_NV];
    FD_UNROLL
    for (int i = 0; i < NI; i++)
        FD_UNROLL
        for (int j = 0; j < NV; j++) acc[i][j] = vf_zero();
    for (int c = 0; c < channels; c++, a += a_channel, b += b_row) {
        vf x[FD_MAX_NV];
        FD_UNROLL
        for (int j = 0; j < NV; j++) x[j] = vf_load(b + j * VW);
        FD_UNROLL
        for (int i = 0; i < NI; i++) {
            const vf y = vf_set1(a[i * a_row]);
            FD_UNROLL
            for (int j = 0; j < NV; j++) acc[i][j] = vf_fma(y, x[j], acc[i][j]);
        }
    }
    FD_UNROLL
    for (int i = 0; i < NI; i++)
        FD_UNROLL
        for (int j = 0; j < NV; j++) vf_store(m + i * m_row + j * VW, acc[i][j]);
}

#define CHANNELS_CASE(NI) \
    case NI: matrix_block(u, 1, NI, v, row, channels, m, row, NI, FD_MAX_NV); break;

/* Up to MATRIX_ROWS output channels, FD_MAX_NV vectors of lanes. */
static FD_NOINLINE void multiply_channels(const float *u, const float *v, ptrdiff_t row,
                                          int channels, float *m, int rows) {
    switch (rows) {
        CHANNELS_CASE(1) CHANNELS_CASE(2) CHANNELS_CASE(3)
        CHANNELS_CASE(4) CHANNELS_CASE(5) CHANNELS_CASE(6)
    }
}

#define FEATURES_CASE(NV)                                                                       \
    case NV:                                                                                    \
        matrix_block(v, channels, 1, u, NV * VW, channels, m, m_row, MATRIX_ROWS, NV); \
        break;

/* MATRIX_ROWS rows of few features, `vectors` of output channels. */
static FD_NOINLINE void multiply_features(const float *u, const float *v, ptrdiff_t channels,
                                          float *m, ptrdiff_t m_row, int vectors) {
    switch (vectors) {
        FEATURES_CASE(1) FEATURES_CASE(2)
#if FD_MAX_NV == 4
        FEATURES_CASE(3) FEATURES_CASE(4)
#endif
    }
}

/* Fetches pixels of V that the next batch reads and this one does not: part `part` of `parts` of row
 * i of its tiles, which begin at (Y, X). While products are made, the way to memory is free.
 * Rows that the first step has just computed need no fetching. */
static void fetch_ahead(const winograd *p, const fd_step *s, int Y, int X, int i, int columns,
                        int part, int parts) {
    const fd_source *f = &s->source;
    const int y = Y + s->conv.top - 2 + i, x = X + s->conv.left, line = 16;
    const int left = f->cells_w - x;
    if (p->v_rows || y < 0 || y >= f->cells_h || x < 0 || left <= 0) return;
    const ptrdiff_t pixel = (ptrdiff_t)f->channels * s->kp;
    const ptrdiff_t all = (columns < left ? columns : left) * pixel;
    const float *row = v_row(p, s, y) + x * pixel;
    const ptrdiff_t begin = all * part / parts;
    if (begin >= all * (part + 1) / parts) return;
    /* A load: a fetch from a page whose address the processor has to look up is dropped. */
    (void)*(const volatile float *)(row + begin);
    for (ptrdiff_t at = begin; at < all * (part + 1) / parts; at += line)
        __builtin_prefetch(row + at);
}

/* All products of `tiles` tiles at one place, of a batch that ends at (Y, X). */
static void multiply_place(const winograd *p, const fd_step *s, int q, int tiles, int Y, int X) {
    const int channels = s->source.channels, cout = s->cout, kp = s->kp;
    float *m = p->places + q * p->slot;
    const float *v = m + p->slot;
    if (s->nv) {
        const ptrdiff_t row = (ptrdiff_t)p->tiles * kp;
        const float *u = s->winograd + (ptrdiff_t)q * channels * cout;
        for (int c = 0; c < cout; c += MATRIX_ROWS) {
            const int parts = 4 * ((cout + MATRIX_ROWS - 1) / MATRIX_ROWS);
            fetch_ahead(p, s, Y, X, q / 4, 2 * p->tiles, q % 4 * parts / 4 + c / MATRIX_ROWS, parts);
            for (int k = 0; k < tiles * kp; k += FD_MAX_NV * VW)
                multiply_channels(u + (ptrdiff_t)c * channels, v + k, row, channels,
                                  m + c * row + k, cout - c < MATRIX_ROWS ? cout - c : MATRIX_ROWS);
        }
        return;
    }
    const int width = padded(cout), most = FD_MAX_NV * VW;
    const float *u = s->winograd + (ptrdiff_t)q * channels * width;
    fetch_ahead(p, s, Y, X, q / 4, 2 * p->tiles, q % 4, 4);
    for (int c = 0; c < width; c += most)
        for (int r = 0; r < tiles * kp; r += MATRIX_ROWS)
            multiply_features(u + (ptrdiff_t)c * channels, v + (ptrdiff_t)r * channels, channels,
                              m + (ptrdiff_t)r * width + c, width,
                              (width - c < most ? width - c : most) / VW);
}

/* ---- back to pixels ---- */

FD_INLINE void transform_back(const float *m, ptrdiff_t slot, vf pixel[2][2]) {
    vf half[2][4];
    FD_UNROLL
    for (int y = 0; y < 4; y++) {
        vf in[4], o[2];
        FD_UNROLL
        for (int x = 0; x < 4; x++) in[x] = vf_load(m + (y * 4 + x) * slot);
        from_places(in, o);
        half[0][y] = o[0];
        half[1][y] = o[1];
    }
    FD_UNROLL
    for (int x = 0; x < 2; x++) {
        vf o[2];
        from_places(half[x], o);
        pixel[0][x] = o[0];
        pixel[1][x] = o[1];
    }
}

/* Tile t of a batch to its pixels, without fd_finish. */
static void finish_tile(const winograd *p, const fd_step *s, int t) {
    float *const *out = p->batch[t].out;
    const fd_post after = s->post; /* its own: a store may change all that a pointer leads to */
    const vf least = least_of(&after);
    const int cout = s->cout, kp = s->kp;
    const ptrdiff_t slot = p->slot, row = s->nv ? (ptrdiff_t)p->tiles * kp : padded(cout);
    vf pixel[2][2];
    if (s->nv) {
        const float *m = p->places + (ptrdiff_t)t * kp;
        for (int c = 0; c < cout; c++, m += row)
            for (int k = 0; k < kp; k += VW) {
                transform_back(m + k, slot, pixel);
                FD_UNROLL
                for (int i = 0; i < 4; i++)
                    if (out[i])
                        vf_store(out[i] + (ptrdiff_t)c * kp + k,
                                 post_at_least(pixel[i / 2][i % 2], least, &after, c, 1));
            }
        return;
    }
    const float *m = p->places + (ptrdiff_t)t * kp * row;
    for (int k = 0; k < kp; k++, m += row)
        for (int c = 0; c < cout; c += VW) {
            transform_back(m + c, slot, pixel);
            FD_UNROLL
            for (int i = 0; i < 4; i++)
                if (out[i])
                    store_part(out[i] + (ptrdiff_t)k * cout + c,
                               post_at_least(pixel[i / 2][i % 2], least, &after, c, 0),
                               cout - c);
        }
}

/* Where pixel (y, x) of the tile that begins in column X goes; rows[y] NULL: not wanted. */
static float *tile_pixel(const fd_step *s, float *const rows[2], int y, int x) {
    const int there = rows[y] && x >= 0 && x < s->out_w;
    return there ? rows[y] + (ptrdiff_t)x * s->cout * s->kp : NULL;
}

/* Adds tiles of a row to the batch, of which the first one is at (Y, X). rows: where rows Y and Y + 1
 * of the result begin; NULL: not wanted. */
static void add_tiles(winograd *p, const fd_step *s, int Y, int X, int tiles,
                      float *const rows[2]) {
    transform_tiles(p, s, Y, X, p->count, tiles);
    for (int t = 0; t < tiles; t++, X += 2)
        p->batch[p->count++] = (tile){
            Y, X, {tile_pixel(s, rows, 0, X), tile_pixel(s, rows, 0, X + 1),
                   tile_pixel(s, rows, 1, X), tile_pixel(s, rows, 1, X + 1)}};
}

#endif
