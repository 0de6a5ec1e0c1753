/* Changing which axis is innermost. */
#ifndef FD_LAYOUT_H
#define FD_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "vec.h"

/* to[c][r] = from[r][c] for r < rows, c < cols; both have their own row stride. With to_rows
 * column c goes to row to_rows[c] instead.
 *
 * Squares of VW x VW in registers. The last square of a side that is no multiple of VW lies
 * over its neighbour; only a side shorter than VW goes element by element. */
static inline void fd_transpose(const float *from, ptrdiff_t from_row, float *to,
                                ptrdiff_t to_row, const int32_t *to_rows, int rows, int cols) {
#define TO_ROW(c) (to + (to_rows ? to_rows[c] : (c)) * to_row)
    if (rows < VW || cols < VW) {
        for (int c = 0; c < cols; c++)
            for (int r = 0; r < rows; r++) TO_ROW(c)[r] = from[r * from_row + c];
        return;
    }
    for (int r0 = 0; r0 < rows; r0 += VW) {
        const int r = r0 + VW <= rows ? r0 : rows - VW;
        for (int c0 = 0; c0 < cols; c0 += VW) {
            const int c = c0 + VW <= cols ? c0 : cols - VW;
            vf x[VW];
            FD_UNROLL
            for (int i = 0; i < VW; i++) x[i] = vf_load(from + (r + i) * from_row + c);
            vf_transpose(x);
            FD_UNROLL
            for (int i = 0; i < VW; i++) vf_store(TO_ROW(c + i) + r, x[i]);
        }
    }
#undef TO_ROW
}

#endif
