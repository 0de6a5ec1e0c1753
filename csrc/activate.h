/* Activation functions, and the epilogue of a row that is in memory.
 *
 * What    x*scale1+shift1, an activation, x*scale2+shift2. README.md says how to add an activation.
 * Layout  Channels last, a channel in every lane.
 * Mix     On AVX-512, an exponential takes 14 instructions, and a division the time of about 10.
 * Numbers float32. exp(x) - 1 = 2^n (p + 1) - 1, where p is a polynomial in x - n ln 2; this keeps
 *         its precision near 0. All exponentials are of numbers that are not positive, so none
 *         overflows. Errors are a few units in the last place; for GELU, of the largest value
 *         nearby. The same input gives the same bits wherever it lies.
 */
#ifndef FD_ACTIVATE_H
#define FD_ACTIVATE_H

#include <string.h>

#include "units.h"

/* The exponential of a smaller number is smaller than the smallest normal number. */
#define EXP_LEAST (-87.33654f)

/* For x <= 0: *power = 2^n and *part = exp(x - n ln 2) - 1, so that exp(x) = *power * *part +
 * *power. */
FD_INLINE void exp_parts(vf x, vf *power, vf *part) {
    x = vf_max(vf_set1(EXP_LEAST), x);
    const vf shift = vf_set1(0x1.8p23f), rounded = vf_fma(x, vf_set1(1.44269504f), shift);
    const vf n = vf_sub(rounded, shift);
    /* ln 2 as a sum of two numbers. The first has so few digits that its product with n is
     * exact. */
    const vf r = vf_fma(n, vf_set1(2.12194440e-4f), vf_fma(n, vf_set1(-0.693359375f), x));
    vf p = vf_set1(1.f / 5040);
    p = vf_fma(p, r, vf_set1(1.f / 720));
    p = vf_fma(p, r, vf_set1(1.f / 120));
    p = vf_fma(p, r, vf_set1(1.f / 24));
    p = vf_fma(p, r, vf_set1(1.f / 6));
    p = vf_fma(p, r, vf_set1(0.5f));
    *part = vf_fma(vf_mul(p, r), r, r);
    *power = vf_power_of_2(rounded);
}

FD_INLINE vf exp_of(vf x) {
    vf power, part;
    exp_parts(x, &power, &part);
    return vf_select(vm_greater(vf_set1(EXP_LEAST), x), vf_zero(), vf_fma(power, part, power));
}

FD_INLINE vf expm1_of(vf x) {
    vf power, part;
    exp_parts(x, &power, &part);
    return vf_fma(power, part, vf_sub(power, vf_set1(1)));
}

FD_INLINE vf minus_abs(vf x) { return vf_min(vf_sub(vf_zero(), x), x); }

FD_INLINE vf sigmoid(vf x) {
    const vf small = exp_of(minus_abs(x)), sum = vf_add(vf_set1(1), small);
    return vf_div(vf_select(vm_greater(vf_zero(), x), small, vf_set1(1)), sum);
}

FD_INLINE vf tanh_of(vf x) {
    const vf minus = minus_abs(x), e = expm1_of(vf_add(minus, minus));
    const vf size = vf_div(e, vf_add(vf_set1(2), e));
    return vf_select(vm_greater(vf_zero(), x), size, vf_sub(vf_zero(), size));
}

/* erf(x), by an odd rational function for -4 <= x <= 4. Beyond that it is 1 or -1 in float32. */
FD_INLINE vf erf_of(vf x) {
    x = vf_min(vf_set1(4), vf_max(vf_set1(-4), x));
    const vf s = vf_mul(x, x);
    vf p = vf_set1(-2.72614225801306e-10f);
    p = vf_fma(p, s, vf_set1(2.77068142495902e-08f));
    p = vf_fma(p, s, vf_set1(-2.10102402082508e-06f));
    p = vf_fma(p, s, vf_set1(-5.69250639462346e-05f));
    p = vf_fma(p, s, vf_set1(-7.34990630326855e-04f));
    p = vf_fma(p, s, vf_set1(-2.95459980854025e-03f));
    p = vf_fma(p, s, vf_set1(-1.60960333262415e-02f));
    vf q = vf_set1(-1.45660718464996e-05f);
    q = vf_fma(q, s, vf_set1(-2.13374055278905e-04f));
    q = vf_fma(q, s, vf_set1(-1.68282697438203e-03f));
    q = vf_fma(q, s, vf_set1(-7.37332916720468e-03f));
    q = vf_fma(q, s, vf_set1(-1.42647390514189e-02f));
    return vf_div(vf_mul(p, x), q);
}

/* x / 6, for x = 0 or 2^-22 <= x <= 6. Where vf_fma rounds once, three multiplications replace the
 * division, in a third of the time. The bits are the same: all such numbers were tried. */
FD_INLINE vf sixth_of(vf x) {
#if VW == 4 && !defined(__aarch64__)
    return vf_div(x, vf_set1(6));
#else
    const vf sixth = vf_set1(1.f / 6), q = vf_mul(x, sixth);
    return vf_fma(vf_fma(vf_set1(-6), q, x), sixth, q);
#endif
}

FD_INLINE vf hardsigmoid(vf x) {
    /* x + 3 is 0 or at least 2^-22 (the distance of floats near 3), as sixth_of needs. */
    return sixth_of(vf_min(vf_set1(6), vf_max(vf_zero(), vf_add(x, vf_set1(3)))));
}

/* x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)), as in fastdeconv/kernels/activations.py. */
FD_INLINE vf gelu_by_tanh(vf x) {
    const vf c = vf_min(vf_set1(30), vf_max(vf_set1(-30), x));
    const vf cube = vf_mul(vf_mul(vf_mul(c, c), c), vf_set1(0.044715f));
    return vf_mul(x, sigmoid(vf_mul(vf_set1(1.5957691216f), vf_add(c, cube))));
}

/* x tanh(log(1 + exp(x))), computed from exp(-|x|). */
FD_INLINE vf mish(vf x) {
    const vf e = exp_of(minus_abs(x)), two = vf_set1(2), one = vf_set1(1);
    const vf above = vf_fma(two, e, one), below = vf_mul(e, vf_add(e, two));
    const vm negative = vm_greater(vf_zero(), x);
    const vf tanh = vf_div(vf_select(negative, below, above),
                           vf_select(negative, vf_add(below, two),
                                     vf_fma(vf_mul(two, e), e, above)));
    return vf_mul(x, tanh);
}

FD_INLINE vf activation(vf x, const fd_activation *f, int channel, const int kind) {
    const vf a = vf_set1(f->a), zero = vf_zero(), one = vf_set1(1);
    switch (kind) {
        case FD_RELU: return vf_max(zero, x);
        case FD_CLIP: return vf_min(vf_set1(f->b), vf_max(a, x)); /* from a to b */
        case FD_LEAKY: { /* a, or its own number for each channel, times x where x <= 0 */
            const vf slope = f->weight ? vf_load(f->weight + channel) : a;
            return vf_select(vm_greater(x, zero), x, vf_mul(x, slope));
        }
        case FD_ELU: { /* b x, or b a (exp(x) - 1) where x <= 0 */
            const vf below = vf_mul(a, expm1_of(vf_min(zero, x)));
            return vf_mul(vf_set1(f->b), vf_select(vm_greater(x, zero), x, below));
        }
        case FD_SIGMOID: return sigmoid(x);
        case FD_SILU: return vf_mul(x, sigmoid(x));
        case FD_TANH: return tanh_of(x);
        case FD_GELU: {
            const vf erf = erf_of(vf_mul(x, vf_set1(0.70710678f)));
            return vf_mul(vf_mul(vf_set1(0.5f), x), vf_add(one, erf));
        }
        case FD_GELU_TANH: return gelu_by_tanh(x);
        case FD_HARDSIGMOID: return hardsigmoid(x);
        case FD_HARDSWISH: return vf_mul(x, hardsigmoid(x));
        case FD_MISH: return mish(x);
        case FD_SOFTSIGN: return vf_div(x, vf_add(one, vf_max(vf_sub(zero, x), x)));
        case FD_ABS: return vf_max(vf_sub(zero, x), x);
        case FD_SQUARE: return vf_mul(x, x);
        default: return x;
    }
}

/* Applies the whole epilogue to n vectors in memory, which lie `step` elements apart and have the
 * channels from `channel` on. */
FD_INLINE void complete_kind(const fd_epilogue *e, float *at, ptrdiff_t step, int n, int channel,
                             const int kind) {
    const int first = e->scale1 != NULL, second = e->scale2 != NULL;
    const vf zero = vf_zero();
    const vf scale1 = first ? vf_load(e->scale1 + channel) : zero;
    const vf shift1 = first ? vf_load(e->shift1 + channel) : zero;
    const vf scale2 = second ? vf_load(e->scale2 + channel) : zero;
    const vf shift2 = second ? vf_load(e->shift2 + channel) : zero;
    for (int i = 0; i < n; i++, at += step) {
        vf a = vf_load(at);
        if (first) a = vf_fma(a, scale1, shift1);
        a = activation(a, &e->activation, channel, kind);
        if (second) a = vf_fma(a, scale2, shift2);
        vf_store(at, a);
    }
}

#define COMPLETE(KIND) \
    case KIND: complete_kind(e, at, step, n, channel, KIND); break;
static FD_NOINLINE void complete(const fd_epilogue *e, float *at, ptrdiff_t step, int n,
                                 int channel) {
    switch (e->activation.kind) {
        COMPLETE(FD_NO_ACTIVATION) COMPLETE(FD_RELU) COMPLETE(FD_CLIP) COMPLETE(FD_LEAKY)
        COMPLETE(FD_ELU) COMPLETE(FD_SIGMOID) COMPLETE(FD_SILU) COMPLETE(FD_TANH)
        COMPLETE(FD_GELU) COMPLETE(FD_GELU_TANH) COMPLETE(FD_HARDSIGMOID) COMPLETE(FD_HARDSWISH)
        COMPLETE(FD_MISH) COMPLETE(FD_SOFTSIGN) COMPLETE(FD_ABS) COMPLETE(FD_SQUARE)
    }
}

/* Whether the epilogue is applied when the sums are in memory (complete). If the activation takes
 * few instructions, it is applied before that, in registers (finish_all in windows.h). */
FD_INLINE int is_later(const fd_epilogue *e) {
    switch (e->activation.kind) {
        case FD_NO_ACTIVATION: case FD_RELU: case FD_LEAKY: case FD_HARDSWISH: return 0;
        default: return 1;
    }
}

FD_INLINE int has_epilogue(const fd_epilogue *e) {
    return e->scale1 || e->activation.kind || e->scale2;
}

/* Applies the epilogue to a row of pixels, which lie `col` elements apart. */
FD_INLINE void complete_row(const fd_epilogue *e, float *row, ptrdiff_t col, int cols,
                            int channels) {
    for (int c = 0; c < channels; c += VW) complete(e, row + c, col, cols, c);
}

#endif
