/* The relay beside all threads that it meets: one that does what trio's does, and two workers. For ThreadSanitizer above all: every call
 * of relay.h that may be made while jobs run is made while jobs run. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>

#include "relay_lab.h"

enum { WORKERS = 2, CALLERS = 4, CALLS = 400 };

struct run {
    struct lab lab;
    struct lab_worker *workers[WORKERS];
    uint32_t over; /* O0: set by main, looked at by all */
    uint64_t signals_up, events;
};

static int is_over(struct run *run) { return (int)rb_load_acquire(&run->over); }

/* --- Workers ------------------------------------------------------------------------------------------------------------------ */

struct serving {
    struct run *run;
    struct lab_worker *worker;
};

static int has_requests(void *of) {
    struct serving *s = of;
    return is_over(s->run) || rb_ring_available(&s->worker->link.request_ring) != 0;
}

static void *serve(void *of) {
    struct serving *s = of;
    struct rb_link_worker *link = &s->worker->link;
    while (!is_over(s->run)) {
        if (!rb_gate_wait(&link->waiter, has_requests, s, 20000000)) continue;
        int64_t count = rb_ring_available(&link->request_ring);
        for (int64_t i = 0; i < count; i++) {
            const struct rb_request *r = &link->requests[rb_ring_slot(&link->request_ring, 0)];
            lab_start(s->worker, 1);
            struct rb_completion e = lab_completion(s->worker, r->job, "answer", 6, 0);
            rb_ring_release(&link->request_ring, 1);
            lab_publish(s->worker, &e);
        }
    }
    return NULL;
}

/* --- The other thread -------------------------------------------------------------------------------------------------------- */

/* {2, '', Pid} and a message, to a process of the peer. */
static void send_down(struct run *run) {
    struct lab_bytes control = {.size = 0};
    PUT(&control, "\x68\x03\x61\x02");
    lab_put_atom(&control, "");
    lab_put_pid(&control, "peer@host", 99);
    rb_relay_send(run->lab.relay, 1, control.at, control.size, (const uint8_t *)"\x61\x07", 2);
}

static void look_at_figures(struct rb_relay *relay) {
    struct rb_relay_stats stats;
    struct rb_relay_hops hops;
    struct rb_role_stats role;
    struct rb_worker_stats worker;
    rb_relay_read_stats(relay, &stats);
    rb_relay_read_hops(relay, &hops);
    CHECK_EQUAL(rb_relay_read_role(relay, 0, &role), 0);
    CHECK_EQUAL(rb_relay_read_worker(relay, 1, &worker), 0);
    (void)rb_relay_backlog(relay, 1);
}

static void take_all(struct run *run) {
    static uint8_t room[1 << 16];
    uint32_t heads[3 * 16];
    struct rb_event event;
    int more = 1;
    while (more) {
        int signals = rb_relay_take_signals(run->lab.relay, heads, 16, room, sizeof room);
        run->signals_up += (uint64_t)signals;
        more = signals > 0;
        while (rb_relay_take(run->lab.relay, &event)) {
            run->events++;
            run->signals_up += event.kind == RB_EVENT_SIGNAL;
            more = 1;
        }
    }
}

static void *be_trio(void *of) {
    struct run *run = of;
    struct rb_relay *relay = run->lab.relay;
    struct rb_role_config role = lab_role_config();
    for (uint32_t turn = 0; !is_over(run); turn++) {
        send_down(run);
        if (turn % 4 == 0) look_at_figures(relay);
        if (turn % 8 == 1) rb_relay_want_room(relay, 1);
        if (turn % 16 == 2) {
            role.choice.credit_us = 100 + turn % 200;
            CHECK_EQUAL(rb_relay_configure_role(relay, 0, &role), 0);
        }
        if (turn % 32 == 3) {
            CHECK_EQUAL(rb_relay_hold(relay, RB_SERVICE_JOBS, 1), 0);
            CHECK_EQUAL(rb_relay_hold(relay, RB_SERVICE_JOBS, 0), 0);
        }
        if (rb_relay_linger(relay)) {
            take_all(run);
            continue;
        }
        rb_relay_hush(relay);
        take_all(run);
        struct pollfd p = {.fd = rb_relay_event_fd(relay), .events = POLLIN};
        poll(&p, 1, 5);
    }
    take_all(run);
    return NULL;
}

/* --- The peer, on the main thread -------------------------------------------------------------------------------------------- */

/* A message to a process that is Python's, beside each call. */
static void send_up(int fd) {
    struct lab_bytes b = {.size = 0};
    PUT(&b, "\x68\x04\x61\x06");
    lab_put_pid(&b, "peer@host", 1);
    lab_put_atom(&b, "");
    lab_put_atom(&b, "somebody");
    PUT(&b, "\x61\x01");
    lab_frame(fd, &b);
}

static void wait_answers(int fd, int count) {
    static uint8_t body[1 << 16];
    while (count > 0) {
        int n = lab_read(fd, body, sizeof body, LAB_WAIT_MS);
        CHECK(n > 0);
        if (n <= 0) return;
        count -= memmem(body, (size_t)n, "answer", 6) != NULL; /* or what came down between them */
    }
}

static void every_call_may_be_made_while_jobs_run(void) {
    static struct run run;
    struct serving serving[WORKERS];
    pthread_t trio, worker[WORKERS];
    lab_open(&run.lab);
    for (int i = 0; i < WORKERS; i++) {
        run.workers[i] = lab_worker(&run.lab);
        serving[i] = (struct serving){&run, run.workers[i]};
        if (pthread_create(&worker[i], NULL, serve, &serving[i]) != 0) abort();
    }
    if (pthread_create(&trio, NULL, be_trio, &run) != 0) abort();
    for (uint32_t call = 0; call < CALLS; call++) {
        for (uint32_t i = 1; i <= CALLERS; i++) lab_submit(run.lab.peer, i, "question", 8);
        send_up(run.lab.peer);
        wait_answers(run.lab.peer, CALLERS);
        for (uint32_t i = 1; i <= CALLERS; i++) lab_monitor(run.lab.peer, 0, i, i);
    }
    rb_store_release(&run.over, 1); /* O0: pairs with is_over() */
    for (int i = 0; i < WORKERS; i++) pthread_join(worker[i], NULL);
    pthread_join(trio, NULL);
    struct rb_relay_stats stats;
    rb_relay_read_stats(run.lab.relay, &stats);
    CHECK_EQUAL(stats.answered[RB_REASON_OK], CALLS * CALLERS);
    CHECK(run.signals_up > 0);
    for (int i = 0; i < WORKERS; i++) lab_worker_end(&run.lab, run.workers[i], NULL);
    lab_close(&run.lab);
}

int main(void) {
    RUN(every_call_may_be_made_while_jobs_run);
    return check_end();
}
