/* What    The step to the network's input, fused with the step above it. Each pixel of that step
 *         (channels x lanes, the panel) is scattered into a ring of output rows (ring.h) while it is
 *         in cache; the tensor between the two steps never exists. Where a pool with overlapping
 *         windows (overlap.c) lies between the two, that tensor is needed as a whole and is read
 *         from memory.
 * Bands   Work is divided into bands of rows of a fixed height. Rows that two bands contribute to are
 *         kept aside, and added in `fd_last_seam`. Where the step above computes two rows together,
 *         both are scattered meanwhile (produce_rows).
 * Layout  As in project.c; every pair (tap, channel) counts as an output channel.
 * Mix     See product.h, and squares.h for most networks' 3 x 3 taps.
 * Numbers float32, vf_fma in list order, then sums from left to right and from the upper row down.
 */
#ifndef FD_LAST_STEP_H
#define FD_LAST_STEP_H

#include "squares.h"
#include "step.h"

/* Finds the targets of place (i, j) of a cell in column X. */
static void find_targets(scatterer *p, int X, int i, int j) {
    const fd_last *f = p->f;
    const fd_window *k = &f->conv, *pool = &f->source.pool;
    const int x = X * pool->sw - pool->left + j * pool->dw, lanes = f->nv ? f->kp : 1;
    float **target = p->targets;
    for (int a = 0; a < k->kh; a++) {
        float *row = p->rows[i * pool->dh * k->sh + a * k->dh];
        for (int b = 0; b < k->kw; b++) {
            /* The margin is as wide as the padding. A place left of it lies in the pool's own
             * padding: no switch names it, so nothing is stored there. */
            const ptrdiff_t column = x * k->sw + b * k->dw;
            for (int c = 0; c < f->cout; c++)
                *target++ = row + (column * f->cout + c) * lanes;
        }
    }
}

/* NV vectors of the (tap, channel) sums of one place, for a single feature. `width`: floats in a
 * row of W. */
FD_INLINE void place_product(const int32_t *from, int n, const float *panel, const float *weight,
                             const int width, float *sums, const int NV) {
    vf acc[4];
    FD_UNROLL
    for (int j = 0; j < NV; j++) acc[j] = vf_zero();
    for (int e = 0; e < n; e++) {
        const float *w = weight + (ptrdiff_t)from[e] * width;
        const vf x = vf_set1(panel[from[e]]);
        FD_UNROLL
        for (int j = 0; j < NV; j++) acc[j] = vf_fma(vf_load(w + j * VW), x, acc[j]);
    }
    FD_UNROLL
    for (int j = 0; j < NV; j++) vf_store(sums + j * VW, acc[j]);
}

#define PLACE_CASE(NV) \
    case NV: place_product(from, n, panel, f->weight, NV * VW, p->sums, NV); break;

/* Sums what channels from[0..n-1] of a cell send, for a single feature. */
static void sum_place_of_one(const scatterer *p, const int32_t *from, int n, const float *panel,
                             int outs) {
    const fd_last *f = p->f;
    const int width = padded(outs);
    switch (width / VW) {
        PLACE_CASE(1) PLACE_CASE(2) PLACE_CASE(3) PLACE_CASE(4)
        default:
            for (int o = 0; o < width; o += VW)
                place_product(from, n, panel, f->weight + o, width, p->sums + o, 1);
    }
}

/* p->list: channels from[0..n-1] of a cell. */
static void list_channels(scatterer *p, const int32_t *from, int n) {
    /* Where there are no switches all cells have the same channels. */
    if (from == p->listed) return;
    append(p->list, from, n, 0);
    end_list(p->list, n);
    p->listed = from;
}

/* The same for few features: p->sums[feature][(tap, channel)]. */
static void sum_place(scatterer *p, const int32_t *from, int n, const float *panel, int outs) {
    static const fd_post nothing = {0};
    const fd_last *f = p->f;
    const feature_block b = {panel, f->source.channels, f->weight, padded(outs), p->sums, outs,
                             outs, &nothing, 0};
    list_channels(p, from, n);
    product_by_feature(&b, p->list, n, f->kp);
}

static void scatter_lanes(scatterer *p, const entry *list, int n, const float *panel, int outs) {
    const fd_last *f = p->f;
    const int nc = tile_nc[f->nv];
    for (int k = 0; k < f->kp; k += f->nv * VW) {
        const lane_rows v = {panel + k, f->kp};
        for (int o = 0; o < outs; o += nc) {
            const ring_block to = {p->targets + o};
            CALL_BLOCK(product_to_ring, f->nv, list, n, &v,
                       f->weight + (size_t)f->source.channels * o, &to,
                       outs - o < nc ? outs - o : nc);
        }
        for (int o = 0; o < outs; o++) p->targets[o] += f->nv * VW;
    }
}

/* Finds the targets of all places of the cell in column 0 of the current row of cells. */
static void find_first_targets(scatterer *p) {
    const fd_window *pool = &p->f->source.pool;
    const int outs = p->f->conv.kh * p->f->conv.kw * p->f->cout;
    float **all = p->targets;
    for (int i = 0; i < pool->kh; i++)
        for (int j = 0; j < pool->kw; j++, p->targets += outs) find_targets(p, 0, i, j);
    p->targets = all;
}

/* Adds what one cell sends to the ring, for few features. */
static void scatter_by_feature(scatterer *p, int Y, int X, const float *panel) {
    const fd_last *f = p->f;
    const fd_source *s = &f->source;
    const int places = s->pool.kh * s->pool.kw, outs = f->conv.kh * f->conv.kw * f->cout;
    /* From the targets of the cell in column 0 to those of this one. */
    const ptrdiff_t x = (ptrdiff_t)X * s->pool.sw * f->conv.sw * f->cout;
    for (int q = 0; q < places; q++) {
        int n;
        const int32_t *from = at_place(s, Y, X, q, &n);
        float *const *to = p->targets + q * outs;
        if (!n) continue;
        if (f->kp == 1)
            sum_place_of_one(p, from, n, panel, outs);
        else
            sum_place(p, from, n, panel, outs);
        for (int k = 0; k < f->kp; k++)
            for (int o = 0; o < outs; o++) to[o][x + k * p->feature] += p->sums[k * outs + o];
    }
}

/* Adds what one cell, whose values are `panel` (channels x lanes), sends to the ring. */
static void scatter(scatterer *p, int Y, int X, const float *panel) {
    const fd_last *f = p->f;
    const fd_source *s = &f->source;
    const int kw = s->pool.kw, places = s->pool.kh * kw;
    const int outs = f->conv.kh * f->conv.kw * f->cout;
    if (!f->nv) {
        scatter_by_feature(p, Y, X, panel);
        return;
    }
    for (int q = 0; q < places; q++) {
        int n;
        const int32_t *from = at_place(s, Y, X, q, &n);
        if (!n) continue;
        list_channels(p, from, n);
        find_targets(p, X, q / kw, q % kw);
        scatter_lanes(p, p->list, n, panel, outs);
    }
}

/* The same for several neighbouring cells. */
static void scatter_columns(scatterer *p, int Y, int X, int columns, const float *panel) {
    const ptrdiff_t pixel = (ptrdiff_t)p->f->source.channels * p->f->kp;
#if VW >= 8
    if (sums_squares(p->f)) {
        scatter_all_squares(p, Y, X, columns, panel);
        return;
    }
#endif
#if VW == 16
    if (columns > 1 && sums_pairs(p->f)) {
        const int pairs = columns / 2;
        if (p->f->nv)
            scatter_pairs_of_lanes(p, X, pairs, panel);
        else
            scatter_all_pairs(p, X, pairs, panel);
        X += 2 * pairs;
        columns -= 2 * pairs;
        panel += 2 * pairs * pixel;
    }
#endif
    for (int i = 0; i < columns; i++) scatter(p, Y, X + i, panel + i * pixel);
}

/* How many columns behind the cells of the upper row those of a lower row are scattered where two
 * rows are computed together. They then reach no output that the upper row still contributes to, so
 * that every output gets its sums in the same order as row by row. */
static int lag(const fd_last *f) {
    const fd_window *k = &f->conv, *pool = &f->source.pool;
    const int span = (pool->kw - 1) * pool->dw * k->sw + (k->kw - 1) * k->dw + 1;
    return (span - 1) / (pool->sw * k->sw);
}

/* Rows of cells Y..Y+n-1, which the step above computes together. In `panel` every row has room for
 * the pixels that wait to be scattered. */
static void produce_rows(scatterer *p, stepper *above, int Y, int n, float *panel) {
    const fd_last *f = p->f;
    const ptrdiff_t pixel = (ptrdiff_t)f->source.channels * f->kp;
    const int columns = f->source.cells_w, behind = lag(f), room = behind + 1;
    for (int x = 0; x < columns + (n - 1) * behind; x++) {
        if (x < columns)
            step_pixels_below(above, Y, n, x, panel + x % room * pixel, room * pixel);
        for (int i = 0; i < n; i++) {
            const int column = x - i * behind;
            if (column < 0 || column >= columns) continue;
            begin_row(p, Y + i);
            scatter(p, Y + i, column, panel + (i * room + column % room) * pixel);
        }
    }
}

static void produce_row(scatterer *p, stepper *above, int Y, float *panel) {
    const fd_last *f = p->f;
    const int columns = f->source.cells_w;
    begin_row(p, Y);
    if (!f->nv) find_first_targets(p);
    if (f->step) {
        for (int x = 0, n; x < columns; x += n) {
            n = columns_from(f->step, x, columns);
            scatter_columns(p, Y, x, n, step_columns(above, Y, x, n, panel));
        }
        return;
    }
    if (f->v) {
        const size_t row = (size_t)f->source.channels * f->kp * columns;
        scatter_columns(p, Y, 0, columns, f->v + Y * row);
        return;
    }
    const ptrdiff_t pixel = (ptrdiff_t)f->first->cout * f->kp;
    /* In a strided convolution only every stride-th column has the same taps. But columns must be
     * added to the ring from left to right, so they are computed one by one. */
    const int most = f->first->conv.sw == 1 ? COLUMNS : 1;
    for (int x = 0; x < columns; x += most) {
        const int n = columns - x < most ? columns - x : most;
        first_columns(f->first, Y, x, n, panel, pixel);
        scatter_columns(p, Y, x, n, panel);
    }
}

static void produce_band(scatterer *p, stepper *above, int band, float *panel) {
    const fd_last *f = p->f;
    const int cells = f->source.cells_h, row0 = band_row(f, band), next = band_row(f, band + 1);
    const int row1 = next < cells ? next : cells;
    for (int y = row0, n; (n = f->step ? next_rows(above, row1 - y) : y < row1); y += n) {
        if (n > 1)
            produce_rows(p, above, y, n, panel);
        else
            produce_row(p, above, y, panel);
        for (int i = 0; i < n; i++) retire_rows(p, band, y + i, 0, p->advance);
    }
    if (row1 == cells) {
        retire_rows(p, band, row1 - 1, p->advance, p->reach);
        /* Output rows below, which nothing contributes to: any row of the ring will do, as all of
         * them are zero now. */
        for (int y = base_row(f, row1 - 1) + p->reach; y < f->out_h; y++)
            flush_row(p, p->ring, y);
        return;
    }
    for (int i = p->advance; i < p->reach; i++) {
        float *row = ring_row(p, row1 - 1, i);
        memcpy(side_row(p, band, 1, i - p->advance), row, sizeof(float) * p->row);
        memset(row, 0, sizeof(float) * p->row);
    }
}

#endif
