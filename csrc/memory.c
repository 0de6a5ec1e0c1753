/* Keeps some memory that was given back, for the next caller: see memory.h. Compiled once, without
 * the flags of an instruction set.
 *
 * When large memory is given back to the system and taken again, each of its pages costs a page
 * fault: 0.6 of the 4.5 ms that the forward pass of a small network takes on one thread.
 *
 * No thread waits here. A thread that finds another one using the list does without it, so that
 * a child process that was forked at that moment does not wait for ever.
 */
#include "memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

/* How many pieces of memory are kept. */
#define PIECES 8
/* How many bytes are kept altogether. None under AddressSanitizer, which looks for uses of memory
 * that was freed. */
#ifdef __SANITIZE_ADDRESS__
#define MOST ((size_t)0)
#else
#define MOST ((size_t)1 << 27)
#endif
/* Bytes of a cache line. */
#define LINE 64
/* Bytes of a large page. Memory of at least this size is put in large pages. */
#define PAGE ((size_t)1 << 21)

typedef struct {
    void *memory;
    size_t size;
} piece;

static piece kept[PIECES]; /* from the latest to the oldest */
static atomic_flag busy = ATOMIC_FLAG_INIT;

/* Whether this thread may use `kept` now; then it must call end. */
static int begin(void) { return !atomic_flag_test_and_set_explicit(&busy, memory_order_acquire); }
static void end(void) { atomic_flag_clear_explicit(&busy, memory_order_release); }

/* Takes the smallest piece that is large enough out of `kept`, but none that is more than twice as
 * large as needed. */
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

/* Uses large pages where the system has them on request. A pass reads and writes 15 MB or more: in
 * pages of 4 KB, that is more than the TLB can hold. */
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
        /* The new piece becomes the first, the others move back by one, and those that exceed
         * PIECES or MOST are freed. */
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
