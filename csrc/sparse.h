/* The gathered product without the zeros that a rectifier leaves.
 *
 * What    Behind a ReLU, a half to three quarters of a lane tensor is zero, but at other places for
 *         every feature, so that hardly any vector of lanes is zero as a whole. Therefore output
 *         channels are in the lanes here, and every feature has lists of its own, which name only
 *         its non-zero values: the work is proportional to their number.
 *         Few features, which are kept out of the lanes, are computed from the same kind of lists;
 *         a single one whether or not it has zeros. Neighbouring pixels are then summed together:
 *         what one tap sends to all features of them is added to their sums before the next tap is
 *         read, so that the weights of one tap stay in L1, as do the SPARSE_SUMS sums.
 * Rows    Where all output channels are in one block, pixels of two neighbouring output rows can be
 *         summed together. A row of the unpooled tensor that both need sends them the same entries,
 *         by two rows of the kernel, so an entry is read once and added to twice as many sums, and
 *         fewer of them wait for one another. Whether that is faster depends on the CPU and on the
 *         number of channels; next_rows in step.h tries it.
 * Lists   See sparse_lists.h.
 * Layout  W [block of channels][tap][input channel][width]. Sums (pixel, feature, channel), which
 *         are then transposed into lanes.
 * Mix     Per non-zero value and 64 channels, on AVX-512: 4 FMA with an operand from L1, 1 load of
 *         value and offset, 1 broadcast. The loads alone take 4.5 cycles; measured are 6.1. (The
 *         dense product takes a little over 4, but for every value.) In between, what is needed
 *         next is prefetched: lists, the memory of the result, the values of the next row.
 * Numbers float32, vf_fma in the order of gather.h. A value that is left out would add 0 to a sum
 *         that began at 0, so the bits are those of product.h; the sums of a pixel have the same
 *         order beside those of another one. bfloat16: see sparse_bf16.h.
 */
#ifndef FD_SPARSE_H
#define FD_SPARSE_H

#include "by_feature.h"
#include "sparse_lists.h"
#if FD_HAS_BF16
#include "sparse_bf16.h"
#endif

/* ---- the product ---- */

/* Prefetches the first entries of feature k's part. Behind a 2x2 pool, a part has about 17. */
FD_INLINE void fetch_list(const sparse_part *p, int k, ptrdiff_t feature) {
    /* k may be beyond the last feature: then `from` continues with the next column's. */
    const sparse_entry *list = (const sparse_entry *)(p->entries + k * feature) + p->from[k];
    for (int i = 0; i < 24; i += 64 / sizeof *list) __builtin_prefetch(list + i);
}

/* Adds the products of the entries of a list to NV vectors of channels of M pixels, whose weights
 * begin `tap` elements after one another. */
FD_INLINE void add_entries(const sparse_entry *begin, const sparse_entry *end, const float *weight,
                           ptrdiff_t tap, vf *acc, const int NV, const int M) {
    const float *from[FD_SPARSE_ROWS];
    FD_UNROLL
    for (int m = 0; m < M; m++) {
        from[m] = weight + m * tap;
        /* Keeps GCC from computing the address of every vector by itself. */
        if (M > 1) __asm__("" : "+r"(from[m]));
    }
    for (const sparse_entry *e = begin; e < end; e++) {
        uint64_t both; /* in one load; every CPU we build for is little-endian */
        memcpy(&both, e, sizeof both);
        const int64_t offset = (int64_t)both >> 32;
        const vf x = vf_from_bits((uint32_t)both);
        FD_UNROLL
        for (int m = 0; m < M; m++)
            FD_UNROLL
            for (int j = 0; j < NV; j++)
                acc[m * NV + j] = vf_fma(vf_load(from[m] + offset + j * VW), x, acc[m * NV + j]);
    }
}

/* Adds a part to the sums of NV vectors of channels of M pixels. Structs are passed by value or
 * copied, because compilers would read what a pointer refers to again after every store of a
 * vector. */
FD_INLINE void sparse_product(sparse_part p, ptrdiff_t feature, const float *weight, ptrdiff_t tap,
                              const sparse_sums *pixels, const int NV, const int M) {
    sparse_sums to[FD_SPARSE_ROWS];
    FD_UNROLL
    for (int m = 0; m < M; m++) to[m] = pixels[m];
    const char *entries = p.entries;
    for (int k = 0; k < to[0].kp; k++, entries += feature) {
        const sparse_entry *list = (const sparse_entry *)entries;
        const sparse_entry *begin = list + p.from[k], *end = list + p.to[k];
        fetch_list(&p, k + SPARSE_AHEAD, feature);
        vf acc[FD_SPARSE_ROWS * FD_SPARSE_NV];
        FD_UNROLL
        for (int m = 0; m < M; m++) {
            fetch_meanwhile(&to[m], k, NV);
            FD_UNROLL
            for (int j = 0; j < NV; j++)
                acc[m * NV + j] = to[m].first ? vf_zero() : vf_load(to[m].panel + j * VW);
        }
        add_entries(begin, end, weight, tap, acc, NV, M);
        FD_UNROLL
        for (int m = 0; m < M; m++) {
            FD_UNROLL
            for (int j = 0; j < NV; j++) vf_store(to[m].panel + j * VW, acc[m * NV + j]);
            to[m].panel += to[m].stride;
        }
    }
}

#define SPARSE_CASE(NV, M) \
    case 10 * M + NV: sparse_product(*p, feature, weight, tap, to, NV, M); break;
#if FD_SPARSE_NV == 8
#define SPARSE_CASES(M) \
    SPARSE_CASE(1, M) SPARSE_CASE(2, M) SPARSE_CASE(3, M) SPARSE_CASE(4, M) \
    SPARSE_CASE(5, M) SPARSE_CASE(6, M) SPARSE_CASE(7, M) SPARSE_CASE(8, M)
#else
#define SPARSE_CASES(M) SPARSE_CASE(1, M) SPARSE_CASE(2, M) SPARSE_CASE(3, M) SPARSE_CASE(4, M)
#endif
static void sparse_block(const sparse_part *p, ptrdiff_t feature, const float *weight,
                         ptrdiff_t tap, const sparse_sums *to, int vectors, int pixels) {
    switch (10 * pixels + vectors) {
        SPARSE_CASES(1)
#if FD_SPARSE_ROWS == 2
        SPARSE_CASES(2)
#endif
    }
}

/* Transposes the sums (kp, stride) into lanes and applies the step's `post`. Sums of channels that
 * are only padding are not stored. */
static void sparse_to_lanes(const fd_step *s, const float *sums, ptrdiff_t stride, float *out) {
    /* Local copies, since a store of a vector might change what a pointer refers to. */
    const fd_post after = s->post;
    const int cout = s->cout, kp = s->kp;
    for (int k = 0; k < kp; k += VW)
        for (int c = 0; c < cout; c += VW) {
            float *to = out + (ptrdiff_t)c * kp + k;
            vf x[VW];
            FD_UNROLL
            for (int i = 0; i < VW; i++) x[i] = vf_load(sums + (k + i) * stride + c);
            vf_transpose(x);
            FD_UNROLL
            for (int i = 0; i < VW; i++)
                if (c + i < cout) vf_store(to + (ptrdiff_t)i * kp, post(x[i], &after, c + i, 1));
        }
}

/* A pixel that is being summed. */
typedef struct {
    float *panel;
    float *out;
    sparse_wish wish;
    int parts; /* how many parts have been added to its sums */
} sparse_target;

/* Adds a part to the sums of a number of neighbouring pixels of a column: in the upper ones by the
 * row of the kernel that the part names, in a lower one by the next. The first part of a pixel
 * starts its sums at 0. */
static void sum_part(const sparse_lists *p, const sparse_part *part, sparse_target *to,
                     int pixels) {
    const fd_step *s = p->s;
    const ptrdiff_t tap = (ptrdiff_t)s->conv.kw * s->source.channels, rows = s->conv.kh * tap;
    const int width = s->sparse_width;
    for (int c = 0; c < p->all; c += width) {
        sparse_sums sums[FD_SPARSE_ROWS];
        for (int m = 0; m < pixels; m++) {
            /* The memory of the result is prefetched while a pixel's first part is summed, and the
             * wish during the second part; in bfloat16, where a pixel may have only one, during
             * the first. */
            const int first = to[m].parts == 0, wishes = to[m].parts == (s->sparse ? 1 : 0);
            sums[m] = (sparse_sums){
                to[m].panel + c, p->all, p->used, first,
                first ? to[m].out + (ptrdiff_t)c * s->kp : NULL,
                wishes && c == 0 ? &to[m].wish : NULL,
            };
        }
        const int vectors = (p->all - c < width ? p->all - c : width) / VW;
#if FD_HAS_BF16
        if (s->sparse_bf16) {
            sparse_block_bf16(part, s->sparse_bf16 + rows * c, width, sums, vectors);
            continue;
        }
#endif
        sparse_block(part, p->feature, s->sparse + rows * c + part->row * width, tap * width, sums,
                     vectors, pixels);
    }
    for (int m = 0; m < pixels; m++) to[m].parts++;
}

/* Adds what n columns of lists send to pixels. The lists of these columns begin at `start`, and
 * their rows of W count from `row`. `before`: how many columns of the kernel lie to their right,
 * outside the map. They are counted as well when columns are divided into parts, so that the parts,
 * and with them the bits, are the same everywhere in the map. */
static void sum_columns(const sparse_lists *p, const char *entries, const int32_t *start, int n,
                        int before, ptrdiff_t row, sparse_target *to, int pixels) {
    const size_t kp = p->kp;
    for (int x = 0, end; x < n; x = end) {
        end = x + p->columns - (before + x) % p->columns;
        if (end > n) end = n;
        const sparse_part part = {entries, start + x * kp, start + end * kp, row};
        sum_part(p, &part, to, pixels);
    }
}

/* Pixel X of output rows Y..Y+n-1; in `out` they lie `apart`. */
static void sparse_pixels(sparse_lists *p, int Y, int n, int X, float *out, ptrdiff_t apart) {
    const fd_step *s = p->s;
    const fd_source *f = &s->source;
    const size_t kp = p->kp;
    /* Columns from..to-1 of the unpooled tensor reach the pixel, counted from the right as in the
     * lists. */
    const int right = X + s->conv.left, left = right - s->conv.kw + 1;
    const int beyond = right < f->w ? 0 : right - (f->w - 1);
    const int from = f->w - 1 - (right - beyond);
    const int to = f->w - (left > 0 ? left : 0);
    hold_rows(p, Y, n);
    sparse_target pixels[FD_SPARSE_ROWS];
    for (int m = 0; m < n; m++)
        pixels[m] = (sparse_target){p->panel + m * kp * p->all, out + m * apart,
                                    find_wish(p, p->next[m], X), 0};
#if FD_HAS_BF16
    if (!s->sparse && from < to) {
        if (from < p->joined_from || to > p->joined_to) join_columns(p, to);
        sum_columns(p, (const char *)p->joined, p->joints + (from - p->joined_from) * kp,
                    to - from, beyond, (ptrdiff_t)right * f->channels, pixels, 1);
    }
#endif
    for (int i = 0; s->sparse && i < p->slots; i++) {
        const origin row = p->rows[i];
        if (row.cell < 0) continue;
        const int32_t *start = p->start + ((size_t)p->slot[i] * (f->w + 1) + from) * kp;
        /* The last pixel gets the row by row.tap of the kernel, the one above it by the row of the
         * kernel before: those get it where there is such a row. */
        const int above = n - 1 - row.tap, below = above + s->conv.kh;
        const int first = above > 0 ? above : 0, end = below < n ? below : n;
        sum_columns(p, p->entries + p->slot[i] * kp * p->feature, start, to - from, beyond,
                    ((ptrdiff_t)(first - above) * s->conv.kw + right) * f->channels,
                    pixels + first, end - first);
    }
    for (const sparse_target *pixel = pixels; pixel < pixels + n; pixel++) {
        if (!pixel->parts) memset(pixel->panel, 0, sizeof(float) * kp * p->all);
        if (s->nv)
            sparse_to_lanes(s, pixel->panel, p->all, pixel->out);
        else
            store_by_feature(s, pixel->panel, p->all, pixel->out);
    }
}

/* ---- few features: neighbouring pixels are summed together, tap by tap ---- */

/* The entries that one tap sends to neighbouring pixels. Of feature k, pixel i gets the entries
 * start[-i * kp + k] to start[(1 - i) * kp + k] - 1. */
typedef struct {
    const char *entries; /* the lists of feature 0 */
    ptrdiff_t feature;   /* bytes from one feature's list to the next */
    const int32_t *start;
    int kp, pixels;
    ptrdiff_t step; /* elements of W from one pixel to the next one */
} sparse_tap;

/* kp is t.kp; for a single feature it is a constant. */
FD_INLINE void tap_product(sparse_tap t, const float *weight, float *sums, ptrdiff_t stride,
                           const int kp, const int NV) {
    for (int i = 0; i < t.pixels; i++, weight += t.step, t.start -= kp) {
        const char *entries = t.entries;
        for (int k = 0; k < kp; k++, entries += t.feature, sums += stride) {
            const sparse_entry *list = (const sparse_entry *)entries;
            vf acc[FD_SPARSE_NV];
            FD_UNROLL
            for (int j = 0; j < NV; j++) acc[j] = vf_load(sums + j * VW);
            add_entries(list + t.start[k], list + t.start[k + kp], weight, 0, acc, NV, 1);
            FD_UNROLL
            for (int j = 0; j < NV; j++) vf_store(sums + j * VW, acc[j]);
        }
    }
}

#define TAP_CASE(NV)                                                   \
    case NV:                                                           \
        if (t->kp == 1)                                                \
            tap_product(*t, weight, sums, stride, 1, NV);              \
        else                                                           \
            tap_product(*t, weight, sums, stride, t->kp, NV);          \
        break;
static void tap_block(const sparse_tap *t, const float *weight, float *sums, ptrdiff_t stride,
                      int vectors) {
    switch (vectors) {
        TAP_CASE(1) TAP_CASE(2) TAP_CASE(3) TAP_CASE(4)
#if FD_SPARSE_NV == 8
        TAP_CASE(5) TAP_CASE(6) TAP_CASE(7) TAP_CASE(8)
#endif
    }
}

/* Of the rows of the unpooled tensor that output row p->Y needs, takes row i and adds what it sends
 * to pixels X..X + columns - 1. */
static void sum_row(const sparse_lists *p, int i, int X, int columns) {
    const fd_step *s = p->s;
    const fd_source *f = &s->source;
    const int width = s->sparse_width, kw = s->conv.kw;
    const ptrdiff_t pixel = (ptrdiff_t)f->channels * width;
    const origin row = p->rows[i];
    const ptrdiff_t kp = p->kp;
    const char *entries = p->entries + p->slot[i] * kp * p->feature;
    const int32_t *start = p->start + p->slot[i] * kp * (f->w + 1);
    for (int c = 0; c < p->all; c += width)
        for (int j = 0; j < kw; j++) {
            /* The column that tap j sends to the first pixel. Lists count columns from the right,
             * so a pixel further right has its entries further to the front. */
            const int x = X + s->conv.left - j * s->conv.dw, first = x < 0 ? -x : 0;
            const int last = f->w - x < columns ? f->w - x : columns;
            const sparse_tap tap = {entries, p->feature, start + (f->w - 1 - x - first) * kp,
                                    p->kp, last - first, pixel};
            const float *weight = s->sparse + c * pixel / width * s->conv.kh * kw;
            tap_block(&tap, weight + (row.tap * kw + j + x + first) * pixel,
                      p->panel + first * kp * p->all + c, p->all,
                      (p->all - c < width ? p->all - c : width) / VW);
        }
}

/* Up to summed_pixels(s) neighbouring pixels of a row, for few features. */
static void sparse_columns(sparse_lists *p, int Y, int X, int columns, float *out) {
    const fd_step *s = p->s;
    hold_rows(p, Y, 1);
    memset(p->panel, 0, sizeof(float) * columns * p->kp * p->all);
    for (int i = 0; i < p->slots; i++)
        if (p->rows[i].cell >= 0) sum_row(p, i, X, columns);
    for (int i = 0; i < columns; i++, out += (ptrdiff_t)s->cout * s->kp)
        store_by_feature(s, p->panel + (ptrdiff_t)i * p->kp * p->all, p->all, out);
}

#endif
