/* Which tables of kernels this CPU can run. Compiled once, without the flags of an instruction
 * set. */
#include "fastdeconv.h"

/* 1 where setup.py has found that the compiler knows AMX. */
#ifndef FD_HAS_AMX
#define FD_HAS_AMX 0
#endif

/* Makes *own the table `base` with the kernels for tiles of another unit. */
static const fd_kernels *with_tiles(fd_kernels *own, const fd_kernels *base,
                                    void (*use_tiles)(fd_kernels *)) {
    *own = *base;
    use_tiles(own);
    return own;
}

void fd_use_tiles_amx_emulated(fd_kernels *);

#if defined(__x86_64__)

extern const fd_kernels fd_table_avx512, fd_table_avx2, fd_table_baseline;

#if FD_HAS_AMX
void fd_use_tiles_amx(fd_kernels *);

const fd_kernels *fd_amx(void) {
    static fd_kernels own;
    return with_tiles(&own, &fd_table_avx512, fd_use_tiles_amx);
}
#else
const fd_kernels *fd_amx(void) { return NULL; }
#endif

int fd_available(const fd_kernels **tables) {
    int n = 0;
    /* __builtin_cpu_supports also looks whether the operating system saves the wide registers
     * (XCR0), which CPUID alone does not tell. */
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        tables[n++] = &fd_table_avx512;
    if (avx2) tables[n++] = &fd_table_avx2;
    tables[n++] = &fd_table_baseline;
    return n;
}

int fd_on_request(const fd_kernels **tables) {
    const fd_kernels *best[FD_MOST_TABLES];
    int n = 0;
    fd_available(best);
    if (best[0] == &fd_table_avx512 && fd_cpu_has_tiles() && fd_amx()) tables[n++] = fd_amx();
    /* The emulated tiles are combined with AVX2, whose fused multiply-add rounds once, as AVX-512
     * does beside the real tiles. So both give the same bits. */
    static fd_kernels emulated;
    if (best[0] != &fd_table_baseline)
        tables[n++] = with_tiles(&emulated, &fd_table_avx2, fd_use_tiles_amx_emulated);
    return n;
}

#elif defined(__aarch64__)

extern const fd_kernels fd_table_neon;

const fd_kernels *fd_amx(void) { return NULL; }

int fd_available(const fd_kernels **tables) {
    tables[0] = &fd_table_neon;
    return 1;
}

int fd_on_request(const fd_kernels **tables) {
    static fd_kernels emulated;
    tables[0] = with_tiles(&emulated, &fd_table_neon, fd_use_tiles_amx_emulated);
    return 1;
}

#else
#error "fastdeconv's native kernels are for x86-64 and 64-bit ARM"
#endif
