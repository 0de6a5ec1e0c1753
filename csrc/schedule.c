/* Hands out bands of work to threads: see schedule.h. Compiled once, without the flags of an
 * instruction set.
 *
 * Everything is changed under one lock, which is taken once per band. A thread that finds no band
 * that may begin first watches a counter for up to SPIN microseconds without the lock, and then
 * sleeps: what it waits for mostly happens within microseconds, while waking a sleeping thread
 * takes tens of them.
 *
 * All threads that wait are waiting for the same event (is_ready): that the next band may begin or,
 * when all bands have been handed out, that none is running any more. After every change under the
 * lock that can cause this event, `tell` is called. For a band it wakes one thread, and the thread
 * that takes the band calls `tell` again for the next one. So no thread wakes up in vain, and none
 * sleeps while a band is ready. A band waits only for bands that were handed out before it; so the
 * earliest of the running bands never waits, and all of them come to an end.
 */
#include "schedule.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

/* Microseconds for which a thread that waits watches the counter before it sleeps. */
#define SPIN 50

struct fd_queue {
    pthread_mutex_t lock;
    pthread_cond_t told;
    const fd_stage *stages;
    int count;
    int stage, band;        /* the band that is handed out next; stage == count: there is none */
    int before;             /* how many bands the stages before `stage` have */
    unsigned char *done;    /* for each band, counted from the first band of the first stage */
    int total;              /* bands of all stages */
    int done_first;         /* bands 0..done_first-1 are all done */
    int running;            /* bands */
    int sleeping;           /* threads */
    int stopped, failed;
    atomic_uint news;       /* counts the calls of `tell` that found the event; changed under the
                             * lock, read without it */
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

/* ---- functions that are called with the lock held ---- */

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

/* ---- functions that are called without it ---- */

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
            tell(q); /* in case this is the only thread that was woken */
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
