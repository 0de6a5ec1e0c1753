# cython: language_level=3
"""The C interface of csrc/, declared for Cython: `fastdeconv.h`, `schedule.h` and `memory.h`.

Cython does not read C headers. A field that `native` uses is therefore declared here as well, and the
C compiler checks its name and type. What the fields mean is said in the headers.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t


cdef extern from "memory.h" nogil:
    void *fd_memory_take(size_t *)
    void fd_memory_give(void *, size_t)


cdef extern from "schedule.h" nogil:
    ctypedef struct fd_work:
        int (*run)(const void *, int, int) noexcept nogil
        const void *job

    ctypedef struct fd_stage:
        fd_work work
        int bands
        const int32_t *edges
        const int32_t *needs

    ctypedef struct fd_queue:
        pass

    fd_queue *fd_queue_new(const fd_stage *, int)
    void fd_queue_free(fd_queue *)
    int fd_queue_work(fd_queue *, int, long)
    void fd_queue_stop(fd_queue *)
    int fd_queue_failed(fd_queue *)


cdef extern from "fastdeconv.h" nogil:
    enum:
        FD_MOST_TABLES

    ctypedef struct fd_window:
        int kh, kw, sh, sw, dh, dw, top, left

    ctypedef struct fd_activation:
        int kind
        float a, b
        const float *weight

    ctypedef struct fd_epilogue:
        const float *scale1
        const float *shift1
        fd_activation activation
        const float *scale2
        const float *shift2

    ctypedef struct fd_conv:
        const float *input "in"
        ptrdiff_t in_row, in_col
        const ptrdiff_t *taps
        int ntaps, cin, cout, groups, part, in_pixel
        const float *weight
        const float *bias
        fd_epilogue epilogue
        int rows, cols
        float *out
        ptrdiff_t out_row, out_col, out_plane

    ctypedef struct fd_pool:
        fd_window window
        int in_h, in_w, out_h, out_w, channels
        float *out
        ptrdiff_t out_row, out_col
        void *switches
        int switch_cell, switch_bytes
        const float *counts

    ctypedef struct fd_input:
        const float *input "in"
        ptrdiff_t row, col
        int channels

    ctypedef struct fd_join:
        int kind
        const fd_input *inputs
        int count
        fd_epilogue epilogue
        int cols, channels
        float *out
        ptrdiff_t out_row, out_col

    ctypedef struct fd_winograd:
        int tile
        const float *weight
        const float *slope
        const float *base
        const float *by_channel

    ctypedef struct fd_source:
        const int32_t *order
        const int32_t *first
        ptrdiff_t order_cell, first_cell, list_row
        fd_window pool
        int cells_h, cells_w, h, w, channels

    ctypedef struct fd_post:
        int relu_before
        const float *scale
        int relu_after

    ctypedef struct fd_factor:
        const float *values
        ptrdiff_t row, column

    ctypedef struct fd_view:
        const float *v
        ptrdiff_t row, column, feature

    ctypedef struct fd_finish:
        fd_view more
        fd_post post
        fd_factor factor
        float *sums
        fd_factor counts

    ctypedef struct fd_first:
        const float *u
        ptrdiff_t u_row
        const float *weight
        int kp, cout, ntaps_all, by_feature
        const int32_t *phase_start
        const ptrdiff_t *phase_offset
        const int32_t *phase_tap
        fd_window conv
        fd_post post
        fd_finish finish
        int out_h, out_w

    ctypedef struct fd_step:
        fd_source source
        const fd_step *above
        const fd_first *first
        const float *v
        int kp, nv
        fd_window conv
        int groups, cout
        const float *weight
        const uint16_t *bf16
        const float *sparse
        const uint16_t *sparse_bf16
        const float *depthwise
        const float *winograd
        int tile_top, tile_left
        int sparse_width
        int *lead
        fd_post post
        fd_finish finish
        int out_h, out_w

    ctypedef struct fd_overlap:
        fd_source source
        const int32_t *next
        int row, column
        const float *v
        int v_row, v_column, v_h, v_w
        int kp, by_feature
        fd_post post
        fd_factor factor
        float *out

    ctypedef struct fd_combine:
        const fd_view *terms
        const fd_factor *factors
        int count, w, channels, kp, by_feature
        fd_post post
        fd_factor factor
        float *out

    ctypedef struct fd_reduce:
        fd_view of
        fd_factor factor
        int h, w, channels, kp, by_feature
        float *out

    ctypedef struct fd_last:
        const fd_step *step
        const fd_first *first
        const float *v
        fd_source source
        const float *weight
        fd_window conv
        int kp, nv, cout, features, out_h, out_w
        const int32_t *rows
        float *out
        ptrdiff_t out_feature, out_plane, out_row
        int band, skip
        float *side

    ctypedef struct fd_single:
        const float *values
        const void *switches
        int switch_bytes
        const int32_t *features
        const int32_t *rows
        fd_window pool
        int cells_h, cells_w
        const float *weight
        fd_window conv
        int cout, out_h, out_w
        float *out
        ptrdiff_t out_feature, out_plane, out_row

    ctypedef struct fd_kernels:
        const char *name
        int width, max_nv
        int tile_nc[8]
        int sparse_nv, sparse_least, winograd_least
        int (*bf16)() noexcept nogil
        int (*prepare)() noexcept nogil
        int (*conv_rows)(const fd_conv *, int, int) noexcept nogil
        int (*conv_pool_rows)(const fd_conv *, const fd_pool *, int, int) noexcept nogil
        int (*conv_planes_rows)(const fd_conv *, int, int) noexcept nogil
        int (*winograd_rows)(const fd_conv *, const fd_pool *, const fd_winograd *, int,
                             int) noexcept nogil
        void (*join_rows)(const fd_join *, int, int) noexcept nogil
        int (*pool_rows)(const fd_pool *, const fd_input *, int, int) noexcept nogil
        int (*step_rows)(const fd_step *, float *, int, int) noexcept nogil
        int (*first_rows)(const fd_first *, float *, int, int) noexcept nogil
        void (*sort_cells)(const void *, int, ptrdiff_t, const uint8_t *, int, int, int32_t *,
                           int32_t *, int, int) noexcept nogil
        void (*overlap_rows)(const fd_overlap *, int, int) noexcept nogil
        void (*combine_rows)(const fd_combine *, int, int) noexcept nogil
        int (*reduce_channels)(const fd_reduce *, int, int) noexcept nogil
        void (*planes_to_channels)(const float *, int, int, int, float *, ptrdiff_t, ptrdiff_t,
                                   int, int) noexcept nogil
        void (*lanes_to_planes)(const float *, ptrdiff_t, int, int, int, int, int, float *, int,
                                int) noexcept nogil
        void (*last_reach)(const fd_last *, int *, int *, ptrdiff_t *) noexcept nogil
        int (*last_bands)(const fd_last *, int, int) noexcept nogil
        int (*last_seam)(const fd_last *, int) noexcept nogil
        int (*single_features)(const fd_single *, int, int) noexcept nogil

    int fd_available(const fd_kernels **)
    int fd_on_request(const fd_kernels **)
    const fd_kernels *fd_amx()
    int fd_cpu_has_tiles()
    enum:
        FD_BF16_NONE, FD_BF16_SLOW, FD_BF16_VECTORS, FD_BF16_TILES
    enum: FD_LIST_ROOM
    enum: FD_MOST_TERMS
    enum: FD_WINOGRAD_ROWS
    enum: FD_SURE, FD_LEADS
    int fd_winograd_tiles(int kp, int nv, int block) nogil
    enum:
        FD_SUM, FD_PRODUCT, FD_CONCAT

    ctypedef struct fd_shared:
        const int32_t *start
        const int32_t *window
        const int32_t *place

    void fd_link_cells(const void *, int, ptrdiff_t, const uint8_t *, int, int, const fd_shared *,
                       const fd_shared *, int, int, int32_t *, uint8_t *, int, int)

    ctypedef struct fd_frame:
        float *buffer
        int top, bottom, left, right
        int h, w, pixel
        int by_columns

    void fd_clear_frame(const fd_frame *, int, int)
    void fd_switches_to_planes(const void *, int, int, int, int, int, void *, int, int)
    void fd_filter_cells(const fd_source *, const float *, int32_t *, int32_t *, int, int)
    float fd_largest(const float *, size_t)
    void fd_pool_planes(const float *, const fd_window *, int, int, int, int, float *, void *,
                        int, int, int)
    void fd_unpool_planes(const float *, const void *, int, const fd_window *, int, int, int,
                          int, float *, int, int)
