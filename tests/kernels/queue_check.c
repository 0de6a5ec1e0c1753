/* Random queues of bands on several threads, for csrc/schedule.c under ThreadSanitizer.
 *
 * A band reads, without any lock, what the bands wrote that it waits for: were they not done, or
 * not known to be, the values would be wrong, and ThreadSanitizer would report a race.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "schedule.h"

#define MOST_STAGES 5
#define MOST_BANDS 12
#define THREADS 5

typedef struct {
    int first;              /* number of its first band */
    const int32_t *needs;
    int *written;           /* by band, of all stages */
    int fails;              /* the number of the band without memory, or -1 */
} task;

static void work_for(long nanoseconds) {
    if (nanoseconds) nanosleep(&(struct timespec){0, nanoseconds}, NULL);
}

static int run(const void *job, int begin, int end) {
    const task *t = job;
    for (int i = begin; i < end; i++) {
        const int number = t->first + i;
        for (int n = 0; n < (t->needs ? t->needs[i] : 0); n++)
            if (t->written[n] != n + 1) {
                printf("band %d began before band %d was done\n", number, n);
                exit(1);
            }
        work_for(number % 7 == 0 ? 100000 : 0);
        if (number == t->fails) return -1;
        t->written[number]++;
        t->written[number] += number;
    }
    return 0;
}

static void *help(void *queue) {
    while (fd_queue_work(queue, 0, rand() % 2 ? 50 : 100000)) {
    }
    return NULL;
}

static void check(int seed, int fails, int stops) {
    int32_t edges[MOST_BANDS + 1], needs[MOST_STAGES][MOST_BANDS];
    int written[MOST_STAGES * MOST_BANDS] = {0}, total = 0;
    fd_stage stages[MOST_STAGES];
    task tasks[MOST_STAGES];
    srand(seed);
    for (int i = 0; i <= MOST_BANDS; i++) edges[i] = i;
    const int count = rand() % (MOST_STAGES + 1);
    for (int s = 0; s < count; s++) {
        const int bands = rand() % (MOST_BANDS + 1), waits = rand() % 4;
        for (int i = 0; i < bands; i++) needs[s][i] = total ? rand() % (total + 1) : 0;
        tasks[s] = (task){total, waits ? needs[s] : NULL, written, -1};
        stages[s] = (fd_stage){{run, tasks + s}, bands, edges, tasks[s].needs};
        total += bands;
    }
    for (int s = 0; fails && total && s < count; s++) tasks[s].fails = seed % total;

    fd_queue *queue = fd_queue_new(stages, count);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) pthread_create(threads + i, NULL, help, queue);
    if (stops) {
        work_for(rand() % 200000);
        fd_queue_stop(queue);
    }
    while (fd_queue_work(queue, 1, seed % 3 ? 100000 : 20)) {
    }
    /* No band is at work any more, whoever ran it. */
    const int failed = fd_queue_failed(queue);
    int done = 0;
    for (int n = 0; n < total; n++) {
        done += written[n] == n + 1;
        if (written[n] != n + 1 && written[n] != 0) {
            printf("band %d ran more than once\n", n);
            exit(1);
        }
    }
    if (failed != (fails && total && !stops) && !stops) {
        printf("seed %d: failed is %d\n", seed, failed);
        exit(1);
    }
    if (!fails && !stops && done != total) {
        printf("seed %d: %d of %d bands are done\n", seed, done, total);
        exit(1);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    fd_queue_free(queue);
}

int main(void) {
    for (int seed = 0; seed < 300; seed++) {
        check(seed, 0, 0);
        check(seed, 1, 0);
        check(seed, 0, 1);
    }
    puts("done");
    return 0;
}
