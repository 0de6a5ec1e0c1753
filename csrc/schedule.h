/* Hands out bands of work to the threads that come for it.
 *
 * Threads are the caller's: each enters fd_queue_work once, and comes back when there is nothing
 * left for it. Bands are handed out in order. A band may wait for bands before it, in C, so that
 * a call needs no Python between its first band and its last.
 */
#ifndef FD_SCHEDULE_H
#define FD_SCHEDULE_H

#include <stdint.h>

/* Work on the units begin..end-1 of a job; 0, or -1 when scratch memory could not be had. May be
 * called from many threads at once on disjoint ranges. */
typedef struct {
    int (*run)(const void *job, int begin, int end);
    const void *job;
} fd_work;

typedef struct {
    fd_work work;
    int bands;
    const int32_t *edges;   /* (bands + 1): band i is edges[i]..edges[i+1]-1 */
    const int32_t *needs;   /* (bands): how many bands, counted from the first of the first stage,
                             * must be done before band i begins; at most those handed out before
                             * it, or nobody would ever come back. NULL: none */
} fd_stage;

typedef struct fd_queue fd_queue;

/* A queue of stages, which it does not copy; NULL when there is no memory. */
fd_queue *fd_queue_new(const fd_stage *stages, int count);
/* Only when no thread is in fd_queue_work. */
void fd_queue_free(fd_queue *);
/* Run bands until none is left; with `stay`, until all are done, other threads' too. Returns 0
 * then, and 1 when `microseconds` have passed before (it may take a band longer): come again. */
int fd_queue_work(fd_queue *, int stay, long microseconds);
/* Hand out nothing any more. fd_queue_work with `stay` then waits for the bands that run. */
void fd_queue_stop(fd_queue *);
/* Whether a band had no memory, which stops the queue. */
int fd_queue_failed(fd_queue *);

#endif
