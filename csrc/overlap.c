/* The backward pass through pools whose windows overlap.
 *
 * What    Where windows overlap, several of them may have the same maximum. Unpooling adds their
 *         values up, and only the sum is rectified. The unpooled tensor is not built for that. Of
 *         the windows whose switches name the same place, the first one leads: it gets the sum, and
 *         the lists of the next job leave the others out (fd_link_cells finds them). The result is
 *         again a tensor of pooled size, which project.c unpools like any other.
 * Layout  V and result (h, w, channel, lane), or by feature (h, w, feature, channel).
 * Mix     Per value and vector of lanes 1 load, 1 store and the instructions of `post`; per further
 *         window 2 loads, 1 addition, 1 store: bound by memory.
 * Numbers float32; windows are added in row-major order. The result may be V itself: only leading
 *         values are written, and no sum reads the leading value of another one. So the bits do not
 *         depend on the number of threads.
 */
#include "post.h"

/* The values of cell (row, column) of the whole map, or NULL if it lies outside V. */
static const float *pixel_at(const fd_overlap *o, int row, int column) {
    const int y = row - o->v_row, x = column - o->v_column;
    if (y < 0 || y >= o->v_h || x < 0 || x >= o->v_w) return NULL;
    return o->v + ((size_t)y * o->v_w + x) * o->source.channels * o->kp;
}

/* Sums up the n channels, order[0..n-1], in which cell (row, column) of the whole map leads. */
static void overlap_cell(const fd_overlap *o, int row, int column, const int32_t *order, int n,
                         float *out) {
    const int whole = (int)o->source.list_row, channels = o->source.channels, kp = o->kp;
    const int32_t *next = o->next + (size_t)(row * whole + column) * channels;
    const float *own = pixel_at(o, row, column);
    const float *factor = factors(&o->factor, row - o->row, column - o->column);
    for (int e = 0; e < n; e++) {
        const int c = order[e];
        float *to = out + (size_t)c * kp;
        const float *sum = own ? own + (size_t)c * kp : memset(to, 0, sizeof(float) * kp);
        for (int cell = next[c]; cell >= 0; cell = o->next[(size_t)cell * channels + c]) {
            const float *more = pixel_at(o, cell / whole, cell % whole);
            if (!more) continue;
            more += (size_t)c * kp;
            for (int k = 0; k < kp; k += VW)
                vf_store(to + k, vf_add(vf_load(sum + k), vf_load(more + k)));
            sum = to;
        }
        for (int k = 0; k < kp; k += VW) {
            const vf a = post(vf_load(sum + k), &o->post, c, 1);
            vf_store(to + k, factor ? vf_mul(a, vf_set1(factor[c])) : a);
        }
    }
}

/* The same in the layout by feature. */
static void overlap_by_feature(const fd_overlap *o, int row, int column, const int32_t *order,
                               int n, float *out) {
    const int whole = (int)o->source.list_row, channels = o->source.channels;
    const int32_t *next = o->next + (size_t)(row * whole + column) * channels;
    const float *own = pixel_at(o, row, column);
    const float *factor = factors(&o->factor, row - o->row, column - o->column);
    for (int e = 0; e < n; e++) {
        const int c = order[e];
        for (int k = 0; k < o->kp; k++) out[k * channels + c] = own ? own[k * channels + c] : 0;
        for (int cell = next[c]; cell >= 0; cell = o->next[(size_t)cell * channels + c]) {
            const float *more = pixel_at(o, cell / whole, cell % whole);
            for (int k = 0; more && k < o->kp; k++) out[k * channels + c] += more[k * channels + c];
        }
        for (int k = 0; k < o->kp; k++) {
            float *to = out + k * channels + c;
            *to = post_one(*to, &o->post, c) * (factor ? factor[c] : 1);
        }
    }
}

void FD_NAME(fd_overlap_rows)(const fd_overlap *o, int row0, int row1) {
    const fd_source *s = &o->source;
    const size_t pixel = (size_t)s->channels * o->kp;
    for (int y = row0; y < row1; y++)
        for (int x = 0; x < s->cells_w; x++) {
            const ptrdiff_t cell = y * s->list_row + x;
            const int32_t *order = s->order + cell * s->order_cell;
            const int n = s->first[cell * s->first_cell + s->pool.kh * s->pool.kw];
            float *out = o->out + ((size_t)y * s->cells_w + x) * pixel;
            (o->by_feature ? overlap_by_feature : overlap_cell)(o, o->row + y, o->column + x,
                                                                order, n, out);
        }
}
