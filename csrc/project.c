/* The backward pass: features in the lanes, transposed convolution as a gathered product.
 *
 * What    A step turns the lane tensor V at a pool's output into the one at the
 *         convolution's input: unpool by the switches, transposed convolution,
 *         `fd_post`. The switches come from the forward pass of one clip, so all
 *         features share them, and with them the pattern of non-zeros: the unpooled
 *         tensor is never built. For every output pixel one list names the entries
 *         {row of V, row of W} that reach it; then
 *             out[channel][lane] += W[entry][channel] * V[entry][lane].
 *         After a 2x2 pool the list holds 2.25 taps per channel where a dense
 *         method computes 9.
 * First   One channel per lane at the start: the product is diagonal, with a kernel
 *         of its own (every lane has its own weights and, through u, switches).
 * Last    The step to the network's input is fused with the one above it: every
 *         pixel's panel (channels x lanes) is scattered into a ring of output rows
 *         while it is in L1; the tensor between the two never exists. Bands of rows
 *         have a fixed height, sums of rows that two bands share are kept aside and
 *         added in `last_seam`.
 * Few     Features that fill at most half a vector stay out of the lanes: output channels
 *         go there, and features are broadcast. The same lists, the same sums.
 * Layout  V (h, w, channel, lane); of few features (h, w, feature, channel). W packed per
 *         group: for every block of NC output channels (the last may be smaller)
 *         [tap][input channel][NC]. Last step: "output channels" are all (tap, channel)
 *         pairs. Few: one block, padded with zeros to whole vectors.
 * Mix     per entry, on AVX-512, 64 lanes: 4 loads, 6 broadcasts, 24 FMA, 4 prefetches.
 * Numbers float32, vf_fma in list order: taps row-major, channels innermost.
 *         Independent of threads, of the other lanes, and of the block a channel is in.
 */
#include <stdlib.h>

#include "layout.h"
#include "units.h"

typedef struct {
    size_t v; /* offset in V */
    size_t w; /* row of the packed weights */
} entry;

/* The V rows of an entry come from anywhere: fetch those of the 8th entry ahead. */
#define AHEAD 8

/* ---- the gathered product ---- */

#define MAX_NC 12
#define MAX_NV 4

FD_INLINE void product(const entry *list, int n, const float *v, const float *w,
                       vf acc[MAX_NC][MAX_NV], const int NC, const int NV) {
    FD_UNROLL
    for (int i = 0; i < NC; i++)
        FD_UNROLL
        for (int j = 0; j < NV; j++) acc[i][j] = vf_zero();
    for (int e = 0; e < n; e++) {
        const float *a = v + list[e].v, *b = w + list[e].w * NC;
        const char *next = (const char *)(v + list[e + AHEAD].v);
        FD_UNROLL
        for (int j = 0; j * 64 < NV * VW * (int)sizeof(float); j++)
            __builtin_prefetch(next + 64 * j);
        vf x[MAX_NV];
        FD_UNROLL
        for (int j = 0; j < NV; j++) x[j] = vf_load(a + j * VW);
        FD_UNROLL
        for (int i = 0; i < NC; i++) {
            const vf y = vf_set1(b[i]);
            FD_UNROLL
            for (int j = 0; j < NV; j++) acc[i][j] = vf_fma(y, x[j], acc[i][j]);
        }
    }
}

/* fd_post with one channel in all lanes, or a channel in each from `channel` on. */
FD_INLINE vf post(vf a, const fd_post *p, int channel, const int one_channel) {
    if (p->relu_before) a = vf_max(vf_zero(), a);
    if (p->scale) {
        const float *scale = p->scale + channel;
        a = vf_mul(a, one_channel ? vf_set1(*scale) : vf_load(scale));
    }
    if (p->relu_after) a = vf_max(vf_zero(), a);
    return a;
}

/* Where a block of results goes: a panel, with fd_post on the way ... */
typedef struct {
    float *out;
    ptrdiff_t stride;
    const fd_post *post;
    int channel;
} panel_block;

/* ... or added to rows of the output ring. */
typedef struct {
    float *const *rows;
} ring_block;

FD_INLINE void product_to_panel(const entry *list, int n, const float *v, const float *w,
                                const panel_block *to, const int NC, const int NV) {
    vf acc[MAX_NC][MAX_NV];
    product(list, n, v, w, acc, NC, NV);
    FD_UNROLL
    for (int i = 0; i < NC; i++)
        FD_UNROLL
        for (int j = 0; j < NV; j++)
            vf_store(to->out + i * to->stride + j * VW,
                     post(acc[i][j], to->post, to->channel + i, 1));
}

FD_INLINE void product_to_ring(const entry *list, int n, const float *v, const float *w,
                               const ring_block *to, const int NC, const int NV) {
    vf acc[MAX_NC][MAX_NV];
    product(list, n, v, w, acc, NC, NV);
    FD_UNROLL
    for (int i = 0; i < NC; i++)
        FD_UNROLL
        for (int j = 0; j < NV; j++) {
            float *q = to->rows[i] + j * VW;
            vf_store(q, vf_add(vf_load(q), acc[i][j]));
        }
}

#define CASE(F, n, NV) \
    case n: F(list, count, v, w, to, n, NV); break;
#define CASES_6(F, NV) \
    CASE(F, 1, NV) CASE(F, 2, NV) CASE(F, 3, NV) CASE(F, 4, NV) CASE(F, 5, NV) CASE(F, 6, NV)
#define CASES_8(F, NV) CASES_6(F, NV) CASE(F, 7, NV) CASE(F, 8, NV)
#define CASES_12(F, NV) \
    CASES_8(F, NV) CASE(F, 9, NV) CASE(F, 10, NV) CASE(F, 11, NV) CASE(F, 12, NV)
#define BLOCK_FUNCTION(F, TO, NV, CASES)                                                   \
    static void F##_##NV(const entry *list, int count, const float *v, const float *w,     \
                         const TO *to, int nc) {                                           \
        switch (nc) {                                                                      \
            CASES(F, NV)                                                                   \
        }                                                                                  \
    }
#define BLOCK_FUNCTIONS(F, TO)        \
    BLOCK_FUNCTION(F, TO, 1, CASES_12) \
    BLOCK_FUNCTION_2(F, TO)

#if FD_MAX_NV == 4
#define BLOCK_FUNCTION_2(F, TO)        \
    BLOCK_FUNCTION(F, TO, 2, CASES_12) \
    BLOCK_FUNCTION(F, TO, 3, CASES_8)  \
    BLOCK_FUNCTION(F, TO, 4, CASES_6)
#define CALL_BLOCK(F, nv, ...)                 \
    do {                                       \
        switch (nv) {                          \
            case 1: F##_1(__VA_ARGS__); break; \
            case 2: F##_2(__VA_ARGS__); break; \
            case 3: F##_3(__VA_ARGS__); break; \
            case 4: F##_4(__VA_ARGS__); break; \
        }                                      \
    } while (0)
#else
#define BLOCK_FUNCTION_2(F, TO) BLOCK_FUNCTION(F, TO, 2, CASES_6)
#define CALL_BLOCK(F, nv, ...)                 \
    do {                                       \
        switch (nv) {                          \
            case 1: F##_1(__VA_ARGS__); break; \
            case 2: F##_2(__VA_ARGS__); break; \
        }                                      \
    } while (0)
#endif

BLOCK_FUNCTIONS(product_to_panel, panel_block)
BLOCK_FUNCTIONS(product_to_ring, ring_block)

static const int tile_nc[8] = FD_TILES;

/* ---- which values are there: lists per row of the unpooled tensor ---- */

static uint32_t read_switch(const fd_source *s, size_t cell, int c) {
    const size_t at = cell * s->switch_cell + c;
    if (s->switch_bytes == 1) return ((const uint8_t *)s->switches)[at];
    if (s->switch_bytes == 2) return ((const uint16_t *)s->switches)[at];
    return ((const uint32_t *)s->switches)[at];
}

typedef struct {
    int y;          /* the row held, or -1 */
    int *count;     /* per pixel */
    entry *items;   /* per pixel, room for every channel, ascending; w is the channel */
} row_lists;

/* Channel c of a cell goes to pixel x of the row. Of `kp` lanes a channel's values lie
 * together; of few features (nv 0) a feature's. */
static void push(const fd_source *s, size_t cell, int c, int kp, int nv, row_lists *r, int x) {
    const size_t row = cell * s->channels;
    if (s->gate && !s->gate[row + c]) return;
    r->items[(size_t)x * s->channels + r->count[x]++] =
        (entry){nv ? (row + c) * kp : row * kp + c, (size_t)c};
}

/* The window row that covers row y, and y's place in it; 0 when none does. */
static int covering(int y, int pad, int stride, int dilation, int kernel, int windows,
                    int *window, int *place) {
    *window = (y + pad) / stride;
    const int offset = y + pad - *window * stride;
    *place = offset / dilation;
    return *window < windows && offset % dilation == 0 && *place < kernel;
}

static void build_row(const fd_source *s, int y, int kp, int nv, row_lists *r) {
    const fd_window *k = &s->pool;
    int cy, i;
    r->y = y;
    memset(r->count, 0, sizeof(int) * s->w);
    if (!s->switches) {
        for (int x = 0; x < s->w; x++)
            for (int c = 0; c < s->channels; c++)
                push(s, (size_t)y * s->w + x, c, kp, nv, r, x);
        return;
    }
    if (!covering(y, k->top, k->sh, k->dh, k->kh, s->cells_h, &cy, &i)) return;
    const uint32_t lo = (uint32_t)(i * k->kw), hi = lo + (uint32_t)k->kw;
    for (int cx = 0; cx < s->cells_w; cx++) {
        const size_t cell = (size_t)cy * s->cells_w + cx;
        const int x0 = cx * k->sw - k->left;
        for (int c = 0; c < s->channels; c++) {
            const uint32_t p = read_switch(s, cell, c);
            if (p >= lo && p < hi) push(s, cell, c, kp, nv, r, x0 + (int)(p - lo) * k->dw);
        }
    }
}

/* ---- few features: output channels in the lanes ---- */

#define MAX_FEW (VW / 2)
#define FEW_VECTORS(K) ((K) <= 4 && FD_REGISTERS >= 32 ? 4 : 2)

/* A product whose results go to out[feature][channel]. */
typedef struct {
    const float *v;
    ptrdiff_t in_feature;  /* between features of V */
    const float *w;
    int width;             /* of a row of W, whole vectors */
    float *out;
    ptrdiff_t out_feature;
    int channels;          /* results there are; the rest of the width is padding */
    const fd_post *post;
    int channel;           /* the first one's number, for post */
} few_block;

static void store_part(float *to, vf a, int count) {
    if (count >= VW) {
        vf_store(to, a);
        return;
    }
    float lanes[VW];
    vf_store(lanes, a);
    for (int l = 0; l < count; l++) to[l] = lanes[l];
}

/* Vectors first..first + J - 1 of channels, K features; both are constants. */
FD_INLINE void few_product(const few_block *f, const entry *list, int n, int first,
                           const int K, const int J) {
    vf acc[MAX_FEW][4];
    const float *w = f->w + first * VW;
    FD_UNROLL
    for (int k = 0; k < K; k++)
        FD_UNROLL
        for (int j = 0; j < J; j++) acc[k][j] = vf_zero();
    for (int e = 0; e < n; e++) {
        const float *a = f->v + list[e].v, *b = w + list[e].w * f->width;
        vf y[4];
        FD_UNROLL
        for (int j = 0; j < J; j++) y[j] = vf_load(b + j * VW);
        FD_UNROLL
        for (int k = 0; k < K; k++) {
            const vf x = vf_set1(a[k * f->in_feature]);
            FD_UNROLL
            for (int j = 0; j < J; j++) acc[k][j] = vf_fma(y[j], x, acc[k][j]);
        }
    }
    FD_UNROLL
    for (int j = 0; j < J; j++) {
        const int channel = (first + j) * VW;
        FD_UNROLL
        for (int k = 0; k < K; k++)
            store_part(f->out + k * f->out_feature + channel,
                       post(acc[k][j], f->post, f->channel + channel, 0),
                       f->channels - channel);
    }
}

#define FEW_CASE(K, J) \
    case J: few_product(f, list, n, first, K, J); break;
#define FEW_FUNCTION(K)                                                          \
    static void few_product_##K(const few_block *f, const entry *list, int n) {  \
        const int vectors = f->width / VW, most = FEW_VECTORS(K);                \
        for (int first = 0; first < vectors; first += most)                      \
            switch (vectors - first < most ? vectors - first : most) {           \
                FEW_CASE(K, 1) FEW_CASE(K, 2) FEW_CASE(K, 3) FEW_CASE(K, 4)       \
            }                                                                    \
    }
FEW_FUNCTION(1)
FEW_FUNCTION(2)
#if VW >= 8
FEW_FUNCTION(3)
FEW_FUNCTION(4)
#endif
#if VW >= 16
FEW_FUNCTION(5)
FEW_FUNCTION(6)
FEW_FUNCTION(7)
FEW_FUNCTION(8)
#endif

static void product_of_few(const few_block *f, const entry *list, int n, int features) {
    switch (features) {
        case 1: few_product_1(f, list, n); break;
        case 2: few_product_2(f, list, n); break;
#if VW >= 8
        case 3: few_product_3(f, list, n); break;
        case 4: few_product_4(f, list, n); break;
#endif
#if VW >= 16
        case 5: few_product_5(f, list, n); break;
        case 6: few_product_6(f, list, n); break;
        case 7: few_product_7(f, list, n); break;
        case 8: few_product_8(f, list, n); break;
#endif
    }
}

/* ---- one step, pixel by pixel ---- */

typedef struct {
    const fd_step *s;
    int reach;        /* rows of the source one output row reads */
    row_lists *rows;  /* a ring of them */
    entry *list;
} stepper;

static void stepper_free(stepper *p) {
    if (p->rows)
        for (int i = 0; i < p->reach; i++) {
            free(p->rows[i].count);
            free(p->rows[i].items);
        }
    free(p->rows);
    free(p->list);
}

static int stepper_init(stepper *p, const fd_step *s) {
    const fd_source *f = &s->source;
    p->s = s;
    p->reach = (s->conv.kh - 1) * s->conv.dh / s->conv.sh + 1;
    if (p->reach > f->h) p->reach = f->h;
    p->rows = calloc(p->reach, sizeof *p->rows);
    p->list = malloc(sizeof(entry) *
                     ((size_t)s->conv.kh * s->conv.kw * f->channels / s->groups + AHEAD));
    int ok = p->rows && p->list;
    for (int i = 0; ok && i < p->reach; i++) {
        p->rows[i].y = -1;
        p->rows[i].count = malloc(sizeof(int) * f->w);
        p->rows[i].items = malloc(sizeof(entry) * f->w * f->channels);
        ok = p->rows[i].count && p->rows[i].items;
    }
    if (!ok) stepper_free(p);
    return ok;
}

/* Place q of a convolution's output that its tap t reaches from input place p; 0: none. */
static int reached(int p, int pad, int t, int dilation, int stride, int size, int *q) {
    const int n = p + pad - t * dilation;
    *q = n / stride;
    return n >= 0 && n % stride == 0 && *q < size;
}

static const row_lists *row_of(stepper *p, int y) {
    row_lists *r = p->rows + y % p->reach;
    if (r->y != y) build_row(&p->s->source, y, p->s->kp, p->s->nv, r);
    return r;
}

/* Entries of one tap: their rows of W follow one another from `row` on. */
static void append(entry *restrict to, const entry *restrict from, int n, size_t row) {
    for (int e = 0; e < n; e++) to[e] = (entry){from[e].v, from[e].w + row};
}

/* All entries of group g that reach output pixel (Y, X); returns how many. */
static int gather(stepper *p, int Y, int X, int g) {
    const fd_step *s = p->s;
    const fd_window *k = &s->conv;
    const int channels = s->source.channels / s->groups;
    const uint32_t lo = (uint32_t)(g * channels), hi = lo + (uint32_t)channels;
    entry *list = p->list;
    int n = 0;
    for (int i = 0; i < k->kh; i++) {
        int y, x;
        if (!reached(Y, k->top, i, k->dh, k->sh, s->source.h, &y)) continue;
        const row_lists *r = row_of(p, y);
        for (int j = 0; j < k->kw; j++) {
            if (!reached(X, k->left, j, k->dw, k->sw, s->source.w, &x)) continue;
            const entry *item = r->items + (size_t)x * s->source.channels;
            const size_t tap = (size_t)(i * k->kw + j) * channels;
            const int count = r->count[x];
            if (s->groups == 1) {
                append(list + n, item, count, tap);
                n += count;
                continue;
            }
            for (int e = 0; e < count; e++)
                if (item[e].w >= lo && item[e].w < hi)
                    list[n++] = (entry){item[e].v, item[e].w - lo + tap};
        }
    }
    /* Prefetching looks past the end. */
    for (int e = 0; e < AHEAD; e++) list[n + e] = (entry){n ? list[n - 1].v : 0, 0};
    return n;
}

static void step_pixel_few(stepper *p, int Y, int X, float *out) {
    const fd_step *s = p->s;
    const int couts = s->cout / s->groups, width = padded(couts);
    const size_t rows = (size_t)s->conv.kh * s->conv.kw * (s->source.channels / s->groups);
    for (int g = 0; g < s->groups; g++) {
        const int n = gather(p, Y, X, g), channel = g * couts;
        const few_block f = {s->v, s->source.channels, s->weight + g * rows * width, width,
                             out + channel, s->cout, couts, &s->post, channel};
        product_of_few(&f, p->list, n, s->kp);
    }
}

static void step_pixel(stepper *p, int Y, int X, float *out) {
    const fd_step *s = p->s;
    if (!s->nv) {
        step_pixel_few(p, Y, X, out);
        return;
    }
    const int couts = s->cout / s->groups, nc = tile_nc[s->nv];
    const size_t rows = (size_t)s->conv.kh * s->conv.kw * (s->source.channels / s->groups);
    for (int g = 0; g < s->groups; g++) {
        const int n = gather(p, Y, X, g);
        const float *w0 = s->weight + (size_t)g * rows * couts;
        for (int k = 0; k < s->kp; k += s->nv * VW)
            for (int c = 0; c < couts; c += nc) {
                const int channel = g * couts + c;
                const panel_block to = {out + (size_t)channel * s->kp + k, s->kp, &s->post,
                                        channel};
                CALL_BLOCK(product_to_panel, s->nv, p->list, n, s->v + k, w0 + rows * c, &to,
                           couts - c < nc ? couts - c : nc);
            }
    }
}

int FD_NAME(fd_step_rows)(const fd_step *s, float *out, int row0, int row1) {
    stepper p;
    if (!stepper_init(&p, s)) return -1;
    for (int y = row0; y < row1; y++)
        for (int x = 0; x < s->out_w; x++)
            step_pixel(&p, y, x, out + ((size_t)y * s->out_w + x) * s->cout * s->kp);
    stepper_free(&p);
    return 0;
}

/* ---- the first step: one channel per lane ---- */

#define FIRST_COLUMNS 4

/* T columns that share their taps x 2 channels (or 1). */
FD_INLINE void first_tile(const fd_first *f, const ptrdiff_t *offset, const int32_t *tap, int n,
                          const float *u, int channel, float *out, ptrdiff_t out_col,
                          const int T, const int NI) {
    const size_t row = (size_t)f->ntaps_all * f->kp;
    for (int k = 0; k < f->kp; k += VW) {
        const float *w = f->weight + channel * row + k;
        vf acc[2][FIRST_COLUMNS];
        FD_UNROLL
        for (int i = 0; i < NI; i++)
            FD_UNROLL
            for (int x = 0; x < T; x++) acc[i][x] = vf_zero();
        for (int t = 0; t < n; t++) {
            const float *a = u + offset[t] + k;
            vf b[2];
            FD_UNROLL
            for (int i = 0; i < NI; i++) b[i] = vf_load(w + i * row + (size_t)tap[t] * f->kp);
            FD_UNROLL
            for (int x = 0; x < T; x++) {
                const vf v = vf_load(a + x * f->kp);
                FD_UNROLL
                for (int i = 0; i < NI; i++) acc[i][x] = vf_fma(b[i], v, acc[i][x]);
            }
        }
        FD_UNROLL
        for (int i = 0; i < NI; i++)
            FD_UNROLL
            for (int x = 0; x < T; x++)
                vf_store(out + x * out_col + (size_t)i * f->kp + k,
                         post(acc[i][x], &f->post, channel + i, 1));
    }
}

/* `columns` neighbours of one phase (out_col apart in out), all channels. */
static void first_columns(const fd_first *f, int Y, int X, int columns, float *out,
                          ptrdiff_t out_col) {
    const fd_window *k = &f->conv;
    const int py = Y + k->top, px = X + k->left;
    const int phase = py % k->sh * k->sw + px % k->sw;
    const int start = f->phase_start[phase], n = f->phase_start[phase + 1] - start;
    const float *u = f->u + py / k->sh * f->u_row + (ptrdiff_t)(px / k->sw) * f->kp;
    const ptrdiff_t *offset = f->phase_offset + start;
    const int32_t *tap = f->phase_tap + start;
    int i = 0;
    for (; i + 2 <= f->cout; i += 2) {
        float *q = out + (size_t)i * f->kp;
        switch (columns) {
            case 1: first_tile(f, offset, tap, n, u, i, q, out_col, 1, 2); break;
            case 2: first_tile(f, offset, tap, n, u, i, q, out_col, 2, 2); break;
            case 3: first_tile(f, offset, tap, n, u, i, q, out_col, 3, 2); break;
            case 4: first_tile(f, offset, tap, n, u, i, q, out_col, 4, 2); break;
        }
    }
    for (int x = 0; i < f->cout && x < columns; x++)
        first_tile(f, offset, tap, n, u + x * f->kp, i, out + x * out_col + (size_t)i * f->kp,
                   out_col, 1, 1);
}

/* Columns X, X + stride, ... that first_columns takes at once from column X on. */
static int first_count(const fd_first *f, int X) {
    const int left = (f->out_w - X + f->conv.sw - 1) / f->conv.sw;
    return left < FIRST_COLUMNS ? left : FIRST_COLUMNS;
}

/* One pixel of few features: the channels of all of them, [feature][channel]. */
static void first_pixel_few(const fd_first *f, int Y, int X, float *out) {
    const fd_window *k = &f->conv;
    const int py = Y + k->top, px = X + k->left;
    const int phase = py % k->sh * k->sw + px % k->sw, width = padded(f->cout);
    const float *u = f->u + py / k->sh * f->u_row + (ptrdiff_t)(px / k->sw) * f->kp;
    for (int i = 0; i < f->kp; i++)
        for (int c = 0; c < width; c += VW) {
            vf acc = vf_zero();
            for (int t = f->phase_start[phase]; t < f->phase_start[phase + 1]; t++) {
                const float *w = f->weight + ((size_t)f->phase_tap[t] * f->kp + i) * width + c;
                acc = vf_fma(vf_load(w), vf_set1(u[f->phase_offset[t] + i]), acc);
            }
            store_part(out + (size_t)i * f->cout + c, post(acc, &f->post, c, 0),
                       f->cout - c);
        }
}

int FD_NAME(fd_first_rows)(const fd_first *f, float *out, int row0, int row1) {
    const ptrdiff_t pixel = (ptrdiff_t)f->cout * f->kp;
    const int stride = f->conv.sw;
    if (f->few) {
        for (int y = row0; y < row1; y++)
            for (int x = 0; x < f->out_w; x++)
                first_pixel_few(f, y, x, out + ((size_t)y * f->out_w + x) * pixel);
        return 0;
    }
    for (int y = row0; y < row1; y++)
        for (int phase = 0; phase < stride; phase++)
            for (int x = phase; x < f->out_w; x += FIRST_COLUMNS * stride)
                first_columns(f, y, x, first_count(f, x),
                              out + ((size_t)y * f->out_w + x) * pixel, stride * pixel);
    return 0;
}

/* ---- the last step, fused with the one above ---- */

typedef struct {
    const fd_last *f;
    int reach, advance;   /* output rows one cell row reaches; rows to the next one */
    ptrdiff_t row;        /* elements of one output row, margins included */
    int margin;           /* columns left of column 0 */
    float *ring;          /* reach rows */
    entry *lists;         /* per window position, room for every channel */
    int *count;
    float **targets;      /* where each (tap, channel) of one position goes */
    float *sums;          /* few features: theirs of one position, [feature][(tap, channel)] */
} scatterer;

void FD_NAME(fd_last_reach)(const fd_last *f, int *reach, int *advance, ptrdiff_t *row) {
    const fd_window *k = &f->conv, *p = &f->source.pool;
    const int pooled = f->source.switches != NULL;
    const int span = (pooled ? (p->kh - 1) * p->dh * k->sh : 0) + (k->kh - 1) * k->dh + 1;
    const int right = (f->source.w - 1) * k->sw - k->left + (k->kw - 1) * k->dw + 1;
    *advance = (pooled ? p->sh : 1) * k->sh;
    /* Rows between two cell rows that neither reaches belong to the upper one. */
    *reach = span > *advance ? span : *advance;
    *row = (ptrdiff_t)(k->left + (right > f->out_w ? right : f->out_w)) * f->cout * f->kp;
}

static void scatterer_free(scatterer *p) {
    free(p->ring);
    free(p->lists);
    free(p->count);
    free(p->targets);
    free(p->sums);
}

static int scatterer_init(scatterer *p, const fd_last *f) {
    const fd_source *s = &f->source;
    const int positions = s->switches ? s->pool.kh * s->pool.kw : 1;
    p->f = f;
    FD_NAME(fd_last_reach)(f, &p->reach, &p->advance, &p->row);
    p->margin = f->conv.left;
    p->ring = calloc((size_t)p->reach * p->row, sizeof(float));
    p->lists = malloc(sizeof(entry) * positions * ((size_t)s->channels + AHEAD));
    p->count = malloc(sizeof(int) * positions);
    p->targets = malloc(sizeof(float *) * f->conv.kh * f->conv.kw * f->cout);
    p->sums = malloc(sizeof(float) * f->conv.kh * f->conv.kw * f->cout * f->kp);
    if (p->ring && p->lists && p->count && p->targets && p->sums) return 1;
    scatterer_free(p);
    return 0;
}

static float *ring_row(const scatterer *p, int cell_row, int i) {
    return p->ring + (size_t)(((long)cell_row * p->advance + i) % p->reach) * p->row;
}

/* Sort one cell's channels by the place their switch points to. */
static void sort_channels(scatterer *p, size_t cell) {
    const fd_source *s = &p->f->source;
    const int positions = s->switches ? s->pool.kh * s->pool.kw : 1;
    const size_t room = (size_t)s->channels + AHEAD;
    memset(p->count, 0, sizeof(int) * positions);
    for (int c = 0; c < s->channels; c++) {
        if (s->gate && !s->gate[cell * s->channels + c]) continue;
        const uint32_t at = s->switches ? read_switch(s, cell, c) : 0;
        p->lists[at * room + p->count[at]++] =
            (entry){p->f->nv ? (size_t)c * p->f->kp : (size_t)c, (size_t)c};
    }
    for (int q = 0; q < positions; q++)
        for (int e = 0; e < AHEAD; e++)
            p->lists[q * room + p->count[q] + e] = (entry){0, 0};
}

/* Where the outputs of the value at unpooled place (i, j) of cell (Y, X) are summed. */
static void find_targets(scatterer *p, int Y, int X, int i, int j) {
    const fd_last *f = p->f;
    const fd_window *k = &f->conv, *pool = &f->source.pool;
    const int pooled = f->source.switches != NULL;
    const int x = pooled ? X * pool->sw - pool->left + j * pool->dw : X;
    float **target = p->targets;
    for (int a = 0; a < k->kh; a++) {
        float *row = ring_row(p, Y, (pooled ? i * pool->dh * k->sh : 0) + a * k->dh);
        for (int b = 0; b < k->kw; b++) {
            const int column = x * k->sw + b * k->dw; /* the margin cancels the padding */
            for (int c = 0; c < f->cout; c++)
                *target++ = row + ((size_t)column * f->cout + c) * f->kp;
        }
    }
}

static void scatter_few(scatterer *p, const entry *list, int n, const float *panel, int outs) {
    static const fd_post nothing = {0};
    const fd_last *f = p->f;
    const few_block b = {panel, f->source.channels, f->weight, padded(outs), p->sums, outs,
                         outs, &nothing, 0};
    product_of_few(&b, list, n, f->kp);
    for (int o = 0; o < outs; o++)
        for (int k = 0; k < f->kp; k++) p->targets[o][k] += p->sums[k * outs + o];
}

/* Add one pixel's panel (channels x lanes) to the ring. */
static void scatter(scatterer *p, int Y, int X, const float *panel) {
    const fd_last *f = p->f;
    const fd_source *s = &f->source;
    const int kw = s->switches ? s->pool.kw : 1;
    const int positions = s->switches ? s->pool.kh * kw : 1;
    const int outs = f->conv.kh * f->conv.kw * f->cout, nc = tile_nc[f->nv];
    sort_channels(p, (size_t)Y * s->cells_w + X);
    for (int q = 0; q < positions; q++) {
        const int n = p->count[q];
        const entry *list = p->lists + q * ((size_t)s->channels + AHEAD);
        if (!n) continue;
        find_targets(p, Y, X, q / kw, q % kw);
        if (!f->nv) {
            scatter_few(p, list, n, panel, outs);
            continue;
        }
        for (int k = 0; k < f->kp; k += f->nv * VW) {
            for (int o = 0; o < outs; o += nc) {
                const ring_block to = {p->targets + o};
                CALL_BLOCK(product_to_ring, f->nv, list, n, panel + k,
                           f->weight + (size_t)s->channels * o, &to,
                           outs - o < nc ? outs - o : nc);
            }
            for (int o = 0; o < outs; o++) p->targets[o] += f->nv * VW;
        }
    }
}

/* One finished row of the ring (or of the sums two bands share) to the output planes. */
static void flush_row(const fd_last *f, const float *row, int margin, int y) {
    if (y < 0 || y >= f->out_h) return;
    const ptrdiff_t pixel = (ptrdiff_t)f->cout * f->kp;
    const ptrdiff_t plane = (ptrdiff_t)f->out_h * f->out_w;
    row += margin * pixel;
    for (int c = 0; c < f->cout; c++)
        fd_transpose(row + (size_t)c * f->kp, pixel, f->out + c * plane + (size_t)y * f->out_w,
                     f->cout * plane, f->out_w, f->features);
}

/* Output row of the first row that cell row Y reaches. */
static int base_row(const fd_last *f, int Y) {
    const int pooled = f->source.switches != NULL;
    return (pooled ? Y * f->source.pool.sh - f->source.pool.top : Y) * f->conv.sh - f->conv.top;
}

static float *side_row(const scatterer *p, int band, int bottom, int i) {
    const int shared = p->reach - p->advance;
    return p->f->side + (((size_t)band * 2 + bottom) * shared + i) * p->row;
}

/* Rows first..last-1 of cell row Y's reach are complete as far as this band goes. */
static void retire_rows(scatterer *p, int band, int Y, int first, int last) {
    const fd_last *f = p->f;
    const int shared = p->reach - p->advance, offset = (Y - band * f->band) * p->advance;
    for (int i = first; i < last; i++) {
        float *row = ring_row(p, Y, i);
        if (band > 0 && offset + i < shared)
            memcpy(side_row(p, band, 0, offset + i), row, sizeof(float) * p->row);
        else
            flush_row(f, row, p->margin, base_row(f, Y) + i);
        memset(row, 0, sizeof(float) * p->row);
    }
}

static void produce_row(scatterer *p, stepper *above, int Y, float *panel) {
    const fd_last *f = p->f;
    const int columns = f->source.cells_w;
    if (f->step) {
        for (int x = 0; x < columns; x++) {
            step_pixel(above, Y, x, panel);
            scatter(p, Y, x, panel);
        }
        return;
    }
    if (f->first->few) {
        for (int x = 0; x < columns; x++) {
            first_pixel_few(f->first, Y, x, panel);
            scatter(p, Y, x, panel);
        }
        return;
    }
    const ptrdiff_t pixel = (ptrdiff_t)f->first->cout * f->kp;
    const int stride = f->first->conv.sw;
    for (int phase = 0; phase < stride; phase++)
        for (int x = phase; x < columns; x += FIRST_COLUMNS * stride) {
            const int n = first_count(f->first, x);
            first_columns(f->first, Y, x, n, panel, pixel);
            for (int i = 0; i < n; i++) scatter(p, Y, x + i * stride, panel + i * pixel);
        }
}

int FD_NAME(fd_last_band)(const fd_last *f, int band) {
    const int cells = f->source.cells_h, row0 = band * f->band;
    const int row1 = row0 + f->band < cells ? row0 + f->band : cells;
    scatterer p;
    stepper above = {0};
    if (!scatterer_init(&p, f)) return -1;
    float *panel = malloc(sizeof(float) * FIRST_COLUMNS * f->source.channels * f->kp);
    const int ok = panel && (!f->step || stepper_init(&above, f->step));
    for (int y = row0; ok && y < row1; y++) {
        produce_row(&p, &above, y, panel);
        retire_rows(&p, band, y, 0, p.advance);
    }
    if (ok && row1 == cells) {
        retire_rows(&p, band, row1 - 1, p.advance, p.reach);
        /* Rows that no window covers; all of the ring is zero now. */
        for (int y = base_row(f, row1 - 1) + p.reach; y < f->out_h; y++)
            flush_row(f, p.ring, p.margin, y);
    } else if (ok)
        for (int i = p.advance; i < p.reach; i++)
            memcpy(side_row(&p, band, 1, i - p.advance), ring_row(&p, row1 - 1, i),
                   sizeof(float) * p.row);
    if (ok && f->step) stepper_free(&above);
    free(panel);
    scatterer_free(&p);
    return ok ? 0 : -1;
}

/* Rows that band and the one before it both reached. */
int FD_NAME(fd_last_seam)(const fd_last *f, int band) {
    scatterer p = {.f = f};
    FD_NAME(fd_last_reach)(f, &p.reach, &p.advance, &p.row);
    for (int i = 0; i < p.reach - p.advance; i++) {
        float *sum = side_row(&p, band, 0, i);
        const float *upper = side_row(&p, band - 1, 1, i);
        for (ptrdiff_t j = 0; j < p.row; j++) sum[j] += upper[j];
        flush_row(f, sum, f->conv.left, base_row(f, band * f->band) + i);
    }
    return 0;
}
