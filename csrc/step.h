/* A step of the way back, by the kernel for which its weights are packed: as many pixels, or rows of
 * them, at a time as that kernel computes together.
 *
 * Kernels - dense (dense.h);
 *         - without zeros, behind most rectifiers (sparse.h, sparse_bf16.h);
 *         - depthwise (depthwise.h);
 *         - by Winograd's algorithm, where no pool is above (winograd_step.h). It has the first step
 *           compute its rows just before it reads them;
 *         - fused: a 1 x 1 convolution that takes its pixels from the step above while they are in
 *           cache (fused_columns);
 *         - for few features, which fill at most half a vector and are kept out of the lanes:
 *           by_feature.h; for a single one, and behind rectifiers, sparse.h.
 *
 * Layout, mix and numbers  See project.c and the kernels.
 */
#ifndef FD_STEP_H
#define FD_STEP_H

#include <time.h>

#include "dense.h"
#include "depthwise.h"
#include "finish.h"
#include "first_step.h"
#include "sparse.h"
#include "winograd_step.h"

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

#endif
