/* next_rows of csrc/project.c, for a test to call: the test says what time it is, and how other
 * threads vote between two calls. */
#include <time.h>

static long long now; /* nanoseconds */

static int get_now(clockid_t clock, struct timespec *t) {
    (void)clock;
    *t = (struct timespec){now / 1000000000, now % 1000000000};
    return 0;
}
#define clock_gettime get_now
#include "project.c"

static int leads[FD_LEADS];
static const float weight;
static fd_step step;
static stepper state;

/* Begins a step that leaves out zeros, whose rows are long enough to be timed. */
void check_begin(int lead) {
    step = (fd_step){
        .nv = 1, .kp = VW, .out_w = 256, .sparse = &weight, .sparse_width = VW, .lead = leads};
    state = (stepper){.s = &step, .sparse = {.together = 2}};
    leads[1] = lead;
}

/* What next_rows says `passed` nanoseconds after the call before, when others have added `votes`. */
int check_next(int passed, int votes, int left) {
    now += passed;
    leads[1] += votes;
    return next_rows(&state, left);
}

int check_lead(void) { return leads[1]; }
int check_sure(void) { return FD_SURE; }
