/* Transposing: changing which axis of a tensor is innermost. */
#ifndef FD_LAYOUT_H
#define FD_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "vec.h"

/* to[c][r] = from[r][c] for r < rows, c < cols. The rows of each lie from_row and to_row elements
 * apart. With to_rows, column c goes to row to_rows[c] instead.
 *
 * Squares of VW x VW are transposed in registers. If a side is not a multiple of VW, its last
 * square overlaps the one before it. If a side is shorter than VW, elements are copied one by one.
 */
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
