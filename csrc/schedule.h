/* A queue that hands out bands of work to threads.
 *
 * The threads belong to the caller: each of them calls fd_queue_work once, which returns when there
 * is nothing left for it to do. Bands are handed out in order. A band may have to wait for earlier
 * bands; it does so in C, so that no Python runs between the first band of a call and the last.
 */
#ifndef FD_SCHEDULE_H
#define FD_SCHEDULE_H

#include <stdint.h>

/* run works on the units begin..end-1 of a job, and returns 0, or -1 if there was no memory for its
 * scratch space. Many threads may call it at the same time, on disjoint ranges. */
typedef struct {
    int (*run)(const void *job, int begin, int end);
    const void *job;
} fd_work;

typedef struct {
    fd_work work;
    int bands;
    const int32_t *edges;   /* (bands + 1): band i is edges[i]..edges[i+1]-1 */
    const int32_t *needs;   /* (bands): how many bands, counted from the first band of the first
                             * stage, must be done before band i may begin. They must have been
                             * handed out before band i, or no thread would ever return. NULL: none
                             * have to be done */
} fd_stage;

typedef struct fd_queue fd_queue;

/* A queue of these stages, which are not copied. NULL: there is no memory. */
fd_queue *fd_queue_new(const fd_stage *stages, int count);
/* May be called only when no thread is in fd_queue_work. */
void fd_queue_free(fd_queue *);
/* Runs bands until none is left to begin; with `stay`, until all are done, including those of other
 * threads. Then it returns 0. It returns 1, and should be called again, if so many microseconds
 * have passed before that; it looks at the clock only between bands. */
int fd_queue_work(fd_queue *, int stay, long microseconds);
/* From now on no band is handed out. fd_queue_work with `stay` still waits for those that run. */
void fd_queue_stop(fd_queue *);
/* Whether the queue has stopped because a band had no memory. */
int fd_queue_failed(fd_queue *);

#endif
