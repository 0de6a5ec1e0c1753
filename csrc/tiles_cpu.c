/* Whether this CPU and the system have tiles (AMX), and asking for them. Compiled once. */
#include "fastdeconv.h"

#if defined(__x86_64__) && defined(__linux__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARCH_REQ_XCOMP_PERM 0x1023
#define TILE_DATA 18 /* the state's number in XCR0 */

/* What the system saves of a thread (XCR0). */
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
    /* Every CPU with tiles so far has AVX512_BF16, too. */
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & convert);
}

int fd_ask_for_tiles(void) {
    /* Linux keeps a process's answer; asking again is harmless, so no lock is needed. It says no
     * where a thread's signal stack is too small for the tiles. */
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
}

#else

int fd_cpu_has_tiles(void) { return 0; }
int fd_ask_for_tiles(void) { return 0; }

#endif
