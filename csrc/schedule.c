/* Hands out bands of work to threads: see schedule.h. Compiled once, for the baseline.
 *
 * Everything is changed under one lock, which is taken once a band. A thread that finds nothing
 * it may begin watches a counter for a moment without the lock, since what it waits for is mostly
 * done within microseconds, and to wake a thread that sleeps takes tens; then it sleeps.
 *
 * Who waits, waits for the same: that the next band may begin or, when all are handed out, that
 * none runs any more. `tell` is called after every change under the lock that can bring that
 * about. It wakes one thread for a band, and who takes a band tells the next: no thread wakes to
 * find nothing, and none sleeps while a band is ready. A band waits for bands that were handed
 * out before it, so the first of those that run never waits, and all come to an end.
 */
#include "schedule.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

/* Microseconds for which a thread watches before it sleeps. */
#define SPIN 50

struct fd_queue {
    pthread_mutex_t lock;
    pthread_cond_t told;
    const fd_stage *stages;
    int count;
    int stage, band;        /* what is handed out next; stage == count: nothing */
    int before;             /* bands of the stages before that */
    unsigned char *done;    /* by band, counted from the first of the first stage */
    int total, done_first;  /* the first so many are done */
    int running;
    int sleeping;           /* threads */
    int stopped, failed;
    atomic_uint news;       /* counts what was told; changed under the lock, read without it */
};

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* ---- with the lock ---- */

static int all_handed_out(const fd_queue *q) { return q->stopped || q->stage == q->count; }

static int is_ready(const fd_queue *q) {
    if (all_handed_out(q)) return q->running == 0;
    const int32_t *needs = q->stages[q->stage].needs;
    return !needs || q->done_first >= needs[q->band];
}

static void tell(fd_queue *q) {
    if (!is_ready(q)) return;
    atomic_fetch_add_explicit(&q->news, 1, memory_order_release);
    if (!q->sleeping) return;
    if (all_handed_out(q))
        pthread_cond_broadcast(&q->told);
    else
        pthread_cond_signal(&q->told);
}

static void skip_empty_stages(fd_queue *q) {
    while (q->stage < q->count && q->band == q->stages[q->stage].bands) {
        q->before += q->band;
        q->stage++;
        q->band = 0;
    }
}

static void wait_for_news(fd_queue *q) {
    const unsigned known = atomic_load_explicit(&q->news, memory_order_relaxed);
    pthread_mutex_unlock(&q->lock);
    const long long end = now() + SPIN;
    while (atomic_load_explicit(&q->news, memory_order_acquire) == known && now() < end)
        for (int i = 0; i < 8; i++) pause_briefly();
    pthread_mutex_lock(&q->lock);
    if (atomic_load_explicit(&q->news, memory_order_relaxed) != known) return;
    q->sleeping++;
    pthread_cond_wait(&q->told, &q->lock);
    q->sleeping--;
}

static void run_next(fd_queue *q) {
    const fd_stage *stage = q->stages + q->stage;
    const int band = q->band++, number = q->before + band;
    q->running++;
    skip_empty_stages(q);
    tell(q);
    pthread_mutex_unlock(&q->lock);
    const int status =
        stage->work.run(stage->work.job, stage->edges[band], stage->edges[band + 1]);
    pthread_mutex_lock(&q->lock);
    q->running--;
    q->done[number] = 1;
    while (q->done_first < q->total && q->done[q->done_first]) q->done_first++;
    if (status) q->stopped = q->failed = 1;
    tell(q);
}

/* ---- without ---- */

fd_queue *fd_queue_new(const fd_stage *stages, int count) {
    fd_queue *q = calloc(1, sizeof *q);
    if (!q) return NULL;
    q->stages = stages;
    q->count = count;
    for (int i = 0; i < count; i++) q->total += stages[i].bands;
    q->done = calloc(q->total + 1, 1);
    if (!q->done || pthread_mutex_init(&q->lock, NULL)) goto no_lock;
    if (pthread_cond_init(&q->told, NULL)) goto no_condition;
    atomic_init(&q->news, 0);
    skip_empty_stages(q);
    return q;
no_condition:
    pthread_mutex_destroy(&q->lock);
no_lock:
    free(q->done);
    free(q);
    return NULL;
}

void fd_queue_free(fd_queue *q) {
    pthread_cond_destroy(&q->told);
    pthread_mutex_destroy(&q->lock);
    free(q->done);
    free(q);
}

int fd_queue_work(fd_queue *q, int stay, long microseconds) {
    const long long end = now() + microseconds;
    int more = 0;
    pthread_mutex_lock(&q->lock);
    while (!all_handed_out(q) || (stay && q->running)) {
        more = now() >= end;
        if (more) {
            tell(q); /* perhaps it was this thread alone that was told */
            break;
        }
        if (!all_handed_out(q) && is_ready(q))
            run_next(q);
        else
            wait_for_news(q);
    }
    pthread_mutex_unlock(&q->lock);
    return more;
}

void fd_queue_stop(fd_queue *q) {
    pthread_mutex_lock(&q->lock);
    q->stopped = 1;
    tell(q);
    pthread_mutex_unlock(&q->lock);
}

int fd_queue_failed(fd_queue *q) {
    pthread_mutex_lock(&q->lock);
    const int failed = q->failed;
    pthread_mutex_unlock(&q->lock);
    return failed;
}
