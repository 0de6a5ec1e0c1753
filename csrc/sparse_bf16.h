/* Lists of values that are not zero and their product, in bfloat16 (AVX512_BF16).
 *
 * What    As the float32 ones of sparse.h, which includes this file. All parts of a pixel that
 *         fit are joined to one list for each feature: an instruction multiplies two entries,
 *         whichever two come next.
 * Layout  An entry has 32 bits: the value's bfloat16 above, below the row of W (modulo 2^16)
 *         counted as sparse.h does; joined lists name rows of W itself. W of uint16, 32 channels
 *         after 32, in the order that unpacking halves turns into the natural one.
 * Mix     per two values and 64 channels: 4 loads of W and 1 of both entries, 4 unpacks,
 *         4 VDPBF16PS, 2 to broadcast; joining loads and stores them once more, 16 at a time.
 * Numbers as bf16.h; which two are added first depends on a feature's own values only.
 */
#ifndef FD_SPARSE_BF16_H
#define FD_SPARSE_BF16_H

/* Feature k's entries of n parts, and zeros up to a multiple of four; returns how many there are
 * without. Writes up to FD_JOIN_ROOM more. */
FD_INLINE int join_parts(uint32_t *to, const sparse_part *parts, int n, ptrdiff_t feature,
                         int k) {
    int all = 0;
    for (const sparse_part *p = parts; p < parts + n; p++) {
        const uint32_t *list = (const uint32_t *)(p->entries + k * feature) + p->from[k];
        const int count = p->to[k] - p->from[k];
        const __m512i row = _mm512_set1_epi32((int)(p->row & 0xffff));
        int e = 0;
        do {
            FD_UNROLL
            for (int i = 0; i < FD_JOIN_ROOM; i += VW, e += VW) {
                const __m512i some = _mm512_loadu_si512(list + e);
                _mm512_storeu_si512(to + all + e, _mm512_add_epi16(some, row));
            }
        } while (e < count);
        all += count;
    }
    _mm_storeu_si128((__m128i *)(to + all), _mm_setzero_si128());
    return all;
}

/* Adds the products of two entries to NP pairs of vectors of channels; a row of W has `width`. */
BF16_INLINE void add_pair(const uint32_t *pair, const uint16_t *weights, vf *acc, const int NP,
                          const int width) {
    uint64_t both;
    memcpy(&both, pair, sizeof both);
    const uint16_t *a = weights + (both & 0xffff) * width;
    const uint16_t *b = weights + (both >> 32 & 0xffff) * width;
    const __m512bh x = (__m512bh)_mm512_set1_epi32((int)_pext_u64(both, 0xffff0000ffff0000));
    FD_UNROLL
    for (int j = 0; j < NP; j++) {
        __m512i p = _mm512_loadu_si512(a + 2 * VW * j), q = _mm512_loadu_si512(b + 2 * VW * j);
        /* Into registers: as operands of both unpacks they would be loaded twice. */
        __asm__("" : "+v"(p), "+v"(q));
        const __m512i low = _mm512_unpacklo_epi16(p, q), high = _mm512_unpackhi_epi16(p, q);
        acc[2 * j] = _mm512_dpbf16_ps(acc[2 * j], (__m512bh)low, x);
        acc[2 * j + 1] = _mm512_dpbf16_ps(acc[2 * j + 1], (__m512bh)high, x);
    }
}

/* Adds n parts to the sums of NP pairs of vectors. One feature's parts are joined while the
 * entries of the one before are multiplied, in two sums: VDPBF16PS takes 6 cycles. */
BF16_INLINE void sparse_product_bf16(const sparse_lists *p, int n, const uint16_t *weights,
                                     const sparse_sums *to, const int NP, const int width) {
    float *sums = to->panel;
    int count = join_parts(p->joined, p->parts, n, p->feature, 0);
    for (int k = 0; k < to->kp; k++, sums += to->stride) {
        const uint32_t *list = p->joined + k % 2 * p->room;
        const int now = count;
        vf acc[FD_SPARSE_NV], other[FD_SPARSE_NV];
        FD_UNROLL
        for (int j = 0; j < 2 * NP; j++) {
            acc[j] = to->first ? vf_zero() : vf_load(sums + j * VW);
            other[j] = vf_zero();
        }
        if (k + 1 < to->kp)
            count = join_parts(p->joined + (k + 1) % 2 * p->room, p->parts, n, p->feature, k + 1);
        for (int i = 0; i < n; i++)
            fetch_list(p->parts + i, k + SPARSE_AHEAD, p->feature, sizeof(uint32_t));
        for (int e = 0; e < now; e += 4) {
            add_pair(list + e, weights, acc, NP, width);
            add_pair(list + e + 2, weights, other, NP, width);
        }
        FD_UNROLL
        for (int j = 0; j < 2 * NP; j++) vf_store(sums + j * VW, vf_add(acc[j], other[j]));
    }
}

/* All of p->parts to a block of 2 or 4 vectors of channels. */
FD_BF16_TARGET static void sparse_block_bf16(const sparse_lists *p, int n,
                                             const uint16_t *weights, const sparse_sums *to,
                                             int vectors) {
    if (p->s->sparse_width == 2 * VW)
        sparse_product_bf16(p, n, weights, to, 1, 2 * VW);
    else if (vectors == 2)
        sparse_product_bf16(p, n, weights, to, 1, 4 * VW);
    else
        sparse_product_bf16(p, n, weights, to, 2, 4 * VW);
}

#endif
