/* Lists of the values of a lane tensor that are not zero: the lists of sparse.h.
 *
 * What    One for every feature and row of the unpooled tensor: columns from right to left,
 *         channels ascending. What a row sends to an output pixel through one row of the kernel
 *         is then one range of it, in the order of the taps, and the next pixel's range begins
 *         one column further on. Which row of W an entry wants depends on the pixel only by a
 *         constant: the entry names channel - column * channels, the pixel adds its tap. The
 *         rows of the unpooled tensor that an output row needs are kept; the next one needs most
 *         of them again.
 * Layout  An entry is a value and the offset of its row of W; for bfloat16 see sparse_bf16.h.
 * Mix     per 16 values and 16 features, on AVX-512: 16 loads, a transpose, 16 times 2 compresses,
 *         2 permutations and 2 stores; it waits for memory, so what comes next is fetched.
 * Numbers values as they are, or rounded to bfloat16, to nearest, ties to even.
 */
#ifndef FD_SPARSE_LISTS_H
#define FD_SPARSE_LISTS_H

#include "bf16.h"
#include "gather.h"

/* Of weights at a time: they and what else a feature needs stay in L1. */
#define SPARSE_BYTES 24576
/* The values of the next row are fetched to L2 if it has no more: else they would not stay. */
#define ROW_BYTES (1 << 19)
/* bfloat16: lists are joined for so many pixels at a time. */
#define JOINED_PIXELS 32

/* Lists of the feature this many further on are fetched. */
#define SPARSE_AHEAD 3

/* One feature: pixels of a row that are summed together. Their sums, the weights of a tap and the
 * lists stay in L1. */
#define SPARSE_PIXELS 32

typedef struct {
    float value;
    int32_t offset; /* of its row of W: elements from that of column 0, channel 0 */
} sparse_entry;

/* What columns of lists send to a pixel. */
typedef struct {
    const char *entries;      /* from which all features count */
    const int32_t *from, *to; /* by feature */
    ptrdiff_t row;            /* of W, from which its entries count */
} sparse_part;

/* Channels of a cell of V that lists to come want, and how far they have been fetched. */
typedef struct {
    const float *cell;
    const int32_t *channels;
    int n, lane;
} sparse_wish;

/* Where the sums of a block of channels are: (kp, stride); if `first`, they begin at 0. */
typedef struct {
    float *panel;
    ptrdiff_t stride;
    int kp, first;
    /* What to fetch meanwhile, or NULL: */
    const float *out; /* where the sums go as lanes */
    sparse_wish *wish;
} sparse_sums;

/* Feature k's share of what to fetch for NV vectors of channels. */
FD_INLINE void fetch_meanwhile(const sparse_sums *to, int k, const int NV) {
    if (to->out) {
        FD_UNROLL
        for (int j = 0; j < NV; j++) __builtin_prefetch(to->out + (k * NV + j) * VW, 1);
    }
    for (int i = 0; to->wish && to->wish->n && i < 2; i++) {
        sparse_wish *wish = to->wish;
        /* To L2: list_row fetches it from there. */
        __builtin_prefetch(wish->cell + *wish->channels * (ptrdiff_t)to->kp + wish->lane, 0, 2);
        wish->lane += 64 / sizeof(float);
        if (wish->lane < to->kp) continue;
        wish->lane = 0;
        wish->channels++;
        wish->n--;
    }
}

typedef struct {
    const fd_step *s;
    int kp;                /* features that have lists, with what pads them to whole vectors */
    pool_axis high, wide;
    int Y;
    origin *rows;          /* per kernel row and window, of output row Y */
    int columns;           /* of lists at a time */
    int slots;             /* as many: rows of the unpooled tensor whose lists are kept */
    int *slot;             /* of each of `rows` */
    origin next;           /* the row that will be listed next; cell -1: none */
    int *held;             /* which row each slot has; -1: none */
    char *entries;         /* (slots, kp, feature) */
    ptrdiff_t feature;     /* bytes of one feature's list */
    int32_t *start;        /* (slots, w + 1, kp): where a column begins, from the right */
    int32_t *count;        /* (kp): entries so far of the lists that are being made */
    int used;              /* features from this one on have had no value yet: what pads them */
    int all;               /* output channels with what pads them: whole vectors or pairs */
    float *panel;          /* a pixel's results: (kp, all); of one feature those of several */
    uint32_t *joined;      /* bfloat16: some columns of output row Y's lists (sparse_bf16.h) */
    int joined_from, joined_to, joined_most; /* which, and how many at a time */
    int32_t *joints;       /* (columns + 1, kp): where each begins */
} sparse_lists;

/* Whether a step sums neighbouring pixels of one feature together (sparse.h). */
static int sums_pixels(const fd_step *s) { return s->sparse && s->kp == 1; }

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
    p->kp = s->sparse ? s->kp : padded(s->kp); /* lists in bfloat16 are joined by vectors */
    p->Y = -1;
    p->high = make_axis(pool->top, pool->sh, pool->dh, pool->kh, f->cells_h);
    p->wide = make_axis(pool->left, pool->sw, pool->dw, pool->kw, f->cells_w);
    p->slots = s->conv.kh * p->high.windows;
    const size_t entry = s->sparse ? sizeof(sparse_entry) : sizeof(uint32_t);
    /* An odd number of cache lines: else the lists of all features share a few sets of L1. */
    /* Where a value goes to several places of its window, it is in a row as often as that is wide. */
    const size_t times = f->order_cell > f->channels ? pool->kw : 1;
    const size_t list = ((size_t)f->cells_w * f->channels * times + VW) * entry;
    p->feature = (ptrdiff_t)(((list + 63) / 64 | 1) * 64);
    const int bytes = s->sparse ? sizeof(float) : sizeof(uint16_t);
    const int rows = SPARSE_BYTES / bytes / s->sparse_width;
    p->columns = rows * pool->kh * pool->kw / f->channels;
    if (!s->sparse) p->columns /= p->slots; /* theirs come from all rows */
    if (p->columns < 1) p->columns = 1;
    const int unit = s->sparse ? VW : 2 * VW, pixels = sums_pixels(s) ? SPARSE_PIXELS : 1;
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
    memset(p->panel, 0, sizeof(float) * p->kp * p->all);
    return 1;
}

/* ---- the lists ---- */

#if VW == 16
#define SPARSE_SQUARES 1
/* What is not zero of values[0..n-1], with its offsets; returns how many. Writes VW entries. */
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

/* The same for bfloat16: values to nearest, ties to even, and rows. */
FD_INLINE int append_some_bf16(uint32_t *to, vf values, const int32_t *rows, int n) {
    const __m512i bits = (__m512i)values, upper = _mm512_set1_epi32((int)0xffff0000);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i row = _mm512_and_si512(_mm512_loadu_si512(rows), _mm512_set1_epi32(0xffff));
    const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_mask_add_epi32(_mm512_set1_epi32(0x7fc00000),
                                                  vm_is_number(values), bits, half);
    /* rounded & upper | row */
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
    /* The numbers of the lanes that stay, a byte each, in order. */
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
#endif

/* Channels order[0..n-1] of a cell of feature k, of kp: v is its first one's. */
FD_INLINE void append_values_of(const sparse_lists *p, char *to, const float *v,
                                const int32_t *order, int n, int shift, int k, int kp) {
    sparse_entry *list = (sparse_entry *)(to + k * p->feature);
    const int unit = p->s->sparse_width;
    int count = p->count[k];
    for (int i = 0; i < n; i++) {
        const float value = v[(ptrdiff_t)order[i] * kp + k];
        list[count] = (sparse_entry){value, (order[i] - shift) * unit};
        count += value != 0;
    }
    p->count[k] = count;
}

/* Channels order[0..n-1] of a cell, of all features: v is its first one's. */
static void append_values(const sparse_lists *p, char *to, const float *v, const int32_t *order,
                          int n, int shift) {
    const int kp = p->s->kp;
#if SPARSE_SQUARES
    const ptrdiff_t feature = p->feature;
    int32_t *counts = p->count;
    /* Entries of bfloat16 count rows. */
    const int unit = p->s->sparse ? p->s->sparse_width : 1;
    if (kp == 1) {
        append_values_of(p, to, v, order, n, shift, 0, 1);
        return;
    }
#if FD_HAS_BF16
    const int bf16 = p->s->sparse_bf16 != NULL;
#endif
    for (int i = 0; i < n; i += VW, order += VW) {
        const int some = n - i < VW ? n - i : VW;
        int32_t offsets[VW];
        /* Beyond the end of a place `order` still names channels; append_some leaves them out. */
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
    for (int k = 0; k < kp; k++) append_values_of(p, to, v, order, n, shift, k, kp);
#endif
}

#if FD_HAS_BF16
/* Values of up to 64 channels, which are side by side, of 16 channels at a time: a third of the
 * time of a load that gathers. */
typedef struct {
    vf x[4];
    const float *from;
    int all; /* whether x has all of them */
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

/* The values of n channels; what is behind them in their list may be no channels. */
FD_INLINE vf pick_channels(const channel_values *v, const int32_t *channels, int n) {
    const __m512i at = _mm512_loadu_si512(channels);
    if (!v->all)
        return _mm512_mask_i32gather_ps(vf_zero(), (__mmask16)((1u << n) - 1), at, v->from,
                                        sizeof *v->from);
    const vf low = _mm512_permutex2var_ps(v->x[0], at, v->x[1]);
    const vf high = _mm512_permutex2var_ps(v->x[2], at, v->x[3]);
    return _mm512_mask_mov_ps(low, _mm512_test_epi32_mask(at, _mm512_set1_epi32(2 * VW)), high);
}

/* As append_values, of few features in bfloat16. */
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

/* Columns further on whose values are fetched while a list is made: V comes from memory. */
#define SPARSE_COLUMNS_AHEAD 3
/* The same of one feature, whose cells are as small as their lists. */
#define SPARSE_CELLS_AHEAD 4

/* What column x of the unpooled tensor wants of a row of cells at `place`, from the window that
 * lies so many before the last one that covers it: the column of the cell, or -1, and n channels. */
static int wanted(const sparse_lists *p, int x, int before, int row, int place,
                  const int32_t **order, int *n) {
    const fd_source *f = &p->s->source;
    const origin column = covering(x, &p->wide, before, 0);
    if (column.cell >= 0)
        *order = at_place(f, row, column.cell, place * f->pool.kw + column.place, n);
    return column.cell;
}

/* Fetches what column x wants of a row of cells, v, at `place`. */
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

/* Fetches all of the cell, of one feature, that column x comes from. */
static void fetch_cell(const sparse_lists *p, const float *v, int x, int row) {
    const fd_source *f = &p->s->source;
    const origin column = x < 0 ? (origin){-1, 0, 0} : covering(x, &p->wide, 0, 0);
    if (column.cell < 0) return;
    const float *values = v + (ptrdiff_t)column.cell * f->channels;
    const int32_t *order = f->order + (row * f->list_row + column.cell) * f->order_cell;
    for (int c = 0; c < f->channels; c += 64 / sizeof(float)) {
        __builtin_prefetch(values + c);
        __builtin_prefetch(order + c);
    }
}

/* The lists of one row of the unpooled tensor: that at `place` of a row of cells. */
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
        if (s->kp == 1)
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

/* A number for every row of the unpooled tensor and row of windows it may come from. */
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

/* The slot of the lists of rows[i], which are made where there are none. */
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

/* Finds a row that the output row below Y wants and that has no lists yet; p->rows are its. */
static void find_next(sparse_lists *p) {
    find_rows(p->s, p->Y + 1, &p->high, p->rows);
    p->next.cell = -1;
    for (int i = 0; i < p->slots; i++)
        if (p->rows[i].cell >= 0 && slot_of(p, row_key(p, p->rows[i])) < 0) p->next = p->rows[i];
}

/* The lists of all rows that output row Y needs. */
static void hold_rows(sparse_lists *p, int Y) {
    p->Y = Y;
    find_rows(p->s, Y, &p->high, p->rows);
    for (int i = 0; i < p->slots; i++)
        if (p->rows[i].cell >= 0) p->slot[i] = find_slot(p, i);
    find_next(p);
    find_rows(p->s, Y, &p->high, p->rows);
    p->joined_from = p->joined_to = 0;
}

/* What column x will want of the row that is listed next; where windows overlap, of the last. */
static sparse_wish find_wish(const sparse_lists *p, int x) {
    const fd_source *f = &p->s->source;
    sparse_wish wish = {0};
    /* A place of a row has its share of the channels. */
    const size_t row = sizeof(float) * f->w * f->channels * p->s->kp / (f->pool.kh * f->pool.kw);
    if (p->s->nv && row <= ROW_BYTES && p->next.cell >= 0 && x < f->w) {
        const int column = wanted(p, x, 0, p->next.cell, p->next.place, &wish.channels, &wish.n);
        const size_t cell = (size_t)p->next.cell * f->cells_w + column;
        wish.cell = p->s->v + cell * f->channels * p->s->kp;
        if (column < 0) wish.n = 0;
    }
    return wish;
}

#endif
