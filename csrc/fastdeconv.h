/* What the C kernels offer: one table of functions for each instruction set.
 *
 * Kernels own no threads and no global state. A job is described by a struct. A
 * call works on a range of its rows (or planes); many threads may call at once on
 * disjoint ranges. A kernel returns 0, or -1 if there was no memory for its scratch
 * space. Strides and offsets count elements, not bytes, unless a name says so.
 *
 * Layouts
 *   planes    (C, H, W), as the public interface has them
 *   channels  (H, W, Cs): channels last, Cs >= C a multiple of the vector width
 *   lanes     (H, W, C, KP): the caller's feature k in lane k, KP a multiple of the
 *             vector width; the layout of the backward pass
 *   by feature (H, W, KP, C): the same for features too few to fill the lanes. Here the
 *             channels are in the lanes
 */
#ifndef FASTDECONV_H
#define FASTDECONV_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    int kh, kw;     /* kernel */
    int sh, sw;     /* stride */
    int dh, dw;     /* dilation */
    int top, left;  /* padding */
} fd_window;

/* An activation that activate.h computes; a and b are its parameters, described there. */
enum {
    FD_NO_ACTIVATION, FD_RELU, FD_CLIP, FD_LEAKY, FD_ELU, FD_SIGMOID, FD_SILU, FD_TANH, FD_GELU,
    FD_GELU_TANH, FD_HARDSIGMOID, FD_HARDSWISH, FD_MISH, FD_SOFTSIGN, FD_ABS, FD_SQUARE,
    FD_ACTIVATIONS
};
typedef struct {
    int kind;
    float a, b;
    const float *weight;    /* one number for each channel, padded; or NULL */
} fd_activation;

/* What is done to a finished sum, channel by channel and in this order:
 * x*scale1+shift1, the activation, x*scale2+shift2. A NULL scale skips its step. */
typedef struct {
    const float *scale1, *shift1;
    fd_activation activation;
    const float *scale2, *shift2;
} fd_epilogue;

/* A convolution as a list of taps. Also one phase of a transposed convolution. */
typedef struct {
    const float *in;        /* channels layout; where tap offset 0 of output (0, 0) reads */
    ptrdiff_t in_row, in_col; /* between the origins of neighbouring output rows, and columns */
    const ptrdiff_t *taps;  /* offset of every tap from the origin */
    int ntaps;
    int cin, cout, groups;  /* cin: the channels that one group reads */
    int in_padded;          /* whether pixels of the input are whole vectors */
    const float *weight;    /* packed: see conv.c */
    const float *bias;      /* padded to the vector width like scale and shift */
    fd_epilogue epilogue;
    int rows, cols;         /* of the output */
    float *out;             /* channels layout; planes for conv_planes_rows */
    ptrdiff_t out_row, out_col;
    ptrdiff_t out_plane;    /* planes only */
} fd_conv;

typedef struct {
    fd_window window;
    int in_h, in_w, out_h, out_w;
    int channels;           /* padded to the vector width */
    float *out;
    ptrdiff_t out_row, out_col;
    void *switches;         /* (out_h, out_w, channels) */
    int switch_bytes;       /* 1, 2 or 4 */
    const float *counts;    /* (out_h, out_w): an average pool, these are what sums are divided
                             * by. NULL: a max pool; only max pools have switches */
} fd_pool;

/* One of the activations that a join takes. */
typedef struct {
    const float *in;        /* channels layout; the first pixel */
    ptrdiff_t row, col;     /* elements between neighbouring pixels; 0: one pixel for all */
    int channels;           /* 1: one channel for all */
} fd_input;

/* Activations added up, multiplied, or concatenated along the channels, then an epilogue (join.c).
 * With a single activation, only the epilogue. */
typedef struct {
    enum { FD_SUM, FD_PRODUCT, FD_CONCAT } kind;
    const fd_input *inputs;
    int count;
    fd_epilogue epilogue;
    int cols, channels;     /* of the result, not padded */
    float *out;             /* channels layout */
    ptrdiff_t out_row, out_col;
} fd_join;

/* A convolution by Winograd's algorithm, for 3x3 taps and plain 2x2 pools: see winograd.c. */
typedef struct {
    int tile;               /* pixels along a tile's side: 2 or 4 */
    const float *weight;    /* packed */
    /* Tile 2 only. */
    const float *slope, *base; /* the bound of each channel's error, padded like bias */
    const float *by_channel; /* the filters (channel, tap, input), channels padded like bias, inputs
                              * to whole vectors */
} fd_winograd;

/* Lists are copied in steps of so many elements, and in at least two steps. */
#define FD_COPY 16
#define FD_LIST_ROOM (2 * FD_COPY)

/* Where the values of an unpooled lane tensor come from: the cells of a pooled one. For each cell
 * there is a list of its channels, sorted by the switches, which all features share (see
 * sort_cells). A tensor that is not pooled has windows of one place. Where windows overlap, the
 * lists have one entry for each place and channel: the value that fd_overlap has summed. */
typedef struct {
    const int32_t *order;   /* for each cell: its channels by place, ascending within a place. A
                             * channel may be at several places. FD_LIST_ROOM more elements can
                             * be read, and are numbers of channels */
    const int32_t *first;   /* for each cell: where in `order` each place begins, and the end */
    ptrdiff_t order_cell, first_cell; /* elements of one cell; 0 when all cells are alike */
    ptrdiff_t list_row;     /* cells in a row of the lists: V may be a part of the whole map */
    fd_window pool;
    int cells_h, cells_w;
    int h, w, channels;     /* of the unpooled tensor */
} fd_source;

/* max(0, x), x*scale[channel], max(0, x), in this order, each only where asked for. */
typedef struct {
    int relu_before;
    const float *scale;     /* one vector more than its length can be read; or NULL */
    int relu_after;
} fd_post;

/* A factor for each channel of every pixel, the same for all features. */
typedef struct {
    const float *values;    /* of the first pixel, channels contiguous; NULL: all factors are 1 */
    ptrdiff_t row, column;  /* elements between neighbouring pixels; 0: one pixel for all */
} fd_factor;

/* A lane tensor or a part of one. */
typedef struct {
    const float *v;         /* the first pixel and channel; NULL: there is none */
    ptrdiff_t row, column;  /* elements between neighbouring pixels; 0: one pixel for all */
    ptrdiff_t feature;      /* in the layout by feature: elements between features */
} fd_view;

/* What is done to a pixel when its sums are complete, in this order: add the pixel of another
 * tensor, `post`, multiply by a factor, add it to sums over all pixels. */
typedef struct {
    fd_view more;
    fd_post post;
    fd_factor factor;
    float *sums;            /* (rows, channels, kp), by feature (rows, kp, channels); or NULL. The
                             * pixel, multiplied by `counts`, is added to the sums of its row */
    fd_factor counts;
} fd_finish;

/* Transposed convolution of an unpooled lane tensor. */
typedef struct fd_step {
    fd_source source;
    const struct fd_step *above; /* or NULL. The step that makes V, pixel by pixel, so that V is
                             * not in memory: for a 1 x 1 convolution of stride 1 without pool and
                             * gate */
    const float *v;         /* lanes (cells_h, cells_w, source.channels, kp) */
    int kp, nv;             /* nv vectors of lanes at a time; divides kp / vector width.
                             * nv 0: kp features, at most half a vector of them, in the layout
                             * by feature */
    fd_window conv;
    int groups, cout;       /* cout: all channels of the result */
    /* The weights, packed for one of these kernels; the other pointers are NULL. */
    const float *weight;    /* see project.c */
    const uint16_t *bf16;   /* products in bfloat16 (bf16.h, tile_product.h) */
    const float *sparse;    /* zeros left out (sparse.h) */
    const uint16_t *sparse_bf16; /* both (sparse_bf16.h) */
    const float *depthwise; /* (taps, channels): each channel has a kernel of its own, and the source
                             * has no pool and no gate (depthwise.h) */
    int sparse_width;       /* elements in a row of `sparse`, or of `sparse_bf16`: whole vectors, or
                             * whole pairs of vectors */
    fd_post post;           /* applied before a sum leaves the registers */
    fd_finish finish;       /* applied when all sums of a pixel are there */
    int out_h, out_w;
} fd_step;

/* Transposed convolution of a tensor with one channel per lane. */
typedef struct {
    const float *u;         /* (.., .., kp): padded with zeros for every tap in use */
    ptrdiff_t u_row;        /* elements between rows of u */
    const float *weight;    /* (cout, taps, kp); by feature (taps, kp, padded cout) */
    int kp, cout, ntaps_all;
    int by_feature;         /* as in fd_step with nv 0 */
    /* phases (stride_h x stride_w), each a range of (offset in u, tap) */
    const int32_t *phase_start;
    const ptrdiff_t *phase_offset;
    const int32_t *phase_tap;
    fd_window conv;
    fd_post post;
    fd_finish finish;
    int out_h, out_w;
} fd_first;

/* Adds up what overlapping windows send to the same place. Of the windows that send a channel to
 * the same place, the first one *leads*: its value becomes the sum. The values of the others are
 * not used any more. */
typedef struct {
    fd_source source;       /* of the result; its lists have the leading values only */
    const int32_t *next;    /* (all cells of the whole map, channels): the next cell that sends
                             * to the same place, or -1 (see fd_link_cells) */
    int row, column;        /* of the whole map, where the result begins */
    const float *v;         /* a lane tensor */
    int v_row, v_column;    /* of the whole map, where V begins; outside of V it is 0 */
    int v_h, v_w;
    int kp, by_feature;     /* as in fd_first */
    fd_post post;
    fd_factor factor;
    float *out;             /* a lane tensor of source.cells; only leading values are written. May
                             * be V if that has the same cells */
} fd_overlap;

#define FD_MOST_TERMS 256

/* The sum of lane tensors, each multiplied by its factor (combine.c). */
typedef struct {
    const fd_view *terms;   /* at most FD_MOST_TERMS */
    const fd_factor *factors;
    int count;
    int w, channels, kp, by_feature;
    fd_post post;           /* applied to the sum */
    fd_factor factor;       /* multiplied with that */
    float *out;             /* (h, w, channels, kp); may be a term */
} fd_combine;

/* The sum of all pixels of a lane tensor, each multiplied by its factor (combine.c). */
typedef struct {
    fd_view of;
    fd_factor factor;
    int h, w, channels, kp, by_feature;
    float *out;             /* (channels, kp); by feature (kp, channels) */
} fd_reduce;

/* The last transposed convolution. The job above it makes its input pixel by pixel. */
typedef struct {
    const fd_step *step;    /* exactly one of these three is given: the step above, ... */
    const fd_first *first;  /* ... the first job, ... */
    const float *v;         /* ... or a lane tensor */
    fd_source source;       /* of the last convolution; cells are the pixels above */
    const float *weight;    /* packed: see project.c */
    fd_window conv;
    int kp, nv, cout;       /* cout: channels of the network's input */
    int features;           /* lanes in use */
    int out_h, out_w;
    const int32_t *rows;    /* where in out each feature belongs */
    float *out;             /* planes (N, cout, out_h, out_w), of a part of the whole */
    ptrdiff_t out_feature, out_plane, out_row;
    int band;               /* cell rows of one band */
    int skip;               /* rows of the first band above the part that is computed: bands lie
                             * where they lie in the whole map, so that sums are the same */
    float *side;            /* (bands, 2, overlap rows, row): sums of output rows that two bands
                             * share */
} fd_last;

/* One transposed convolution for features that have a single map each (single.c). */
typedef struct {
    const float *values;    /* (features, cells_h, cells_w) */
    const void *switches;   /* planes (channels, cells_h, cells_w), or NULL: not pooled */
    int switch_bytes;
    const int32_t *features; /* the channel of each feature ... */
    const int32_t *rows;     /* ... and where in out it belongs */
    fd_window pool;
    int cells_h, cells_w;
    const float *weight;    /* (features, cout, kh, kw) */
    fd_window conv;         /* stride 1 */
    int cout, out_h, out_w;
    float *out;
    ptrdiff_t out_feature, out_plane, out_row;
} fd_single;

/* How steps in bfloat16 are computed. */
enum {
    FD_BF16_NONE,           /* not at all */
    FD_BF16_SLOW,           /* they could be, but no faster than in float32 */
    FD_BF16_VECTORS,        /* bf16.h and sparse_bf16.h */
    FD_BF16_TILES           /* tile_product.h */
};

typedef struct {
    const char *name;
    int width;              /* floats in a vector */
    int max_nv;             /* how many vectors of lanes at most are computed at a time */
    int tile_nc[8];         /* output channels at a time, by nv */
    int sparse_nv;          /* vectors of output channels at a time where zeros are left out */
    int sparse_least;       /* the number of output channels from which on that is faster */
    int (*bf16)(void);      /* FD_BF16_..., on this CPU; for the last two fd_step.bf16 may be set */
    int (*prepare)(void);   /* to be called before the first kernel; returns whether the system
                             * allows these kernels. NULL: it always does */

    int (*conv_rows)(const fd_conv *, int row0, int row1);
    int (*conv_pool_rows)(const fd_conv *, const fd_pool *, int row0, int row1);
    int (*conv_planes_rows)(const fd_conv *, int row0, int row1);
    /* Rows of tiles: one row of the pool each, or with tile 4 two. */
    int (*winograd_rows)(const fd_conv *, const fd_pool *, const fd_winograd *, int row0,
                         int row1);
    void (*join_rows)(const fd_join *, int row0, int row1);
    int (*pool_rows)(const fd_pool *, const fd_input *, int row0, int row1);
    int (*step_rows)(const fd_step *, float *out, int row0, int row1);
    int (*first_rows)(const fd_first *, float *out, int row0, int row1);
    /* For cells cell0..cell1-1: sort their channels by the place (0 <= switch < places) that they
     * point to, and leave out those whose gate is 0. switches (cells, switch_cell); NULL: all at
     * place 0. gate (cells, channels) or NULL. order (cells, channels), first (cells, places + 1). */
    void (*sort_cells)(const void *switches, int switch_bytes, ptrdiff_t switch_cell,
                       const uint8_t *gate, int channels, int places, int32_t *order,
                       int32_t *first, int cell0, int cell1);
    void (*overlap_rows)(const fd_overlap *, int row0, int row1);
    void (*combine_rows)(const fd_combine *, int row0, int row1);
    int (*reduce_channels)(const fd_reduce *, int channel0, int channel1);
    /* Rows of (C, H, W) planes into channels last, and of lanes into (K, C, H, W) planes. */
    void (*planes_to_channels)(const float *planes, int channels, int h, int w, float *out,
                               ptrdiff_t out_row, ptrdiff_t out_col, int row0, int row1);
    void (*lanes_to_planes)(const float *lanes, int h, int w, int channels, int kp,
                            int features, float *planes, int row0, int row1);
    /* Output rows one cell row reaches, by how many rows the next one starts further
     * down, and the elements of one row of sums. */
    void (*last_reach)(const fd_last *, int *reach, int *advance, ptrdiff_t *row);
    int (*last_bands)(const fd_last *, int band0, int band1);
    int (*last_seam)(const fd_last *, int band);
    int (*single_features)(const fd_single *, int k0, int k1);
} fd_kernels;

static inline uint32_t fd_switch(const void *switches, int bytes, size_t at) {
    if (bytes == 1) return ((const uint8_t *)switches)[at];
    if (bytes == 2) return ((const uint16_t *)switches)[at];
    return ((const uint32_t *)switches)[at];
}

#define FD_MOST_TABLES 4

/* Tables this CPU can run, best first; at most FD_MOST_TABLES. */
int fd_available(const fd_kernels **tables);
/* Tables this CPU can run that are used only on request, because nobody has timed them, or because
 * they emulate other CPUs' instructions in C, bit for bit; at most FD_MOST_TABLES. */
int fd_on_request(const fd_kernels **tables);
/* The table with the tiles of AMX, even where this CPU has none; NULL: not in this build. */
const fd_kernels *fd_amx(void);

/* Whether the CPU and the system have AMX with bfloat16, and whether the system lets this
 * process use it (tiles_cpu.c). */
int fd_cpu_has_tiles(void);
int fd_ask_for_tiles(void);

/* ---- the same for every instruction set (planar.c) ---- */
/* The windows that share places with window 0 along one axis. For its place p, entries start[p] to
 * start[p+1]-1 give these windows, ascending, and the number of p in each of them. */
typedef struct {
    const int32_t *start, *window, *place;
} fd_shared;

/* For rows row0..row1-1 of cells (h, w) whose windows overlap: the next cell in row-major order that
 * points to the same place (-1: none), and whether the cell is the first one that does. switches and
 * gate as above; next, is_first (cells, channels). */
void fd_link_cells(const void *switches, int switch_bytes, ptrdiff_t switch_cell,
                   const uint8_t *gate, int channels, int kernel_w, const fd_shared *high,
                   const fd_shared *wide, int h, int w, int32_t *next, uint8_t *is_first, int row0,
                   int row1);
/* Copy the lists of rows row0..row1-1 of the source's cells to order (cells, channels) and first
 * (cells, places + 1), without the channels whose value in v (cells, channels) is 0. */
void fd_filter_cells(const fd_source *, const float *v, int32_t *order, int32_t *first,
                     int row0, int row1);
/* The zeros around an activation, channels last. */
typedef struct {
    float *buffer;          /* (top + h + bottom, left + w + right, pixel) */
    int top, bottom, left, right;
    int h, w, pixel;
    int by_columns;         /* the map is a single row, filled column by column; else row by row */
} fd_frame;

/* Clear the zeros beside rows (or columns) begin..end-1; with the first one also those before it,
 * with the last one also those behind it. */
void fd_clear_frame(const fd_frame *, int begin, int end);
void fd_pool_planes(const float *x, const fd_window *, int in_h, int in_w, int out_h, int out_w,
                    float *values, void *switches, int switch_bytes, int plane0, int plane1);
void fd_unpool_planes(const float *values, const void *switches, int switch_bytes,
                      const fd_window *, int in_h, int in_w, int out_h, int out_w,
                      float *x, int plane0, int plane1);

#endif
