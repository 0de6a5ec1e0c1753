/* Runs the tile instructions of AMX on CPUs that have none: each is an illegal instruction there,
 * and the handler of that signal does in C (csrc/tiles.h) what it would have done. Linux, x86-64.
 * Understands the addresses that compilers give those instructions. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include "tiles.h"

static __thread tile_file tiles; /* of each thread */
static long taken;

static const int registers[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                  REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                  REG_R12, REG_R13, REG_R14, REG_R15};

static void refuse(const unsigned char *code) {
    fprintf(stderr, "not an instruction for tiles: %02x %02x %02x %02x %02x\n", code[0], code[1],
            code[2], code[3], code[4]);
    abort();
}

/* base, base + stride, both with or without a displacement, or relative to the next instruction. */
static char *find_address(const unsigned char *code, const greg_t *at, long *stride, int *length) {
    const int mode = code[4] >> 6, low = code[4] & 7;
    const int high_index = !(code[1] >> 6 & 1) << 3, high_base = !(code[1] >> 5 & 1) << 3;
    int base = low | high_base, displacement = 0;
    *stride = 0;
    *length = 5;
    if (low == 4) {
        const int scale = code[5] >> 6, index = (code[5] >> 3 & 7) | high_index;
        base = (code[5] & 7) | high_base;
        if (index != 4) *stride = at[registers[index]] << scale;
        *length = 6;
        if (mode == 0 && (code[5] & 7) == 5) refuse(code);
    }
    if (mode == 1) displacement = (signed char)code[(*length)++];
    if (mode == 2 || (mode == 0 && low == 5)) {
        memcpy(&displacement, code + *length, 4);
        *length += 4;
    }
    if (mode == 0 && low == 5) return (char *)code + *length + displacement;
    return (char *)at[registers[base]] + displacement;
}

static void on_illegal(int signal, siginfo_t *info, void *context) {
    greg_t *at = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)at[REG_RIP];
    (void)signal, (void)info;
    if (code[0] != 0xc4 || (code[1] & 31) != 2) refuse(code);
    const int prefix = code[2] & 3, operation = code[3] << 4 | prefix;
    const int in_memory = code[4] >> 6 != 3, t = code[4] >> 3 & 7;
    int length = 5;
    long stride = 0;
    char *memory = in_memory ? find_address(code, at, &stride, &length) : NULL;
    if (operation == 0x490 && in_memory)
        tiles_begin(&tiles, (const tile_shapes *)memory);
    else if (operation == 0x490)
        memset(&tiles, 0, sizeof tiles);
    else if (operation == 0x493)
        tile_zero(&tiles, t);
    else if (operation == 0x4b3)
        tile_load(&tiles, t, memory, stride);
    else if (operation == 0x4b2)
        tile_store(&tiles, t, memory, stride);
    else if (operation == 0x5c2)
        tile_multiply(&tiles, t, code[4] & 7, ~(code[2] >> 3) & 15);
    else
        refuse(code);
    at[REG_RIP] += length;
    __atomic_add_fetch(&taken, 1, __ATOMIC_RELAXED);
}

static struct sigaction before;

void trap_begin(void) {
    struct sigaction action = {0};
    action.sa_sigaction = on_illegal;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGILL, &action, &before);
}

/* How many instructions have been taken. */
long trap_end(void) {
    sigaction(SIGILL, &before, NULL);
    return taken;
}
