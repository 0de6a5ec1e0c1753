/* Lists of the values that contribute to an output pixel.
 *
 * What    On the way back through [convolution, pool], every cell of the pooled tensor has one
 *         value for each channel. Unpooling puts it at the place that its switch names;
 *         `sort_cells` has sorted the channels of every cell by place. An output pixel of the
 *         transposed convolution reads at most one place for each tap of the kernel. Its list names
 *         all values at these places, tap after tap. Where windows overlap, a place belongs to
 *         several cells, each of which has other channels there (overlap.c).
 * Layout  An entry is a number of 64 bits: which row of V, and which row of the packed weights.
 * Mix     The entries of a tap are copied FD_COPY at a time, and at least twice that many, even if
 *         there are fewer: the end of a loop of one or two turns is mispredicted half of the time,
 *         which costs more than copying too many.
 * Numbers The order of a list is the order in which products are added.
 */
#ifndef FD_GATHER_H
#define FD_GATHER_H

#include "units.h"

/* The lower half is a row of V, (cell, channel); in the layout by feature, the element of V that
 * has the value of feature 0. The upper half is a row of the packed weights, (tap, channel). They
 * are one number so that one addition changes both. */
typedef uint64_t entry;

FD_INLINE entry make_entry(uint32_t v, uint32_t w) { return (entry)w << 32 | v; }
FD_INLINE size_t entry_v(entry e) { return (uint32_t)e; }
FD_INLINE size_t entry_w(entry e) { return (size_t)(e >> 32); }

/* Which row (or column) of cells a row (or column) of the unpooled tensor comes from. */
typedef struct {
    int cell;  /* -1: from none */
    int place; /* the row (or column) within the window of the cell */
    int tap;   /* the row (or column) of the convolution's kernel that reads it */
} origin;

/* The pool's windows along one axis. */
typedef struct {
    int pad, stride, dilation, kernel, cells;
    int windows; /* the most windows that one place can lie in */
} pool_axis;

FD_INLINE pool_axis make_axis(int pad, int stride, int dilation, int kernel, int cells) {
    return (pool_axis){pad, stride, dilation, kernel, cells, (kernel - 1) * dilation / stride + 1};
}

typedef struct {
    const fd_step *s;
    entry *list;
    entry *split;    /* only with groups: the list, sorted by group */
    int *bounds;     /* (groups + 1): where the entries of each group begin in `split` */
    pool_axis high, wide;
    origin *columns; /* (output columns, kernel columns, windows) */
    origin *rows;    /* (kernel rows, windows), for output row Y */
    int Y;
    float *scratch;  /* scratch space of the product */
} gatherer;

/* Along one axis: where position p of the unpooled tensor comes from. Of the windows that may cover
 * it, takes the one that lies `before` windows before the last. */
static origin covering(int p, const pool_axis *a, int before, int tap) {
    const int cell = (p + a->pad) / a->stride - before, offset = p + a->pad - cell * a->stride;
    const origin o = {cell, offset / a->dilation, tap};
    if (cell >= 0 && cell < a->cells && offset % a->dilation == 0 && o.place < a->kernel) return o;
    return (origin){-1, 0, tap};
}

/* Along one axis: what tap t sends to position q of the output, as one origin for each window. */
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

/* What the first n rows of the kernel send to output row Y. */
static void find_rows(const fd_step *s, int Y, int n, const pool_axis *high, origin *rows) {
    const fd_window *k = &s->conv;
    for (int i = 0; i < n; i++)
        reaching(Y, k->top, i, k->dh, k->sh, s->source.h, high, rows + i * high->windows);
}

FD_INLINE void copy_entries(entry *restrict to, const int32_t *restrict from, entry first) {
    for (int i = 0; i < FD_COPY; i++) {
        const uint32_t c = (uint32_t)from[i];
        to[i] = first + make_entry(c, c);
    }
}

/* Appends the n channels of one place as entries. first: the entry of channel 0. Writes up to
 * FD_LIST_ROOM entries more. */
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

/* Lists all entries that contribute to output pixel (Y, X), of all groups; returns how many they
 * are. In bfloat16, entries are multiplied in pairs. There the entries of each place are made even
 * by one whose weights are a row of zeros, so that the pairs, and with them the bits, do not depend
 * on which part of a map is computed. */
static int gather(gatherer *p, int Y, int X) {
    const fd_step *s = p->s;
    const fd_source *f = &s->source;
    const size_t cell_rows = (size_t)f->channels * (s->nv ? 1 : s->kp);
    const int from_rows = s->conv.kh * p->high.windows, from_columns = s->conv.kw * p->wide.windows;
    const origin *columns = p->columns + (size_t)X * from_columns;
    const uint32_t none = (uint32_t)(s->conv.kh * s->conv.kw * f->channels);
    const int odd = s->bf16 != NULL;
    int n = 0;
    if (p->Y != Y) find_rows(s, p->Y = Y, s->conv.kh, &p->high, p->rows);
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
            /* Written even if it is not needed: a branch would be mispredicted half of the time. */
            p->list[n] = make_entry((uint32_t)(cell * cell_rows) + (uint32_t)from[0], none);
            n += count & odd;
        }
    }
    return n;
}

/* Sorts the list of n entries by group into p->split. The rows of the weights then count within the
 * weights of their group. */
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

/* Repeats the last entry behind the end of a list, where prefetching reads up to AHEAD entries. */
FD_INLINE void end_list(entry *list, int n) {
    for (int e = 0; e <= AHEAD; e++) list[n + e] = n ? list[n - 1] : 0;
}

#endif
