/* The forward pass through joins of the network.
 *
 * What    Adds activations up, multiplies them or concatenates them along the channels, then
 *         applies an epilogue.
 * Layout  Channels last, channels in the lanes. An input may be a single pixel or a single channel
 *         that stands for all (fd_input).
 * Mix     Per input and vector of channels, 1 load and 1 addition or multiplication: bound by
 *         memory.
 * Numbers float32; inputs are taken in their order.
 */
#include "activate.h"

/* The first pixel of row y. */
FD_INLINE const float *row_of(const fd_input *of, int y) { return of->in + y * of->row; }

FD_INLINE vf values_of(const fd_input *of, const float *pixel, int c, int channels) {
    return of->channels < channels ? vf_set1(*pixel) : vf_load(pixel + c);
}

FD_INLINE void combine_row(const fd_join *j, int y, float *out, const int product) {
    const fd_input *first = j->inputs;
    for (int x = 0; x < j->cols; x++)
        for (int c = 0; c < j->channels; c += VW) {
            vf a = values_of(first, row_of(first, y) + x * first->col, c, j->channels);
            for (int i = 1; i < j->count; i++) {
                const fd_input *of = j->inputs + i;
                const vf b = values_of(of, row_of(of, y) + x * of->col, c, j->channels);
                a = product ? vf_mul(a, b) : vf_add(a, b);
            }
            vf_store(out + x * j->out_col + c, a);
        }
}

/* Two inputs, neither of which is a single channel, and perhaps a ReLU. */
FD_INLINE void combine_two(const fd_join *j, int y, float *restrict out, const int product,
                           const int relu) {
    const fd_input *first = j->inputs, *second = first + 1;
    const float *a = row_of(first, y), *b = row_of(second, y);
    for (int x = 0; x < j->cols; x++, a += first->col, b += second->col, out += j->out_col)
        for (int c = 0; c < j->channels; c += VW) {
            const vf p = vf_load(a + c), q = vf_load(b + c);
            const vf r = product ? vf_mul(p, q) : vf_add(p, q);
            vf_store(out + c, relu ? vf_max(vf_zero(), r) : r);
        }
}

/* If combine_two can do all that row y needs, does it and returns 1. */
static int combined_two(const fd_join *j, int y, float *out) {
    const fd_epilogue *e = &j->epilogue;
    const int kind = e->activation.kind, relu = kind == FD_RELU;
    if (j->count != 2 || j->kind == FD_CONCAT || e->scale1 || e->scale2 ||
        (kind != FD_RELU && kind != FD_NO_ACTIVATION) ||
        j->inputs[0].channels < j->channels || j->inputs[1].channels < j->channels)
        return 0;
    if (j->kind == FD_PRODUCT)
        relu ? combine_two(j, y, out, 1, 1) : combine_two(j, y, out, 1, 0);
    else
        relu ? combine_two(j, y, out, 0, 1) : combine_two(j, y, out, 0, 0);
    return 1;
}

static void concat_row(const fd_join *j, int y, float *out) {
    for (int x = 0; x < j->cols; x++) {
        float *to = out + x * j->out_col;
        for (int i = 0; i < j->count; i++) {
            const fd_input *of = j->inputs + i;
            memcpy(to, row_of(of, y) + x * of->col, sizeof(float) * of->channels);
            to += of->channels;
        }
        for (int c = j->channels; c < padded(j->channels); c++) *to++ = 0;
    }
}

void FD_NAME(fd_join_rows)(const fd_join *j, int row0, int row1) {
    for (int y = row0; y < row1; y++) {
        float *out = j->out + y * j->out_row;
        if (combined_two(j, y, out)) continue;
        if (j->kind == FD_CONCAT)
            concat_row(j, y, out);
        else if (j->kind == FD_PRODUCT)
            combine_row(j, y, out, 1);
        else
            combine_row(j, y, out, 0);
        if (has_epilogue(&j->epilogue))
            complete_row(&j->epilogue, out, j->out_col, j->cols, j->channels);
    }
}
