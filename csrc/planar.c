/* Work on planes that no vector unit speeds up: layout changes, general max
 * pooling and its adjoint. Compiled once, for the baseline.
 *
 * Numbers  no arithmetic but the sums of overlapping windows in unpooling, added
 *          in the windows' row-major order.
 */
#include <math.h>
#include <string.h>

#include "fastdeconv.h"
#include "layout.h"

void fd_planes_to_channels(const float *planes, int channels, int h, int w, float *out,
                           ptrdiff_t out_row, ptrdiff_t out_col, int row0, int row1) {
    for (int y = row0; y < row1; y++)
        fd_transpose(planes + (size_t)y * w, (ptrdiff_t)h * w, out + y * out_row, out_col,
                     channels, w);
}

void fd_lanes_to_planes(const float *lanes, int h, int w, int channels, int kp, int features,
                        float *planes, int row0, int row1) {
    const ptrdiff_t pixel = (ptrdiff_t)channels * kp, plane = (ptrdiff_t)h * w;
    for (int y = row0; y < row1; y++)
        for (int c = 0; c < channels; c++)
            fd_transpose(lanes + (size_t)y * w * pixel + (size_t)c * kp, pixel,
                         planes + c * plane + (size_t)y * w, channels * plane, w, features);
}

/* The kernel positions i, lo <= i < hi, whose place start + i * dilation lies in [0, n). */
static void valid_range(int start, int kernel, int dilation, int n, int *lo, int *hi) {
    *lo = start >= 0 ? 0 : (-start + dilation - 1) / dilation;
    *hi = start >= n ? 0 : (n - 1 - start) / dilation + 1;
    if (*hi > kernel) *hi = kernel;
}

static void put_switch(void *switches, int bytes, size_t at, uint32_t index) {
    if (bytes == 1)
        ((uint8_t *)switches)[at] = (uint8_t)index;
    else if (bytes == 2)
        ((uint16_t *)switches)[at] = (uint16_t)index;
    else
        ((uint32_t *)switches)[at] = index;
}

static uint32_t get_switch(const void *switches, int bytes, size_t at) {
    if (bytes == 1) return ((const uint8_t *)switches)[at];
    if (bytes == 2) return ((const uint16_t *)switches)[at];
    return ((const uint32_t *)switches)[at];
}

/* First maximum in row-major order; the first NaN before it. */
static float window_max(const float *plane, int w, const fd_window *k, int y0, int x0, int ilo,
                        int ihi, int jlo, int jhi, uint32_t *index) {
    float best = plane[(size_t)(y0 + ilo * k->dh) * w + x0 + jlo * k->dw];
    *index = (uint32_t)(ilo * k->kw + jlo);
    for (int i = ilo; i < ihi; i++) {
        const float *row = plane + (size_t)(y0 + i * k->dh) * w + x0;
        for (int j = jlo; j < jhi; j++) {
            const float a = row[j * k->dw];
            if (a > best || (isnan(a) && !isnan(best))) {
                best = a;
                *index = (uint32_t)(i * k->kw + j);
            }
        }
    }
    return best;
}

void fd_pool_planes(const float *x, const fd_window *k, int in_h, int in_w, int out_h,
                    int out_w, float *values, void *switches, int switch_bytes, int plane0,
                    int plane1) {
    for (int p = plane0; p < plane1; p++) {
        const float *plane = x + (size_t)p * in_h * in_w;
        size_t at = (size_t)p * out_h * out_w;
        for (int y = 0; y < out_h; y++) {
            const int y0 = y * k->sh - k->top;
            int ilo, ihi;
            valid_range(y0, k->kh, k->dh, in_h, &ilo, &ihi);
            for (int c = 0; c < out_w; c++, at++) {
                const int x0 = c * k->sw - k->left;
                int jlo, jhi;
                uint32_t index;
                valid_range(x0, k->kw, k->dw, in_w, &jlo, &jhi);
                values[at] = window_max(plane, in_w, k, y0, x0, ilo, ihi, jlo, jhi, &index);
                put_switch(switches, switch_bytes, at, index);
            }
        }
    }
}

void fd_unpool_planes(const float *values, const void *switches, int switch_bytes,
                      const fd_window *k, int in_h, int in_w, int out_h, int out_w, float *x,
                      int plane0, int plane1) {
    for (int p = plane0; p < plane1; p++) {
        float *plane = x + (size_t)p * out_h * out_w;
        size_t at = (size_t)p * in_h * in_w;
        memset(plane, 0, sizeof(float) * out_h * out_w);
        for (int y = 0; y < in_h; y++)
            for (int c = 0; c < in_w; c++, at++) {
                const int s = (int)get_switch(switches, switch_bytes, at);
                const int row = y * k->sh - k->top + s / k->kw * k->dh;
                const int col = c * k->sw - k->left + s % k->kw * k->dw;
                plane[(size_t)row * out_w + col] += values[at];
            }
    }
}
