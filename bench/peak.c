/* The multiply-add rate of the machine: independent fused multiply-adds in registers, no memory.
 *
 * peak_<set>(n) does n turns of CHAINS multiply-adds and returns how many single (scalar)
 * ones that were, 0 if this CPU or compiler lacks the set. Chains outnumber latency times
 * units of every current core (5 x 2) and fit the registers.
 */
#include <stdint.h>

#define CHAINS 12

#if defined(__x86_64__)
#include <immintrin.h>

static volatile float sink;

#define LOOP(TYPE, SET, MADD, X, Y)                                             \
    TYPE acc[CHAINS];                                                           \
    TYPE x = X, y = Y;                                                          \
    for (int i = 0; i < CHAINS; i++) acc[i] = SET(1.0f + (float)i);             \
    for (int64_t k = 0; k < n; k++) {                                           \
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) acc[i] = MADD; \
        __asm__ volatile("" : "+x"(x), "+x"(y));                                \
    }

#define SUM(STORE, LANES)                                        \
    float out[LANES], total = 0;                                 \
    for (int i = 0; i < CHAINS; i++) {                           \
        STORE(out, acc[i]);                                      \
        for (int j = 0; j < (LANES); j++) total += out[j];       \
    }                                                            \
    sink = total;

__attribute__((target("sse2"))) int64_t peak_baseline(int64_t n) {
    LOOP(__m128, _mm_set1_ps, _mm_add_ps(_mm_mul_ps(acc[i], x), y), _mm_set1_ps(0.5f),
         _mm_set1_ps(1.0f))
    SUM(_mm_storeu_ps, 4)
    return n * CHAINS * 4;
}

__attribute__((target("avx2,fma"))) static int64_t run_avx2(int64_t n) {
    LOOP(__m256, _mm256_set1_ps, _mm256_fmadd_ps(acc[i], x, y), _mm256_set1_ps(0.5f),
         _mm256_set1_ps(1.0f))
    SUM(_mm256_storeu_ps, 8)
    return n * CHAINS * 8;
}

__attribute__((target("avx512f"))) static int64_t run_avx512(int64_t n) {
    LOOP(__m512, _mm512_set1_ps, _mm512_fmadd_ps(acc[i], x, y), _mm512_set1_ps(0.5f),
         _mm512_set1_ps(1.0f))
    SUM(_mm512_storeu_ps, 16)
    return n * CHAINS * 16;
}

__attribute__((target("avx512f,avx512bf16"))) static int64_t run_bf16(int64_t n) {
    LOOP(__m512, _mm512_set1_ps, _mm512_dpbf16_ps(acc[i], (__m512bh)x, (__m512bh)y),
         _mm512_set1_ps(0.0f), _mm512_set1_ps(1.0f))
    SUM(_mm512_storeu_ps, 16)
    return n * CHAINS * 32;
}

int64_t peak_avx2(int64_t n) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? run_avx2(n) : 0;
}

int64_t peak_avx512(int64_t n) {
    return __builtin_cpu_supports("avx512f") ? run_avx512(n) : 0;
}

int64_t peak_bf16(int64_t n) {
    return __builtin_cpu_supports("avx512bf16") ? run_bf16(n) : 0;
}

#elif defined(__aarch64__)
#include <arm_neon.h>

static volatile float sink;

int64_t peak_neon(int64_t n) {
    float32x4_t acc[CHAINS], x = vdupq_n_f32(0.5f), y = vdupq_n_f32(0.25f);
    for (int i = 0; i < CHAINS; i++) acc[i] = vdupq_n_f32(1.0f + (float)i);
    for (int64_t k = 0; k < n; k++) {
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) acc[i] = vfmaq_f32(acc[i], x, y);
        __asm__ volatile("" : "+w"(x), "+w"(y));
    }
    float total = 0;
    for (int i = 0; i < CHAINS; i++) total += vaddvq_f32(acc[i]);
    sink = total;
    return n * CHAINS * 4;
}
#endif
