/* For the units that are compiled once per instruction set: the functions that they offer to
 * table.c, and the block sizes that depend on the number and width of the registers. */
#ifndef FD_UNITS_H
#define FD_UNITS_H

#include <stdlib.h>

#include "fastdeconv.h"
#include "vec.h"

/* 1 in units whose steps in bfloat16 use tiles (tile_product.h). */
#ifndef FD_WITH_TILES
#define FD_WITH_TILES 0
#endif

/* Scratch space that begins on a cache line. In memory from malloc, every load of 64 bytes would
 * touch two lines. */
static inline float *fd_scratch(size_t floats) {
    return aligned_alloc(64, (floats * sizeof(float) + 64) / 64 * 64);
}

int FD_NAME(fd_conv_rows)(const fd_conv *, int row0, int row1);
int FD_NAME(fd_conv_pool_rows)(const fd_conv *, const fd_pool *, int row0, int row1);
int FD_NAME(fd_conv_planes_rows)(const fd_conv *, int row0, int row1);
int FD_NAME(fd_winograd_rows)(const fd_conv *, const fd_pool *, const fd_winograd *, int row0,
                              int row1);
void FD_NAME(fd_join_rows)(const fd_join *, int row0, int row1);
int FD_NAME(fd_pool_rows)(const fd_pool *, const fd_input *, int row0, int row1);
void FD_NAME(fd_planes_to_channels)(const float *planes, int channels, int h, int w, float *out,
                                    ptrdiff_t out_row, ptrdiff_t out_col, int row0, int row1);
void FD_NAME(fd_lanes_to_planes)(const float *lanes, ptrdiff_t row, int h, int w, int channels,
                                 int kp, int features, float *planes, int row0, int row1);

int FD_NAME(fd_bf16)(void);
int FD_NAME(fd_step_rows)(const fd_step *, float *out, int row0, int row1);
int FD_NAME(fd_first_rows)(const fd_first *, float *out, int row0, int row1);
void FD_NAME(fd_sort_cells)(const void *switches, int switch_bytes, ptrdiff_t switch_cell,
                            const uint8_t *gate, int channels, int places, int32_t *order,
                            int32_t *first, int cell0, int cell1);
void FD_NAME(fd_overlap_rows)(const fd_overlap *, int row0, int row1);
void FD_NAME(fd_combine_rows)(const fd_combine *, int row0, int row1);
int FD_NAME(fd_reduce_channels)(const fd_reduce *, int channel0, int channel1);
void FD_NAME(fd_last_reach)(const fd_last *, int *reach, int *advance, ptrdiff_t *row);
int FD_NAME(fd_last_bands)(const fd_last *, int band0, int band1);
int FD_NAME(fd_last_seam)(const fd_last *, int band);
void FD_NAME(fd_use_tiles)(fd_kernels *);

int FD_NAME(fd_single_features)(const fd_single *, int k0, int k1);

/* Prefetch distance of the gathered product, in entries of a list. */
#define AHEAD 16

/* The blocks that the gathered product (product.h) sums in registers: at most FD_MAX_NV vectors of
 * lanes, and with nv vectors FD_TILES[nv] output channels. */
#if VW == 16
#define FD_MAX_NV 4
#define FD_TILES {0, 12, 12, 8, 6}
#elif FD_REGISTERS >= 32
#define FD_MAX_NV 4
#define FD_TILES {0, 12, 12, 8, 6}
#else
#define FD_MAX_NV 2
#define FD_TILES {0, 12, 6}
#endif

/* Where zeros are left out (sparse.h): how many vectors of output channels are summed together, of
 * how many pixels at most, and from how many channels on leaving out zeros pays behind a ReLU,
 * which keeps about a third of the values. */
#if VW == 16
#define FD_SPARSE_NV 4
#else
#define FD_SPARSE_NV 8
#endif
#if FD_REGISTERS >= 32
#define FD_SPARSE_ROWS 2
#else
#define FD_SPARSE_ROWS 1
#endif
#if VW == 16
#define FD_SPARSE_LEAST 40
#elif VW == 8
#define FD_SPARSE_LEAST 48
#else
#define FD_SPARSE_LEAST 32
#endif

/* From how many channels on a step by Winograd's algorithm (winograd_step.h) pays. */
#define FD_WINOGRAD_LEAST 16

#endif
