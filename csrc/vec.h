/* One vector type for every instruction set.
 *
 * A unit that includes this header is compiled once for each instruction set, with FD_ISA set to
 * avx512, avx2, baseline (SSE2) or neon. The header defines
 *
 *   vf                a vector of VW floats
 *   FD_REGISTERS      how many vector registers there are
 *   FD_NAME(x)        x with the suffix of the instruction set, for names that the linker sees
 *   FD_STRING(x)      what the macro x stands for, as a string
 *   vf_fma(a, b, c)   a*b+c: one rounding on avx512, avx2 and neon, two on baseline
 *   vf_from_bits(x)   a vector whose lanes have the bits of the integer x
 *   vf_max(a, b)      as maxps: b if either is NaN (so vf_max(0, x) keeps a NaN)
 *   vf_shift_left(a)  the bits of every lane as an integer, shifted by 23 to where a float has its
 *                     exponent; vf_add_bits(a, b) adds them as integers
 *   vf_transpose(x)   x[0..VW-1] are the rows of a square; they become its columns
 *   vm                the result of a comparison. vf_select(m, a, b) takes a where m is true, bit
 *                     by bit, so that it can also select integers in a vf
 *   vf_store_bytes    stores the lowest byte of every lane's bits
 *   vf_lane_sum(x)    the sum of all lanes: the upper half of the lanes is added to the lower half,
 *                     until one lane is left
 *   vm_bits(m)        a bit for every lane
 *   v4                four floats, for work too narrow for vf; v4_fma rounds as vf_fma does
 *
 * The build switches contraction off: there is a fused multiply-add where vf_fma is written, and
 * nowhere else. So it is the same in every variant of a kernel.
 */
#ifndef FD_VEC_H
#define FD_VEC_H

#include <stdint.h>
#include <string.h>

#define FD_CAT2(a, b) a##_##b
#define FD_CAT(a, b) FD_CAT2(a, b)
#define FD_NAME(x) FD_CAT(x, FD_ISA)
#define FD_STRING2(x) #x
#define FD_STRING(x) FD_STRING2(x)

#define FD_INLINE static inline __attribute__((always_inline))
#define FD_NOINLINE __attribute__((noinline))
#define FD_ALIGNED __attribute__((aligned(64)))
#if defined(__SANITIZE_ADDRESS__)
#define FD_UNROLL /* nothing: with a check at every access, unrolled code compiles for minutes */
#elif defined(__clang__)
#define FD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FD_UNROLL _Pragma("GCC unroll 32")
#endif

#if defined(__AVX512F__)

#include <immintrin.h>
#define VW 16
#define FD_REGISTERS 32
typedef __m512 vf;
typedef __mmask16 vm;
FD_INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
FD_INLINE void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
FD_INLINE vf vf_set1(float x) { return _mm512_set1_ps(x); }
FD_INLINE vf vf_from_bits(uint32_t x) { return (vf)_mm512_set1_epi32((int)x); }
FD_INLINE vf vf_zero(void) { return _mm512_setzero_ps(); }
FD_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
FD_INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
FD_INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
FD_INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
FD_INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
FD_INLINE vf vf_shift_left(vf a) { return (vf)_mm512_slli_epi32((__m512i)a, 23); }
FD_INLINE vf vf_add_bits(vf a, vf b) { return (vf)_mm512_add_epi32((__m512i)a, (__m512i)b); }
FD_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
FD_INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
FD_INLINE vm vm_greater(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
FD_INLINE vm vm_differ(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
FD_INLINE vm vm_greater_or_nan(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLE_UQ); }
FD_INLINE vm vm_is_number(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q); }
FD_INLINE vm vm_and(vm a, vm b) { return (vm)(a & b); }
FD_INLINE vm vm_or(vm a, vm b) { return (vm)(a | b); }
FD_INLINE int vm_any(vm a) { return a != 0; }
FD_INLINE int vm_all(vm a) { return a == 0xffff; }
FD_INLINE vf vf_select(vm m, vf a, vf b) { return _mm512_mask_mov_ps(b, m, a); }
FD_INLINE void vf_transpose(vf x[VW]) {
    vf t[VW];
    /* First transposes 4x4 squares in each quarter of four rows, then moves the quarters. */
    FD_UNROLL
    for (int i = 0; i < VW; i += 4) {
        const vf a = _mm512_unpacklo_ps(x[i], x[i + 1]), b = _mm512_unpackhi_ps(x[i], x[i + 1]);
        const vf c = _mm512_unpacklo_ps(x[i + 2], x[i + 3]);
        const vf d = _mm512_unpackhi_ps(x[i + 2], x[i + 3]);
        t[i] = (vf)_mm512_unpacklo_pd((__m512d)a, (__m512d)c);
        t[i + 1] = (vf)_mm512_unpackhi_pd((__m512d)a, (__m512d)c);
        t[i + 2] = (vf)_mm512_unpacklo_pd((__m512d)b, (__m512d)d);
        t[i + 3] = (vf)_mm512_unpackhi_pd((__m512d)b, (__m512d)d);
    }
    FD_UNROLL
    for (int i = 0; i < 4; i++) {
        const vf a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x44);
        const vf b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xee);
        const vf c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x44);
        const vf d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xee);
        x[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        x[i + 4] = _mm512_shuffle_f32x4(a, c, 0xdd);
        x[i + 8] = _mm512_shuffle_f32x4(b, d, 0x88);
        x[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}
FD_INLINE void vf_store_bytes(uint8_t *p, vf a) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_castps_si512(a)));
}

FD_INLINE unsigned vm_bits(vm a) { return a; }

#elif defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>
#define VW 8
#define FD_REGISTERS 16
typedef __m256 vf;
typedef __m256 vm;
FD_INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
FD_INLINE void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
FD_INLINE vf vf_set1(float x) { return _mm256_set1_ps(x); }
FD_INLINE vf vf_from_bits(uint32_t x) { return (vf)_mm256_set1_epi32((int)x); }
FD_INLINE vf vf_zero(void) { return _mm256_setzero_ps(); }
FD_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
FD_INLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
FD_INLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
FD_INLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
FD_INLINE vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
FD_INLINE vf vf_shift_left(vf a) { return (vf)_mm256_slli_epi32((__m256i)a, 23); }
FD_INLINE vf vf_add_bits(vf a, vf b) { return (vf)_mm256_add_epi32((__m256i)a, (__m256i)b); }
FD_INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
FD_INLINE vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
FD_INLINE vm vm_greater(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
FD_INLINE vm vm_differ(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_NEQ_UQ); }
FD_INLINE vm vm_greater_or_nan(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_NLE_UQ); }
FD_INLINE vm vm_is_number(vf a) { return _mm256_cmp_ps(a, a, _CMP_ORD_Q); }
FD_INLINE vm vm_and(vm a, vm b) { return _mm256_and_ps(a, b); }
FD_INLINE vm vm_or(vm a, vm b) { return _mm256_or_ps(a, b); }
FD_INLINE int vm_any(vm a) { return _mm256_movemask_ps(a) != 0; }
FD_INLINE int vm_all(vm a) { return _mm256_movemask_ps(a) == 0xff; }
FD_INLINE vf vf_select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
FD_INLINE void vf_transpose(vf x[VW]) {
    vf t[VW];
    FD_UNROLL
    for (int i = 0; i < VW; i += 4) {
        const vf a = _mm256_unpacklo_ps(x[i], x[i + 1]), b = _mm256_unpackhi_ps(x[i], x[i + 1]);
        const vf c = _mm256_unpacklo_ps(x[i + 2], x[i + 3]);
        const vf d = _mm256_unpackhi_ps(x[i + 2], x[i + 3]);
        t[i] = _mm256_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    FD_UNROLL
    for (int i = 0; i < 4; i++) {
        x[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        x[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}
FD_INLINE void vf_store_bytes(uint8_t *p, vf a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(bits),
                                          _mm256_extracti128_si256(bits, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(words, words));
}

FD_INLINE unsigned vm_bits(vm a) { return (unsigned)_mm256_movemask_ps(a); }

#elif defined(__SSE2__)

#include <emmintrin.h>
#define VW 4
#define FD_REGISTERS 16
typedef __m128 vf;
typedef __m128 vm;
FD_INLINE vf vf_load(const float *p) { return _mm_loadu_ps(p); }
FD_INLINE void vf_store(float *p, vf a) { _mm_storeu_ps(p, a); }
FD_INLINE vf vf_set1(float x) { return _mm_set1_ps(x); }
FD_INLINE vf vf_from_bits(uint32_t x) { return (vf)_mm_set1_epi32((int)x); }
FD_INLINE vf vf_zero(void) { return _mm_setzero_ps(); }
FD_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
FD_INLINE vf vf_add(vf a, vf b) { return _mm_add_ps(a, b); }
FD_INLINE vf vf_sub(vf a, vf b) { return _mm_sub_ps(a, b); }
FD_INLINE vf vf_mul(vf a, vf b) { return _mm_mul_ps(a, b); }
FD_INLINE vf vf_div(vf a, vf b) { return _mm_div_ps(a, b); }
FD_INLINE vf vf_shift_left(vf a) { return (vf)_mm_slli_epi32((__m128i)a, 23); }
FD_INLINE vf vf_add_bits(vf a, vf b) { return (vf)_mm_add_epi32((__m128i)a, (__m128i)b); }
FD_INLINE vf vf_max(vf a, vf b) { return _mm_max_ps(a, b); }
FD_INLINE vf vf_min(vf a, vf b) { return _mm_min_ps(a, b); }
FD_INLINE vm vm_greater(vf a, vf b) { return _mm_cmpgt_ps(a, b); }
FD_INLINE vm vm_differ(vf a, vf b) { return _mm_cmpneq_ps(a, b); }
FD_INLINE vm vm_greater_or_nan(vf a, vf b) { return _mm_cmpnle_ps(a, b); }
FD_INLINE vm vm_is_number(vf a) { return _mm_cmpord_ps(a, a); }
FD_INLINE vm vm_and(vm a, vm b) { return _mm_and_ps(a, b); }
FD_INLINE vm vm_or(vm a, vm b) { return _mm_or_ps(a, b); }
FD_INLINE int vm_any(vm a) { return _mm_movemask_ps(a) != 0; }
FD_INLINE int vm_all(vm a) { return _mm_movemask_ps(a) == 0xf; }
FD_INLINE vf vf_select(vm m, vf a, vf b) {
    return _mm_or_ps(_mm_and_ps(m, a), _mm_andnot_ps(m, b));
}
FD_INLINE void vf_transpose(vf x[VW]) { _MM_TRANSPOSE4_PS(x[0], x[1], x[2], x[3]); }
FD_INLINE void vf_store_bytes(uint8_t *p, vf a) {
    const __m128i bits = _mm_castps_si128(a), words = _mm_packs_epi32(bits, bits);
    const int bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    memcpy(p, &bytes, VW);
}

FD_INLINE unsigned vm_bits(vm a) { return (unsigned)_mm_movemask_ps(a); }

#elif defined(__ARM_NEON) && defined(__aarch64__)

#include <arm_neon.h>
#define VW 4
#define FD_REGISTERS 32
typedef float32x4_t vf;
typedef uint32x4_t vm;
FD_INLINE vf vf_load(const float *p) { return vld1q_f32(p); }
FD_INLINE void vf_store(float *p, vf a) { vst1q_f32(p, a); }
FD_INLINE vf vf_set1(float x) { return vdupq_n_f32(x); }
FD_INLINE vf vf_from_bits(uint32_t x) { return (vf)vdupq_n_u32(x); }
FD_INLINE vf vf_zero(void) { return vdupq_n_f32(0.0f); }
FD_INLINE vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
FD_INLINE vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
FD_INLINE vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
FD_INLINE vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
FD_INLINE vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
FD_INLINE vf vf_shift_left(vf a) { return (vf)vshlq_n_u32((uint32x4_t)a, 23); }
FD_INLINE vf vf_add_bits(vf a, vf b) { return (vf)vaddq_u32((uint32x4_t)a, (uint32x4_t)b); }
/* vmaxq returns NaN if either operand is NaN. For vf_max(0, x) that is the same as maxps. */
FD_INLINE vf vf_max(vf a, vf b) { return vmaxq_f32(a, b); }
FD_INLINE vf vf_min(vf a, vf b) { return vminq_f32(a, b); }
FD_INLINE vm vm_greater(vf a, vf b) { return vcgtq_f32(a, b); }
FD_INLINE vm vm_differ(vf a, vf b) { return vmvnq_u32(vceqq_f32(a, b)); }
FD_INLINE vm vm_greater_or_nan(vf a, vf b) { return vmvnq_u32(vcleq_f32(a, b)); }
FD_INLINE vm vm_is_number(vf a) { return vceqq_f32(a, a); }
FD_INLINE vm vm_and(vm a, vm b) { return vandq_u32(a, b); }
FD_INLINE vm vm_or(vm a, vm b) { return vorrq_u32(a, b); }
FD_INLINE int vm_any(vm a) { return vmaxvq_u32(a) != 0; }
FD_INLINE int vm_all(vm a) { return vminvq_u32(a) != 0; }
FD_INLINE vf vf_select(vm m, vf a, vf b) { return vbslq_f32(m, a, b); }
FD_INLINE void vf_transpose(vf x[VW]) {
    const float32x4x2_t a = vtrnq_f32(x[0], x[1]), b = vtrnq_f32(x[2], x[3]);
    x[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    x[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    x[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    x[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}
FD_INLINE void vf_store_bytes(uint8_t *p, vf a) {
    const uint16x4_t words = vmovn_u32(vreinterpretq_u32_f32(a));
    const uint8x8_t bytes = vmovn_u16(vcombine_u16(words, words));
    vst1_lane_u32((uint32_t *)p, vreinterpret_u32_u8(bytes), 0);
}

FD_INLINE unsigned vm_bits(vm a) {
    const uint32x4_t bits = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(a, bits));
}

#else
#error "fastdeconv needs SSE2 or 64-bit NEON"
#endif

#if VW > 4

typedef __m128 v4;
FD_INLINE v4 v4_load(const float *p) { return _mm_loadu_ps(p); }
FD_INLINE void v4_store(float *p, v4 a) { _mm_storeu_ps(p, a); }
FD_INLINE v4 v4_set1(float x) { return _mm_set1_ps(x); }
FD_INLINE v4 v4_fma(v4 a, v4 b, v4 c) { return _mm_fmadd_ps(a, b, c); }
FD_INLINE v4 v4_add(v4 a, v4 b) { return _mm_add_ps(a, b); }
FD_INLINE void v4_transpose(v4 x[4]) { _MM_TRANSPOSE4_PS(x[0], x[1], x[2], x[3]); }

#else

typedef vf v4;
FD_INLINE v4 v4_load(const float *p) { return vf_load(p); }
FD_INLINE void v4_store(float *p, v4 a) { vf_store(p, a); }
FD_INLINE v4 v4_set1(float x) { return vf_set1(x); }
FD_INLINE v4 v4_fma(v4 a, v4 b, v4 c) { return vf_fma(a, b, c); }
FD_INLINE v4 v4_add(v4 a, v4 b) { return vf_add(a, b); }
FD_INLINE void v4_transpose(v4 x[4]) { vf_transpose(x); }

#endif

FD_INLINE float vf_lane_sum(vf a) {
#if defined(__ARM_NEON)
    const float32x2_t halves = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(halves, 0) + vget_lane_f32(halves, 1);
#else
#if VW == 16
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a),
                                      _mm512_extractf32x8_ps(a, 1));
#elif VW == 8
    const __m256 half = a;
#endif
#if VW > 4
    __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#else
    __m128 quarter = a;
#endif
    quarter = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps(quarter, quarter, 1)));
#endif
}

/* 2^n, where the argument is 1.5 x 2^23 + n for a whole number n from -126 to 127: the low bits of
 * that float are n. */
FD_INLINE vf vf_power_of_2(vf n_and_more) {
    return vf_add_bits(vf_shift_left(n_and_more), vf_set1(1));
}

/* `channels`, rounded up to whole vectors. */
FD_INLINE int padded(int channels) { return (channels + VW - 1) / VW * VW; }

#endif
