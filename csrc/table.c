/* The table of kernels of one instruction set, and the block sizes that packing needs to know. */
#include "units.h"

extern const fd_kernels FD_NAME(fd_table);
const fd_kernels FD_NAME(fd_table) = {
    .name = FD_STRING(FD_ISA),
    .width = VW,
    .max_nv = FD_MAX_NV,
    .tile_nc = FD_TILES,
    .sparse_nv = FD_SPARSE_NV,
    .sparse_least = FD_SPARSE_LEAST,
    .winograd_least = FD_WINOGRAD_LEAST,
    .conv_rows = FD_NAME(fd_conv_rows),
    .conv_pool_rows = FD_NAME(fd_conv_pool_rows),
    .conv_planes_rows = FD_NAME(fd_conv_planes_rows),
    .winograd_rows = FD_NAME(fd_winograd_rows),
    .join_rows = FD_NAME(fd_join_rows),
    .pool_rows = FD_NAME(fd_pool_rows),
    .planes_to_channels = FD_NAME(fd_planes_to_channels),
    .lanes_to_planes = FD_NAME(fd_lanes_to_planes),
    .bf16 = FD_NAME(fd_bf16),
    .step_rows = FD_NAME(fd_step_rows),
    .first_rows = FD_NAME(fd_first_rows),
    .sort_cells = FD_NAME(fd_sort_cells),
    .overlap_rows = FD_NAME(fd_overlap_rows),
    .combine_rows = FD_NAME(fd_combine_rows),
    .reduce_channels = FD_NAME(fd_reduce_channels),
    .last_reach = FD_NAME(fd_last_reach),
    .last_bands = FD_NAME(fd_last_bands),
    .last_seam = FD_NAME(fd_last_seam),
    .single_features = FD_NAME(fd_single_features),
};
