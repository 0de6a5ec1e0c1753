/* A single map of each feature through one transposed convolution, on planes.
 *
 * What    The way back for features of the network's lowest convolution. Each feature is a single
 *         map (pooled, with switches) that becomes a few planes. Features share nothing, and there
 *         is little to compute, so they are not put into the lanes. Instead, for each feature, the
 *         map is unpooled (its windows do not overlap) into some rows of a padded plane, which stay
 *         in L1; then out[c] = sum over taps of weight[c][tap] * plane.
 * Layout  values (feature, cell), switches (channel, cell), weight (feature, cout, kh, kw), out
 *         planes. Neighbouring columns are in the lanes. Stride 1 only.
 * Mix     Per tap and vector of columns: 1 FMA; half a load, since four output rows are computed
 *         together and share most of the rows they read; 1 broadcast per 4 vectors.
 *         On AVX-512 the loads of 3 x 3 taps are shifts of vectors in registers.
 * Numbers float32, one vf_fma per tap, taps in row-major order: the same bits as the First kernel
 *         in first_step.h.
 */
#include "units.h"

/* Bytes of the rows of a plane that are worked on together. */
#define ROWS_BYTES 24576

/* What has been timed to be faster with vectors of 16 only. */
#define WIDE (VW == 16)

/* Some rows of the padded plane. Pixel (0, 0) of the unpooled map lies at (row0, col0) of these
 * rows; row0 is negative where they begin further down. */
typedef struct {
    float *at;
    int rows, cols, row0, col0;
    ptrdiff_t *offset; /* where each place of a window lies from its first one. From a table, since
                        * a division for every value would cost more than all the rest */
} plane;

/* Unpools cells first..last-1 of a row of cells. The window of cell 0 begins at (row0, col0). */
static void unpool_row(const fd_single *s, size_t channel, const float *value, const plane *p,
                       int first, int last, int row0, int col0) {
    const fd_window *w = &s->pool;
    const int below = (w->kh - 1) * w->dh, beside = (w->kw - 1) * w->dw;
    for (int x = first; x < last; x++) {
        const uint32_t place =
            s->switches ? fd_switch(s->switches, s->switch_bytes, channel + x) : 0;
        const int begin = col0 + x * w->sw;
        if (row0 < 0 || row0 + below >= p->rows || begin < 0 || begin + beside >= p->cols) {
            /* The window is not entirely in these rows. What is outside does not reach the output
             * rows that are computed from them. */
            const int row = row0 + (int)place / w->kw * w->dh;
            const int col = begin + (int)place % w->kw * w->dw;
            if (row < 0 || row >= p->rows || col < 0 || col >= p->cols) continue;
        }
        p->at[row0 * (ptrdiff_t)p->cols + begin + p->offset[place]] = value[x];
    }
}

typedef uint32_t __attribute__((may_alias)) float_bits;

/* Writes one row of the windows of n cells, where windows are two columns wide: the values whose
 * switch is `place` or `place` + 1, and zeros.
 *
 * It works on bits. With conditions, the last columns, which are too few for a vector, would be
 * branches that no processor foresees. */
static void unpool_pairs(const float *values, const uint8_t *restrict switches, int n, int place,
                         float *unpooled) {
    const float_bits *restrict value = (const float_bits *)values;
    float_bits *restrict to = (float_bits *)unpooled;
    for (int x = 0; x < n; x++) {
        to[2 * x] = value[x] & -(uint32_t)(switches[x] == place);
        to[2 * x + 1] = value[x] & -(uint32_t)(switches[x] == place + 1);
    }
}

static void unpool(const fd_single *s, int k, const plane *p) {
    const fd_window *w = &s->pool;
    const size_t cells = (size_t)s->cells_h * s->cells_w, first = s->features[k] * cells;
    const int below = (w->kh - 1) * w->dh, col0 = p->col0 - w->left;
    /* Nearly all pools are such: they can be unpooled by vector code, since no address depends on a
     * switch. */
    const int pairs = s->switches && s->switch_bytes == 1 && w->kw == 2 && w->sw == 2 &&
                      w->dw == 1 && col0 >= 0;
    const int whole = (p->cols - col0) / 2;
    const int inside = !pairs ? 0 : whole < s->cells_w ? whole : s->cells_w;
    memset(p->at, 0, sizeof(float) * p->rows * p->cols);
    for (int y = 0; y < s->cells_h; y++) {
        const int row0 = p->row0 + y * w->sh - w->top;
        if (row0 + below < 0) continue;
        if (row0 >= p->rows) break;
        const size_t cell = (size_t)y * s->cells_w;
        const float *value = s->values + k * cells + cell;
        for (int i = 0; i < w->kh && pairs; i++) {
            const int row = row0 + i * w->dh;
            if (row < 0 || row >= p->rows) continue;
            unpool_pairs(value, (const uint8_t *)s->switches + first + cell, inside, 2 * i,
                         p->at + (size_t)row * p->cols + col0);
        }
        unpool_row(s, first + cell, value, p, inside, s->cells_w, row0, col0);
    }
}

/* Output rows that are computed together where the kernel is not dilated vertically. A vector that
 * is loaded once serves up to kh of them. */
#define ROWS (FD_REGISTERS >= 32 ? 4 : 2)

#if VW == 16
/* Elements n..n+15 of two vectors, one after the other; n is a constant after inlining. */
FD_INLINE vf shifted(vf a, vf b, const int n) {
#define SHIFT_CASE(N) case N: return _mm512_castsi512_ps( \
        _mm512_alignr_epi32(_mm512_castps_si512(b), _mm512_castps_si512(a), N));
    switch (n) {
        SHIFT_CASE(1) SHIFT_CASE(2)
        default: return a;
    }
#undef SHIFT_CASE
}
#endif

/* Adds what row `row` of the plane, counted from y on, sends to `rows` output rows. kw: 0: any. */
FD_INLINE void add_row(const fd_single *s, const plane *p, const float *weight, int y, int x,
                       int row, vf acc[4][4], const int kh, const int kw, const int rows,
                       const int vectors) {
    const fd_window *k = &s->conv;
    const float *from = p->at + (size_t)(y + row * k->dh) * p->cols + x;
#if VW == 16
    /* Most of these loads would touch two lines. To shift what has been loaded is faster with three
     * columns of taps, and slower with five. */
    if (kw) {
        vf whole[5];
        FD_UNROLL
        for (int v = 0; v <= vectors; v++) whole[v] = vf_load(from + v * VW);
        FD_UNROLL
        for (int j = 0; j < kw; j++) {
            vf a[4];
            FD_UNROLL
            for (int v = 0; v < vectors; v++) a[v] = shifted(whole[v], whole[v + 1], kw - 1 - j);
            FD_UNROLL
            for (int r = 0; r < rows; r++) {
                const int i = kh - 1 - row + r;
                if (i < 0 || i >= kh) continue;
                const vf w = vf_set1(weight[i * kw + j]);
                FD_UNROLL
                for (int v = 0; v < vectors; v++) acc[r][v] = vf_fma(w, a[v], acc[r][v]);
            }
        }
        return;
    }
#else
    (void)kw;
#endif
    for (int j = 0; j < k->kw; j++) {
        vf a[4];
        FD_UNROLL
        for (int v = 0; v < vectors; v++)
            a[v] = vf_load(from + (k->kw - 1 - j) * k->dw + v * VW);
        FD_UNROLL
        for (int r = 0; r < rows; r++) {
            const int i = kh - 1 - row + r;
            if (i < 0 || i >= kh) continue;
            const vf w = vf_set1(weight[i * k->kw + j]);
            FD_UNROLL
            for (int v = 0; v < vectors; v++) acc[r][v] = vf_fma(w, a[v], acc[r][v]);
        }
    }
}

/* `rows` output rows from y on, `vectors` vectors of columns from x on. These numbers are constants
 * after inlining, and so are KH and KW, the size of the kernel; 0: any. */
FD_INLINE void correlate(const fd_single *s, const plane *p, const float *weight, int y, int x,
                         float *out, const int rows, const int vectors, const int KH,
                         const int KW) {
    vf acc[4][4];
    FD_UNROLL
    for (int r = 0; r < rows; r++)
        FD_UNROLL
        for (int v = 0; v < vectors; v++) acc[r][v] = vf_zero();
    /* From the last row of the plane upwards, since an output row needs its first taps from its
     * last rows, and taps are added in row-major order. */
    if (KH) {
        /* Unrolled, so that nobody asks which output rows a row reaches. */
        FD_UNROLL
        for (int row = KH + rows - 2; row >= 0; row--)
            add_row(s, p, weight, y, x, row, acc, KH, KW, rows, vectors);
    } else {
        const int kh = s->conv.kh;
        for (int row = kh + rows - 2; row >= 0; row--)
            add_row(s, p, weight, y, x, row, acc, kh, 0, rows, vectors);
    }
    FD_UNROLL
    for (int r = 0; r < rows; r++, out += s->out_row)
        FD_UNROLL
        for (int v = 0; v < vectors; v++) {
            const int left = s->out_w - x - v * VW;
            if (left >= VW)
                vf_store(out + x + v * VW, acc[r][v]);
            else {
                float lanes[VW];
                vf_store(lanes, acc[r][v]);
                for (int l = 0; l < left; l++) out[x + v * VW + l] = lanes[l];
            }
        }
}

FD_INLINE void correlate_columns(const fd_single *s, const plane *p, const float *weight, int y,
                                 float *to, const int rows, const int KH, const int KW) {
    for (int x = 0; x < s->out_w; x += 4 * VW) {
        const int left = s->out_w - x;
        if (left > (WIDE ? 3 : 2) * VW)
            correlate(s, p, weight, y, x, to, rows, 4, KH, KW);
        else if (WIDE && left > 2 * VW)
            correlate(s, p, weight, y, x, to, rows, 3, KH, KW);
        else if (left > VW)
            correlate(s, p, weight, y, x, to, rows, 2, KH, KW);
        else
            correlate(s, p, weight, y, x, to, rows, 1, KH, KW);
    }
}

static void correlate_rows(const fd_single *s, const plane *p, const float *weight, int y,
                           float *to) {
    const fd_window *k = &s->conv;
    if (WIDE && k->kh == 3 && k->kw == 3 && k->dw == 1)
        correlate_columns(s, p, weight, y, to, ROWS, 3, 3);
    else if (WIDE && k->kh == 5)
        correlate_columns(s, p, weight, y, to, ROWS, 5, 0);
    else
        correlate_columns(s, p, weight, y, to, ROWS, 0, 0);
}

/* `count` output rows of feature f, from y0 on. */
static void project_rows(const fd_single *s, const plane *p, int f, int y0, int count) {
    const fd_window *k = &s->conv;
    unpool(s, f, p);
    for (int c = 0; c < s->cout; c++) {
        const float *weight = s->weight + ((size_t)f * s->cout + c) * k->kh * k->kw;
        float *to = s->out + s->rows[f] * s->out_feature + c * s->out_plane + y0 * s->out_row;
        int y = 0;
        for (; k->dh == 1 && y + ROWS <= count; y += ROWS, to += ROWS * s->out_row)
            correlate_rows(s, p, weight, y, to);
        for (; y < count; y++, to += s->out_row) correlate_columns(s, p, weight, y, to, 1, 0, 0);
    }
}

int FD_NAME(fd_single_features)(const fd_single *s, int k0, int k1) {
    const fd_window *k = &s->conv, *w = &s->pool;
    const int reach_h = (k->kh - 1) * k->dh, reach_w = (k->kw - 1) * k->dw;
    /* Rows begin on a cache line, so that loads for the last tap do not touch two. */
    const int line = WIDE ? 16 : 1, width = s->out_w + reach_w;
    plane p = {.cols = (width + line - 1) / line * line, .col0 = reach_w - k->left};
    const int fit = ROWS_BYTES / (int)sizeof(float) / p.cols - reach_h;
    const int wanted = fit > 2 * reach_h ? fit : 2 * reach_h + 1;
    const int most = !WIDE || wanted < ROWS ? wanted : wanted / ROWS * ROWS;
    /* The last vectors of a row read beyond its last column. */
    p.at = fd_scratch((size_t)(most + reach_h) * p.cols + 5 * VW);
    p.offset = malloc(sizeof(ptrdiff_t) * w->kh * w->kw);
    const int ok = p.at && p.offset;
    if (ok) {
        for (int i = 0; i < w->kh; i++)
            for (int j = 0; j < w->kw; j++)
                p.offset[i * w->kw + j] = (ptrdiff_t)i * w->dh * p.cols + j * w->dw;
        for (int f = k0; f < k1; f++)
            for (int y = 0; y < s->out_h; y += most) {
                const int count = s->out_h - y < most ? s->out_h - y : most;
                p.rows = count + reach_h;
                p.row0 = reach_h - k->top - y;
                project_rows(s, &p, f, y, count);
            }
    }
    free(p.at);
    free(p.offset);
    return ok ? 0 : -1;
}
