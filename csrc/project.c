/* The backward pass: features are in the lanes, a transposed convolution is a gathered product.
 *
 * What    A step turns the lane tensor V at the output of a pool into the lane tensor at the input
 *         of the convolution before that pool: it unpools by the switches, applies the transposed
 *         convolution, then `fd_post` and `fd_finish`. The switches come from the forward pass of
 *         one clip, so all features share them, and with them the places of the non-zero values.
 *         Therefore the unpooled tensor is never built. For every output pixel a list (gather.h)
 *         names the entries {row of V, row of W} that reach it, and product.h sums their products.
 *         Behind a 2x2 pool and a 3x3 kernel, that is 2.25 products per channel instead of 9.
 * Parts   first_step.h, step.h, which chooses among the kernels of a step, and last_step.h, which
 *         is fused with the step above it. This file has what the table calls.
 * Layout  V (h, w, channel, lane); for few features (h, w, feature, channel). W packed per group:
 *         for every block of NC output channels (the last may be smaller) [tap][input channel][NC].
 *         In the last step every pair (tap, channel) counts as an output channel. For few features
 *         there is one block, padded with zeros to whole vectors.
 * Mix     See the parts.
 * Numbers float32, vf_fma in list order: taps row-major, channels innermost. The result does not
 *         depend on threads, on other lanes, or on the block that a channel is in.
 */
#include "last_step.h"

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

int FD_NAME(fd_first_rows)(const fd_first *f, float *out, int row0, int row1) {
    const size_t row = (size_t)f->out_w * f->cout * f->kp;
    for (int y = row0; y < row1; y++) first_row(f, y, out + y * row);
    return 0;
}

void FD_NAME(fd_last_reach)(const fd_last *f, int *reach, int *advance, ptrdiff_t *row) {
    last_reach(f, reach, advance, row);
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
    last_reach(f, &p.reach, &p.advance, &p.row);
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
