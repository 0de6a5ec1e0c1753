/* Lists of the values of a lane tensor that are not zero, for sparse.h and sparse_bf16.h.
 *
 * What    There is a list for every feature and every row of the unpooled tensor: the non-zero
 *         values of its columns from right to left, in a column by ascending channel. So what a row
 *         sends to an output pixel through one row of the kernel is one range of the list, in the
 *         order of the taps, and the range of the neighbouring pixel begins one column further on.
 *         Which row of W an entry is multiplied with depends on the pixel only by a constant: an
 *         entry names channel - column * channels, and the pixel adds the rest. The lists of all
 *         rows that an output row needs are kept, since the next output row needs most of them
 *         again.
 * Layout  An entry is a value and the offset of its row of W. For bfloat16 see sparse_bf16.h.
 * Mix     Per 16 values and 16 features, on AVX-512: 16 loads, a transpose, and 16 times 2
 *         compresses, 2 permutations and 2 stores. Bound by memory, so what comes next is
 *         prefetched.
 * Numbers The values themselves, or rounded to bfloat16 (to nearest, ties to even).
 */
#ifndef FD_SPARSE_LISTS_H
#define FD_SPARSE_LISTS_H

#include "bf16.h"
#include "gather.h"

/* Bytes of weights that are used in one go, for all features. They are so few that they stay in L1
 * together with one feature's lists and sums. */
#define SPARSE_BYTES 24576
/* The values of the next row are prefetched to L2 only if they take at most so many bytes: more
 * would not stay there until they are needed. */
#define ROW_BYTES (1 << 19)
/* Only bfloat16: the number of pixels for which lists are joined at a time. */
#define JOINED_PIXELS 32

/* Prefetch distance: the lists of the feature this many places ahead. */
#define SPARSE_AHEAD 3

/* Only for few features: the number of neighbouring pixels that are summed together, times the
 * number of features. Their sums, the weights of a tap and the lists stay in L1. */
#define SPARSE_SUMS 32

typedef struct {
    float value;
    int32_t offset; /* of its row of W, in elements, counted from that of column 0, channel 0 */
} sparse_entry;

/* The entries that some columns of lists send to a pixel. */
typedef struct {
    const char *entries;      /* the lists of feature 0 */
    const int32_t *from, *to; /* for each feature: its entries from..to-1 */
    ptrdiff_t row;            /* the row of W from which the entries count theirs */
} sparse_part;

/* What to prefetch to L2: n channels of a cell of V, which lists will soon be made of. */
typedef struct {
    const float *cell;
    const int32_t *channels;
    int n, lane; /* channels left, and the next lane of the first of them */
    int lanes;   /* of every channel */
} sparse_wish;

/* Where the sums of a block of output channels are: (kp, stride). */
typedef struct {
    float *panel;
    ptrdiff_t stride;
    int kp;    /* features that have any values */
    int first; /* whether the sums begin here, at 0 */
    /* What to prefetch while they are computed, or NULL: */
    const float *out; /* where the sums will be stored as lanes */
    sparse_wish *wish;
} sparse_sums;

/* Prefetches feature k's share, while NV vectors of its channels are summed. */
FD_INLINE void fetch_meanwhile(const sparse_sums *to, int k, const int NV) {
    if (to->out) {
        FD_UNROLL
        for (int j = 0; j < NV; j++) __builtin_prefetch(to->out + (k * NV + j) * VW, 1);
    }
    for (int i = 0; to->wish && to->wish->n && i < 2; i++) {
        sparse_wish *wish = to->wish;
        /* Only to L2, from where list_row fetches it to L1. */
        __builtin_prefetch(wish->cell + *wish->channels * (ptrdiff_t)wish->lanes + wish->lane, 0,
                           2);
        wish->lane += 64 / sizeof(float);
        if (wish->lane < wish->lanes) continue;
        wish->lane = 0;
        wish->channels++;
        wish->n--;
    }
}

typedef struct {
    const fd_step *s;
    int kp;                /* features that have lists; in bfloat16 padded to whole vectors */
    pool_axis high, wide;
    int together;          /* how many output rows are computed together at most */
    int Y, n;              /* rows Y..Y+n-1 are being computed; Y is -1: none yet */
    origin *rows;          /* the rows of the unpooled tensor that they need: for each row of the
                            * kernel, one for each window that may overlap. Their taps are those of
                            * row Y + n - 1 */
    int columns;           /* how many columns of lists make a part (SPARSE_BYTES) */
    int slots;             /* how many rows have lists at a time: as many as there are `rows` */
    int *slot;             /* for each of `rows`: the slot that has its lists */
    origin next[FD_SPARSE_ROWS]; /* the rows whose lists will be made next; cell -1: none */
    int *held;             /* for each slot: the row_key of its row, or -1 */
    char *entries;         /* (slots, kp, feature) */
    ptrdiff_t feature;     /* bytes reserved for one feature's list */
    int32_t *start;        /* (slots, w + 1, kp): where a column begins, counted from the right */
    int32_t *count;        /* (kp): the entries so far of the lists that are being made */
    int used;              /* features from this one on have had no value so far: mostly those
                            * that only pad the lanes */
    int all;               /* output channels, padded to whole vectors, or pairs of vectors */
    float *panel;          /* the sums of the pixels that are computed together, (kp, all) each */
    /* Only bfloat16 (sparse_bf16.h): */
    uint32_t *joined;      /* columns joined_from..joined_to-1 of the lists of all `rows`, joined */
    int joined_from, joined_to, joined_most; /* at most `joined_most` columns at a time */
    int32_t *joints;       /* (columns + 1, kp): where each column begins in `joined` */
} sparse_lists;

/* Whether a step sums neighbouring pixels of few features together (sparse_columns). */
static int sums_pixels(const fd_step *s) { return s->sparse && !s->nv; }

/* How many of them. */
static int summed_pixels(const fd_step *s) { return (SPARSE_SUMS + s->kp - 1) / s->kp; }

/* The lead of two rows over one, for steps of as many channels. */
static int *lead_of(const fd_step *s) { return s->lead + s->sparse_width / VW; }

/* How many rows of its result a step may compute together, as far as the trial has gone. Of several
 * blocks of output channels, the sums of two pixels would not stay in L1. */
static int sparse_rows(const fd_step *s) {
    const int may = s->sparse && s->nv && s->cout <= s->sparse_width;
    return may && __atomic_load_n(lead_of(s), __ATOMIC_RELAXED) > -FD_SURE ? FD_SPARSE_ROWS : 1;
}

static void sparse_free(sparse_lists *p) {
    free(p->rows);
    free(p->slot);
    free(p->held);
    free(p->entries);
    free(p->start);
    free(p->count);
    free(p->panel);
    free(p->joined);
    free(p->joints);
}

static int sparse_init(sparse_lists *p, const fd_step *s) {
    const fd_source *f = &s->source;
    const fd_window *pool = &f->pool;
    p->s = s;
    p->kp = s->sparse ? s->kp : padded(s->kp); /* bfloat16: VW features are joined together */
    p->Y = -1;
    p->high = make_axis(pool->top, pool->sh, pool->dh, pool->kh, f->cells_h);
    p->wide = make_axis(pool->left, pool->sw, pool->dw, pool->kw, f->cells_w);
    p->together = sparse_rows(s);
    p->slots = (s->conv.kh + p->together - 1) * p->high.windows;
    const size_t entry = s->sparse ? sizeof(sparse_entry) : sizeof(uint32_t);
    /* Where one value goes to all places of its window, a row has it as often as the window is
     * wide. */
    const size_t times = f->order_cell > f->channels ? pool->kw : 1;
    const size_t list = ((size_t)f->cells_w * f->channels * times + VW) * entry;
    /* An odd number of cache lines, so that the lists of all features do not lie in the same few
     * sets of L1. */
    p->feature = (ptrdiff_t)(((list + 63) / 64 | 1) * 64);
    const int bytes = s->sparse ? sizeof(float) : sizeof(uint16_t);
    const int rows = SPARSE_BYTES / bytes / s->sparse_width;
    p->columns = rows * pool->kh * pool->kw / f->channels;
    if (!s->sparse) p->columns /= p->slots; /* a joined column has the entries of all rows */
    if (p->columns < 1) p->columns = 1;
    const int unit = s->sparse ? VW : 2 * VW;
    const int pixels = sums_pixels(s) ? summed_pixels(s) : p->together;
    p->all = (s->cout + unit - 1) / unit * unit;
    p->joined_most = s->conv.kw + JOINED_PIXELS;
    if (p->joined_most > f->w) p->joined_most = f->w;
    const size_t joined = ((size_t)p->slots * p->joined_most * f->channels + VW) * p->kp;
    p->rows = malloc(sizeof(origin) * p->slots);
    p->slot = malloc(sizeof(int) * p->slots);
    p->held = malloc(sizeof(int) * p->slots);
    p->entries = (char *)fd_scratch(p->feature / 4 * p->kp * p->slots + VW);
    p->start = malloc(sizeof(int32_t) * p->slots * (f->w + 1) * p->kp);
    p->count = malloc(sizeof(int32_t) * p->kp);
    p->panel = fd_scratch((size_t)pixels * p->kp * p->all);
    p->joined = s->sparse ? NULL : malloc(sizeof(uint32_t) * joined);
    p->joints = s->sparse ? NULL : malloc(sizeof(int32_t) * (p->joined_most + 1) * p->kp);
    if (!p->rows || !p->slot || !p->held || !p->entries || !p->start || !p->count || !p->panel ||
        (!s->sparse && (!p->joined || !p->joints))) {
        sparse_free(p);
        return 0;
    }
    for (int i = 0; i < p->slots; i++) p->held[i] = -1;
    p->used = 0;
    memset(p->panel, 0, sizeof(float) * pixels * p->kp * p->all);
    return 1;
}

/* ---- the lists ---- */

/* SPARSE_SQUARES: whether values are transposed in squares, to vectors of one feature each. */
#if VW == 16
#define SPARSE_SQUARES 1
/* Appends those of values[0..n-1] that are not zero, with their offsets; returns how many they are.
 * It always writes VW entries. */
FD_INLINE int append_some(sparse_entry *to, vf values, const int32_t *offsets, int n) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    const vm some = vm_and(vm_differ(values, vf_zero()), (vm)((1u << n) - 1));
    const __m512i a = _mm512_castps_si512(_mm512_maskz_compress_ps(some, values));
    const __m512i b = _mm512_maskz_compress_epi32(some, _mm512_loadu_si512(offsets));
    _mm512_storeu_si512(to, _mm512_permutex2var_epi32(a, low, b));
    _mm512_storeu_si512(to + 8, _mm512_permutex2var_epi32(a, high, b));
    return __builtin_popcount(some);
}

/* The same for bfloat16: an entry is the rounded value (to nearest, ties to even) and a row of
 * W. */
FD_INLINE int append_some_bf16(uint32_t *to, vf values, const int32_t *rows, int n) {
    const __m512i bits = (__m512i)values, upper = _mm512_set1_epi32((int)0xffff0000);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i row = _mm512_and_si512(_mm512_loadu_si512(rows), _mm512_set1_epi32(0xffff));
    const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_mask_add_epi32(_mm512_set1_epi32(0x7fc00000),
                                                  vm_is_number(values), bits, half);
    /* (rounded & upper) | row */
    const __m512i all = _mm512_ternarylogic_epi32(rounded, upper, row, 0xea);
    const vm some = vm_and(vm_differ(values, vf_zero()), (vm)((1u << n) - 1));
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(some, all));
    return __builtin_popcount(some);
}
#elif defined(__AVX2__)
#define SPARSE_SQUARES 1
FD_INLINE int append_some(sparse_entry *to, vf values, const int32_t *offsets, int n) {
    const unsigned there = (1u << n) - 1;
    const unsigned some = (unsigned)_mm256_movemask_ps(vm_differ(values, vf_zero())) & there;
    /* AVX2 has no compress: the numbers of the lanes that are kept, one byte each, are moved to the
     * front, and then used as indices of a permutation. */
    const uint64_t bytes = _pdep_u64(some, 0x0101010101010101u) * 0xff;
    const uint64_t lanes = _pext_u64(0x0706050403020100u, bytes);
    const __m256i order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)lanes));
    const vf a = _mm256_permutevar8x32_ps(values, order);
    const vf b = _mm256_permutevar8x32_ps(vf_load((const float *)offsets), order);
    const vf low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
    vf_store((float *)to, _mm256_permute2f128_ps(low, high, 0x20));
    vf_store((float *)(to + 4), _mm256_permute2f128_ps(low, high, 0x31));
    return __builtin_popcount(some);
}
#else
#define SPARSE_SQUARES 0
#endif

/* Appends channels order[0..n-1] of a cell to feature k's list. v: channel 0 of the feature; the
 * next one is `channel` elements further on. */
FD_INLINE void append_values_of(const sparse_lists *p, char *to, const float *v,
                                const int32_t *order, int n, int shift, int k, int channel) {
    sparse_entry *list = (sparse_entry *)(to + k * p->feature);
    const int unit = p->s->sparse_width;
    int count = p->count[k];
    for (int i = 0; i < n; i++) {
        const float value = v[(ptrdiff_t)order[i] * channel];
        list[count] = (sparse_entry){value, (order[i] - shift) * unit};
        count += value != 0;
    }
    p->count[k] = count;
}

/* Appends channels order[0..n-1] of the cell at v to the lists of all features. */
static void append_values(const sparse_lists *p, char *to, const float *v, const int32_t *order,
                          int n, int shift) {
    const int kp = p->s->kp;
    if (!p->s->nv) {
        const int channels = p->s->source.channels;
        for (int k = 0; k < kp; k++, v += channels)
            append_values_of(p, to, v, order, n, shift, k, 1);
        return;
    }
#if SPARSE_SQUARES
    const ptrdiff_t feature = p->feature;
    int32_t *counts = p->count;
    /* Offsets count elements of W; in bfloat16, rows. */
    const int unit = p->s->sparse ? p->s->sparse_width : 1;
#if FD_HAS_BF16
    const int bf16 = p->s->sparse_bf16 != NULL;
#endif
    for (int i = 0; i < n; i += VW, order += VW) {
        const int some = n - i < VW ? n - i : VW;
        int32_t offsets[VW];
        /* Beyond the n channels `order` still has valid channels; append_some leaves them out. */
        for (int j = 0; j < VW; j++) offsets[j] = (order[j] - shift) * unit;
        for (int k = 0; k < kp; k += VW) {
            vf x[VW];
            FD_UNROLL
            for (int j = 0; j < VW; j++) x[j] = vf_load(v + (ptrdiff_t)order[j] * kp + k);
            vf_transpose(x);
            FD_UNROLL
            for (int j = 0; j < VW; j++) {
                int32_t *count = counts + k + j;
                char *list = to + (k + j) * feature;
#if FD_HAS_BF16
                if (bf16) {
                    *count += append_some_bf16((uint32_t *)list + *count, x[j], offsets, some);
                    continue;
                }
#endif
                *count += append_some((sparse_entry *)list + *count, x[j], offsets, some);
            }
        }
    }
#else
    for (int k = 0; k < kp; k++) append_values_of(p, to, v + k, order, n, shift, k, kp);
#endif
}

#if FD_HAS_BF16
/* The values of a cell's channels for one feature, which lie side by side. Up to 64 of them are
 * kept in four registers: to pick 16 from there takes a third of the time of a gathering load. */
typedef struct {
    vf x[4];
    const float *from;
    int all; /* whether x has all channels */
} channel_values;

FD_INLINE channel_values load_channels(const float *from, int channels) {
    channel_values v = {.from = from, .all = channels <= 4 * VW};
    for (int j = 0; v.all && j < 4; j++) {
        const int left = channels - j * VW;
        const vm there = left >= VW ? 0xffff : left > 0 ? (vm)((1u << left) - 1) : 0;
        v.x[j] = _mm512_maskz_loadu_ps(there, from + j * VW);
    }
    return v;
}

/* The values of n <= VW channels. What follows the n channels in the list need not be channels. */
FD_INLINE vf pick_channels(const channel_values *v, const int32_t *channels, int n) {
    const __m512i at = _mm512_loadu_si512(channels);
    if (!v->all)
        return _mm512_mask_i32gather_ps(vf_zero(), (__mmask16)((1u << n) - 1), at, v->from,
                                        sizeof *v->from);
    const vf low = _mm512_permutex2var_ps(v->x[0], at, v->x[1]);
    const vf high = _mm512_permutex2var_ps(v->x[2], at, v->x[3]);
    return _mm512_mask_mov_ps(low, _mm512_test_epi32_mask(at, _mm512_set1_epi32(2 * VW)), high);
}

/* append_values for few features (the layout by feature), in bfloat16. */
static void append_by_feature(const sparse_lists *p, char *to, const float *v,
                              const int32_t *order, int n, int shift) {
    const int channels = p->s->source.channels;
    const __m512i by = _mm512_set1_epi32(shift);
    for (int k = 0; n && k < p->s->kp; k++, v += channels, to += p->feature) {
        const channel_values values = load_channels(v, channels);
        for (int i = 0; i < n; i += VW) {
            const int count = n - i < VW ? n - i : VW;
            int32_t rows[VW];
            _mm512_storeu_si512(rows, _mm512_sub_epi32(_mm512_loadu_si512(order + i), by));
            p->count[k] += append_some_bf16((uint32_t *)to + p->count[k],
                                            pick_channels(&values, order + i, count), rows,
                                            count);
        }
    }
}
#endif

/* Prefetch distance while lists are made, in columns of the unpooled tensor: V is not in the caches
 * yet. */
#define SPARSE_COLUMNS_AHEAD 3
/* The same for few features, in cells: they are so small that they are fetched as a whole. */
#define SPARSE_CELLS_AHEAD 4

/* Which values of a row of cells belong to column x of the unpooled tensor, in the row of it that
 * lies at row `place` of the windows. Of several windows that cover the column, takes the one that
 * lies `before` places before the last of them. Returns the column of its cell, or -1, and the n
 * channels. */
static int wanted(const sparse_lists *p, int x, int before, int row, int place,
                  const int32_t **order, int *n) {
    const fd_source *f = &p->s->source;
    const origin column = covering(x, &p->wide, before, 0);
    if (column.cell >= 0)
        *order = at_place(f, row, column.cell, place * f->pool.kw + column.place, n);
    return column.cell;
}

/* Prefetches the values that belong to column x; `v` is the row of cells. */
static void fetch_column(const sparse_lists *p, const float *v, int x, int row, int place) {
    const size_t channels = p->s->source.channels, kp = p->s->kp;
    for (int before = 0; before < p->wide.windows; before++) {
        int n;
        const int32_t *order;
        const int cell = wanted(p, x, before, row, place, &order, &n);
        for (int i = 0; cell >= 0 && i < n; i++) {
            const float *lanes = v + (cell * channels + order[i]) * kp;
            for (size_t k = 0; k < kp; k += 64 / sizeof(float)) __builtin_prefetch(lanes + k);
        }
    }
}

/* For few features: prefetches all values of the cell that column x comes from. */
static void fetch_cell(const sparse_lists *p, const float *v, int x, int row) {
    const fd_source *f = &p->s->source;
    const origin column = x < 0 ? (origin){-1, 0, 0} : covering(x, &p->wide, 0, 0);
    if (column.cell < 0) return;
    const int line = 64 / sizeof(float), all = f->channels * p->s->kp;
    const float *values = v + (ptrdiff_t)column.cell * all;
    const int32_t *order = f->order + (row * f->list_row + column.cell) * f->order_cell;
    for (int c = 0; c < f->channels; c += line) __builtin_prefetch(order + c);
    for (int i = 0; i < all; i += line) __builtin_prefetch(values + i);
}

/* Makes the lists of one row of the unpooled tensor: row `place` of the windows of a row of
 * cells. */
static void list_row(sparse_lists *p, int slot, int row, int place) {
    const fd_step *s = p->s;
    const fd_source *f = &s->source;
    const size_t cell = (size_t)f->channels * s->kp, lanes = sizeof(int32_t) * p->kp;
    const float *v = s->v + (size_t)row * f->cells_w * cell;
    char *to = p->entries + slot * p->feature * p->kp;
    int32_t *start = p->start + (size_t)slot * (f->w + 1) * p->kp;
    memset(p->count, 0, lanes);
    for (int x = f->w - 1; x >= 0; x--, start += p->kp) {
        memcpy(start, p->count, lanes);
        if (!s->nv && s->sparse)
            fetch_cell(p, v, x - SPARSE_CELLS_AHEAD * f->pool.sw, row);
        else if (s->nv && x >= SPARSE_COLUMNS_AHEAD)
            fetch_column(p, v, x - SPARSE_COLUMNS_AHEAD, row, place);
        for (int before = p->wide.windows - 1; before >= 0; before--) {
            int n;
            const int32_t *order;
            const int column = wanted(p, x, before, row, place, &order, &n);
            if (column < 0) continue;
#if FD_HAS_BF16
            if (!s->nv && !s->sparse) {
                append_by_feature(p, to, v + column * cell, order, n, x * f->channels);
                continue;
            }
#endif
            append_values(p, to, v + column * cell, order, n, x * f->channels);
        }
    }
    memcpy(start, p->count, lanes);
    for (int k = p->kp; k > p->used; k--)
        if (p->count[k - 1]) p->used = k;
}

/* A number that identifies a row of the unpooled tensor as far as one row of cells fills it. */
static int row_key(const sparse_lists *p, origin row) {
    return row.cell < 0 ? -1 : row.cell * p->s->source.pool.kh + row.place;
}

static int is_needed(const sparse_lists *p, int key) {
    for (int i = 0; key >= 0 && i < p->slots; i++)
        if (row_key(p, p->rows[i]) == key) return 1;
    return 0;
}

/* The slot that has the lists of a row, or -1. */
static int slot_of(const sparse_lists *p, int key) {
    for (int slot = 0; slot < p->slots; slot++)
        if (p->held[slot] == key) return slot;
    return -1;
}

/* The slot that has the lists of rows[i]. If none has, the lists are made. */
static int find_slot(sparse_lists *p, int i) {
    const int key = row_key(p, p->rows[i]), there = slot_of(p, key);
    int other = 0;
    if (there >= 0) return there;
    for (int slot = 0; slot < p->slots; slot++)
        if (!is_needed(p, p->held[slot])) other = slot;
    list_row(p, other, p->rows[i].cell, p->rows[i].place);
    p->held[other] = key;
    return other;
}

/* Sets p->rows to the rows of the unpooled tensor that output rows Y..Y+n-1 need. */
static void need_rows(sparse_lists *p, int Y, int n) {
    for (int i = 0; i < p->slots; i++) p->rows[i].cell = -1;
    find_rows(p->s, Y + n - 1, p->s->conv.kh + n - 1, &p->high, p->rows);
}

/* Sets p->next to rows that the next n output rows need and that have no lists yet. Afterwards
 * p->rows are the rows of these output rows. */
static void find_next(sparse_lists *p, int Y, int n) {
    int found = 0;
    need_rows(p, Y, n);
    for (int i = 0; i < FD_SPARSE_ROWS; i++) p->next[i].cell = -1;
    for (int i = p->slots - 1; i >= 0 && found < n; i--)
        if (p->rows[i].cell >= 0 && slot_of(p, row_key(p, p->rows[i])) < 0)
            p->next[found++] = p->rows[i];
}

/* Sees to it that all rows that output rows Y..Y+n-1 need have lists. */
static void hold_rows(sparse_lists *p, int Y, int n) {
    if (p->Y == Y && p->n == n) return;
    p->Y = Y;
    p->n = n;
    need_rows(p, Y, n);
    for (int i = 0; i < p->slots; i++)
        if (p->rows[i].cell >= 0) p->slot[i] = find_slot(p, i);
    find_next(p, Y + n, n);
    need_rows(p, Y, n);
    p->joined_from = p->joined_to = 0;
}

/* What column x of row `next` will need; where windows overlap, only of the last window. */
static sparse_wish find_wish(const sparse_lists *p, origin next, int x) {
    const fd_source *f = &p->s->source;
    sparse_wish wish = {.lanes = p->s->kp};
    /* On average, each place of a window has an equal share of the channels. */
    const size_t row = sizeof(float) * f->w * f->channels * p->s->kp / (f->pool.kh * f->pool.kw);
    if (p->s->nv && row <= ROW_BYTES && next.cell >= 0 && x < f->w) {
        const int column = wanted(p, x, 0, next.cell, next.place, &wish.channels, &wish.n);
        const size_t cell = (size_t)next.cell * f->cells_w + column;
        wish.cell = p->s->v + cell * f->channels * p->s->kp;
        if (column < 0) wish.n = 0;
    }
    return wish;
}

#endif
