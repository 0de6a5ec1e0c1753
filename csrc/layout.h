/* Changing which axis is innermost. */
#ifndef FD_LAYOUT_H
#define FD_LAYOUT_H

#include <stddef.h>

/* to[c][r] = from[r][c] for r < rows, c < cols; both have their own row stride.
 * Square blocks: a block's lines of both sides stay in L1 together. */
static inline void fd_transpose(const float *from, ptrdiff_t from_row, float *to,
                                ptrdiff_t to_row, int rows, int cols) {
    enum { BLOCK = 16 };
    for (int r0 = 0; r0 < rows; r0 += BLOCK)
        for (int c0 = 0; c0 < cols; c0 += BLOCK) {
            const int r1 = r0 + BLOCK < rows ? r0 + BLOCK : rows;
            const int c1 = c0 + BLOCK < cols ? c0 + BLOCK : cols;
            for (int c = c0; c < c1; c++)
                for (int r = r0; r < r1; r++) to[c * to_row + r] = from[r * from_row + c];
        }
}

#endif
