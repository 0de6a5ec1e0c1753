/* Pooling of activations that are in memory: see pool.h. */
#include <stdlib.h>

#include "pool.h"

int FD_NAME(fd_pool_rows)(const fd_pool *p, const fd_input *of, int row0, int row1) {
    const fd_window *k = &p->window;
    const float **rows = malloc(sizeof *rows * k->kh);
    if (!rows) return -1;
    for (int y = row0; y < row1; y++) {
        for (int i = 0; i < k->kh; i++) {
            const int line = y * k->sh - k->top + i * k->dh;
            rows[i] = line < 0 || line >= p->in_h ? NULL : of->in + line * of->row;
        }
        pool_row(p, rows, of->col, y);
    }
    free(rows);
    return 0;
}
