/* Work that the SIMD instructions of vec.h would not speed up. Compiled once, without the flags of
 * an instruction set.
 *
 * What    Max pooling of planes with any window, and its adjoint; the padding of activations; the
 *         largest of some numbers; switches as planes; and two kinds of lists of cells: links
 *         between cells whose windows overlap, and lists without the channels that are 0.
 * Layout  See the declarations in fastdeconv.h.
 * Numbers The only arithmetic is in unpooling: values of overlapping windows are added in the
 *         row-major order of the windows.
 */
#include <math.h>
#include <string.h>

#include "fastdeconv.h"

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

/* The first maximum in row-major order, or the first NaN if there is one. *index: its place. */
static float first_maximum(const float *plane, int w, const fd_window *k, int y0, int x0, int ilo,
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

/* The upper bits of a (those that `mask` has after a shift by `shift`) and the lower ones of b
 * change places. */
static inline void exchange(uint64_t *a, uint64_t *b, int shift, uint64_t mask) {
    const uint64_t differ = (*a >> shift ^ *b) & mask;
    *b ^= differ;
    *a ^= differ << shift;
}

/* to[c][r] = from[r][c] for 8 x 8 bytes: in eight words, quarters of the square change places, then
 * quarters of those, then single bytes. */
static void transpose_square(const uint8_t *from, size_t from_row, uint8_t *to, size_t to_row) {
    uint64_t row[8];
    for (int i = 0; i < 8; i++) memcpy(row + i, from + i * from_row, 8);
    for (int i = 0; i < 4; i++) exchange(row + i, row + i + 4, 32, 0x00000000FFFFFFFF);
    for (int i = 0; i < 2; i++) {
        exchange(row + i, row + i + 2, 16, 0x0000FFFF0000FFFF);
        exchange(row + i + 4, row + i + 6, 16, 0x0000FFFF0000FFFF);
    }
    for (int i = 0; i < 8; i += 2) exchange(row + i, row + i + 1, 8, 0x00FF00FF00FF00FF);
    for (int i = 0; i < 8; i++) memcpy(to + i * to_row, row + i, 8);
}

void fd_switches_to_planes(const void *switches, int bytes, int stored, int channels, int h, int w,
                           void *planes, int row0, int row1) {
    const size_t plane = (size_t)h * w;
    for (int y = row0; y < row1; y++) {
        const uint8_t *from = (const uint8_t *)switches + (size_t)y * w * stored * bytes;
        uint8_t *to = (uint8_t *)planes + (size_t)y * w * bytes;
        if (bytes > 1 || w < 8 || channels < 8) {
            for (int c = 0; c < channels; c++)
                for (int x = 0; x < w; x++)
                    memcpy(to + (c * plane + x) * bytes, from + ((size_t)x * stored + c) * bytes,
                           bytes);
            continue;
        }
        /* If a side is no multiple of 8, its last square overlaps the one before it. */
        for (int x0 = 0; x0 < w; x0 += 8)
            for (int c0 = 0; c0 < channels; c0 += 8) {
                const int x = x0 + 8 <= w ? x0 : w - 8, c = c0 + 8 <= channels ? c0 : channels - 8;
                transpose_square(from + (size_t)x * stored + c, stored, to + c * plane + x, plane);
            }
    }
}

void fd_clear_frame(const fd_frame *f, int begin, int end) {
    const size_t left = (size_t)f->left * f->pixel, right = (size_t)f->right * f->pixel;
    const size_t inside = (size_t)f->w * f->pixel, row = left + inside + right;
    float *first = f->buffer + f->top * row;
    const int is_first = begin == 0, is_last = end == (f->by_columns ? f->w : f->h);
    if (is_first) memset(f->buffer, 0, f->top * row * sizeof(float));
    if (is_last) memset(first + f->h * row, 0, f->bottom * row * sizeof(float));
    for (int y = f->by_columns ? 0 : begin; y < (f->by_columns ? f->h : end); y++) {
        float *at = first + y * row;
        if (!f->by_columns || is_first) memset(at, 0, left * sizeof(float));
        if (!f->by_columns || is_last) memset(at + left + inside, 0, right * sizeof(float));
    }
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
                values[at] = first_maximum(plane, in_w, k, y0, x0, ilo, ihi, jlo, jhi, &index);
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
                const int s = (int)fd_switch(switches, switch_bytes, at);
                const int row = y * k->sh - k->top + s / k->kw * k->dh;
                const int col = c * k->sw - k->left + s % k->kw * k->dw;
                plane[(size_t)row * out_w + col] += values[at];
            }
    }
}

typedef struct {
    const void *switches;
    int bytes;
    ptrdiff_t cell;
    const uint8_t *gate;
    int channels, kernel_w;
    const fd_shared *high, *wide;
    int h, w;
} linking;

/* The next cell after (y, x) in which the switch of channel c names the same place of the unpooled
 * tensor, or -1. *is_first becomes 0 if there is such a cell before (y, x). */
static int32_t next_cell(const linking *l, int y, int x, int c, uint8_t *is_first) {
    const uint32_t place =
        fd_switch(l->switches, l->bytes, ((size_t)y * l->w + x) * l->cell + c);
    const int i = (int)place / l->kernel_w, j = (int)place % l->kernel_w;
    for (int a = l->high->start[i]; a < l->high->start[i + 1]; a++) {
        const int row = y + l->high->window[a];
        if (row < 0 || row >= l->h) continue;
        for (int b = l->wide->start[j]; b < l->wide->start[j + 1]; b++) {
            const int column = x + l->wide->window[b];
            if (column < 0 || column >= l->w || (row == y && column == x)) continue;
            const size_t other = (size_t)row * l->w + column;
            const uint32_t same =
                (uint32_t)(l->high->place[a] * l->kernel_w + l->wide->place[b]);
            if (fd_switch(l->switches, l->bytes, other * l->cell + c) != same) continue;
            if (l->gate && !l->gate[other * l->channels + c]) continue;
            if (row > y || (row == y && column > x)) return (int32_t)other;
            *is_first = 0;
        }
    }
    return -1;
}

void fd_link_cells(const void *switches, int switch_bytes, ptrdiff_t switch_cell,
                   const uint8_t *gate, int channels, int kernel_w, const fd_shared *high,
                   const fd_shared *wide, int h, int w, int32_t *next, uint8_t *is_first, int row0,
                   int row1) {
    const linking l = {switches, switch_bytes, switch_cell, gate, channels,
                       kernel_w, high,         wide,        h,    w};
    for (int y = row0; y < row1; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < channels; c++) {
                const size_t at = ((size_t)y * w + x) * channels + c;
                is_first[at] = gate ? gate[at] : 1;
                next[at] = is_first[at] ? next_cell(&l, y, x, c, is_first + at) : -1;
            }
}

void fd_filter_cells(const fd_source *s, const float *v, int32_t *order, int32_t *first,
                     int row0, int row1) {
    const int places = s->pool.kh * s->pool.kw;
    for (int y = row0; y < row1; y++)
        for (int x = 0; x < s->cells_w; x++) {
            const size_t cell = (size_t)y * s->cells_w + x, whole = y * s->list_row + x;
            const float *value = v + cell * s->channels;
            const int32_t *from = s->order + whole * s->order_cell;
            const int32_t *begin = s->first + whole * s->first_cell;
            int32_t *to = order + cell * s->channels, *new_begin = first + cell * (places + 1);
            int n = 0;
            for (int p = 0; p < places; p++) {
                new_begin[p] = n;
                /* Without a branch, since it cannot be predicted which values are 0. */
                for (int e = begin[p]; e < begin[p + 1]; e++) {
                    to[n] = from[e];
                    n += value[from[e]] != 0;
                }
            }
            new_begin[places] = n;
            memset(to + n, 0, sizeof *to * (s->channels - n));
        }
    /* What follows the last cell is read, though not used: see FD_LIST_ROOM. */
    if (row1 == s->cells_h)
        memset(order + (size_t)row1 * s->cells_w * s->channels, 0, sizeof *order * FD_LIST_ROOM);
}

float fd_largest(const float *x, size_t n) {
    /* Bits of absolute values are in the order of the values, and those of a NaN come last. */
    int32_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= INT32_MAX;
        largest = bits > largest ? bits : largest;
    }
    float value;
    memcpy(&value, &largest, sizeof value);
    return value;
}
