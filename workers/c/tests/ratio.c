/* ratio.c: what kits cost beside each other: echo workers of several kits, a row each, measured in turns in one run, so that whatever
 * else the machine does meets all of them.
 *
 *      ratio BASE OTHER...        programs of $WORKERS_BIN, or paths; the ratio is to BASE's figure of the same turn, median of all
 *
 * "batch" is the kit by itself: a ring of jobs of 16 bytes is published at once, and its last answer says how long after the drain
 * its job began and how long it ran, so wake-ups and the other side do not count.
 * "flow" is jobs of 16 bytes there and back, 128 in flight, with all that belongs to it. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"

enum { WORKERS_MAX = 8, TURNS = 101, BYTES = 16, FLOW_NS = 10000000, IN_FLIGHT = 128 };

static struct peer peers[WORKERS_MAX];

static uint64_t take_answers(struct peer *p, uint64_t count) {
    struct peer_answer last = {.completion = {.job = 0}};
    while (count-- > 0)
        if (!peer_answer(p, &last, 5000)) exit(1);
    return last.completion.queue_ns + last.completion.run_ns;
}

/* ns a job */
static double batch(struct peer *p) {
    static const uint8_t payload[BYTES];
    const struct peer_request request = {.payload = payload, .bytes = BYTES};
    uint64_t jobs = p->link.config.slots;
    for (uint64_t k = 0; k < jobs; k++) peer_put(p, &request);
    peer_publish(p);
    return (double)take_answers(p, jobs) / (double)jobs;
}

static double flow(struct peer *p) {
    static const uint8_t payload[BYTES];
    const struct peer_request request = {.payload = payload, .bytes = BYTES};
    uint64_t begin = peer_now_ns(), now = begin, put = 0, got = 0;
    while (now - begin < FLOW_NS) {
        for (; put - got < IN_FLIGHT; put++) peer_put(p, &request);
        peer_publish(p);
        do {
            take_answers(p, 1);
            got++;
        } while (rb_ring_available(&p->link.completion_ring) > 0);
        now = peer_now_ns();
    }
    take_answers(p, put - got);
    return (double)(now - begin) / (double)got;
}

static int ascending(const void *a, const void *b) {
    return *(const double *)a < *(const double *)b ? -1 : 1;
}

static double median(double *values) {
    qsort(values, TURNS, sizeof *values, ascending);
    return values[TURNS / 2];
}

static void measure(const char *what, double (*figure)(struct peer *p), int count, char **names) {
    static double figures[WORKERS_MAX][TURNS], ratios[WORKERS_MAX][TURNS];
    for (int turn = 0; turn < TURNS; turn++)
        for (int i = 0; i < count; i++) {
            figures[i][turn] = figure(&peers[i]);
            ratios[i][turn] = figures[i][turn] / figures[0][turn];
        }
    for (int i = 0; i < count; i++)
        printf("%-8s %-28s %8.1f %8.2f\n", what, names[i], median(figures[i]), median(ratios[i]));
}

int main(int argc, char **argv) {
    struct peer_options options = PEER_DEFAULT;
    int count = argc - 1;
    if (count < 2 || count > WORKERS_MAX) {
        fprintf(stderr, "usage: ratio BASE OTHER... (at most %d)\n", WORKERS_MAX);
        return 64;
    }
    for (int i = 0; i < count; i++) {
        peer_start(&peers[i], argv[i + 1], &options, 1);
        peers[i].link.waiter.spin_max = peers[i].link.waiter.spin = RB_GATE_SPIN_MAX;
    }
    printf("%-8s %-28s %8s %8s\n", "", "worker", "ns/job", "ratio");
    measure("batch", batch, count, argv + 1);
    measure("flow", flow, count, argv + 1);
    for (int i = 0; i < count; i++) peer_stop(&peers[i]);
    return 0;
}
