/* Keeps a few pieces of memory: see memory.h. Compiled once, for the baseline.
 *
 * Large pieces that are given back to the system come as page faults when they are taken again:
 * 0.6 of the 4.5 ms of a small network's forward pass on one thread.
 *
 * Nobody waits here. Who finds another thread at the list does without, so that a child that was
 * forked meanwhile does not stop.
 */
#include "memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#define PIECES 8
/* Bytes that are kept in all; none where a tool looks for the use of memory that was freed. */
#ifdef __SANITIZE_ADDRESS__
#define MOST ((size_t)0)
#else
#define MOST ((size_t)1 << 27)
#endif
#define LINE 64
/* Bytes of a large page, and from how many on memory is put in them. */
#define PAGE ((size_t)1 << 21)

typedef struct {
    void *memory;
    size_t size;
} piece;

static piece kept[PIECES]; /* the one that came last is the first */
static atomic_flag busy = ATOMIC_FLAG_INIT;

static int begin(void) { return !atomic_flag_test_and_set_explicit(&busy, memory_order_acquire); }
static void end(void) { atomic_flag_clear_explicit(&busy, memory_order_release); }

/* The smallest that will do, but none of which most would lie idle. */
static piece remove_fitting(size_t size) {
    int best = -1;
    for (int i = 0; i < PIECES && kept[i].memory; i++)
        if (kept[i].size >= size && kept[i].size / 2 <= size &&
            (best < 0 || kept[i].size < kept[best].size))
            best = i;
    if (best < 0) return (piece){NULL, 0};
    const piece found = kept[best];
    for (int i = best; i + 1 < PIECES; i++) kept[i] = kept[i + 1];
    kept[PIECES - 1] = (piece){NULL, 0};
    return found;
}

/* In large pages where the system has them for who asks. A pass that goes through 15 MB leaves no
 * page of 4 KB in the tables of the processor. */
static void *allocate(size_t *size) {
#ifdef MADV_HUGEPAGE
    if (*size >= PAGE) {
        *size = (*size + PAGE - 1) / PAGE * PAGE;
        void *memory = aligned_alloc(PAGE, *size);
        if (memory) madvise(memory, *size, MADV_HUGEPAGE);
        return memory;
    }
#endif
    *size = (*size / LINE + 1) * LINE;
    return aligned_alloc(LINE, *size);
}

void *fd_memory_take(size_t *size) {
    if (begin()) {
        const piece found = remove_fitting(*size);
        end();
        if (found.memory) {
            *size = found.size;
            return found.memory;
        }
    }
    return allocate(size);
}

void fd_memory_give(void *memory, size_t size) {
    if (size <= MOST && begin()) {
        /* It takes the first place, everyone moves on, and who no longer fits is let go. */
        size_t sum = 0;
        piece left[PIECES + 1] = {{memory, size}};
        for (int i = 0; i < PIECES; i++) left[i + 1] = kept[i];
        int n = 0;
        for (int i = 0; i <= PIECES; i++) {
            sum += left[i].size;
            if (i < PIECES && sum <= MOST) {
                kept[n++] = left[i];
                left[i].memory = NULL;
            }
        }
        while (n < PIECES) kept[n++] = (piece){NULL, 0};
        end();
        for (int i = 0; i <= PIECES; i++) free(left[i].memory);
        return;
    }
    free(memory);
}
