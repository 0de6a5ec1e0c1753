/* The gathered product: the sums of an output pixel from its list of entries (gather.h).
 *
 * What    out[channel][lane] = sum over entries of W[entry][channel] * V[entry][lane]. The sums of
 *         a block of NC channels x NV vectors of lanes stay in registers; FD_TILES (units.h) says
 *         which blocks fit.
 * Layout  V (row, lane), where a row is a channel of a cell; W (row, NC channels) for each block.
 * Mix     Per entry, on AVX-512, for 64 lanes and 6 channels: 4 loads, 6 broadcasts, 24 FMA, 4
 *         prefetches. The rows of V that entries name lie anywhere in memory, so that of the entry
 *         AHEAD places further on is prefetched.
 * Numbers float32, vf_fma in list order.
 */
#ifndef FD_PRODUCT_H
#define FD_PRODUCT_H

#include "gather.h"
#include "post.h"

#define MAX_NC 12
#define MAX_NV 4

/* V, and the floats between its rows. */
typedef struct {
    const float *v;
    size_t stride;
} lane_rows;

FD_INLINE void product(const entry *list, int n, const lane_rows *rows, const float *w,
                       vf acc[MAX_NC][MAX_NV], const int NC, const int NV) {
    const float *v = rows->v;
    const size_t stride = rows->stride;
    FD_UNROLL
    for (int i = 0; i < NC; i++)
        FD_UNROLL
        for (int j = 0; j < NV; j++) acc[i][j] = vf_zero();
    for (int e = 0; e < n; e++) {
        const float *a = v + entry_v(list[e]) * stride, *b = w + entry_w(list[e]) * NC;
        const char *next = (const char *)(v + entry_v(list[e + AHEAD]) * stride);
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

/* Where a block of results goes: either it is stored in a panel, after `post` ... */
typedef struct {
    float *out;
    ptrdiff_t stride;    /* floats between channels */
    const fd_post *post;
    int channel;         /* the number of the first channel, which `post` needs */
} panel_block;

/* ... or it is added to the output ring (see scatterer in ring.h). */
typedef struct {
    float *const *rows;  /* for each channel */
} ring_block;

FD_INLINE void product_to_panel(const entry *list, int n, const lane_rows *v, const float *w,
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

FD_INLINE void product_to_ring(const entry *list, int n, const lane_rows *v, const float *w,
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

/* From here on, macros that make a function of every block size: F_NV(list, count, v, w, to, nc)
 * switches over nc and calls F with both sizes as constants. CALL_BLOCK switches over nv. */
#define CASE(F, n, NV) \
    case n: F(list, count, v, w, to, n, NV); break;
#define CASES_6(F, NV) \
    CASE(F, 1, NV) CASE(F, 2, NV) CASE(F, 3, NV) CASE(F, 4, NV) CASE(F, 5, NV) CASE(F, 6, NV)
#define CASES_8(F, NV) CASES_6(F, NV) CASE(F, 7, NV) CASE(F, 8, NV)
#define CASES_12(F, NV) \
    CASES_8(F, NV) CASE(F, 9, NV) CASE(F, 10, NV) CASE(F, 11, NV) CASE(F, 12, NV)
#define BLOCK_FUNCTION(F, TO, ATTRIBUTE, NV, CASES)                                        \
    ATTRIBUTE static void F##_##NV(const entry *list, int count, const lane_rows *v,       \
                                   const float *w, const TO *to, int nc) {                 \
        switch (nc) {                                                                      \
            CASES(F, NV)                                                                   \
        }                                                                                  \
    }
#define BLOCK_FUNCTIONS(F, TO, ATTRIBUTE)        \
    BLOCK_FUNCTION(F, TO, ATTRIBUTE, 1, CASES_12) \
    BLOCK_FUNCTION_2(F, TO, ATTRIBUTE)

#if FD_MAX_NV == 4
#define BLOCK_FUNCTION_2(F, TO, ATTRIBUTE)        \
    BLOCK_FUNCTION(F, TO, ATTRIBUTE, 2, CASES_12) \
    BLOCK_FUNCTION(F, TO, ATTRIBUTE, 3, CASES_8)  \
    BLOCK_FUNCTION(F, TO, ATTRIBUTE, 4, CASES_6)
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
#define BLOCK_FUNCTION_2(F, TO, ATTRIBUTE) BLOCK_FUNCTION(F, TO, ATTRIBUTE, 2, CASES_6)
#define CALL_BLOCK(F, nv, ...)                 \
    do {                                       \
        switch (nv) {                          \
            case 1: F##_1(__VA_ARGS__); break; \
            case 2: F##_2(__VA_ARGS__); break; \
        }                                      \
    } while (0)
#endif

BLOCK_FUNCTIONS(product_to_panel, panel_block, )
BLOCK_FUNCTIONS(product_to_ring, ring_block, )

static const int tile_nc[8] = FD_TILES;

#endif
