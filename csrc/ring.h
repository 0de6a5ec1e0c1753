/* What    The ring of output rows that the last step (last_step.h) adds to, and how rows leave it: to
 *         the output planes, or, where two bands contribute to them, aside.
 * Layout  A row has a margin left of column 0, as wide as the padding: (column, channel, lane). Of few
 *         features each has a row of its own, (column, channel), one after the other.
 * Mix     Copies and transpositions; rows are in cache.
 * Numbers Nothing is computed here.
 */
#ifndef FD_RING_H
#define FD_RING_H

#include "gather.h"
#include "layout.h"

typedef struct {
    const fd_last *f;
    int reach, advance;   /* output rows that one row of cells contributes to; output rows from
                           * one row of cells to the next */
    ptrdiff_t row;        /* elements of one output row, margins included. Of few features each has
                           * a row of its own, one after the other */
    ptrdiff_t feature;    /* elements of one of these rows */
    int margin;           /* columns left of column 0 */
    int ring_rows;
    float *ring;          /* output rows, which are being summed: as many as the rows of cells that
                           * are computed together contribute to */
    float **rows;         /* `reach` of them, in the order in which the current row of cells sees
                           * them */
    entry *list;          /* the channels at one place of a cell, ... */
    const int32_t *listed; /* ... which are these; NULL: it is empty */
    float **targets;      /* where the sum of each (tap, channel) of one place is added; of few
                           * features: for the first one, of all places of the cell in column 0 */
    float *sums;          /* by feature: the sums of one place, [feature][(tap, channel)] */
} scatterer;

static void last_reach(const fd_last *f, int *reach, int *advance, ptrdiff_t *row) {
    const fd_window *k = &f->conv, *p = &f->source.pool;
    const int span = (p->kh - 1) * p->dh * k->sh + (k->kh - 1) * k->dh + 1;
    const int right = (f->source.w - 1) * k->sw - k->left + (k->kw - 1) * k->dw + 1;
    *advance = p->sh * k->sh;
    /* With a large stride, rows may lie between two rows of cells that neither contributes to. They
     * count as the upper one's. */
    *reach = span > *advance ? span : *advance;
    *row = (ptrdiff_t)(k->left + (right > f->out_w ? right : f->out_w)) * f->cout * f->kp;
}

static void scatterer_free(scatterer *p) {
    free(p->ring);
    free(p->rows);
    free(p->list);
    free(p->targets);
    free(p->sums);
}

static int scatterer_init(scatterer *p, const fd_last *f, int together) {
    p->f = f;
    last_reach(f, &p->reach, &p->advance, &p->row);
    p->feature = p->row / f->kp;
    p->margin = f->conv.left;
    p->ring_rows = p->reach + (together - 1) * p->advance;
    p->ring = fd_scratch((size_t)p->ring_rows * p->row);
    p->rows = malloc(sizeof(float *) * p->reach);
    p->list = malloc(sizeof(entry) * ((size_t)f->source.channels + FD_LIST_ROOM));
    const int places = f->nv ? 1 : f->source.pool.kh * f->source.pool.kw;
    p->targets = malloc(sizeof(float *) * places * f->conv.kh * f->conv.kw * f->cout);
    p->sums = fd_scratch((size_t)padded(f->conv.kh * f->conv.kw * f->cout) * f->kp);
    if (!p->ring || !p->rows || !p->list || !p->targets || !p->sums) {
        scatterer_free(p);
        return 0;
    }
    p->listed = NULL;
    memset(p->ring, 0, sizeof(float) * p->ring_rows * p->row);
    return 1;
}

static float *ring_row(const scatterer *p, int cell_row, int i) {
    return p->ring + (size_t)(((long)cell_row * p->advance + i) % p->ring_rows) * p->row;
}

/* Copies a finished output row to the output planes, where it belongs to the output. */
static void flush_row(const scatterer *p, const float *row, int y) {
    const fd_last *f = p->f;
    if (y < 0 || y >= f->out_h) return;
    const ptrdiff_t lanes = f->nv ? f->kp : 1, pixel = f->cout * lanes;
    float *out = f->out + y * f->out_row;
    row += p->margin * pixel;
    for (int c = 0; c < f->cout; c++, row += lanes, out += f->out_plane) {
        if (f->nv)
            fd_transpose(row, pixel, out, f->out_feature, f->rows, f->out_w, f->features);
        for (int k = 0; !f->nv && k < f->features; k++)
            fd_transpose(row + k * p->feature, pixel, out, f->out_feature, f->rows + k, f->out_w,
                         1);
    }
}

/* The first output row that cell row Y contributes to; it may lie above the output. */
static int base_row(const fd_last *f, int Y) {
    return (Y * f->source.pool.sh - f->source.pool.top) * f->conv.sh - f->conv.top;
}

/* The first row of cells of a band. */
static int band_row(const fd_last *f, int band) { return band ? band * f->band - f->skip : 0; }

static float *side_row(const scatterer *p, int band, int bottom, int i) {
    const int shared = p->reach - p->advance;
    return p->f->side + (((size_t)band * 2 + bottom) * shared + i) * p->row;
}

/* Rows first..last-1 of those that cell row Y contributes to have got everything that this band
 * sends them. Takes them out of the ring: to the output, or aside if the band above contributes to
 * them as well. */
static void retire_rows(scatterer *p, int band, int Y, int first, int last) {
    const fd_last *f = p->f;
    const int shared = p->reach - p->advance, offset = (Y - band_row(f, band)) * p->advance;
    for (int i = first; i < last; i++) {
        float *row = ring_row(p, Y, i);
        if (band > 0 && offset + i < shared)
            memcpy(side_row(p, band, 0, offset + i), row, sizeof(float) * p->row);
        else
            flush_row(p, row, base_row(f, Y) + i);
        memset(row, 0, sizeof(float) * p->row);
    }
}

static void begin_row(scatterer *p, int Y) {
    for (int i = 0; i < p->reach; i++) p->rows[i] = ring_row(p, Y, i);
}

#endif
