/* The tile instructions in plain C (csrc/tiles.h), for a test to call. */
#include "tiles.h"

/* c += a x b, with rows of all tiles `row_bytes` apart. */
void check_multiply(const tile_shapes *shapes, void *c, const void *a, const void *b) {
    tile_file tiles;
    TILES_BEGIN(&tiles, shapes);
    TILE_LOAD(&tiles, 0, c, TILE_BYTES);
    TILE_LOAD(&tiles, 1, a, TILE_BYTES);
    TILE_LOAD(&tiles, 2, b, TILE_BYTES);
    TILE_MULTIPLY(&tiles, 0, 1, 2);
    TILE_STORE(&tiles, 0, c, TILE_BYTES);
    TILES_END(&tiles);
}

/* out[i] = a[i] x b[i] + c[i], a and b of 8 bits, all as bits of floats. */
void check_fused(const uint32_t *a, const uint32_t *b, const uint32_t *c, uint32_t *out, int n) {
    for (int i = 0; i < n; i++)
        out[i] = fused(float_of_bits(without_denormal(a[i])), float_of_bits(without_denormal(b[i])),
                       float_of_bits(without_denormal(c[i])));
}

#if defined(__x86_64__)
#include <immintrin.h>

int check_has_fma(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("fma") != 0;
}

/* The same by the CPU, with denormals as zeros and flushed. */
__attribute__((target("fma"))) void check_fused_by_cpu(const uint32_t *a, const uint32_t *b,
                                                       const uint32_t *c, uint32_t *out, int n) {
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    for (int i = 0; i < n; i++) {
        const __m128 x = _mm_castsi128_ps(_mm_cvtsi32_si128((int)a[i]));
        const __m128 y = _mm_castsi128_ps(_mm_cvtsi32_si128((int)b[i]));
        const __m128 z = _mm_castsi128_ps(_mm_cvtsi32_si128((int)c[i]));
        const __m128 sum = _mm_fmadd_ss(x, y, z);
        out[i] = (uint32_t)_mm_cvtsi128_si32(_mm_castps_si128(sum));
    }
    _mm_setcsr(before);
}
#else
int check_has_fma(void) { return 0; }
void check_fused_by_cpu(const uint32_t *a, const uint32_t *b, const uint32_t *c, uint32_t *out,
                        int n) {
    (void)a, (void)b, (void)c, (void)out, (void)n;
}
#endif
