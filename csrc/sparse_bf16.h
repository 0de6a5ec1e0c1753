/* The product of sparse.h in bfloat16 (AVX512_BF16), and its lists.
 *
 * What    As sparse.h. One instruction multiplies two entries with their weights, so that the
 *         entries of a pixel should be one range. Therefore the lists (sparse_lists.h) of all rows
 *         of the unpooled tensor that an output row needs are joined, column by column.
 * Layout  An entry has 32 bits: the value in bfloat16 is the upper half; the lower half is the row
 *         of W, modulo 2^15, counted as in sparse_lists.h. In joined lists, the row of the kernel
 *         has been added to it. The joined lists of the features lie one after the other. W is
 *         uint16; its channels lie in groups of 32, in the order of bf16.h.
 * Mix     Per two values and 64 channels: 4 loads of W, 1 load of both entries, 4 unpacks,
 *         4 VDPBF16PS, 2 instructions to broadcast the values.
 * Numbers As bf16.h. Which two products are added first depends only on the values of the feature
 *         itself.
 */
#ifndef FD_SPARSE_BF16_H
#define FD_SPARSE_BF16_H

#include "sparse_lists.h"

/* The bits of an entry that name a row of W. They are 15, so that the sum of two rows does not
 * carry into the value. */
#define ROW_MASK 0x7fff
#define ENTRY_MASK ((int)(0xffff0000 | ROW_MASK))

/* ---- the lists ---- */

/* Appends n entries to a joined list, and adds `row` to the row of W of each. Writes up to VW
 * entries more. */
FD_INLINE void join_entries(uint32_t *to, const uint32_t *from, int n, __m512i row) {
    int e = 0;
    do {
        const __m512i some = _mm512_add_epi16(_mm512_loadu_si512(from + e), row);
        _mm512_storeu_si512(to + e, _mm512_and_si512(some, _mm512_set1_epi32(ENTRY_MASK)));
        e += VW;
    } while (e < n);
}

/* Joins the columns of the lists of VW features, from feature k on. end: where their joined lists
 * begin. */
static void join_features(const sparse_lists *p, size_t k, int32_t *end) {
    const fd_step *s = p->s;
    const size_t kp = p->kp, w = s->source.w;
    const ptrdiff_t feature = p->feature;
    uint32_t *joined = p->joined;
    int32_t *joint = p->joints + k;
    const int features = p->used - (int)k < VW ? p->used - (int)k : VW;
    for (size_t x = p->joined_from; x < (size_t)p->joined_to; x++, joint += kp) {
        memcpy(joint, end, sizeof(int32_t) * VW);
        for (int i = 0; i < p->slots; i++) {
            const origin row = p->rows[i];
            if (row.cell < 0) continue;
            const char *entries = p->entries + (p->slot[i] * kp + k) * feature;
            const int32_t *start = p->start + (p->slot[i] * (w + 1) + x) * kp + k;
            const __m512i tap = _mm512_set1_epi32(row.tap * s->conv.kw * s->source.channels);
            for (int j = 0; j < features; j++, entries += feature) {
                const uint32_t *list = (const uint32_t *)entries + start[j];
                const int n = start[kp + j] - start[j];
                __builtin_prefetch(list + 24);
                join_entries(joined + end[j], list, n, tap);
                end[j] += n;
            }
        }
    }
    memcpy(joint, end, sizeof(int32_t) * VW);
}

/* How many entries feature k has in the columns that are to be joined, in all rows. */
static int count_entries(const sparse_lists *p, size_t k) {
    const size_t kp = p->kp, w = p->s->source.w;
    int n = 0;
    for (int i = 0; i < p->slots; i++) {
        const int32_t *start = p->start + p->slot[i] * (w + 1) * kp + k;
        if (p->rows[i].cell >= 0) n += start[p->joined_to * kp] - start[p->joined_from * kp];
    }
    return n;
}

/* Joins the lists of output row Y, as many columns as there is space for; `to` is the end of the
 * last one. */
static void join_columns(sparse_lists *p, int to) {
    int32_t all = 0, begin[VW];
    p->joined_to = to;
    p->joined_from = to > p->joined_most ? to - p->joined_most : 0;
    for (int k = 0; k < p->used; k += VW) {
        for (int j = 0; j < VW; j++) {
            begin[j] = all;
            all += count_entries(p, k + j) + VW; /* join_entries writes beyond the end */
        }
        join_features(p, k, begin);
    }
}

/* ---- the product ---- */

/* Loads two entries, and adds `row`, which has the same row of W in both of its 32-bit halves. */
FD_INLINE uint64_t load_pair(const uint32_t *list, uint64_t row) {
    uint64_t both;
    memcpy(&both, list, sizeof both);
    return both + row;
}

/* Adds the products of two entries to NP pairs of vectors of channels. width: numbers in a row of
 * W. */
BF16_INLINE void add_pair(uint64_t both, const uint16_t *weights, vf *acc, const int NP,
                          const int width) {
    size_t a = (both & ROW_MASK) * width * sizeof *weights;
    size_t b = (both >> 32 & ROW_MASK) * width * sizeof *weights;
    /* Keeps GCC from computing the same offset a second time, in numbers of 16 bits. */
    __asm__("" : "+r"(a), "+r"(b));
    const uint16_t *first = (const uint16_t *)((const char *)weights + a);
    const uint16_t *second = (const uint16_t *)((const char *)weights + b);
    const __m512bh x = (__m512bh)_mm512_set1_epi32((int)_pext_u64(both, 0xffff0000ffff0000));
    FD_UNROLL
    for (int j = 0; j < NP; j++) {
        __m512i p = _mm512_loadu_si512(first + 2 * VW * j);
        __m512i q = _mm512_loadu_si512(second + 2 * VW * j);
        /* Keeps both in registers: as memory operands of both unpacks they would be loaded
         * twice. */
        __asm__("" : "+v"(p), "+v"(q));
        const __m512i low = _mm512_unpacklo_epi16(p, q), high = _mm512_unpackhi_epi16(p, q);
        acc[2 * j] = _mm512_dpbf16_ps(acc[2 * j], (__m512bh)low, x);
        acc[2 * j + 1] = _mm512_dpbf16_ps(acc[2 * j + 1], (__m512bh)high, x);
    }
}

/* Adds a part to the sums of NP pairs of vectors of channels. Four entries a turn are added to two
 * separate sums, since VDPBF16PS has a latency of 6 cycles. */
BF16_INLINE void sparse_product_bf16(sparse_part part, const uint16_t *weights, sparse_sums to,
                                     const int NP, const int width) {
    /* Masks for the last four entries, of which the list may have fewer: the others become the
     * value 0 with row 0. */
    static const uint64_t there[4][2] = {
        {~0ull, ~0ull}, {0xffffffff, 0}, {~0ull, 0}, {~0ull, 0xffffffff}};
    const uint64_t row = (uint64_t)(part.row & ROW_MASK) * 0x100000001;
    const uint32_t *entries = (const uint32_t *)part.entries;
    float *sums = to.panel;
    for (int k = 0; k < to.kp; k++, sums += to.stride) {
        const uint32_t *list = entries + part.from[k], *end = entries + part.to[k];
        const uint64_t *last = there[(end - list) % 4];
        vf acc[FD_SPARSE_NV], other[FD_SPARSE_NV];
        /* Behind a 2x2 pool, the part of a pixel has about 52 entries. */
        for (int i = 0; i < 64; i += 64 / sizeof *list)
            __builtin_prefetch(entries + part.from[k + SPARSE_AHEAD] + i);
        fetch_meanwhile(&to, k, 2 * NP);
        FD_UNROLL
        for (int j = 0; j < 2 * NP; j++) {
            acc[j] = to.first ? vf_zero() : vf_load(sums + j * VW);
            other[j] = vf_zero();
        }
        for (; list + 4 < end; list += 4) {
            add_pair(load_pair(list, row), weights, acc, NP, width);
            add_pair(load_pair(list + 2, row), weights, other, NP, width);
        }
        if (list < end) {
            add_pair(load_pair(list, row) & last[0], weights, acc, NP, width);
            add_pair(load_pair(list + 2, row) & last[1], weights, other, NP, width);
        }
        FD_UNROLL
        for (int j = 0; j < 2 * NP; j++) vf_store(sums + j * VW, vf_add(acc[j], other[j]));
    }
}

/* Adds a part to a block of 2 or 4 vectors of channels. A row of W has as many, or two more. */
FD_BF16_TARGET static void sparse_block_bf16(const sparse_part *part, const uint16_t *weights,
                                             int width, const sparse_sums *to, int vectors) {
    if (width == 2 * VW)
        sparse_product_bf16(*part, weights, *to, 1, 2 * VW);
    else if (vectors == 2)
        sparse_product_bf16(*part, weights, *to, 1, 4 * VW);
    else
        sparse_product_bf16(*part, weights, *to, 2, 4 * VW);
}

#endif
