/* Whether this CPU and the system have tiles (AMX), and asking the system for permission to use
 * them. Compiled once, without the flags of an instruction set. */
#include "fastdeconv.h"

#if defined(__x86_64__) && defined(__linux__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARCH_REQ_XCOMP_PERM 0x1023
#define TILE_DATA 18 /* the bit of XCR0 for the tiles; that of their shapes is the bit before it */

/* Which states of a thread the system saves (XCR0). */
static uint64_t saved_states(void) {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

int fd_cpu_has_tiles(void) {
    const unsigned bf16 = 1u << 22, tile = 1u << 24, osxsave = 1u << 27, convert = 1u << 5;
    const uint64_t states = (uint64_t)3 << (TILE_DATA - 1); /* the shapes', and the tiles' */
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & osxsave)) return 0;
    if ((saved_states() & states) != states) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (bf16 | tile)) != (bf16 | tile)) return 0;
    /* The kernels also use AVX512_BF16, which every CPU with tiles has so far. */
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & convert);
}

int fd_ask_for_tiles(void) {
    /* Permission is given to the whole process, and asking again is harmless, so no lock is needed.
     * Linux refuses where the signal stack of a thread is too small for the tiles. */
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
}

#else

int fd_cpu_has_tiles(void) { return 0; }
int fd_ask_for_tiles(void) { return 0; }

#endif
