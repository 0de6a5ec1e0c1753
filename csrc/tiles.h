/* The tiles of AMX, or the same in plain C.
 *
 * What    A tile is a register of 16 rows of 64 bytes. TDPBF16PS multiplies a tile of 16 x 32
 *         bfloat16 numbers with one of 32 x 16, and adds the product to a tile of 16 x 16 floats. A
 *         unit that is compiled with -mamx-tile -mamx-bf16 uses these instructions. Every other
 *         unit uses the functions below, which give the same bits, so that code for tiles can be
 *         tested on machines that have none. Both are called through the macros TILE_*; the number
 *         of a tile must be a constant.
 * Layout  A (16 x 32): row m has its 32 numbers side by side. B (32 x 16): row k has a pair of
 *         numbers, 2k and 2k + 1, for each of the 16 columns.
 * Numbers As in Intel's manual of TDPBF16PS. For an element of the result, the 16 products of even
 *         numbers are summed by fused multiply-adds from 0 on, and the 16 of odd numbers likewise;
 *         the two sums are added, and that is added to the element. Each of these operations rounds
 *         to nearest, ties to even, reads denormals as 0 and flushes a denormal result to 0. The
 *         payload of a NaN is not specified. The instructions ignore MXCSR and the rounding mode of
 *         the process; the functions need the default rounding mode.
 */
#ifndef FD_TILES_H
#define FD_TILES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TILE_ROWS 16
#define TILE_BYTES 64   /* of a row */
#define TILE_COLUMNS 16 /* floats or pairs of bfloat16 in a row */
#define TILE_COUNT 8

/* The configuration that the instruction LDTILECFG reads. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shapes;

/* The configuration in which all tiles have their full size. */
static inline tile_shapes whole_tiles(void) {
    tile_shapes shapes = {.palette = 1};
    for (int i = 0; i < TILE_COUNT; i++) {
        shapes.row_bytes[i] = TILE_BYTES;
        shapes.rows[i] = TILE_ROWS;
    }
    return shapes;
}

#if defined(__AMX_TILE__) && defined(__AMX_BF16__)

#include <immintrin.h>

#define TILES_EMULATED 0
typedef struct {
    char none; /* the tiles are in the CPU; a struct needs a member */
} tile_file;

/* The asm statement says that all of `shapes` is read: compilers may think that only its first
 * bytes are. */
#define TILES_BEGIN(tiles, shapes)                            \
    do {                                                      \
        (void)(tiles);                                        \
        __asm__ volatile("" ::"r"(shapes) : "memory");        \
        _tile_loadconfig(shapes);                             \
    } while (0)
#define TILES_END(tiles) ((void)(tiles), _tile_release())
#define TILE_ZERO(tiles, t) _tile_zero(t)
#define TILE_LOAD(tiles, t, from, stride) _tile_loadd(t, from, stride)
#define TILE_STORE(tiles, t, to, stride) _tile_stored(t, to, stride)
#define TILE_MULTIPLY(tiles, c, a, b) _tile_dpbf16ps(c, a, b)

#else

#define TILES_EMULATED 1

typedef struct {
    tile_shapes shapes;
    uint32_t tile[TILE_COUNT][TILE_ROWS][TILE_COLUMNS];
} tile_file;

static inline float float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t bits_of_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* The bits of a float, in which a denormal has become the 0 of its sign. */
static inline uint32_t without_denormal(uint32_t bits) {
    return bits & 0x7f800000 ? bits : bits & 0x80000000;
}

/* The bits of a x b + c, rounded once. a, b, c are normal floats or 0, and a double holds a x b
 * exactly (here they have 8 bits each, or 24 bits and the factor 1). If the sum were rounded to the
 * nearest double and then to float, it would be wrong where that double lies halfway between two
 * floats. Therefore the double is rounded to odd: a sum that is not exact gets a last bit of 1,
 * which no halfway point has. */
static inline uint32_t fused(float a, float b, float c) {
    const double product = (double)a * b, more = c, sum = product + more;
    /* The rounding error of the addition (Knuth's TwoSum), exact unless the sum overflowed. */
    const double part = sum - product, error = (product - (sum - part)) + (more - part);
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    if (error == error && error != 0 && !(bits & 1)) {
        /* The neighbour on the side of the exact sum. */
        bits += (error > 0) == (sum > 0) ? 1 : -1;
    }
    double odd;
    memcpy(&odd, &bits, sizeof odd);
    /* A result is flushed if it is smaller than 2^-126 after rounding to 24 bits with an unlimited
     * exponent: what rounds up to 2^-126 is not. */
    const double magnitude = odd < 0 ? -odd : odd;
    if (magnitude < 0x1.ffffffp-127) return bits >> 63 ? 0x80000000 : 0;
    return bits_of_float((float)odd);
}

/* The value of the lower (half = 0) or the upper (half = 1) bfloat16 of a pair. */
static inline float float_of_half(uint32_t pair, int half) {
    return float_of_bits(without_denormal(half ? pair & 0xffff0000 : pair << 16));
}

static inline uint32_t add_flushed(uint32_t a, uint32_t b) {
    return fused(float_of_bits(without_denormal(a)), 1, float_of_bits(without_denormal(b)));
}

/* LDTILECFG: sets the shapes, and all tiles to 0. */
static inline void tiles_begin(tile_file *tiles, const tile_shapes *shapes) {
    memset(tiles, 0, sizeof *tiles);
    tiles->shapes = *shapes;
}

/* TILEZERO */
static inline void tile_zero(tile_file *tiles, int t) {
    memset(tiles->tile[t], 0, sizeof tiles->tile[t]);
}

/* TILELOADD: loads rows that lie `stride` bytes apart. What the tile's shape leaves out becomes
 * 0. */
static inline void tile_load(tile_file *tiles, int t, const void *from, ptrdiff_t stride) {
    tile_zero(tiles, t);
    for (int m = 0; m < tiles->shapes.rows[t]; m++)
        memcpy(tiles->tile[t][m], (const char *)from + m * stride, tiles->shapes.row_bytes[t]);
}

/* TILESTORED */
static inline void tile_store(const tile_file *tiles, int t, void *to, ptrdiff_t stride) {
    for (int m = 0; m < tiles->shapes.rows[t]; m++)
        memcpy((char *)to + m * stride, tiles->tile[t][m], tiles->shapes.row_bytes[t]);
}

/* TDPBF16PS */
static inline void tile_multiply(tile_file *tiles, int c, int a, int b) {
    const tile_shapes *shapes = &tiles->shapes;
    const int pairs = shapes->row_bytes[a] / 4, columns = shapes->row_bytes[c] / 4;
    for (int m = 0; m < shapes->rows[c]; m++)
        for (int n = 0; n < columns; n++) {
            uint32_t sums[2] = {0, 0};
            for (int k = 0; k < pairs; k++)
                for (int half = 0; half < 2; half++)
                    sums[half] = fused(float_of_half(tiles->tile[a][m][k], half),
                                       float_of_half(tiles->tile[b][k][n], half),
                                       float_of_bits(sums[half]));
            uint32_t *to = &tiles->tile[c][m][n];
            *to = add_flushed(*to, add_flushed(sums[0], sums[1]));
        }
}

#define TILES_BEGIN(tiles, shapes) tiles_begin(tiles, shapes)
#define TILES_END(tiles) ((void)(tiles))
#define TILE_ZERO(tiles, t) tile_zero(tiles, t)
#define TILE_LOAD(tiles, t, from, stride) tile_load(tiles, t, from, stride)
#define TILE_STORE(tiles, t, to, stride) tile_store(tiles, t, to, stride)
#define TILE_MULTIPLY(tiles, c, a, b) tile_multiply(tiles, c, a, b)

#endif
#endif
