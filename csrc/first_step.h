/* The first step of a way back: every feature is still a single channel, with weights and switches of
 * its own. So no lists are needed, and V is (h, w, lane).
 *
 * Layout  In lanes, or of few features by feature, as in project.c.
 * Mix     On AVX-512, per tap of 12 columns and 2 channels: 14 loads, 24 FMA.
 * Numbers float32, vf_fma; taps row-major.
 */
#ifndef FD_FIRST_STEP_H
#define FD_FIRST_STEP_H

#include "post.h"
#include "units.h"

/* T columns, which use the same taps, x NI channels (2 or 1). */
FD_INLINE void first_tile(const fd_first *f, const ptrdiff_t *offset, const int32_t *tap, int n,
                          const float *u, int channel, float *out, ptrdiff_t out_col,
                          const int T, const int NI) {
    const int kp = f->kp;
    const size_t row = (size_t)f->ntaps_all * kp;
    const fd_post after = f->post;
    const float *weight = f->weight + channel * row;
    for (int k = 0; k < kp; k += VW) {
        const float *w = weight + k;
        vf acc[2][COLUMNS];
        FD_UNROLL
        for (int i = 0; i < NI; i++)
            FD_UNROLL
            for (int x = 0; x < T; x++) acc[i][x] = vf_zero();
        for (int t = 0; t < n; t++) {
            const float *a = u + offset[t] + k;
            vf b[2];
            FD_UNROLL
            for (int i = 0; i < NI; i++) b[i] = vf_load(w + i * row + (size_t)tap[t] * kp);
            FD_UNROLL
            for (int x = 0; x < T; x++) {
                const vf v = vf_load(a + x * kp);
                FD_UNROLL
                for (int i = 0; i < NI; i++) acc[i][x] = vf_fma(b[i], v, acc[i][x]);
            }
        }
        FD_UNROLL
        for (int i = 0; i < NI; i++)
            FD_UNROLL
            for (int x = 0; x < T; x++)
                vf_store(out + x * out_col + (size_t)i * kp + k,
                         post(acc[i][x], &after, channel + i, 1));
    }
}

#define FIRST_CASE(T) \
    case T: first_tile(f, offset, tap, n, u, i, q, out_col, T, 2); break;
#define FIRST_CASES_6 \
    FIRST_CASE(1) FIRST_CASE(2) FIRST_CASE(3) FIRST_CASE(4) FIRST_CASE(5) FIRST_CASE(6)
#if COLUMNS == 12
#define FIRST_CASES \
    FIRST_CASES_6 FIRST_CASE(7) FIRST_CASE(8) FIRST_CASE(9) \
    FIRST_CASE(10) FIRST_CASE(11) FIRST_CASE(12)
#else
#define FIRST_CASES FIRST_CASES_6
#endif

static void first_in_lanes(const fd_first *f, const ptrdiff_t *offset, const int32_t *tap, int n,
                           const float *u, int columns, float *out, ptrdiff_t out_col) {
    int i = 0;
    for (; i + 2 <= f->cout; i += 2) {
        float *q = out + (size_t)i * f->kp;
        switch (columns) {
            FIRST_CASES
        }
    }
    for (int x = 0; i < f->cout && x < columns; x++)
        first_tile(f, offset, tap, n, u + x * f->kp, i, out + x * out_col + (size_t)i * f->kp,
                   out_col, 1, 1);
}

/* Feature i, a vector of channels from `channel` on, of T columns. */
FD_INLINE void first_tile_by_feature(const fd_first *f, const ptrdiff_t *offset,
                                     const int32_t *tap, int n, const float *u, int i, int channel,
                                     float *out, ptrdiff_t out_col, const int T) {
    const int kp = f->kp, width = padded(f->cout), left = f->cout - channel;
    const fd_post after = f->post;
    const float *weight = f->weight + (ptrdiff_t)i * width + channel;
    vf acc[COLUMNS];
    FD_UNROLL
    for (int x = 0; x < T; x++) acc[x] = vf_zero();
    for (int t = 0; t < n; t++) {
        const vf w = vf_load(weight + (ptrdiff_t)tap[t] * kp * width);
        const float *a = u + offset[t] + i;
        FD_UNROLL
        for (int x = 0; x < T; x++) acc[x] = vf_fma(w, vf_set1(a[x * kp]), acc[x]);
    }
    FD_UNROLL
    for (int x = 0; x < T; x++)
        store_part(out + x * out_col + (ptrdiff_t)i * f->cout + channel,
                   post(acc[x], &after, channel, 0), left);
}

static void first_by_feature(const fd_first *f, const ptrdiff_t *offset, const int32_t *tap, int n,
                             const float *u, int columns, float *out, ptrdiff_t out_col) {
    for (int i = 0; i < f->kp; i++)
        for (int c = 0; c < f->cout; c += VW) {
            if (columns == COLUMNS) {
                first_tile_by_feature(f, offset, tap, n, u, i, c, out, out_col, COLUMNS);
                continue;
            }
            for (int x = 0; x < columns; x++)
                first_tile_by_feature(f, offset, tap, n, u + x * f->kp, i, c, out + x * out_col,
                                      out_col, 1);
        }
}

/* All channels of `columns` neighbouring columns of one phase; they lie out_col apart in out. */
static void first_columns(const fd_first *f, int Y, int X, int columns, float *out,
                          ptrdiff_t out_col) {
    const fd_window *k = &f->conv;
    const int py = Y + k->top, px = X + k->left;
    const int phase = py % k->sh * k->sw + px % k->sw;
    const int start = f->phase_start[phase], n = f->phase_start[phase + 1] - start;
    const float *u = f->u + py / k->sh * f->u_row + (ptrdiff_t)(px / k->sw) * f->kp;
    const ptrdiff_t *offset = f->phase_offset + start;
    const int32_t *tap = f->phase_tap + start;
    if (f->by_feature)
        first_by_feature(f, offset, tap, n, u, columns, out, out_col);
    else
        first_in_lanes(f, offset, tap, n, u, columns, out, out_col);
    for (int x = 0; x < columns; x++)
        finish_pixel(&f->finish, Y, X + x * k->sw, out + x * out_col, f->cout, f->kp,
                     f->by_feature);
}

/* How many of the columns X, X + stride, ... first_columns can compute together. */
static int first_count(const fd_first *f, int X) {
    const int left = (f->out_w - X + f->conv.sw - 1) / f->conv.sw;
    return left < COLUMNS ? left : COLUMNS;
}

static void first_row(const fd_first *f, int Y, float *out) {
    const ptrdiff_t pixel = (ptrdiff_t)f->cout * f->kp;
    const int stride = f->conv.sw;
    for (int phase = 0; phase < stride; phase++)
        for (int x = phase; x < f->out_w; x += COLUMNS * stride)
            first_columns(f, Y, x, first_count(f, x), out + x * pixel, stride * pixel);
}

#endif
