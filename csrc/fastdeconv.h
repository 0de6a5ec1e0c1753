/* The interface of the C kernels: one table of functions for each instruction set. README.md, next
 * to this file, says which file does what and how a call gets here from Python.
 *
 * Kernels own no threads and no global state. A job is described by a struct. A call works on a
 * range of the job's rows (or planes, or bands); many threads may call at the same time, on
 * disjoint ranges. A kernel returns 0, or -1 if there was no memory for its scratch space. Strides
 * and offsets count elements, not bytes, unless a name says so.
 *
 * Layouts
 *   planes     (C, H, W), as in the public interface
 *   channels   (H, W, Cs): channels last; Cs >= C is a multiple of the vector width
 *   lanes      (H, W, C, KP): the caller's feature k is in lane k; KP is a multiple of the vector
 *              width. This is the layout of the backward pass
 *   by feature (H, W, KP, C): the same where there are too few features to fill the lanes of a
 *              vector. Here channels are in the lanes
 *
 * Words
 *   cell       a pixel of a pooled tensor: one pool window, and in it one value for each channel
 *   place      a position within a pool window, numbered in row-major order. A switch is the number
 *              of the place that had the maximum
 *   tap        a position within a convolution's kernel, numbered in row-major order
 *   gate       0 where the value of a channel cannot come back (its ReLU was closed), else 1
 *   source     the pooled tensor, and the unpooled tensor that it stands for, which is never built
 *   post       what is applied to every finished sum of the backward pass: ReLU, scale, ReLU
 *   epilogue   the same for the forward pass: scale and shift, activation, scale and shift
 *   band       a range of rows that is handed out to a thread as a whole
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

/* What is applied to a finished sum of the forward pass, channel by channel and in this order:
 * x*scale1+shift1, the activation, x*scale2+shift2. Where a scale is NULL, its step is left out. */
typedef struct {
    const float *scale1, *shift1;
    fd_activation activation;
    const float *scale2, *shift2;
} fd_epilogue;

/* Of more input channels than these, the forward pass sums each tap's products for so many channels
 * at a time, from zero, and adds these partial sums up: they are rounded less often than one long
 * sum, and Winograd's algorithm leaves fewer values in doubt (winograd.c). A multiple of 4. */
#define FD_SUM_INPUTS 64

/* A convolution as a list of taps. It also serves for one phase of a transposed convolution: the
 * output pixels of one phase see the same taps. */
typedef struct {
    const float *in;        /* channels layout; the origin of output (0, 0) */
    ptrdiff_t in_row, in_col; /* from the origin of an output pixel to that of the pixel in the next
                             * row, and in the next column */
    const ptrdiff_t *taps;  /* where each tap reads, counted from the origin of the output pixel */
    int ntaps;
    int cin, cout, groups;  /* cin: input channels of one group; cout: of all groups */
    int in_pixel;           /* elements of a pixel of the input, of all groups and with what pads
                             * it */
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
    void *switches;         /* (out_h, out_w, switch_cell) */
    int switch_cell;        /* >= channels */
    int switch_bytes;       /* 1, 2 or 4 */
    const float *counts;    /* NULL: a max pool, which has switches. Otherwise an average pool, and
                             * (out_h, out_w): what its sums are divided by */
} fd_pool;

/* One of the activations that a join takes. */
typedef struct {
    const float *in;        /* channels layout; the first pixel */
    ptrdiff_t row, col;     /* elements between neighbouring pixels; 0: one pixel for all */
    int channels;           /* 1: one channel for all */
} fd_input;

/* Adds activations up, multiplies them or concatenates them along the channels, then applies an
 * epilogue (join.c). With a single activation, it is only the epilogue. */
typedef struct {
    enum { FD_SUM, FD_PRODUCT, FD_CONCAT } kind;
    const fd_input *inputs;
    int count;
    fd_epilogue epilogue;
    int cols, channels;     /* of the result, without padding */
    float *out;             /* channels layout */
    ptrdiff_t out_row, out_col;
} fd_join;

/* A convolution by Winograd's algorithm, for 3x3 taps and plain 2x2 pools: see winograd.c. */
typedef struct {
    int tile;               /* pixels along a tile's side: 2 or 4 */
    const float *weight;    /* packed */
    /* Only with tile 2: */
    const float *slope, *base; /* the bound of each channel's error, padded like bias */
    const float *by_channel; /* the filters (channel, tap, input): channels padded like bias, inputs
                              * to whole vectors */
} fd_winograd;

/* Lists are copied FD_COPY elements at a time, and at least two times that many (gather.h). So up
 * to FD_LIST_ROOM elements beyond the end of a list are read or written. */
#define FD_COPY 16
#define FD_LIST_ROOM (2 * FD_COPY)

/* Where the values of an unpooled lane tensor come from: the cells of a pooled one. Each cell has a
 * list of its channels, sorted by the place that their switches name (see sort_cells). All features
 * share these lists. A tensor that is not pooled has windows of a single place. Where windows
 * overlap, several cells may send a channel to the same place; then only the cell whose value
 * fd_overlap has made the sum of them has the channel in its list. */
typedef struct {
    const int32_t *order;   /* for each cell: its channels, by place, ascending within a place. A
                             * channel may be at several places. Behind the last cell follow
                             * FD_LIST_ROOM elements, which can be read and are valid channels */
    const int32_t *first;   /* for each cell: where in `order` each place begins, and where the last
                             * one ends (places + 1 numbers) */
    ptrdiff_t order_cell, first_cell; /* elements per cell; 0 where one list serves all cells */
    ptrdiff_t list_row;     /* cells in a row of the lists. They are of the whole map, of which V
                             * may be a part */
    fd_window pool;
    int cells_h, cells_w;
    int h, w, channels;     /* of the unpooled tensor */
} fd_source;

/* What is applied to a finished sum of the backward pass: max(0, x), x*scale[channel], max(0, x),
 * in this order, each only where it is asked for. */
typedef struct {
    int relu_before;
    const float *scale;     /* or NULL. One vector beyond its end can be read */
    int relu_after;
} fd_post;

/* A factor for every pixel and channel, which is the same for all features. */
typedef struct {
    const float *values;    /* of the first pixel, channels contiguous; NULL: all factors are 1 */
    ptrdiff_t row, column;  /* elements between neighbouring pixels; 0: one pixel for all */
} fd_factor;

/* A lane tensor, or a part of one. */
typedef struct {
    const float *v;         /* the first pixel and channel; NULL: there is none */
    ptrdiff_t row, column;  /* elements between neighbouring pixels; 0: one pixel for all */
    ptrdiff_t feature;      /* in the layout by feature: elements between features */
} fd_view;

/* What is done to a pixel when its sums are complete, in this order: add the same pixel of another
 * tensor and apply `post`; multiply by a factor; add the result to sums over a row. */
typedef struct {
    fd_view more;
    fd_post post;
    fd_factor factor;
    float *sums;            /* (rows, channels, kp), by feature (rows, kp, channels); or NULL. The
                             * pixel, multiplied by `counts`, is added to the sums of its row */
    fd_factor counts;
} fd_finish;

/* Transposed convolution of a tensor in which every feature has a single channel, in its own
 * lane. */
typedef struct {
    const float *u;         /* (.., .., kp): padded with zeros for every tap in use */
    ptrdiff_t u_row;        /* elements between rows of u */
    const float *weight;    /* (cout, taps, kp); by feature (taps, kp, padded cout) */
    int kp, cout, ntaps_all;
    int by_feature;         /* few features, see nv in fd_step */
    /* Output pixels whose position modulo the stride is the same see the same taps: a phase. For
     * each of the stride_h x stride_w phases, a range of (offset in u, tap): */
    const int32_t *phase_start;
    const ptrdiff_t *phase_offset;
    const int32_t *phase_tap;
    fd_window conv;
    fd_post post;
    fd_finish finish;
    int out_h, out_w;
} fd_first;

/* Transposed convolution of an unpooled lane tensor. */
typedef struct fd_step {
    fd_source source;
    const struct fd_step *above; /* or NULL. The step that computes V pixel by pixel, so that V is
                             * never in memory. Only for a 1 x 1 convolution of stride 1 whose
                             * source has no pool and no gate */
    const fd_first *first;  /* or NULL. The first step, which computes a row of V when tiles want
                             * it, so that V is never in memory as a whole. Only with `winograd` */
    const float *v;         /* lanes (cells_h, cells_w, source.channels, kp); not used with `above`
                             * or `first` */
    int kp, nv;             /* nv > 0: kp lanes, of which nv vectors are computed together; nv
                             * divides kp / vector width. nv = 0: the layout is by feature, and
                             * there are kp features, at most half a vector of them */
    fd_window conv;
    int groups, cout;       /* cout: all channels of the result */
    /* The weights, packed for one of these kernels; the other pointers are NULL. */
    const float *weight;    /* see project.c */
    const uint16_t *bf16;   /* products are in bfloat16 (bf16.h, tile_product.h) */
    const float *sparse;    /* values that are zero are left out (sparse.h) */
    const uint16_t *sparse_bf16; /* both (sparse_bf16.h) */
    const float *depthwise; /* (taps, channels): each channel has a kernel of its own, and the
                             * source has no pool and no gate (depthwise.h) */
    const float *winograd;  /* products of transformed tiles (winograd_step.h) */
    int tile_top, tile_left; /* winograd only: how many rows above row 0, and columns before column
                              * 0, the first tile begins */
    int sparse_width;       /* elements in a row of `sparse`, which is whole vectors, or of
                             * `sparse_bf16`, which is whole pairs of vectors */
    int *lead;              /* with `sparse`, for each number of vectors in sparse_width: how many
                             * more votes there were for computing two rows of the result together
                             * than one by one. Steps change it at work until it is FD_SURE
                             * (next_rows in step.h). No bit depends on it */
    fd_post post;           /* applied to a sum in its register; nothing where finish.more is given,
                             * since that is added first */
    fd_finish finish;       /* applied when all sums of a pixel are in memory */
    int out_h, out_w;
} fd_step;

/* Adds up what overlapping windows send to the same place. Of the windows that send a channel to
 * the same place, the first one *leads*: its value becomes the sum. The values of the other windows
 * are not used any more. */
typedef struct {
    fd_source source;       /* of the result; its lists name only the leading values */
    const int32_t *next;    /* (all cells of the whole map, channels): the next cell that sends
                             * to the same place, or -1 (see fd_link_cells) */
    int row, column;        /* where in the whole map the result begins */
    const float *v;         /* a lane tensor */
    int v_row, v_column;    /* where in the whole map V begins; outside of V all values are 0 */
    int v_h, v_w;
    int kp, by_feature;     /* as in fd_first */
    fd_post post;
    fd_factor factor;
    float *out;             /* a lane tensor of the source's cells, in which only leading values are
                             * written. It may be V, if V has the same cells */
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

/* The last transposed convolution, to the network's input. Its own input is computed pixel by pixel
 * by another job, or is a tensor in memory. */
typedef struct {
    /* Exactly one of these three is given: the job that computes the input, or the lane tensor. */
    const fd_step *step;
    const fd_first *first;
    const float *v;
    fd_source source;       /* its cells are the pixels of the input */
    const float *weight;    /* packed: see project.c */
    fd_window conv;
    int kp, nv, cout;       /* cout: channels of the network's input */
    int features;           /* how many lanes are in use */
    int out_h, out_w;
    const int32_t *rows;    /* for each feature: its index in out, 0..N-1 */
    float *out;             /* planes (N, cout, out_h, out_w); may be a part of larger ones */
    ptrdiff_t out_feature, out_plane, out_row;
    int band;               /* rows of cells in one band */
    int skip;               /* how many rows of the first band lie above the part of the map that is
                             * computed. Bands begin at the same rows as in the whole map, so that
                             * sums are added in the same order */
    float *side;            /* (bands, 2, shared rows, elements of a row): for each band, its sums
                             * of the output rows that it shares with the band above, and below */
} fd_last;

/* One transposed convolution for features that have a single map each (single.c). */
typedef struct {
    const float *values;    /* (features, cells_h, cells_w) */
    const void *switches;   /* planes (channels, cells_h, cells_w), or NULL: not pooled */
    int switch_bytes;
    const int32_t *features; /* for each feature: its channel of `switches` */
    const int32_t *rows;     /* for each feature: its index in out */
    fd_window pool;
    int cells_h, cells_w;
    const float *weight;    /* (features, cout, kh, kw) */
    fd_window conv;         /* stride 1 */
    int cout, out_h, out_w;
    float *out;
    ptrdiff_t out_feature, out_plane, out_row;
} fd_single;

/* The lead, or its negative, with which a trial of speed is over (fd_step.lead). */
#define FD_SURE 16
/* Numbers of vectors that may be in sparse_width: 0 to 8. */
#define FD_LEADS 9

/* How a CPU can compute steps in bfloat16. */
enum {
    FD_BF16_NONE,           /* it cannot */
    FD_BF16_SLOW,           /* it could, but not faster than in float32 */
    FD_BF16_VECTORS,        /* by bf16.h and sparse_bf16.h */
    FD_BF16_TILES           /* by tile_product.h */
};

typedef struct {
    const char *name;
    int width;              /* floats in a vector */
    int max_nv;             /* the most vectors of lanes that are computed together */
    int tile_nc[8];         /* how many output channels are computed together, by nv */
    int sparse_nv;          /* the same where zeros are left out, in vectors */
    int sparse_least;       /* leaving out zeros pays from this number of output channels on */
    int winograd_least;     /* Winograd's algorithm pays from this number of channels on, of V and
                             * of the result */
    int (*bf16)(void);      /* FD_BF16_..., for this CPU. fd_step.bf16 may be given only where it is
                             * one of the last two */
    int (*prepare)(void);   /* must be called before the first kernel; returns whether the system
                             * allows these kernels. NULL: it always does */

    int (*conv_rows)(const fd_conv *, int row0, int row1);
    int (*conv_pool_rows)(const fd_conv *, const fd_pool *, int row0, int row1);
    int (*conv_planes_rows)(const fd_conv *, int row0, int row1);
    /* row0, row1 count rows of tiles: a row of tile 2 is one row of the pool, of tile 4 two. */
    int (*winograd_rows)(const fd_conv *, const fd_pool *, const fd_winograd *, int row0,
                         int row1);
    void (*join_rows)(const fd_join *, int row0, int row1);
    int (*pool_rows)(const fd_pool *, const fd_input *, int row0, int row1);
    int (*step_rows)(const fd_step *, float *out, int row0, int row1);
    int (*first_rows)(const fd_first *, float *out, int row0, int row1);
    /* Makes the lists of fd_source for cells cell0..cell1-1: sorts their channels by their switches
     * (0 <= switch < places), and leaves out those whose gate is 0. switches (cells, switch_cell)
     * or NULL: all are 0. gate (cells, channels) or NULL: all are open. order (cells, channels),
     * first (cells, places + 1). */
    void (*sort_cells)(const void *switches, int switch_bytes, ptrdiff_t switch_cell,
                       const uint8_t *gate, int channels, int places, int32_t *order,
                       int32_t *first, int cell0, int cell1);
    void (*overlap_rows)(const fd_overlap *, int row0, int row1);
    void (*combine_rows)(const fd_combine *, int row0, int row1);
    int (*reduce_channels)(const fd_reduce *, int channel0, int channel1);
    /* From planes (C, H, W) to channels, and from lanes, whose rows lie `row` elements apart, to
     * planes (K, C, H, W). */
    void (*planes_to_channels)(const float *planes, int channels, int h, int w, float *out,
                               ptrdiff_t out_row, ptrdiff_t out_col, int row0, int row1);
    void (*lanes_to_planes)(const float *lanes, ptrdiff_t row, int h, int w, int channels, int kp,
                            int features, float *planes, int row0, int row1);
    /* *reach: how many output rows a row of cells contributes to; *advance: how many output rows
     * further down the next row of cells begins; *row: elements of one output row of sums. */
    void (*last_reach)(const fd_last *, int *reach, int *advance, ptrdiff_t *row);
    int (*last_bands)(const fd_last *, int band0, int band1);
    int (*last_seam)(const fd_last *, int band);
    int (*single_features)(const fd_single *, int k0, int k1);
} fd_kernels;

/* Switch number `at` of an array whose switches have so many bytes. */
static inline uint32_t fd_switch(const void *switches, int bytes, size_t at) {
    if (bytes == 1) return ((const uint8_t *)switches)[at];
    if (bytes == 2) return ((const uint16_t *)switches)[at];
    return ((const uint32_t *)switches)[at];
}

/* Output channels that a product of Winograd's algorithm has at a time (winograd_step.h). */
#define FD_WINOGRAD_ROWS 6
/* Rows of a product of few features, each of which is a tile of a feature, that a batch of tiles has
 * at least. */
#define FD_WINOGRAD_FEW_ROWS 12

/* Tiles of a batch, so that no part of a product is empty: for kp lanes, whole blocks of `block`
 * lanes; of few features (nv = 0), at least FD_WINOGRAD_FEW_ROWS rows, whole blocks of them. */
static inline int fd_winograd_tiles(int kp, int nv, int block) {
    const int whole = nv ? block : FD_WINOGRAD_ROWS, least = nv ? 0 : FD_WINOGRAD_FEW_ROWS;
    int tiles = 1;
    while (tiles * kp < least || tiles * kp % whole) tiles++;
    return tiles;
}

#define FD_MOST_TABLES 4

/* The tables that this CPU can run, best first; returns how many, at most FD_MOST_TABLES. */
int fd_available(const fd_kernels **tables);
/* Further tables that this CPU can run, but that are used only on request: they have not been
 * timed, or they emulate instructions of other CPUs in C, bit for bit. */
int fd_on_request(const fd_kernels **tables);
/* The table with the tiles of AMX, even where this CPU has none. NULL: it is not in this build. */
const fd_kernels *fd_amx(void);

/* Whether the CPU and the system have AMX with bfloat16, and whether the system lets this
 * process use it (tiles_cpu.c). */
int fd_cpu_has_tiles(void);
int fd_ask_for_tiles(void);

/* ---- the same for every instruction set (planar.c) ---- */
/* Along one axis: the windows that have a place in common with a given window. For its place p,
 * entries start[p] to start[p+1]-1 name these windows, counted from the given one and ascending,
 * and the number that place p has in each of them. */
typedef struct {
    const int32_t *start, *window, *place;
} fd_shared;

/* For rows row0..row1-1 of cells (h, w) whose windows overlap, and for each channel: the next cell
 * in row-major order whose switch names the same place (-1: none), and whether this cell is the
 * first of them. switches and gate as for sort_cells; next, is_first (cells, channels). */
void fd_link_cells(const void *switches, int switch_bytes, ptrdiff_t switch_cell,
                   const uint8_t *gate, int channels, int kernel_w, const fd_shared *high,
                   const fd_shared *wide, int h, int w, int32_t *next, uint8_t *is_first, int row0,
                   int row1);
/* Copies the lists of rows row0..row1-1 of the source's cells to order (cells, channels, and then
 * FD_LIST_ROOM more elements) and first (cells, places + 1), without the channels whose value in v
 * (cells, channels) is 0. */
void fd_filter_cells(const fd_source *, const float *v, int32_t *order, int32_t *first,
                     int row0, int row1);
/* The padding around a channels-last activation. */
typedef struct {
    float *buffer;          /* (top + h + bottom, left + w + right, pixel) */
    int top, bottom, left, right;
    int h, w, pixel;
    int by_columns;         /* whether work on the map is divided by columns, not by rows */
} fd_frame;

/* Fills the padding beside rows (or columns) begin..end-1 with zeros; with the first one, also the
 * padding before it; with the last one, also the padding behind it. */
void fd_clear_frame(const fd_frame *, int begin, int end);
/* The largest absolute value of n numbers; NaN if one of them is. */
float fd_largest(const float *, size_t n);
/* Copies rows row0..row1-1 of switches (H, W, Cs), `bytes` bytes each, of which the first of every
 * pixel's `stored` are of the `channels`, to planes (C, H, W). */
void fd_switches_to_planes(const void *switches, int bytes, int stored, int channels, int h, int w,
                           void *planes, int row0, int row1);
/* Max pooling with switches, and its adjoint, of planes plane0..plane1-1. */
void fd_pool_planes(const float *x, const fd_window *, int in_h, int in_w, int out_h, int out_w,
                    float *values, void *switches, int switch_bytes, int plane0, int plane1);
void fd_unpool_planes(const float *values, const void *switches, int switch_bytes,
                      const fd_window *, int in_h, int in_w, int out_h, int out_w,
                      float *x, int plane0, int plane1);

#endif
