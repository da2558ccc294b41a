/* bench/relay_rounds.c: what a round costs the relay by how many workers have a job in flight: run by bench/round_cost, under callgrind
 * for instructions, or alone for time.
 *
 *      relay_rounds WORKERS ROUNDS
 *
 * Each worker has one job, and credit for no other. In each round, a millisecond after the one before, one of them has ended it and gets the
 * next; the time of a round is printed. The relay has no thread: what it costs to wait is not in it. */
#define _GNU_SOURCE
#include <stdlib.h>

#include "../tests/still_lab.h"

enum { MOST = 1000 };

static struct rb_lab_worker *workers[MOST];
static struct still still;

static uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* The worker ends its job, which took as long as it was away. */
static int answer(struct rb_lab_worker *w) {
    struct rb_lab_request q;
    if (rb_lab_request(w, 0, &q) < 0) return 0;
    rb_lab_start(w, 1);
    struct rb_lab_answer a = {.job = q.job,
                              .status = RB_STATUS_OK,
                              .run_ns = STILL_MS,
                              .payload = (const uint8_t *)"y",
                              .payload_bytes = 1};
    if (rb_lab_complete(w, &a) < 0) abort();
    rb_lab_release(w, 1);
    return 1;
}

static void drain(void) {
    static uint8_t all[1 << 16];
    while (recv(still.lab.peer, all, sizeof all, MSG_DONTWAIT) > 0) {
    }
}

static void submit(void) {
    still.callers = still.callers % STILL_CALLERS + 1;
    lab_submit(still.lab.peer, still.callers, "x", 1);
}

/* For rounds under way: the caller has its answer and lets go of its monitor. */
static void forget(uint32_t caller) { lab_monitor(still.lab.peer, 0, caller, caller); }

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int count = atoi(argv[1]);
    uint32_t rounds = (uint32_t)strtoul(argv[2], NULL, 10);
    if (count < 1 || count > MOST) return 2;
    struct rb_role_config role = lab_role_config();
    role.admission.depth_max = 1000;
    role.choice.credit_us = 1;
    still_open(&still, &role, 0);
    for (int i = 0; i < count; i++) {
        if (rb_lab_hire(still.lab.relay, 0, (uint64_t)i + 1, 2, &workers[i]) < 0) return 1;
        rb_lab_greet(workers[i], "echo");
        still_round(&still, 1);
    }
    for (int i = 0; i < 4 * count; i++) { /* until each has one, and its measure */
        submit();
        still_round(&still, 1);
        for (int k = 0; i < 2 * count && k < count; k++) answer(workers[k]);
        drain();
    }
    uint64_t spent = 0;
    for (uint32_t i = 0, at = 0; i < rounds; i++) {
        uint32_t gone = still.callers;
        while (!answer(workers[at])) at = (at + 1) % (uint32_t)count;
        at = (at + 7) % (uint32_t)count;
        submit();
        uint64_t from = clock_ns();
        still_round(&still, 1);
        spent += clock_ns() - from;
        drain();
        if (gone > (uint32_t)count * 8) forget(gone - (uint32_t)count * 8);
    }
    struct rb_role_stats s = still_role(&still);
    printf("%d workers: %llu ns a round, %llu jobs wait\n", count,
           (unsigned long long)(rounds ? spent / rounds : 0), (unsigned long long)s.queued);
    fflush(stdout);
    _exit(0); /* the kernel is quicker at closing it all */
}
