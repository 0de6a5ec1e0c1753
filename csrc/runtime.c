/* Which tables this CPU can run. Compiled once, for the baseline. */
#include "fastdeconv.h"

#if defined(__x86_64__)

extern const fd_kernels fd_table_avx512, fd_table_avx2, fd_table_baseline;

int fd_available(const fd_kernels **tables) {
    int n = 0;
    /* __builtin_cpu_supports also asks the operating system whether it saves the
     * wide registers (XCR0), which CPUID alone does not tell. */
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        tables[n++] = &fd_table_avx512;
    if (avx2) tables[n++] = &fd_table_avx2;
    tables[n++] = &fd_table_baseline;
    return n;
}

#elif defined(__aarch64__)

extern const fd_kernels fd_table_neon;

int fd_available(const fd_kernels **tables) {
    tables[0] = &fd_table_neon;
    return 1;
}

#else
#error "fastdeconv's native kernels are for x86-64 and 64-bit ARM"
#endif
