/* One map of a feature through one transposed convolution, on planes.
 *
 * What    For features of the network's lowest convolution. Each is a single map (pooled, with
 *         switches) that becomes a few planes. Features share nothing, and there is little to
 *         compute. So there are no lanes, and one pass: unpool the map (windows do not overlap)
 *         into a padded plane that stays in cache, then out[c] = sum over taps of weight * plane.
 * Layout  values (feature, cell), switches (channel, cell), weight (feature, cout, kh, kw), out
 *         planes. Stride 1 only.
 * Mix     per tap and vector of neighbouring columns: 1 load, 1 FMA; 1 broadcast per 4 vectors.
 * Numbers float32, vf_fma over taps row-major: the bits of the First kernel in project.c.
 */
#include "units.h"

/* The padded plane: place (0, 0) of the map lies at (row0, col0) of it. */
typedef struct {
    float *at;
    int rows, cols, row0, col0;
    ptrdiff_t *offset; /* of each place of a window; dividing for every value costs more than all
                        * the rest */
} plane;

static void unpool(const fd_single *s, int k, const plane *p) {
    const fd_window *w = &s->pool;
    const size_t cells = (size_t)s->cells_h * s->cells_w, first = s->features[k] * cells;
    const float *value = s->values + k * cells;
    const int below = (w->kh - 1) * w->dh, beside = (w->kw - 1) * w->dw;
    memset(p->at, 0, sizeof(float) * p->rows * p->cols);
    for (int y = 0, cell = 0; y < s->cells_h; y++)
        for (int x = 0; x < s->cells_w; x++, cell++) {
            const uint32_t place =
                s->switches ? fd_switch(s->switches, s->switch_bytes, first + cell) : 0;
            const int row0 = p->row0 + y * w->sh - w->top, col0 = p->col0 + x * w->sw - w->left;
            if (row0 < 0 || row0 + below >= p->rows || col0 < 0 || col0 + beside >= p->cols) {
                /* A place outside reaches no output. */
                const int row = row0 + (int)place / w->kw * w->dh;
                const int col = col0 + (int)place % w->kw * w->dw;
                if (row < 0 || row >= p->rows || col < 0 || col >= p->cols) continue;
            }
            p->at[row0 * (ptrdiff_t)p->cols + col0 + p->offset[place]] = value[cell];
        }
}

/* Vectors x, x + VW, ... of one output row. */
FD_INLINE void correlate(const fd_single *s, const plane *p, const float *weight, int y, int x,
                         float *out, const int vectors) {
    const fd_window *k = &s->conv;
    vf acc[4];
    FD_UNROLL
    for (int v = 0; v < vectors; v++) acc[v] = vf_zero();
    for (int i = 0; i < k->kh; i++)
        for (int j = 0; j < k->kw; j++) {
            const float *from = p->at + (size_t)(y + (k->kh - 1 - i) * k->dh) * p->cols + x +
                                (k->kw - 1 - j) * k->dw;
            const vf w = vf_set1(weight[i * k->kw + j]);
            FD_UNROLL
            for (int v = 0; v < vectors; v++) acc[v] = vf_fma(w, vf_load(from + v * VW), acc[v]);
        }
    FD_UNROLL
    for (int v = 0; v < vectors; v++) {
        const int left = s->out_w - x - v * VW;
        if (left >= VW)
            vf_store(out + x + v * VW, acc[v]);
        else {
            float lanes[VW];
            vf_store(lanes, acc[v]);
            for (int l = 0; l < left; l++) out[x + v * VW + l] = lanes[l];
        }
    }
}

static void project_feature(const fd_single *s, const plane *p, int f) {
    const fd_window *k = &s->conv;
    unpool(s, f, p);
    for (int c = 0; c < s->cout; c++) {
        const float *weight = s->weight + ((size_t)f * s->cout + c) * k->kh * k->kw;
        float *to = s->out + s->rows[f] * s->out_feature + c * s->out_plane;
        for (int y = 0; y < s->out_h; y++, to += s->out_row)
            for (int x = 0; x < s->out_w; x += 4 * VW) {
                if (s->out_w - x > 2 * VW)
                    correlate(s, p, weight, y, x, to, 4);
                else if (s->out_w - x > VW)
                    correlate(s, p, weight, y, x, to, 2);
                else
                    correlate(s, p, weight, y, x, to, 1);
            }
    }
}

int FD_NAME(fd_single_features)(const fd_single *s, int k0, int k1) {
    const fd_window *k = &s->conv, *w = &s->pool;
    const int reach_h = (k->kh - 1) * k->dh, reach_w = (k->kw - 1) * k->dw;
    plane p = {.rows = s->out_h + reach_h, .row0 = reach_h - k->top, .col0 = reach_w - k->left};
    /* Vectors read on past the last column. */
    p.cols = s->out_w + reach_w + 4 * VW;
    p.at = fd_scratch((size_t)p.rows * p.cols);
    p.offset = malloc(sizeof(ptrdiff_t) * w->kh * w->kw);
    const int ok = p.at && p.offset;
    if (ok) {
        for (int i = 0; i < w->kh; i++)
            for (int j = 0; j < w->kw; j++)
                p.offset[i * w->kw + j] = (ptrdiff_t)i * w->dh * p.cols + j * w->dw;
        for (int f = k0; f < k1; f++) project_feature(s, &p, f);
    }
    free(p.at);
    free(p.offset);
    return ok ? 0 : -1;
}
