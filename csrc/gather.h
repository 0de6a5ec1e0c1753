/* Lists of the values that contribute to an output pixel.
 *
 * What    On the way back through [pool, convolution], every cell of the pooled tensor has one
 *         value for each channel. It belongs at the place that its switch names, and
 *         `sort_cells` has sorted the channels of every cell by that place. An output pixel
 *         of the transposed convolution reads at most one place for each tap of its kernel. Its
 *         list has all values at these places, tap after tap. Where windows overlap, a place
 *         belongs to several cells, each with other channels (overlap.c).
 * Cost    The entries of a tap are copied in steps of FD_COPY, and in at least two steps, whatever
 *         their number: a loop that ends after one or two rounds is mispredicted half of the
 *         time, which costs more than copying too much.
 */
#ifndef FD_GATHER_H
#define FD_GATHER_H

#include "units.h"

/* Lower half: row of V (cell, channel), or of few features its element for the first one.
 * Upper half: row of the packed weights (tap, channel). One number, so that one addition
 * moves both. */
typedef uint64_t entry;

FD_INLINE entry make_entry(uint32_t v, uint32_t w) { return (entry)w << 32 | v; }
FD_INLINE size_t entry_v(entry e) { return (uint32_t)e; }
FD_INLINE size_t entry_w(entry e) { return (size_t)(e >> 32); }

/* Which row (or column) of cells a row (or column) of the unpooled tensor comes from. */
typedef struct {
    int cell;  /* -1: nowhere */
    int place; /* within the window */
    int tap;   /* row or column of the convolution's kernel that reads it */
} origin;

/* The pool's windows along one axis. */
typedef struct {
    int pad, stride, dilation, kernel, cells;
    int windows; /* most that a place lies in */
} pool_axis;

FD_INLINE pool_axis make_axis(int pad, int stride, int dilation, int kernel, int cells) {
    return (pool_axis){pad, stride, dilation, kernel, cells, (kernel - 1) * dilation / stride + 1};
}

typedef struct {
    const fd_step *s;
    entry *list;
    entry *split;    /* groups: the list, sorted by group */
    int *bounds;     /* groups + 1: where each one's begins in split */
    pool_axis high, wide;
    origin *columns; /* per output column, kernel column and window */
    origin *rows;    /* per kernel row and window, of output row Y */
    int Y;
    float *scratch;  /* of the product, if it wants any */
} gatherer;

/* Where place p of the unpooled tensor's axis comes from, if from the window `before` the last one
 * that could. */
static origin covering(int p, const pool_axis *a, int before, int tap) {
    const int cell = (p + a->pad) / a->stride - before, offset = p + a->pad - cell * a->stride;
    const origin o = {cell, offset / a->dilation, tap};
    if (cell >= 0 && cell < a->cells && offset % a->dilation == 0 && o.place < a->kernel) return o;
    return (origin){-1, 0, tap};
}

/* What tap t takes to output place q: its origins, in the order of the windows. */
static void reaching(int q, int pad, int t, int dilation, int stride, int size, const pool_axis *a,
                     origin *to) {
    const int n = q + pad - t * dilation;
    const int there = n >= 0 && n % stride == 0 && n / stride < size;
    for (int i = 0; i < a->windows; i++)
        to[i] = there ? covering(n / stride, a, a->windows - 1 - i, t) : (origin){-1, 0, t};
}

static void gatherer_free(gatherer *p) {
    free(p->list);
    free(p->split);
    free(p->bounds);
    free(p->columns);
    free(p->rows);
    free(p->scratch);
}

static int gatherer_init(gatherer *p, const fd_step *s, size_t scratch) {
    const fd_source *f = &s->source;
    const fd_window *k = &s->conv, *pool = &f->pool;
    p->s = s;
    p->Y = -1;
    p->high = make_axis(pool->top, pool->sh, pool->dh, pool->kh, f->cells_h);
    p->wide = make_axis(pool->left, pool->sw, pool->dw, pool->kw, f->cells_w);
    const size_t places = (size_t)k->kh * p->high.windows * k->kw * p->wide.windows;
    const size_t most = (size_t)k->kh * k->kw * f->channels + places + FD_LIST_ROOM;
    p->list = malloc(sizeof(entry) * most);
    p->split = malloc(sizeof(entry) * most);
    p->bounds = malloc(sizeof(int) * (s->groups + 1));
    p->columns = malloc(sizeof(origin) * s->out_w * k->kw * p->wide.windows);
    p->rows = malloc(sizeof(origin) * k->kh * p->high.windows);
    p->scratch = fd_scratch(scratch);
    if (!p->list || !p->split || !p->bounds || !p->columns || !p->rows || !p->scratch) {
        gatherer_free(p);
        return 0;
    }
    for (int X = 0; X < s->out_w; X++)
        for (int j = 0; j < k->kw; j++)
            reaching(X, k->left, j, k->dw, k->sw, f->w, &p->wide,
                     p->columns + ((size_t)X * k->kw + j) * p->wide.windows);
    return 1;
}

/* What the rows of the kernel take to output row Y. */
static void find_rows(const fd_step *s, int Y, const pool_axis *high, origin *rows) {
    const fd_window *k = &s->conv;
    for (int i = 0; i < k->kh; i++)
        reaching(Y, k->top, i, k->dh, k->sh, s->source.h, high, rows + i * high->windows);
}

FD_INLINE void copy_entries(entry *restrict to, const int32_t *restrict from, entry first) {
    for (int i = 0; i < FD_COPY; i++) {
        const uint32_t c = (uint32_t)from[i];
        to[i] = first + make_entry(c, c);
    }
}

/* Channels of one place as entries: `first` is channel 0's. */
FD_INLINE void append(entry *to, const int32_t *from, int n, entry first) {
    int e = 0;
    do {
        copy_entries(to + e, from + e, first);
        e += FD_COPY;
    } while (e < FD_LIST_ROOM || e < n);
}

/* The channels at one place of a cell. */
FD_INLINE const int32_t *at_place(const fd_source *f, int row, int column, int place, int *n) {
    const size_t cell = row * f->list_row + column;
    const int32_t *first = f->first + cell * f->first_cell + place;
    *n = first[1] - first[0];
    return f->order + cell * f->order_cell + first[0];
}

/* All entries that reach output pixel (Y, X), of every group; returns how many. In bfloat16, where
 * two are multiplied together, those of a place are made even by one with a row of zeros for its
 * weights: which two belong together does not depend on what part of a map is computed. */
static int gather(gatherer *p, int Y, int X) {
    const fd_step *s = p->s;
    const fd_source *f = &s->source;
    const size_t cell_rows = (size_t)f->channels * (s->nv ? 1 : s->kp);
    const int from_rows = s->conv.kh * p->high.windows, from_columns = s->conv.kw * p->wide.windows;
    const origin *columns = p->columns + (size_t)X * from_columns;
    const uint32_t none = (uint32_t)(s->conv.kh * s->conv.kw * f->channels);
    const int odd = s->bf16 != NULL;
    int n = 0;
    if (p->Y != Y) find_rows(s, p->Y = Y, &p->high, p->rows);
    for (int i = 0; i < from_rows; i++) {
        const origin row = p->rows[i];
        if (row.cell < 0) continue;
        for (int j = 0; j < from_columns; j++) {
            const origin column = columns[j];
            if (column.cell < 0) continue;
            const size_t cell = (size_t)row.cell * f->cells_w + column.cell;
            int count;
            const int32_t *from = at_place(f, row.cell, column.cell,
                                           row.place * f->pool.kw + column.place, &count);
            append(p->list + n, from, count,
                   make_entry((uint32_t)(cell * cell_rows),
                              (uint32_t)((row.tap * s->conv.kw + column.tap) * f->channels)));
            n += count;
            /* Whether it counts or not: a branch would be mispredicted half of the time. */
            p->list[n] = make_entry((uint32_t)(cell * cell_rows) + (uint32_t)from[0], none);
            n += count & odd;
        }
    }
    return n;
}

/* Sort the list of n entries by group into p->split; w becomes the row of the group's weights. */
static void split_groups(gatherer *p, int n) {
    const fd_step *s = p->s;
    const uint32_t all = (uint32_t)s->source.channels, channels = all / (uint32_t)s->groups;
    memset(p->bounds, 0, sizeof(int) * (s->groups + 1));
    for (int e = 0; e < n; e++) p->bounds[entry_w(p->list[e]) % all / channels + 1]++;
    for (int g = 0; g < s->groups; g++) p->bounds[g + 1] += p->bounds[g];
    for (int e = 0; e < n; e++) {
        const uint32_t w = (uint32_t)entry_w(p->list[e]), tap = w / all, c = w % all;
        p->split[p->bounds[c / channels]++] =
            make_entry((uint32_t)entry_v(p->list[e]), tap * channels + c % channels);
    }
    memmove(p->bounds + 1, p->bounds, sizeof(int) * s->groups);
    p->bounds[0] = 0;
}

/* Prefetching reads beyond the end of a list. */
FD_INLINE void end_list(entry *list, int n) {
    for (int e = 0; e <= AHEAD; e++) list[n + e] = n ? list[n - 1] : 0;
}

#endif
