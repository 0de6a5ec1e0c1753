/* The gathered product in tiles (tiles.h): operands are rounded to bfloat16, sums are float32.
 *
 * What    The product of product.h. Operand A is W transposed (16 channels x 32 entries), operand B
 *         is V (32 entries x 16 lanes), so that the result has the layout of lane tensors. For
 *         that, the rows of V and W that a pixel's list names are gathered into tiles, TILE_DEPTH
 *         tiles of entries at a time.
 * Layout  V (pair of entries, lane). W (tile of entries, tile of channels, 16 channels, 16 pairs),
 *         from a table (row, channel) of uint16 whose channels are padded to whole tiles. Sums
 *         (channel, lane), both padded to whole tiles. Padding is zero in both operands.
 * Mix     Four tiles of sums stay in registers: for 32 channels, 32 lanes and 32 entries, 4 loads
 *         of tiles and 4 TDPBF16PS. Gathering a pair of entries takes, for V, 2 loads, a
 *         conversion, a permutation and a store per 16 lanes; for W, 2 loads, 4 instructions and a
 *         store per 16 channels, and then a transpose for every 16 x 16 pairs. bench/NOTES.md says
 *         how much time that is.
 * Numbers V and W are rounded to nearest, ties to even, and denormals become 0. Sums as in tiles.h,
 *         one tile of entries after the other. The bits depend only on the pixel's list, not on
 *         threads or on other lanes.
 */
#ifndef FD_TILE_PRODUCT_H
#define FD_TILE_PRODUCT_H

#include "gather.h"
#include "post.h"
#include "tiles.h"

/* Tiles of entries that are gathered at a time. Behind a 2x2 pool, a pixel of 64 channels has 4 to
 * 5. With 64 channels and 64 lanes, the operands take 48 KB and stay in L2. */
#define TILE_DEPTH 6
#define TILE_ENTRIES (2 * TILE_ROWS)         /* entries in a tile */
#define TILE_SIZE (TILE_ROWS * TILE_COLUMNS) /* numbers of 32 bits in a tile */
/* Lanes of V that are gathered at a time. */
#define TILE_LANES 64

FD_INLINE int count_tiles(int n) { return (n + TILE_COLUMNS - 1) / TILE_COLUMNS; }
FD_INLINE int whole_columns(int n) { return count_tiles(n) * TILE_COLUMNS; }

/* Where the operands and sums of a step lie in its scratch space, behind the tile_file. */
typedef struct {
    uint32_t *v;     /* (TILE_DEPTH x 16, TILE_LANES) */
    uint32_t *w;     /* (TILE_DEPTH, tiles of channels, 16, 16) */
    uint32_t *pairs; /* (16, channels) */
    float *sums;     /* (channels, lanes) */
    ptrdiff_t row;   /* floats in a row of the sums */
    int channels;    /* output channels, padded to whole tiles */
} tile_operands;

/* Floats that a tile_file takes in the scratch space. */
#define TILE_FILE_ROOM ((sizeof(tile_file) + 63) / 64 * 16)

/* Floats of scratch space that the pixels of a step need. */
static size_t tile_room(const fd_step *s) {
    const size_t channels = whole_columns(s->cout);
    const size_t v = (size_t)TILE_DEPTH * TILE_ROWS * TILE_LANES;
    const size_t w = (size_t)TILE_DEPTH * TILE_ROWS * channels;
    return TILE_FILE_ROOM + v + w + TILE_ROWS * channels + channels * whole_columns(s->kp);
}

static tile_operands find_operands(const fd_step *s, float *scratch) {
    tile_operands o;
    o.channels = whole_columns(s->cout);
    o.row = whole_columns(s->kp);
    scratch += TILE_FILE_ROOM;
    o.v = (uint32_t *)scratch;
    o.w = o.v + TILE_DEPTH * TILE_ROWS * TILE_LANES;
    o.pairs = o.w + (size_t)TILE_DEPTH * TILE_ROWS * o.channels;
    o.sums = scratch + (o.pairs + TILE_ROWS * o.channels - o.v);
    return o;
}

/* To be called by a thread before its first pixel, and after its last one. */
static void begin_tiles(float *scratch) {
    tile_file *tiles = (tile_file *)scratch;
    const tile_shapes shapes = whole_tiles();
    TILES_BEGIN(tiles, &shapes);
}

static void end_tiles(float *scratch) {
    tile_file *tiles = (tile_file *)scratch;
    TILES_END(tiles);
}

/* ---- gathering operands ---- */

/* Makes a row of pairs of two rows of V. Denormals become 0. CPUs that have tiles also have an
 * instruction for the conversion. */
#if defined(__AVX512BF16__)
FD_INLINE void pair_lanes(uint32_t *to, const float *lower, const float *upper, int lanes) {
    /* vcvtne2ps2bf16 puts all values of the second row behind all values of the first one. */
    const __m512i interleave = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
        19, 3, 18, 2, 17, 1, 16, 0);
    for (int l = 0; l < lanes; l += VW) {
        const __m512i both =
            (__m512i)_mm512_cvtne2ps_pbh(vf_load(upper + l), vf_load(lower + l));
        _mm512_storeu_si512(to + l, _mm512_permutexvar_epi16(interleave, both));
    }
}
#else
/* The bits of a float, rounded to bfloat16. Only the upper half of the result counts. */
FD_INLINE uint32_t round_upper(uint32_t bits) {
    const uint32_t magnitude = bits & 0x7fffffff, rounded = bits + 0x7fff + (bits >> 16 & 1);
    if (magnitude > 0x7f800000) return 0x7fc00000;
    return magnitude < 0x00800000 ? bits & 0x80000000 : rounded;
}

FD_INLINE void pair_lanes(uint32_t *restrict to, const float *restrict lower,
                          const float *restrict upper, int lanes) {
    for (int l = 0; l < lanes; l++) {
        uint32_t a, b;
        memcpy(&a, lower + l, sizeof a);
        memcpy(&b, upper + l, sizeof b);
        to[l] = round_upper(a) >> 16 | (round_upper(b) & 0xffff0000);
    }
}
#endif

FD_INLINE void fetch_lanes(const float *row, int lanes) {
    for (int l = 0; l < lanes; l += 64 / (int)sizeof *row) __builtin_prefetch(row + l);
}

/* Gathers the rows of V of n entries, `lanes` lanes of each, into whole tiles. */
static void gather_v(const entry *list, int n, const float *v, size_t stride, int lanes,
                     uint32_t *to) {
    const int width = whole_columns(lanes);
    for (int e = 0; e < n; e += 2, to += width) {
        const float *lower = v + entry_v(list[e]) * stride;
        const float *upper = v + entry_v(list[e + 1]) * stride;
        fetch_lanes(v + entry_v(list[e + AHEAD]) * stride, lanes);
        fetch_lanes(v + entry_v(list[e + 1 + AHEAD]) * stride, lanes);
        pair_lanes(to, lower, upper, lanes);
        memset(to + lanes, 0, sizeof *to * (width - lanes));
    }
    const int pairs = n / 2, left = whole_columns(pairs) - pairs;
    memset(to, 0, sizeof *to * width * left);
}

/* Transposes a tile: from (16 pairs, stride) to (16 channels, 16 pairs). */
FD_INLINE void transpose_tile(const uint32_t *from, ptrdiff_t stride, uint32_t *to) {
    for (int p = 0; p < TILE_ROWS; p += VW)
        for (int c = 0; c < TILE_COLUMNS; c += VW) {
            vf x[VW];
            FD_UNROLL
            for (int i = 0; i < VW; i++)
                x[i] = vf_load((const float *)(from + (p + i) * stride + c));
            vf_transpose(x);
            FD_UNROLL
            for (int i = 0; i < VW; i++) vf_store((float *)(to + (c + i) * TILE_COLUMNS + p), x[i]);
        }
}

/* Gathers the rows of W of a tile of entries into a tile for every 16 channels. n: the entries that
 * are left, which may be fewer than TILE_ENTRIES, or more. */
static void gather_w(const entry *list, int n, const uint16_t *table, const tile_operands *o,
                     uint32_t *to) {
    const int channels = o->channels;
    for (int p = 0; p < TILE_ROWS; p++) {
        uint32_t *restrict pairs = o->pairs + (ptrdiff_t)p * channels;
        if (2 * p >= n) {
            memset(pairs, 0, sizeof *pairs * channels);
            continue;
        }
        const uint16_t *lower = table + entry_w(list[2 * p]) * channels;
        const uint16_t *upper = table + entry_w(list[2 * p + 1]) * channels;
        for (int c = 0; c < channels; c++) pairs[c] = lower[c] | (uint32_t)upper[c] << 16;
    }
    for (int c = 0; c < channels; c += TILE_COLUMNS, to += TILE_SIZE)
        transpose_tile(o->pairs + c, channels, to);
}

/* ---- the product ---- */

/* A block of results: 1 or 2 tiles of channels x 1 or 2 tiles of lanes. */
typedef struct {
    const uint32_t *v, *w;
    ptrdiff_t v_row, w_next; /* numbers between rows of V, and between tiles of entries of W */
    float *sums;
    ptrdiff_t row;           /* floats in a row of the sums */
    int depth, begin;        /* tiles of entries; whether the sums begin with them, at 0 */
} tile_block;

/* tall: the block has 2 tiles of channels; wide: it has 2 tiles of lanes. Tiles 0 to 3 are sums,
 * tiles 4 and 5 are W, tiles 6 and 7 are V. */
FD_INLINE void multiply_block(tile_file *tiles, tile_block b, const int tall, const int wide) {
    const ptrdiff_t row = b.row * sizeof *b.sums, v_row = b.v_row * sizeof *b.v;
    float *lower = b.sums + TILE_ROWS * b.row;
    (void)tiles;
    /* Compilers might not know that the tile instructions read and write memory. */
    __asm__ volatile("" ::: "memory");
    if (b.begin) {
        TILE_ZERO(tiles, 0);
        if (wide) TILE_ZERO(tiles, 1);
        if (tall) TILE_ZERO(tiles, 2);
        if (tall && wide) TILE_ZERO(tiles, 3);
    } else {
        TILE_LOAD(tiles, 0, b.sums, row);
        if (wide) TILE_LOAD(tiles, 1, b.sums + TILE_COLUMNS, row);
        if (tall) TILE_LOAD(tiles, 2, lower, row);
        if (tall && wide) TILE_LOAD(tiles, 3, lower + TILE_COLUMNS, row);
    }
    for (int k = 0; k < b.depth; k++, b.w += b.w_next, b.v += TILE_ROWS * b.v_row) {
        TILE_LOAD(tiles, 4, b.w, TILE_BYTES);
        TILE_LOAD(tiles, 6, b.v, v_row);
        TILE_MULTIPLY(tiles, 0, 4, 6);
        if (wide) {
            TILE_LOAD(tiles, 7, b.v + TILE_COLUMNS, v_row);
            TILE_MULTIPLY(tiles, 1, 4, 7);
        }
        if (tall) {
            TILE_LOAD(tiles, 5, b.w + TILE_SIZE, TILE_BYTES);
            TILE_MULTIPLY(tiles, 2, 5, 6);
        }
        if (tall && wide) TILE_MULTIPLY(tiles, 3, 5, 7);
    }
    TILE_STORE(tiles, 0, b.sums, row);
    if (wide) TILE_STORE(tiles, 1, b.sums + TILE_COLUMNS, row);
    if (tall) TILE_STORE(tiles, 2, lower, row);
    if (tall && wide) TILE_STORE(tiles, 3, lower + TILE_COLUMNS, row);
    __asm__ volatile("" ::: "memory");
}

/* Multiplies what has been gathered: all channels, and lanes k..k + lanes - 1. */
static void multiply_tiles(tile_file *tiles, const tile_operands *o, int k, int lanes, int depth,
                           int begin) {
    const int tiles_of_lanes = count_tiles(lanes), tiles_of_channels = o->channels / TILE_ROWS;
    tile_block b = {.v_row = (ptrdiff_t)tiles_of_lanes * TILE_COLUMNS, .row = o->row,
                    .w_next = (ptrdiff_t)tiles_of_channels * TILE_SIZE,
                    .depth = depth, .begin = begin};
    for (int n = 0; n < tiles_of_lanes; n += 2)
        for (int m = 0; m < tiles_of_channels; m += 2) {
            const int tall = m + 1 < tiles_of_channels, wide = n + 1 < tiles_of_lanes;
            b.v = o->v + n * TILE_COLUMNS;
            b.w = o->w + m * TILE_SIZE;
            b.sums = o->sums + m * TILE_ROWS * o->row + k + n * TILE_COLUMNS;
            if (tall && wide)
                multiply_block(tiles, b, 1, 1);
            else if (tall)
                multiply_block(tiles, b, 1, 0);
            else if (wide)
                multiply_block(tiles, b, 0, 1);
            else
                multiply_block(tiles, b, 0, 0);
        }
}

/* Computes all channels of one pixel, whose list has n entries, and stores them at `out`. */
static void step_pixel_tiles(const fd_step *s, const entry *list, int n, float *scratch,
                             float *out) {
    tile_file *tiles = (tile_file *)scratch;
    const tile_operands o = find_operands(s, scratch);
    const int most = TILE_DEPTH * TILE_ENTRIES;
    int at = 0;
    do { /* an empty list needs one turn, too: it stores zeros */
        const int count = n - at < most ? n - at : most;
        const int depth = (count + TILE_ENTRIES - 1) / TILE_ENTRIES;
        for (int d = 0; d < depth; d++)
            gather_w(list + at + d * TILE_ENTRIES, count - d * TILE_ENTRIES, s->bf16, &o,
                     o.w + (ptrdiff_t)d * TILE_ROWS * o.channels);
        for (int k = 0; k < s->kp; k += TILE_LANES) {
            const int lanes = s->kp - k < TILE_LANES ? s->kp - k : TILE_LANES;
            gather_v(list + at, count, s->v + k, s->kp, lanes, o.v);
            multiply_tiles(tiles, &o, k, lanes, depth, at == 0);
        }
        at += count;
    } while (at < n);
    const fd_post after = s->post;
    for (int c = 0; c < s->cout; c++)
        for (int k = 0; k < s->kp; k += VW)
            vf_store(out + (ptrdiff_t)c * s->kp + k,
                     post(vf_load(o.sums + c * o.row + k), &after, c, 1));
}

#endif
