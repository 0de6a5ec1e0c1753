/* The product of a step that leaves nothing out, pixel by pixel: gather.h lists what reaches a pixel,
 * product.h sums it, for few features by_feature.h, in bfloat16 bf16.h or, in units compiled for it,
 * tile_product.h.
 *
 * Layout, mix and numbers  Those of the product.
 */
#ifndef FD_DENSE_H
#define FD_DENSE_H

#include "bf16.h"
#include "by_feature.h"
#include "gather.h"
#if FD_WITH_TILES
#include "tile_product.h"
#endif

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

#endif
