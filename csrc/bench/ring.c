/* bench/ring.c: a request there and an answer back through a link, between two processes that both
 * spin, beside what the machine needs to move one cache line there and back.
 *
 *      ring            prints a table
 *      ring --json     prints one JSON object a line, as rows of integration/bench's report
 *
 * The three kinds take turns in short samples and the ratios are taken within a turn: on this kind
 * of machine the two cores move on the host, and a line's round trip jumps between 110 and 540 ns. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ringbridge/envelope.h"
#include "ringbridge/link.h"

enum { LINE, RING, RING_CRC, KINDS, STOP = KINDS };
enum { TURNS = 301, TRIPS = 1000, PAYLOAD = 16 };

static const char *const names[KINDS] = {
    "cache line, there and back", "ring, there and back, CRC off", "ring, there and back, CRC on"};

struct orders {
    uint64_t kind __attribute__((aligned(RB_LINE_BYTES))); /* what to answer; STOP: end */
    uint64_t done __attribute__((aligned(RB_LINE_BYTES))); /* the other side has taken it up */
    uint64_t line __attribute__((aligned(RB_LINE_BYTES))); /* the line that goes there and back */
};

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Onto the n-th CPU that this process may use. */
static int pin(int n) {
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) < 0) return -1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && n-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            return sched_setaffinity(0, sizeof one, &one);
        }
    return -1;
}

static void fail(const char *what) {
    fprintf(stderr, "bench/ring: %s\n", what);
    exit(1);
}

/* --- the worker's process --------------------------------------------------------------------- */

static void answer_lines(struct orders *o) {
    for (uint64_t i = 0; i < TRIPS; i++) {
        while (rb_load_acquire(&o->line) != 2 * i + 1) rb_pause();
        rb_store_release(&o->line, 2 * i + 2);
    }
}

static void answer_ring(struct rb_link_worker *w, uint64_t features) {
    for (uint64_t i = 0; i < TRIPS; i++) {
        while (rb_ring_available(&w->request_ring) == 0) rb_pause();
        struct rb_request e = w->requests[rb_ring_slot(&w->request_ring, 0)];
        struct rb_completion *c = &w->completions[rb_ring_claim(&w->completion_ring)];
        if (rb_request_crc(&e, NULL, features) != e.crc) fail("a request's CRC is wrong");
        rb_store_release(&w->ours->started, w->request_ring.head + 1);
        *c =
            (struct rb_completion){.job = e.job, .flags = RB_FLAG_INLINE, .payload_bytes = PAYLOAD};
        memcpy(c->body, e.body, PAYLOAD);
        c->crc = rb_completion_crc(c, NULL, features);
        rb_ring_release(&w->request_ring, 1);
        rb_ring_publish(&w->completion_ring);
        rb_gate_ring(&w->waker);
    }
}

static void serve(const struct rb_link *link, struct orders *o) {
    char why[256];
    struct rb_link_worker w;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(1);
    if (rb_link_attach(&w, &link->fds, why, sizeof why) < 0) fail(why);
    for (uint64_t taken = 1;; taken++) {
        while (rb_load_acquire(&o->done) != 2 * taken - 1) rb_pause();
        uint64_t kind =
            rb_load_relaxed(&o->kind); /* stored before `done`, which we have acquired */
        rb_store_release(&o->done, 2 * taken);
        if (kind == STOP) _exit(0);
        if (kind == LINE)
            answer_lines(o);
        else
            answer_ring(&w, kind == RING_CRC ? link->config.features : 0);
    }
}

/* --- the relay's process ---------------------------------------------------------------------- */

static void ask_lines(struct orders *o) {
    for (uint64_t i = 0; i < TRIPS; i++) {
        rb_store_release(&o->line, 2 * i + 1);
        while (rb_load_acquire(&o->line) != 2 * i + 2) rb_pause();
    }
}

static void ask_ring(struct rb_link *link, uint64_t features) {
    for (uint64_t i = 0; i < TRIPS; i++) {
        struct rb_request *e = &link->requests[rb_ring_claim(&link->request_ring)];
        *e = (struct rb_request){.job = i + 1, .flags = RB_FLAG_INLINE, .payload_bytes = PAYLOAD};
        memset(e->body, (int)i, PAYLOAD);
        e->crc = rb_request_crc(e, NULL, features);
        rb_ring_publish(&link->request_ring);
        rb_gate_ring(&link->waker);
        while (rb_ring_available(&link->completion_ring) == 0) rb_pause();
        struct rb_completion c = link->completions[rb_ring_slot(&link->completion_ring, 0)];
        if (c.job != i + 1 || rb_completion_crc(&c, NULL, features) != c.crc)
            fail("an answer is wrong");
        rb_ring_release(&link->completion_ring, 1);
    }
}

static void order(struct orders *o, uint64_t *given, uint64_t kind) {
    rb_store_relaxed(&o->line, 0);
    rb_store_relaxed(&o->kind, kind);
    rb_store_release(&o->done, 2 * ++*given - 1);
    while (rb_load_acquire(&o->done) != 2 * *given) rb_pause();
}

/* Nanoseconds a trip. */
static double sample(struct rb_link *link, struct orders *o, uint64_t *given, int kind) {
    int64_t begin;
    order(o, given, (uint64_t)kind);
    begin = now_ns();
    if (kind == LINE)
        ask_lines(o);
    else
        ask_ring(link, kind == RING_CRC ? link->config.features : 0);
    return (double)(now_ns() - begin) / TRIPS;
}

/* --- figures ---------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct spread {
    double min, median, max;
};
static struct spread spread_of(const double *values) {
    double sorted[TURNS];
    memcpy(sorted, values, sizeof sorted);
    qsort(sorted, TURNS, sizeof *sorted, ascending);
    return (struct spread){sorted[0], sorted[TURNS / 2], sorted[TURNS - 1]};
}

static void print(double taken[KINDS][TURNS], int json) {
    struct spread line = spread_of(taken[LINE]);
    if (!json)
        printf("%-32s %7.1f ns  (%.1f .. %.1f)\n", names[LINE], line.median, line.min, line.max);
    for (int kind = RING; kind < KINDS; kind++) {
        double ratios[TURNS];
        struct spread ns = spread_of(taken[kind]), ratio;
        for (int i = 0; i < TURNS; i++) ratios[i] = taken[kind][i] / taken[LINE][i];
        ratio = spread_of(ratios);
        if (json)
            printf("{\"work\": \"%s\", \"size_bytes\": %d, \"callers\": 1, \"beside\": \"line\", "
                   "\"ours\": %.4g, \"peer\": %.4g, \"unit\": \"ns\", \"ratio\": {\"min\": %.4g, "
                   "\"median\": %.4g, \"max\": %.4g}, \"errors\": 0}\n",
                   names[kind], PAYLOAD, ns.median, line.median, ratio.min, ratio.median,
                   ratio.max);
        else
            printf("%-32s %7.1f ns  (%.1f .. %.1f), %.2f x the line (%.2f .. %.2f)\n", names[kind],
                   ns.median, ns.min, ns.max, ratio.median, ratio.min, ratio.max);
    }
}

int main(int argc, char **argv) {
    static double taken[KINDS][TURNS];
    struct rb_link_config config = RB_LINK_CONFIG_DEFAULT;
    struct rb_link link;
    struct orders *o;
    uint64_t given = 0;
    pid_t worker;

    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        fprintf(stderr, "bench/ring: not measured: it needs two CPUs, one for each side\n");
        return 0;
    }
    o = mmap(NULL, sizeof *o, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (o == MAP_FAILED || rb_link_create(&link, &config, NULL) < 0) fail("no memory for a link");
    worker = fork();
    if (worker < 0) fail("no process for the worker");
    if (worker == 0) serve(&link, o);
    pin(0);
    for (int turn = -1; turn < TURNS;
         turn++) /* the first turn brings everything in and is dropped */
        for (int kind = 0; kind < KINDS; kind++) {
            double ns = sample(&link, o, &given, kind);
            if (turn >= 0) taken[kind][turn] = ns;
        }
    order(o, &given, STOP);
    waitpid(worker, NULL, 0);
    print(taken, argc > 1 && strcmp(argv[1], "--json") == 0);
    rb_link_close(&link);
    return 0;
}
