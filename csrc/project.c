/* The backward pass: features are in the lanes, a transposed convolution is a gathered product.
 *
 * What    A step turns the lane tensor V at the output of a pool into the lane tensor at the input
 *         of the convolution before that pool: it unpools by the switches, applies the transposed
 *         convolution, then `fd_post` and `fd_finish`. The switches come from the forward pass of
 *         one clip, so all features share them, and with them the places of the non-zero values.
 *         Therefore the unpooled tensor is never built. For every output pixel a list (gather.h)
 *         names the entries {row of V, row of W} that reach it, and product.h sums their products.
 *         Behind a 2x2 pool and a 3x3 kernel, that is 2.25 products per channel instead of 9.
 * First   The first step: every feature is still a single channel, in a lane of its own, with its
 *         own weights and switches. No lists are needed; it has a kernel of its own. A step by
 *         Winograd's algorithm has it compute its rows just before it reads them.
 * Last    The step to the network's input is fused with the step above it. Each pixel of that step
 *         (channels x lanes, the panel) is scattered into a ring of output rows while it is in
 *         cache; the tensor between the two steps never exists. Where a pool with overlapping
 *         windows (overlap.c) lies between the two, that tensor is needed as a whole and is read
 *         from memory. Work is divided into bands of rows of a fixed height. Rows that two bands
 *         contribute to are kept aside, and added in `fd_last_seam`. Where the step above computes
 *         two rows together, both are scattered meanwhile (produce_rows).
 * Kernels A step is computed by one of several kernels, for which its weights are packed:
 *         - dense (product.h), in bfloat16 bf16.h or, in units compiled for it, tile_product.h;
 *         - without zeros, behind most rectifiers (sparse.h, sparse_bf16.h);
 *         - depthwise (depthwise.h);
 *         - by Winograd's algorithm, where no pool is above (winograd_step.h);
 *         - fused: a 1 x 1 convolution that takes its pixels from the step above while they are in
 *           cache (fused_columns);
 *         - for few features, which fill at most half a vector and are kept out of the lanes:
 *           by_feature.h; for a single one, and behind rectifiers, sparse.h.
 * Layout  V (h, w, channel, lane); for few features (h, w, feature, channel). W packed per group:
 *         for every block of NC output channels (the last may be smaller) [tap][input channel][NC].
 *         In the last step every pair (tap, channel) counts as an output channel. For few features
 *         there is one block, padded with zeros to whole vectors.
 * Mix     See product.h. First, on AVX-512, per tap of 12 columns and 2 channels: 14 loads, 24 FMA.
 * Numbers float32, vf_fma in list order: taps row-major, channels innermost. The result does not
 *         depend on threads, on other lanes, or on the block that a channel is in.
 */
#include <time.h>

#include "bf16.h"
#if FD_WITH_TILES
#include "tile_product.h"
#endif
#include "depthwise.h"
#include "by_feature.h"
#include "layout.h"
#include "sparse.h"
#include "winograd_step.h"

/* ---- one step, pixel by pixel ---- */

/* Adds a finished pixel, multiplied by `counts`, to the sums of its row. */
static void add_to_sums(const fd_finish *f, int y, int x, const float *pixel, int channels, int kp,
                        int by_feature) {
    const float *by = factors(&f->counts, y, x);
    float *sums = f->sums + (ptrdiff_t)y * channels * kp;
    if (by_feature) {
        for (int k = 0; k < kp; k++)
            for (int c = 0; c < channels; c++)
                sums[k * channels + c] += pixel[k * channels + c] * by[c];
        return;
    }
    for (int c = 0; c < channels; c++, pixel += kp, sums += kp)
        for (int k = 0; k < kp; k += VW)
            vf_store(sums + k, vf_add(vf_load(sums + k),
                                      vf_mul(vf_load(pixel + k), vf_set1(by[c]))));
}

/* Whether finish_pixel has anything to do. */
static int finishes(const fd_finish *f) { return f->more.v || f->factor.values || f->sums; }

/* Applies `fd_finish` to a pixel while it is in cache. The pixel is (channels, kp), or by feature
 * (kp, channels). */
static void finish_pixel(const fd_finish *f, int y, int x, float *out, int channels, int kp,
                         int by_feature) {
    const float *factor = factors(&f->factor, y, x), *more = viewed(&f->more, y, x);
    if (by_feature && (factor || more)) {
        for (int k = 0; k < kp; k++)
            for (int c = 0; c < channels; c++) {
                float *to = out + k * channels + c;
                if (more) *to = post_one(*to + more[k * f->more.feature + c], &f->post, c);
                if (factor) *to *= factor[c];
            }
    } else if (factor || more) {
        const fd_post after = f->post;
        for (int c = 0; c < channels; c++) {
            const vf by = vf_set1(factor ? factor[c] : 1);
            const ptrdiff_t at = (ptrdiff_t)c * kp;
            float *to = out + at;
            for (int k = 0; k < kp; k += VW) {
                vf a = vf_load(to + k);
                if (more) a = post(vf_add(a, vf_load(more + at + k)), &after, c, 1);
                vf_store(to + k, factor ? vf_mul(a, by) : a);
            }
        }
    }
    if (f->sums) add_to_sums(f, y, x, out, channels, kp, by_feature);
}

static void step_group_by_feature(const fd_step *s, const float *v, entry *list, int n, int g,
                           float *out) {
    const int couts = s->cout / s->groups, width = padded(couts), channel = g * couts;
    const size_t rows = (size_t)s->conv.kh * s->conv.kw * (s->source.channels / s->groups);
    const feature_block f = {v, s->source.channels, s->weight + g * rows * width, width,
                         out + channel, s->cout, couts, &s->post, channel};
    product_by_feature(&f, list, n, s->kp);
}

static void step_group(const fd_step *s, const float *from, const entry *list, int n, int g,
                       float *out) {
    const int couts = s->cout / s->groups, nc = tile_nc[s->nv];
    const size_t rows = (size_t)s->conv.kh * s->conv.kw * (s->source.channels / s->groups);
    const float *w0 = s->weight + (size_t)g * rows * couts;
    for (int k = 0; k < s->kp; k += s->nv * VW) {
        const lane_rows v = {from + k, s->kp};
        for (int c = 0; c < couts; c += nc) {
            const int channel = g * couts + c;
            const panel_block to = {out + (size_t)channel * s->kp + k, s->kp, &s->post, channel};
            CALL_BLOCK(product_to_panel, s->nv, list, n, &v, w0 + rows * c, &to,
                       couts - c < nc ? couts - c : nc);
        }
    }
}

/* How this CPU multiplies bfloat16. On Zen, VDPBF16PS takes as long as an FMA and does twice the
 * work. On Intel's CPUs it is so slow that steps in float32 took less time (bench/NOTES.md). */
int FD_NAME(fd_bf16)(void) {
#if FD_WITH_TILES
    return FD_BF16_TILES;
#elif FD_HAS_BF16
    if (!__builtin_cpu_supports("avx512bf16")) return FD_BF16_NONE;
    return __builtin_cpu_is("intel") ? FD_BF16_SLOW : FD_BF16_VECTORS;
#else
    return FD_BF16_NONE;
#endif
}

/* Floats of scratch space that dense_pixel needs. */
static size_t step_room(const fd_step *s) {
#if FD_WITH_TILES
    if (s->bf16) return tile_room(s);
#elif FD_HAS_BF16
    if (s->bf16) return bf16_room(s);
#endif
    (void)s;
    return 0;
}

static int dense_init(gatherer *p, const fd_step *s) {
    if (!gatherer_init(p, s, step_room(s))) return 0;
#if FD_WITH_TILES
    if (s->bf16) begin_tiles(p->scratch);
#endif
    return 1;
}

static void dense_free(gatherer *p) {
#if FD_WITH_TILES
    if (p->s->bf16) end_tiles(p->scratch);
#endif
    gatherer_free(p);
}

/* One pixel by the dense product. Not inlined: inlined beside the other kernels, it takes a tenth
 * longer for a single feature. */
static FD_NOINLINE void dense_pixel(gatherer *p, int Y, int X, float *out) {
    const fd_step *s = p->s;
    const int n = gather(p, Y, X);
#if FD_WITH_TILES
    if (s->bf16) {
        end_list(p->list, n);
        step_pixel_tiles(s, p->list, n, p->scratch, out);
        return;
    }
#elif FD_HAS_BF16
    if (s->bf16) {
        end_list(p->list, n);
        if (s->nv)
            step_pixel_bf16(s, p->list, n, p->scratch, out);
        else
            step_pixel_bf16_by_feature(s, p->list, n, p->scratch, out);
        return;
    }
#endif
    if (s->groups > 1) split_groups(p, n);
    end_list(s->groups > 1 ? p->split : p->list, n);
    for (int g = 0; g < s->groups; g++) {
        entry *list = s->groups > 1 ? p->split + p->bounds[g] : p->list;
        const int count = s->groups > 1 ? p->bounds[g + 1] - p->bounds[g] : n;
        if (s->nv)
            step_group(s, s->v, list, count, g, out);
        else
            step_group_by_feature(s, s->v, list, count, g, out);
    }
}

/* A step, and the state that its kernel keeps between pixels. */
typedef struct stepper {
    const fd_step *s;
    /* Exactly one of these four is in use, depending on the kernel: */
    gatherer dense;
    sparse_lists sparse;
    depthwise depthwise;
    winograd winograd;
    struct stepper *above;
    /* Only with `above`: */
    float *panel; /* pixels of the step above */
    entry *list;  /* names all channels of one of them */
    /* Only while a trial runs (next_rows): */
    int turn;
    long long began[6]; /* nanoseconds: when each turn began */
} stepper;

static int leaves_out_zeros(const fd_step *s) { return s->sparse || s->sparse_bf16; }

static void stepper_free(stepper *p) {
    if (p->s->above) {
        if (p->above) stepper_free(p->above);
        free(p->above);
        free(p->panel);
        free(p->list);
    } else if (p->s->depthwise) {
        depthwise_free(&p->depthwise);
    } else if (p->s->winograd) {
        winograd_free(&p->winograd);
    } else if (leaves_out_zeros(p->s)) {
        sparse_free(&p->sparse);
    } else {
        dense_free(&p->dense);
    }
}

static int stepper_init(stepper *p, const fd_step *s);

static int fused_init(stepper *p, const fd_step *s) {
    const int channels = s->source.channels;
    p->above = malloc(sizeof(stepper));
    p->panel = fd_scratch((size_t)COLUMNS * channels * s->kp);
    p->list = malloc(sizeof(entry) * ((size_t)channels + FD_LIST_ROOM));
    if (!p->above || !p->panel || !p->list || !stepper_init(p->above, s->above)) {
        free(p->above);
        p->above = NULL;
        stepper_free(p);
        return 0;
    }
    for (int c = 0; c < channels; c++) p->list[c] = make_entry((uint32_t)c, (uint32_t)c);
    end_list(p->list, channels);
    return 1;
}

static int stepper_init(stepper *p, const fd_step *s) {
    p->s = s;
    p->turn = 0;
    if (s->above) return fused_init(p, s);
    if (s->depthwise) return depthwise_init(&p->depthwise, s);
    if (s->winograd) return winograd_init(&p->winograd, s);
    return leaves_out_zeros(s) ? sparse_init(&p->sparse, s)
                               : dense_init(&p->dense, s);
}

static const float *step_columns(stepper *p, int Y, int X, int columns, float *room);

/* A 1 x 1 convolution of pixels that the step above computes here, immediately before. */
static void fused_columns(stepper *p, int Y, int X, int columns, float *out) {
    const fd_step *s = p->s;
    const int channels = s->source.channels;
    const float *v = step_columns(p->above, Y, X, columns, p->panel);
    for (int i = 0; i < columns; i++, out += (ptrdiff_t)s->cout * s->kp) {
        if (s->nv)
            step_group(s, v, p->list, channels, 0, out);
        else
            step_group_by_feature(s, v, p->list, channels, 0, out);
        v += (ptrdiff_t)channels * s->kp;
    }
}

static void first_row(const fd_first *f, int Y, float *out);

/* Computes the rows of V that the row of tiles at row Y reads, where they are not in memory. */
static void make_v_rows(winograd *p, const fd_step *s, int Y) {
    const int begin = Y + s->conv.top - 2, end = begin + V_ROWS, height = s->source.cells_h;
    /* Rows above are only missing where a band begins. */
    if (p->v_next < begin || p->v_next > end) p->v_next = begin > 0 ? begin : 0;
    for (; p->v_next < end && p->v_next < height; p->v_next++)
        first_row(s->first, p->v_next, kept_row(p, s, p->v_next));
}

/* Computes what is in the batch. The tile after it is at (Y, X). */
static void finish_batch(winograd *p, const fd_step *s, int Y, int X) {
    const int finished = !finishes(&s->finish);
    for (int q = 0; p->count && q < PLACES; q++) multiply_place(p, s, q, p->count, Y, X);
    for (int t = 0; t < p->count; t++) {
        const tile *one = p->batch + t;
        finish_tile(p, s, t);
        for (int i = 0; !finished && i < 4; i++)
            if (one->out[i])
                finish_pixel(&s->finish, one->Y + i / 2, one->X + i % 2, one->out[i], s->cout,
                             s->kp, !s->nv);
    }
    p->count = 0;
}

/* Rows Y and Y + 1 of the result, which are a row of tiles; the last tiles may be left in the
 * batch. rows: where they begin; NULL: not wanted. */
static void winograd_rows(winograd *p, const fd_step *s, int Y, float *const rows[2]) {
    if (s->first) make_v_rows(p, s, Y);
    for (int x = -s->tile_left; x < s->out_w;) {
        const int left = (s->out_w - x + 1) / 2, room = p->tiles - p->count;
        const int tiles = left < room ? left : room;
        add_tiles(p, s, Y, x, tiles, rows);
        x += 2 * tiles;
        if (p->count == p->tiles) finish_batch(p, s, Y, x);
    }
}

/* The first row of the tiles that row Y is in. */
static int tile_row(const fd_step *s, int Y) { return Y - ((Y + s->tile_top) & 1); }

/* Row Y out of its row of tiles, which is kept for what is asked for next. */
static const float *winograd_row(winograd *p, const fd_step *s, int Y) {
    const ptrdiff_t row = (ptrdiff_t)s->out_w * s->cout * s->kp;
    const int first = tile_row(s, Y);
    if (p->held != first) {
        float *const rows[2] = {first < 0 ? NULL : p->rows,
                                first + 1 < s->out_h ? p->rows + row : NULL};
        winograd_rows(p, s, first, rows);
        finish_batch(p, s, first, s->out_w);
        p->held = first;
    }
    return p->rows + (Y - first) * row;
}

/* As many pixels of a row as columns_from says, in `room` or in the step's own memory. */
static const float *step_columns(stepper *p, int Y, int X, int columns, float *room) {
    const fd_step *s = p->s;
    const ptrdiff_t pixel = (ptrdiff_t)s->cout * s->kp;
    if (s->winograd) return winograd_row(&p->winograd, s, Y) + X * pixel;
    float *out = room;
    if (s->above)
        fused_columns(p, Y, X, columns, out);
    else if (s->depthwise)
        depthwise_columns(&p->depthwise, s, Y, X, columns, out);
    else if (sums_pixels(s))
        sparse_columns(&p->sparse, Y, X, columns, out);
    for (int i = 0; i < columns; i++, out += pixel) {
        if (leaves_out_zeros(s) && !sums_pixels(s))
            sparse_pixels(&p->sparse, Y, 1, X + i, out, 0);
        else if (!s->above && !s->depthwise && !sums_pixels(s))
            dense_pixel(&p->dense, Y, X + i, out);
        finish_pixel(&s->finish, Y, X + i, out, s->cout, s->kp, !s->nv);
    }
    return room;
}

/* How many pixels step_columns should compute together, from column X on of a row of `width`
 * pixels. It is one, except in kernels whose neighbouring pixels share work. */
static int columns_from(const fd_step *s, int X, int width) {
    if (s->winograd) return width - X;
    int most = s->above || s->depthwise ? COLUMNS : 1;
    if (sums_pixels(s)) most = summed_pixels(s);
    /* A fused step asks the one above for as many. */
    if (s->above && sums_pixels(s->above) && most > summed_pixels(s->above))
        most = summed_pixels(s->above);
    return width - X < most ? width - X : most;
}

/* Pixel X of rows Y..Y+n-1, where n > 1 is what next_rows says; in `out` they lie `apart`. */
static void step_pixels_below(stepper *p, int Y, int n, int X, float *out, ptrdiff_t apart) {
    const fd_step *s = p->s;
    sparse_pixels(&p->sparse, Y, n, X, out, apart);
    for (int i = 0; i < n; i++)
        finish_pixel(&s->finish, Y + i, X, out + i * apart, s->cout, s->kp, !s->nv);
}

/* How many rows a step may compute together. */
static int most_rows(const stepper *p) {
    return !p->s->above && leaves_out_zeros(p->s) ? p->sparse.together : 1;
}

static long long nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* How many rows to compute together next, of `left`; 0 when none are left.
 *
 * Where zeros are left out it may be two (sparse.h). Whether that is faster depends on the CPU, so
 * it is tried: twice two rows, then three times one. The first of each only fills the caches. The
 * second two rows and the last two single ones are compared, and the faster way gets a vote; two
 * rows only if they are clearly faster. */
static int next_rows(stepper *p, int left) {
    enum { TURNS = sizeof p->began / sizeof *p->began - 1, ROWS = 7 };
    const fd_step *s = p->s;
    if (most_rows(p) < 2) return left > 0;
    const int lead = __atomic_load_n(lead_of(s), __ATOMIC_RELAXED);
    if (lead >= FD_SURE) return left < 2 ? left : 2;
    /* In rows of fewer pixels and lanes there is little to measure. */
    if (lead <= -FD_SURE || s->out_w * s->kp < 256) return left > 0;
    if (p->turn > 0 || left >= ROWS) p->began[p->turn] = nanoseconds();
    if (p->turn == TURNS) {
        const long long two = p->began[2] - p->began[1], one = p->began[5] - p->began[3];
        __atomic_fetch_add(lead_of(s), 100 * two < 97 * one ? 1 : -1, __ATOMIC_RELAXED);
        p->turn = 0;
        return next_rows(p, left);
    }
    if (p->turn == 0 && left < ROWS) return left > 0;
    const int rows = p->turn++ < 2 ? 2 : 1;
    /* Fewer may be left where votes of other threads ended this trial and let it go on later. */
    return rows < left ? rows : left;
}

int FD_NAME(fd_step_rows)(const fd_step *s, float *out, int row0, int row1) {
    stepper p;
    if (!stepper_init(&p, s)) return -1;
    const size_t row = (size_t)s->out_w * s->cout * s->kp;
    for (int y = tile_row(s, row0); s->winograd && y < row1; y += 2) {
        float *const rows[2] = {y < row0 ? NULL : out + y * row,
                                y + 1 < row1 ? out + (y + 1) * row : NULL};
        winograd_rows(&p.winograd, s, y, rows);
    }
    if (s->winograd) finish_batch(&p.winograd, s, row1, s->out_w);
    for (int y = row0, rows; !s->winograd && (rows = next_rows(&p, row1 - y)); y += rows)
        for (int x = 0, n; x < s->out_w; x += n) {
            float *to = out + y * row + (size_t)x * s->cout * s->kp;
            n = rows > 1 ? 1 : columns_from(s, x, s->out_w);
            if (rows > 1)
                step_pixels_below(&p, y, rows, x, to, (ptrdiff_t)row);
            else
                step_columns(&p, y, x, n, to);
        }
    stepper_free(&p);
    return 0;
}

/* ---- the first step: one channel per lane ---- */

/* T columns, which use the same taps, x NI channels (2 or 1). */
FD_INLINE void first_tile(const fd_first *f, const ptrdiff_t *offset, const int32_t *tap, int n,
                          const float *u, int channel, float *out, ptrdiff_t out_col,
                          const int T, const int NI) {
    const int kp = f->kp;
    const size_t row = (size_t)f->ntaps_all * kp;
    const fd_post after = f->post;
    const float *weight = f->weight + channel * row;
    for (int k = 0; k < kp; k += VW) {
        const float *w = weight + k;
        vf acc[2][COLUMNS];
        FD_UNROLL
        for (int i = 0; i < NI; i++)
            FD_UNROLL
            for (int x = 0; x < T; x++) acc[i][x] = vf_zero();
        for (int t = 0; t < n; t++) {
            const float *a = u + offset[t] + k;
            vf b[2];
            FD_UNROLL
            for (int i = 0; i < NI; i++) b[i] = vf_load(w + i * row + (size_t)tap[t] * kp);
            FD_UNROLL
            for (int x = 0; x < T; x++) {
                const vf v = vf_load(a + x * kp);
                FD_UNROLL
                for (int i = 0; i < NI; i++) acc[i][x] = vf_fma(b[i], v, acc[i][x]);
            }
        }
        FD_UNROLL
        for (int i = 0; i < NI; i++)
            FD_UNROLL
            for (int x = 0; x < T; x++)
                vf_store(out + x * out_col + (size_t)i * kp + k,
                         post(acc[i][x], &after, channel + i, 1));
    }
}

#define FIRST_CASE(T) \
    case T: first_tile(f, offset, tap, n, u, i, q, out_col, T, 2); break;
#define FIRST_CASES_6 \
    FIRST_CASE(1) FIRST_CASE(2) FIRST_CASE(3) FIRST_CASE(4) FIRST_CASE(5) FIRST_CASE(6)
#if COLUMNS == 12
#define FIRST_CASES \
    FIRST_CASES_6 FIRST_CASE(7) FIRST_CASE(8) FIRST_CASE(9) \
    FIRST_CASE(10) FIRST_CASE(11) FIRST_CASE(12)
#else
#define FIRST_CASES FIRST_CASES_6
#endif

static void first_in_lanes(const fd_first *f, const ptrdiff_t *offset, const int32_t *tap, int n,
                           const float *u, int columns, float *out, ptrdiff_t out_col) {
    int i = 0;
    for (; i + 2 <= f->cout; i += 2) {
        float *q = out + (size_t)i * f->kp;
        switch (columns) {
            FIRST_CASES
        }
    }
    for (int x = 0; i < f->cout && x < columns; x++)
        first_tile(f, offset, tap, n, u + x * f->kp, i, out + x * out_col + (size_t)i * f->kp,
                   out_col, 1, 1);
}

/* Feature i, a vector of channels from `channel` on, of T columns. */
FD_INLINE void first_tile_by_feature(const fd_first *f, const ptrdiff_t *offset,
                                     const int32_t *tap, int n, const float *u, int i, int channel,
                                     float *out, ptrdiff_t out_col, const int T) {
    const int kp = f->kp, width = padded(f->cout), left = f->cout - channel;
    const fd_post after = f->post;
    const float *weight = f->weight + (ptrdiff_t)i * width + channel;
    vf acc[COLUMNS];
    FD_UNROLL
    for (int x = 0; x < T; x++) acc[x] = vf_zero();
    for (int t = 0; t < n; t++) {
        const vf w = vf_load(weight + (ptrdiff_t)tap[t] * kp * width);
        const float *a = u + offset[t] + i;
        FD_UNROLL
        for (int x = 0; x < T; x++) acc[x] = vf_fma(w, vf_set1(a[x * kp]), acc[x]);
    }
    FD_UNROLL
    for (int x = 0; x < T; x++)
        store_part(out + x * out_col + (ptrdiff_t)i * f->cout + channel,
                   post(acc[x], &after, channel, 0), left);
}

static void first_by_feature(const fd_first *f, const ptrdiff_t *offset, const int32_t *tap, int n,
                             const float *u, int columns, float *out, ptrdiff_t out_col) {
    for (int i = 0; i < f->kp; i++)
        for (int c = 0; c < f->cout; c += VW) {
            if (columns == COLUMNS) {
                first_tile_by_feature(f, offset, tap, n, u, i, c, out, out_col, COLUMNS);
                continue;
            }
            for (int x = 0; x < columns; x++)
                first_tile_by_feature(f, offset, tap, n, u + x * f->kp, i, c, out + x * out_col,
                                      out_col, 1);
        }
}

/* All channels of `columns` neighbouring columns of one phase; they lie out_col apart in out. */
static void first_columns(const fd_first *f, int Y, int X, int columns, float *out,
                          ptrdiff_t out_col) {
    const fd_window *k = &f->conv;
    const int py = Y + k->top, px = X + k->left;
    const int phase = py % k->sh * k->sw + px % k->sw;
    const int start = f->phase_start[phase], n = f->phase_start[phase + 1] - start;
    const float *u = f->u + py / k->sh * f->u_row + (ptrdiff_t)(px / k->sw) * f->kp;
    const ptrdiff_t *offset = f->phase_offset + start;
    const int32_t *tap = f->phase_tap + start;
    if (f->by_feature)
        first_by_feature(f, offset, tap, n, u, columns, out, out_col);
    else
        first_in_lanes(f, offset, tap, n, u, columns, out, out_col);
    for (int x = 0; x < columns; x++)
        finish_pixel(&f->finish, Y, X + x * k->sw, out + x * out_col, f->cout, f->kp,
                     f->by_feature);
}

/* How many of the columns X, X + stride, ... first_columns can compute together. */
static int first_count(const fd_first *f, int X) {
    const int left = (f->out_w - X + f->conv.sw - 1) / f->conv.sw;
    return left < COLUMNS ? left : COLUMNS;
}

static void first_row(const fd_first *f, int Y, float *out) {
    const ptrdiff_t pixel = (ptrdiff_t)f->cout * f->kp;
    const int stride = f->conv.sw;
    for (int phase = 0; phase < stride; phase++)
        for (int x = phase; x < f->out_w; x += COLUMNS * stride)
            first_columns(f, Y, x, first_count(f, x), out + x * pixel, stride * pixel);
}

int FD_NAME(fd_first_rows)(const fd_first *f, float *out, int row0, int row1) {
    const size_t row = (size_t)f->out_w * f->cout * f->kp;
    for (int y = row0; y < row1; y++) first_row(f, y, out + y * row);
    return 0;
}

/* ---- the last step, fused with the one above ---- */

typedef struct {
    const fd_last *f;
    int reach, advance;   /* output rows that one row of cells contributes to; output rows from
                           * one row of cells to the next */
    ptrdiff_t row;        /* elements of one output row, margins included. Of few features each has
                           * a row of its own, one after the other */
    ptrdiff_t feature;    /* elements of one of these rows */
    int margin;           /* columns left of column 0 */
    int ring_rows;
    float *ring;          /* output rows, which are being summed: as many as the rows of cells that
                           * are computed together contribute to */
    float **rows;         /* `reach` of them, in the order in which the current row of cells sees
                           * them */
    entry *list;          /* the channels at one place of a cell, ... */
    const int32_t *listed; /* ... which are these; NULL: it is empty */
    float **targets;      /* where the sum of each (tap, channel) of one place is added; of few
                           * features: for the first one, of all places of the cell in column 0 */
    float *sums;          /* by feature: the sums of one place, [feature][(tap, channel)] */
} scatterer;

void FD_NAME(fd_last_reach)(const fd_last *f, int *reach, int *advance, ptrdiff_t *row) {
    const fd_window *k = &f->conv, *p = &f->source.pool;
    const int span = (p->kh - 1) * p->dh * k->sh + (k->kh - 1) * k->dh + 1;
    const int right = (f->source.w - 1) * k->sw - k->left + (k->kw - 1) * k->dw + 1;
    *advance = p->sh * k->sh;
    /* With a large stride, rows may lie between two rows of cells that neither contributes to. They
     * count as the upper one's. */
    *reach = span > *advance ? span : *advance;
    *row = (ptrdiff_t)(k->left + (right > f->out_w ? right : f->out_w)) * f->cout * f->kp;
}

static void scatterer_free(scatterer *p) {
    free(p->ring);
    free(p->rows);
    free(p->list);
    free(p->targets);
    free(p->sums);
}

static int scatterer_init(scatterer *p, const fd_last *f, int together) {
    p->f = f;
    FD_NAME(fd_last_reach)(f, &p->reach, &p->advance, &p->row);
    p->feature = p->row / f->kp;
    p->margin = f->conv.left;
    p->ring_rows = p->reach + (together - 1) * p->advance;
    p->ring = fd_scratch((size_t)p->ring_rows * p->row);
    p->rows = malloc(sizeof(float *) * p->reach);
    p->list = malloc(sizeof(entry) * ((size_t)f->source.channels + FD_LIST_ROOM));
    const int places = f->nv ? 1 : f->source.pool.kh * f->source.pool.kw;
    p->targets = malloc(sizeof(float *) * places * f->conv.kh * f->conv.kw * f->cout);
    p->sums = fd_scratch((size_t)padded(f->conv.kh * f->conv.kw * f->cout) * f->kp);
    if (!p->ring || !p->rows || !p->list || !p->targets || !p->sums) {
        scatterer_free(p);
        return 0;
    }
    p->listed = NULL;
    memset(p->ring, 0, sizeof(float) * p->ring_rows * p->row);
    return 1;
}

static float *ring_row(const scatterer *p, int cell_row, int i) {
    return p->ring + (size_t)(((long)cell_row * p->advance + i) % p->ring_rows) * p->row;
}

/* Finds the targets of place (i, j) of a cell in column X. */
static void find_targets(scatterer *p, int X, int i, int j) {
    const fd_last *f = p->f;
    const fd_window *k = &f->conv, *pool = &f->source.pool;
    const int x = X * pool->sw - pool->left + j * pool->dw, lanes = f->nv ? f->kp : 1;
    float **target = p->targets;
    for (int a = 0; a < k->kh; a++) {
        float *row = p->rows[i * pool->dh * k->sh + a * k->dh];
        for (int b = 0; b < k->kw; b++) {
            /* The margin is as wide as the padding. A place left of it lies in the pool's own
             * padding: no switch names it, so nothing is stored there. */
            const ptrdiff_t column = x * k->sw + b * k->dw;
            for (int c = 0; c < f->cout; c++)
                *target++ = row + (column * f->cout + c) * lanes;
        }
    }
}

/* NV vectors of the (tap, channel) sums of one place, for a single feature. `width`: floats in a
 * row of W. */
FD_INLINE void place_product(const int32_t *from, int n, const float *panel, const float *weight,
                             const int width, float *sums, const int NV) {
    vf acc[4];
    FD_UNROLL
    for (int j = 0; j < NV; j++) acc[j] = vf_zero();
    for (int e = 0; e < n; e++) {
        const float *w = weight + (ptrdiff_t)from[e] * width;
        const vf x = vf_set1(panel[from[e]]);
        FD_UNROLL
        for (int j = 0; j < NV; j++) acc[j] = vf_fma(vf_load(w + j * VW), x, acc[j]);
    }
    FD_UNROLL
    for (int j = 0; j < NV; j++) vf_store(sums + j * VW, acc[j]);
}

#define PLACE_CASE(NV) \
    case NV: place_product(from, n, panel, f->weight, NV * VW, p->sums, NV); break;

/* Sums what channels from[0..n-1] of a cell send, for a single feature. */
static void sum_place_of_one(const scatterer *p, const int32_t *from, int n, const float *panel,
                             int outs) {
    const fd_last *f = p->f;
    const int width = padded(outs);
    switch (width / VW) {
        PLACE_CASE(1) PLACE_CASE(2) PLACE_CASE(3) PLACE_CASE(4)
        default:
            for (int o = 0; o < width; o += VW)
                place_product(from, n, panel, f->weight + o, width, p->sums + o, 1);
    }
}

/* p->list: channels from[0..n-1] of a cell. */
static void list_channels(scatterer *p, const int32_t *from, int n) {
    /* Where there are no switches all cells have the same channels. */
    if (from == p->listed) return;
    append(p->list, from, n, 0);
    end_list(p->list, n);
    p->listed = from;
}

/* The same for few features: p->sums[feature][(tap, channel)]. */
static void sum_place(scatterer *p, const int32_t *from, int n, const float *panel, int outs) {
    static const fd_post nothing = {0};
    const fd_last *f = p->f;
    const feature_block b = {panel, f->source.channels, f->weight, padded(outs), p->sums, outs,
                             outs, &nothing, 0};
    list_channels(p, from, n);
    product_by_feature(&b, p->list, n, f->kp);
}

static void scatter_lanes(scatterer *p, const entry *list, int n, const float *panel, int outs) {
    const fd_last *f = p->f;
    const int nc = tile_nc[f->nv];
    for (int k = 0; k < f->kp; k += f->nv * VW) {
        const lane_rows v = {panel + k, f->kp};
        for (int o = 0; o < outs; o += nc) {
            const ring_block to = {p->targets + o};
            CALL_BLOCK(product_to_ring, f->nv, list, n, &v,
                       f->weight + (size_t)f->source.channels * o, &to,
                       outs - o < nc ? outs - o : nc);
        }
        for (int o = 0; o < outs; o++) p->targets[o] += f->nv * VW;
    }
}

/* Finds the targets of all places of the cell in column 0 of the current row of cells. */
static void find_first_targets(scatterer *p) {
    const fd_window *pool = &p->f->source.pool;
    const int outs = p->f->conv.kh * p->f->conv.kw * p->f->cout;
    float **all = p->targets;
    for (int i = 0; i < pool->kh; i++)
        for (int j = 0; j < pool->kw; j++, p->targets += outs) find_targets(p, 0, i, j);
    p->targets = all;
}

/* Adds what one cell sends to the ring, for few features. */
static void scatter_by_feature(scatterer *p, int Y, int X, const float *panel) {
    const fd_last *f = p->f;
    const fd_source *s = &f->source;
    const int places = s->pool.kh * s->pool.kw, outs = f->conv.kh * f->conv.kw * f->cout;
    /* From the targets of the cell in column 0 to those of this one. */
    const ptrdiff_t x = (ptrdiff_t)X * s->pool.sw * f->conv.sw * f->cout;
    for (int q = 0; q < places; q++) {
        int n;
        const int32_t *from = at_place(s, Y, X, q, &n);
        float *const *to = p->targets + q * outs;
        if (!n) continue;
        if (f->kp == 1)
            sum_place_of_one(p, from, n, panel, outs);
        else
            sum_place(p, from, n, panel, outs);
        for (int k = 0; k < f->kp; k++)
            for (int o = 0; o < outs; o++) to[o][x + k * p->feature] += p->sums[k * outs + o];
    }
}

#if VW == 16
/* Few features through 3 x 3 taps below a 2 x 2 pool, which most networks have:
 *
 * The four places of a pixel reach a square of 4 x 4 outputs, which is one vector. For every
 * feature it stays in a register while the places are added to it one after the other, in the same
 * order as elsewhere. Its right half is the left half of the next pixel's square. In memory every
 * output would have to wait for the store of the place before. */

/* Whether all of these squares lie in the ring. */
static int sums_squares(const fd_last *f) {
    const fd_window *k = &f->conv, *pool = &f->source.pool;
    return !f->nv && f->cout == 1 && k->kh == 3 && k->kw == 3 && k->sh == 1 && k->sw == 1 &&
           k->dh == 1 && k->dw == 1 && pool->kh == 2 && pool->kw == 2 && pool->sh == 2 &&
           pool->sw == 2 && pool->dh == 1 && pool->dw == 1 && !pool->top && !pool->left &&
           f->source.w >= 2 * f->source.cells_w;
}

/* Column `column` of the current rows and three more of them. */
static vf load_square(const scatterer *p, ptrdiff_t column) {
    vf a = _mm512_castps128_ps512(_mm_loadu_ps(p->rows[0] + column));
    a = _mm512_insertf32x4(a, _mm_loadu_ps(p->rows[1] + column), 1);
    a = _mm512_insertf32x4(a, _mm_loadu_ps(p->rows[2] + column), 2);
    return _mm512_insertf32x4(a, _mm_loadu_ps(p->rows[3] + column), 3);
}

static void store_square(const scatterer *p, ptrdiff_t column, vf a) {
    _mm_storeu_ps(p->rows[0] + column, _mm512_castps512_ps128(a));
    _mm_storeu_ps(p->rows[1] + column, _mm512_extractf32x4_ps(a, 1));
    _mm_storeu_ps(p->rows[2] + column, _mm512_extractf32x4_ps(a, 2));
    _mm_storeu_ps(p->rows[3] + column, _mm512_extractf32x4_ps(a, 3));
}

/* The square two columns further on: of the old one only what is new is loaded. */
static vf next_square(const scatterer *p, ptrdiff_t column, vf old) {
    const __m512i from = _mm512_setr_epi32(2, 3, 16, 17, 6, 7, 18, 19, 10, 11, 20, 21, 14, 15, 22,
                                           23);
    const __m128 none = _mm_setzero_ps();
    const __m128 upper = _mm_loadh_pi(_mm_loadl_pi(none, (const __m64 *)(p->rows[0] + column + 2)),
                                      (const __m64 *)(p->rows[1] + column + 2));
    const __m128 lower = _mm_loadh_pi(_mm_loadl_pi(none, (const __m64 *)(p->rows[2] + column + 2)),
                                      (const __m64 *)(p->rows[3] + column + 2));
    const vf right = _mm512_insertf32x4(_mm512_castps128_ps512(upper), lower, 1);
    return _mm512_permutex2var_ps(old, from, right);
}

/* The sums of what channels from[0..n-1] send, one lane for each tap, of K features, whose values
 * lie `channels` elements apart. `most` of them, a constant number, are added at a time, those
 * beyond n masked out: where a place has only a few channels, no processor foresees after how many
 * a loop ends. */
FD_INLINE void sum_taps(const int32_t *from, int n, const float *panel, ptrdiff_t channels,
                        const float *weight, vf *sum, const int K, const int most) {
    enum { MOST = 8, ALL = 0xFFFF };
    static const uint16_t lanes[2 * MOST] = {ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL};
    FD_UNROLL
    for (int k = 0; k < K; k++) sum[k] = vf_zero();
    if (most == 1) {
        for (int e = 0; e < n; e++) {
            const vf w = vf_load(weight + (ptrdiff_t)from[e] * VW);
            const float *value = panel + from[e];
            FD_UNROLL
            for (int k = 0; k < K; k++) sum[k] = vf_fma(w, vf_set1(value[k * channels]), sum[k]);
        }
        return;
    }
    for (; n > 0; n -= most, from += most) {
        const uint16_t *const own = lanes + MOST - (n < most ? n : most);
        FD_UNROLL
        for (int e = 0; e < most; e++) {
            const vf w = vf_load(weight + (ptrdiff_t)from[e] * VW);
            FD_UNROLL
            for (int k = 0; k < K; k++)
                sum[k] = _mm512_mask3_fmadd_ps(w, vf_set1(panel[from[e] + k * channels]), sum[k],
                                               (__mmask16)own[e]);
        }
    }
}

/* Adds `columns` pixels of a row, from X on, to the ring, for K features. */
FD_INLINE void scatter_squares(const scatterer *p, int Y, int X, int columns, const float *panel,
                               const int K, const int most) {
    const fd_last *f = p->f;
    const fd_source *s = &f->source;
    const float *weight = f->weight;
    const ptrdiff_t channels = s->channels, feature = p->feature;
    /* Of the 16 outputs, which of a place's 9 sums they get; place 0 sends to the 9 of SENDS. */
    enum { SENDS = 0x0777 };
    const __m512i taps = _mm512_setr_epi32(0, 1, 2, 0, 3, 4, 5, 0, 6, 7, 8, 0, 0, 0, 0, 0);
    const __m512i outputs = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    vf square[MAX_FEATURES];
    FD_UNROLL
    for (int k = 0; k < K; k++) square[k] = load_square(p, 2 * (ptrdiff_t)X + k * feature);
    for (int x = X; x < X + columns; x++, panel += K * channels) {
        FD_UNROLL
        for (int k = 0; x > X && k < K; k++)
            square[k] = next_square(p, 2 * (ptrdiff_t)x + k * feature, square[k]);
        FD_UNROLL
        for (int q = 0; q < 4; q++) {
            int n;
            const int32_t *from = at_place(s, Y, x, q, &n);
            if (!n) continue;
            vf sum[MAX_FEATURES];
            sum_taps(from, n, panel, channels, weight, sum, K, most);
            const int shift = q / 2 * 4 + q % 2;
            const __m512i at = _mm512_permutexvar_epi32(
                _mm512_sub_epi32(outputs, _mm512_set1_epi32(shift)), taps);
            FD_UNROLL
            for (int k = 0; k < K; k++)
                square[k] = _mm512_mask_add_ps(square[k], (__mmask16)(SENDS << shift), square[k],
                                               _mm512_permutexvar_ps(at, sum[k]));
        }
        FD_UNROLL
        for (int k = 0; k < K; k++) store_square(p, 2 * (ptrdiff_t)x + k * feature, square[k]);
    }
}

#define SQUARES(K, MOST)                                                                         \
    static void scatter_squares_##K##_##MOST(const scatterer *p, int Y, int X, int columns,      \
                                             const float *panel) {                               \
        scatter_squares(p, Y, X, columns, panel, K, MOST);                                       \
    }
SQUARES(1, 8)
SQUARES(1, 1)
SQUARES(2, 1)
SQUARES(3, 1)
SQUARES(4, 1)
SQUARES(5, 1)
SQUARES(6, 1)
SQUARES(7, 1)
SQUARES(8, 1)

static void scatter_all_squares(const scatterer *p, int Y, int X, int columns,
                                const float *panel) {
    static void (*const functions[])(const scatterer *, int, int, int, const float *) = {
        scatter_squares_1_8, scatter_squares_1_1, scatter_squares_2_1,
        scatter_squares_3_1, scatter_squares_4_1, scatter_squares_5_1,
        scatter_squares_6_1, scatter_squares_7_1, scatter_squares_8_1,
    };
    const int kp = p->f->kp;
    /* A place has a quarter of the channels on average: of 16 hardly ever more than 8. */
    functions[kp == 1 && p->f->source.channels <= 16 ? 0 : kp](p, Y, X, columns, panel);
}
#endif

/* Adds what one cell, whose values are `panel` (channels x lanes), sends to the ring. */
static void scatter(scatterer *p, int Y, int X, const float *panel) {
    const fd_last *f = p->f;
    const fd_source *s = &f->source;
    const int kw = s->pool.kw, places = s->pool.kh * kw;
    const int outs = f->conv.kh * f->conv.kw * f->cout;
    if (!f->nv) {
        scatter_by_feature(p, Y, X, panel);
        return;
    }
    for (int q = 0; q < places; q++) {
        int n;
        const int32_t *from = at_place(s, Y, X, q, &n);
        if (!n) continue;
        list_channels(p, from, n);
        find_targets(p, X, q / kw, q % kw);
        scatter_lanes(p, p->list, n, panel, outs);
    }
}

/* The same for several neighbouring cells. */
static void scatter_columns(scatterer *p, int Y, int X, int columns, const float *panel) {
    const ptrdiff_t pixel = (ptrdiff_t)p->f->source.channels * p->f->kp;
#if VW == 16
    if (sums_squares(p->f)) {
        scatter_all_squares(p, Y, X, columns, panel);
        return;
    }
#endif
    for (int i = 0; i < columns; i++) scatter(p, Y, X + i, panel + i * pixel);
}

/* Copies a finished output row to the output planes, where it belongs to the output. */
static void flush_row(const scatterer *p, const float *row, int y) {
    const fd_last *f = p->f;
    if (y < 0 || y >= f->out_h) return;
    const ptrdiff_t lanes = f->nv ? f->kp : 1, pixel = f->cout * lanes;
    float *out = f->out + y * f->out_row;
    row += p->margin * pixel;
    for (int c = 0; c < f->cout; c++, row += lanes, out += f->out_plane) {
        if (f->nv)
            fd_transpose(row, pixel, out, f->out_feature, f->rows, f->out_w, f->features);
        for (int k = 0; !f->nv && k < f->features; k++)
            fd_transpose(row + k * p->feature, pixel, out, f->out_feature, f->rows + k, f->out_w,
                         1);
    }
}

/* The first output row that cell row Y contributes to; it may lie above the output. */
static int base_row(const fd_last *f, int Y) {
    return (Y * f->source.pool.sh - f->source.pool.top) * f->conv.sh - f->conv.top;
}

/* The first row of cells of a band. */
static int band_row(const fd_last *f, int band) { return band ? band * f->band - f->skip : 0; }

static float *side_row(const scatterer *p, int band, int bottom, int i) {
    const int shared = p->reach - p->advance;
    return p->f->side + (((size_t)band * 2 + bottom) * shared + i) * p->row;
}

/* Rows first..last-1 of those that cell row Y contributes to have got everything that this band
 * sends them. Takes them out of the ring: to the output, or aside if the band above contributes to
 * them as well. */
static void retire_rows(scatterer *p, int band, int Y, int first, int last) {
    const fd_last *f = p->f;
    const int shared = p->reach - p->advance, offset = (Y - band_row(f, band)) * p->advance;
    for (int i = first; i < last; i++) {
        float *row = ring_row(p, Y, i);
        if (band > 0 && offset + i < shared)
            memcpy(side_row(p, band, 0, offset + i), row, sizeof(float) * p->row);
        else
            flush_row(p, row, base_row(f, Y) + i);
        memset(row, 0, sizeof(float) * p->row);
    }
}

static void begin_row(scatterer *p, int Y) {
    for (int i = 0; i < p->reach; i++) p->rows[i] = ring_row(p, Y, i);
}

/* How many columns behind the cells of the upper row those of a lower row are scattered where two
 * rows are computed together. They then reach no output that the upper row still contributes to, so
 * that every output gets its sums in the same order as row by row. */
static int lag(const fd_last *f) {
    const fd_window *k = &f->conv, *pool = &f->source.pool;
    const int span = (pool->kw - 1) * pool->dw * k->sw + (k->kw - 1) * k->dw + 1;
    return (span - 1) / (pool->sw * k->sw);
}

/* Rows of cells Y..Y+n-1, which the step above computes together. In `panel` every row has room for
 * the pixels that wait to be scattered. */
static void produce_rows(scatterer *p, stepper *above, int Y, int n, float *panel) {
    const fd_last *f = p->f;
    const ptrdiff_t pixel = (ptrdiff_t)f->source.channels * f->kp;
    const int columns = f->source.cells_w, behind = lag(f), room = behind + 1;
    for (int x = 0; x < columns + (n - 1) * behind; x++) {
        if (x < columns)
            step_pixels_below(above, Y, n, x, panel + x % room * pixel, room * pixel);
        for (int i = 0; i < n; i++) {
            const int column = x - i * behind;
            if (column < 0 || column >= columns) continue;
            begin_row(p, Y + i);
            scatter(p, Y + i, column, panel + (i * room + column % room) * pixel);
        }
    }
}

static void produce_row(scatterer *p, stepper *above, int Y, float *panel) {
    const fd_last *f = p->f;
    const int columns = f->source.cells_w;
    begin_row(p, Y);
    if (!f->nv) find_first_targets(p);
    if (f->step) {
        for (int x = 0, n; x < columns; x += n) {
            n = columns_from(f->step, x, columns);
            scatter_columns(p, Y, x, n, step_columns(above, Y, x, n, panel));
        }
        return;
    }
    if (f->v) {
        const size_t row = (size_t)f->source.channels * f->kp * columns;
        scatter_columns(p, Y, 0, columns, f->v + Y * row);
        return;
    }
    const ptrdiff_t pixel = (ptrdiff_t)f->first->cout * f->kp;
    /* In a strided convolution only every stride-th column has the same taps. But columns must be
     * added to the ring from left to right, so they are computed one by one. */
    const int most = f->first->conv.sw == 1 ? COLUMNS : 1;
    for (int x = 0; x < columns; x += most) {
        const int n = columns - x < most ? columns - x : most;
        first_columns(f->first, Y, x, n, panel, pixel);
        scatter_columns(p, Y, x, n, panel);
    }
}

static void produce_band(scatterer *p, stepper *above, int band, float *panel) {
    const fd_last *f = p->f;
    const int cells = f->source.cells_h, row0 = band_row(f, band), next = band_row(f, band + 1);
    const int row1 = next < cells ? next : cells;
    for (int y = row0, n; (n = f->step ? next_rows(above, row1 - y) : y < row1); y += n) {
        if (n > 1)
            produce_rows(p, above, y, n, panel);
        else
            produce_row(p, above, y, panel);
        for (int i = 0; i < n; i++) retire_rows(p, band, y + i, 0, p->advance);
    }
    if (row1 == cells) {
        retire_rows(p, band, row1 - 1, p->advance, p->reach);
        /* Output rows below, which nothing contributes to: any row of the ring will do, as all of
         * them are zero now. */
        for (int y = base_row(f, row1 - 1) + p->reach; y < f->out_h; y++)
            flush_row(p, p->ring, y);
        return;
    }
    for (int i = p->advance; i < p->reach; i++) {
        float *row = ring_row(p, row1 - 1, i);
        memcpy(side_row(p, band, 1, i - p->advance), row, sizeof(float) * p->row);
        memset(row, 0, sizeof(float) * p->row);
    }
}

int FD_NAME(fd_last_bands)(const fd_last *f, int band0, int band1) {
    scatterer p;
    stepper above;
    if (f->step && !stepper_init(&above, f->step)) return -1;
    const int together = f->step ? most_rows(&above) : 1;
    if (!scatterer_init(&p, f, together)) {
        if (f->step) stepper_free(&above);
        return -1;
    }
    const int columns = f->step && sums_pixels(f->step) ? summed_pixels(f->step) : COLUMNS;
    const int waiting = together * (lag(f) + 1);
    float *panel = fd_scratch((size_t)(columns > waiting ? columns : waiting) *
                              f->source.channels * f->kp);
    for (int band = band0; panel && band < band1; band++) produce_band(&p, &above, band, panel);
    if (f->step) stepper_free(&above);
    scatterer_free(&p);
    free(panel);
    return panel ? 0 : -1;
}

/* Adds up the output rows that both `band` and the band above it contributed to. */
int FD_NAME(fd_last_seam)(const fd_last *f, int band) {
    scatterer p = {.f = f, .margin = f->conv.left};
    FD_NAME(fd_last_reach)(f, &p.reach, &p.advance, &p.row);
    p.feature = p.row / f->kp;
    for (int i = 0; i < p.reach - p.advance; i++) {
        float *sum = side_row(&p, band, 0, i);
        const float *upper = side_row(&p, band - 1, 1, i);
        for (ptrdiff_t j = 0; j < p.row; j++) sum[j] += upper[j];
        flush_row(&p, sum, base_row(f, band_row(f, band)) + i);
    }
    return 0;
}

#if FD_WITH_TILES
#define STRING2(x) #x
#define STRING(x) STRING2(x)
/* Changes a copy of a table, whose other kernels are compiled for the same vectors, into one whose
 * steps multiply bfloat16 in tiles. */
void FD_NAME(fd_use_tiles)(fd_kernels *table) {
    table->name = STRING(FD_ISA);
    table->bf16 = FD_NAME(fd_bf16);
    table->prepare = TILES_EMULATED ? NULL : fd_ask_for_tiles;
    table->step_rows = FD_NAME(fd_step_rows);
    table->last_bands = FD_NAME(fd_last_bands);
}
#endif
