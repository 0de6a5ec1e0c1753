/* The backward pass through pools whose windows overlap.
 *
 * What    Where windows overlap, several may have the same maximum; unpooled, their values add,
 *         and only the sum is rectified. The unpooled tensor is not built for that: of the
 *         windows that point to the same place the first one gets the sum, the others leave the
 *         lists of what comes next (fd_link_cells finds them), and the result is a tensor of
 *         pooled size again, which project.c unpools on the way like any other.
 * Layout  V and result (h, w, channel, lane); of few features (h, w, feature, channel).
 * Mix     per value and vector of lanes 1 load, 1 store and what `post` takes, per further window
 *         2 loads, 1 add, 1 store: bound by memory. In place, it reads and writes what leads.
 * Numbers float32, windows in row-major order. No value is written that another one reads, so
 *         nothing depends on threads.
 */
#include "post.h"

/* What cell (row, column) of the whole map holds for feature 0 of a channel; NULL outside V. */
static const float *value_at(const fd_overlap *o, int row, int column, int channel) {
    const int y = row - o->v_row, x = column - o->v_column;
    if (y < 0 || y >= o->v_h || x < 0 || x >= o->v_w) return NULL;
    const size_t pixel = ((size_t)y * o->v_w + x) * o->source.channels * o->kp;
    return o->v + pixel + (size_t)channel * (o->few ? 1 : o->kp);
}

static void add(const fd_overlap *o, const float *a, const float *b, float *out) {
    if (o->few) {
        const int step = o->source.channels;
        for (int k = 0; k < o->kp; k++) out[k * step] = a[k * step] + b[k * step];
        return;
    }
    for (int k = 0; k < o->kp; k += VW) vf_store(out + k, vf_add(vf_load(a + k), vf_load(b + k)));
}

static void finish(const fd_overlap *o, const float *a, int channel, float *out) {
    if (o->few) {
        const int step = o->source.channels;
        float lanes[VW] = {0};
        for (int k = 0; k < o->kp; k++) lanes[k] = a[k * step];
        vf_store(lanes, post(vf_load(lanes), &o->post, channel, 1));
        for (int k = 0; k < o->kp; k++) out[k * step] = lanes[k];
        return;
    }
    for (int k = 0; k < o->kp; k += VW)
        vf_store(out + k, post(vf_load(a + k), &o->post, channel, 1));
}

static void zero(const fd_overlap *o, float *out) {
    const int step = o->few ? o->source.channels : 1;
    for (int k = 0; k < o->kp; k++) out[k * step] = 0;
}

/* Everything that cell (row, column) of the whole map leads. */
static void overlap_cell(const fd_overlap *o, int row, int column, const int32_t *order, int n,
                         float *out) {
    const ptrdiff_t whole = o->source.list_row, channels = o->source.channels;
    const int32_t *next = o->next + (row * whole + column) * channels;
    for (int e = 0; e < n; e++) {
        const int c = order[e];
        float *to = out + (size_t)c * (o->few ? 1 : o->kp);
        const float *sum = value_at(o, row, column, c);
        if (!sum) {
            zero(o, to);
            sum = to;
        }
        for (int cell = next[c]; cell >= 0; cell = o->next[cell * channels + c]) {
            const float *more = value_at(o, cell / (int)whole, cell % (int)whole, c);
            if (!more) continue;
            add(o, sum, more, to);
            sum = to;
        }
        finish(o, sum, c, to);
    }
}

void FD_NAME(fd_overlap_rows)(const fd_overlap *o, int row0, int row1) {
    const fd_source *s = &o->source;
    const size_t pixel = (size_t)s->channels * o->kp;
    for (int y = row0; y < row1; y++)
        for (int x = 0; x < s->cells_w; x++) {
            const ptrdiff_t cell = y * s->list_row + x;
            overlap_cell(o, o->row + y, o->column + x, s->order + cell * s->order_cell,
                         s->first[cell * s->first_cell + s->pool.kh * s->pool.kw],
                         o->out + ((size_t)y * s->cells_w + x) * pixel);
        }
}
