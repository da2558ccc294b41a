/* The worker's end of a link, played for a worker of another kind (ringbridge/proxy.h), at a relay without a thread. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay/relay_pvt.h"
#include "relay_lab.h"
#include "ringbridge/proxy.h"

static const uint64_t MS = 1000000;
enum { SLOTS = 4, RESULT_BYTES = 64 << 10, BLOCK_BYTES = 4096, WORKER = 7 };

struct played {
    struct lab lab;
    uint64_t now;
    struct rb_proxy *proxy;
    int obituary;
};

static void round_after(struct played *s, uint64_t ms) {
    rb_lab_round(s->lab.relay, s->now += ms * MS);
}

/* `at_bell`: it rings at the socket, and never writes the eventfd. */
static void open_played_so(struct played *s, int at_bell) {
    struct rb_relay_config config = lab_config();
    struct rb_role_config role = lab_role_config();
    int fds[5], ends[2];
    char why[256];
    *s = (struct played){.now = 1000 * MS};
    lab_open_still(&s->lab, &config, &role, s->now);
    if (rb_relay_create_link(s->lab.relay, 0, WORKER, SLOTS, RESULT_BYTES, BLOCK_BYTES,
                             RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD, fds) < 0)
        abort();
    if (rb_proxy_open(fds, &s->proxy, why, sizeof why) < 0 || pipe2(ends, O_CLOEXEC) < 0) abort();
    if (at_bell) rb_proxy_ring_at_bell(s->proxy);
    if (rb_relay_add_worker(s->lab.relay, WORKER, -1, ends[0], -1, -1) < 0) abort();
    s->obituary = ends[1];
    round_after(s, 0);
    CHECK_EQUAL(rb_proxy_greet(s->proxy, "test", 1 << 16, "echo", NULL, 0, why, sizeof why), 0);
    round_after(s, 0);
    CHECK(lab_event(&s->lab, RB_EVENT_WORKER_READY));
}

static void open_played(struct played *s) { open_played_so(s, 0); }

static void die(struct played *s, int status, uint32_t signal) {
    struct rb_obituary o = {.magic = RB_OBITUARY_MAGIC, .status = status, .signal = signal};
    if (write(s->obituary, &o, sizeof o) != sizeof o) abort();
    close(s->obituary);
    s->obituary = -1;
    round_after(s, 0);
}

static void close_played(struct played *s) {
    if (s->obituary >= 0) die(s, 0, 0);
    rb_proxy_close(s->proxy);
    lab_close(&s->lab);
}

static int answer(struct played *s, uint64_t job, uint32_t status, const void *bytes, size_t size) {
    struct rb_proxy_answer a = {
        .job = job, .status = status, .payload = bytes, .payload_bytes = (uint32_t)size};
    return rb_proxy_answer(s->proxy, &a);
}

static int rings(const struct played *s) {
    struct pollfd p = {.fd = rb_proxy_bell(s->proxy), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void jobs_are_taken_begun_and_answered_in_their_order(void) {
    struct played s;
    struct rb_proxy_request r;
    char payload[100];
    open_played(&s);
    for (int lap = 0; lap < 5 * SLOTS; lap++) { /* the rings go round, and so do the blocks */
        memset(payload, 'a' + lap, sizeof payload);
        lab_submit(s.lab.peer, 1 + (uint32_t)lap, payload, lap % 2 ? sizeof payload : 3);
        round_after(&s, 1);
        CHECK_EQUAL(rb_proxy_waiting(s.proxy), 1);
        CHECK_EQUAL(rb_proxy_next_bytes(s.proxy), lap % 2 ? sizeof payload : 3);
        CHECK_EQUAL(rb_proxy_take(s.proxy, &r), 1);
        CHECK_EQUAL(rb_proxy_take(s.proxy, &r), 0);
        CHECK_EQUAL(rb_proxy_next_bytes(s.proxy), -EAGAIN);
        CHECK_EQUAL(r.payload_bytes, lap % 2 ? sizeof payload : 3);
        CHECK(memcmp(r.payload, payload, r.payload_bytes) == 0);
        CHECK_EQUAL(rb_proxy_start(s.proxy), 1);
        CHECK_EQUAL(answer(&s, r.job, RB_STATUS_OK, r.payload, r.payload_bytes), 0);
        round_after(&s, 1);
        CHECK(lab_answer_has(s.lab.peer, payload, r.payload_bytes));
    }
    close_played(&s);
}

static void the_bell_rings_for_what_comes_after_the_parking(void) {
    struct played s;
    struct rb_proxy_request r;
    open_played(&s);
    rb_proxy_park(s.proxy);
    CHECK(!rings(&s));
    lab_submit(s.lab.peer, 1, "x", 1);
    round_after(&s, 1);
    CHECK(rings(&s));
    rb_proxy_unpark(s.proxy);
    CHECK(!rings(&s));
    CHECK_EQUAL(rb_proxy_take(s.proxy, &r), 1);
    rb_proxy_start(s.proxy);
    CHECK(!rb_proxy_cancelled(s.proxy, r.position, r.job));
    rb_proxy_park(s.proxy);
    lab_monitor(s.lab.peer, 0, 1, 1); /* its caller leaves */
    round_after(&s, 1);
    CHECK(rings(&s));
    CHECK(rb_proxy_cancelled(s.proxy, r.position, r.job));
    rb_proxy_unpark(s.proxy);
    CHECK_EQUAL(answer(&s, r.job, RB_STATUS_CANCELLED, NULL, 0), 0);
    round_after(&s, 1);
    /* Who is awake again is not rung for. */
    rb_proxy_park(s.proxy);
    rb_proxy_unpark(s.proxy);
    CHECK_EQUAL(rb_relay_drain_worker(s.lab.relay, WORKER), 0);
    round_after(&s, 1);
    CHECK(!rings(&s));
    close_played(&s);
}

static void an_answer_without_room_waits_and_one_that_never_fits_is_told(void) {
    static uint8_t large[RESULT_BYTES + 1];
    struct played s;
    struct rb_proxy_request first, second;
    open_played(&s);
    lab_submit(s.lab.peer, 1, "x", 1);
    round_after(&s, 1);
    CHECK_EQUAL(rb_proxy_take(s.proxy, &first), 1);
    rb_proxy_start(s.proxy);
    CHECK_EQUAL(answer(&s, first.job, RB_STATUS_OK, large, sizeof large), -EMSGSIZE);
    CHECK_EQUAL(answer(&s, first.job, RB_STATUS_OK, large, RESULT_BYTES), 0);
    round_after(&s, 1);
    CHECK(lab_answer_has(s.lab.peer, "ok", 2));
    /* Given back with the last round: the region is free again, whole. */
    lab_submit(s.lab.peer, 2, "x", 1);
    round_after(&s, 1);
    CHECK_EQUAL(rb_proxy_take(s.proxy, &second), 1);
    rb_proxy_start(s.proxy);
    CHECK_EQUAL(answer(&s, second.job, RB_STATUS_OK, large, RESULT_BYTES), 0);
    round_after(&s, 1);
    CHECK(lab_answer_has(s.lab.peer, "ok", 2));
    close_played(&s);
}

static void what_is_drained_is_told_and_what_is_begun_dies_with_it(void) {
    struct played s;
    struct rb_proxy_request r;
    open_played(&s);
    CHECK_EQUAL(rb_proxy_control(s.proxy), RB_CONTROL_RUN);
    lab_submit(s.lab.peer, 1, "x", 1);
    round_after(&s, 1);
    CHECK_EQUAL(rb_proxy_take(s.proxy, &r), 1);
    rb_proxy_start(s.proxy);
    CHECK_EQUAL(rb_relay_drain_worker(s.lab.relay, WORKER), 0);
    rb_proxy_park(s.proxy);
    round_after(&s, 1);
    CHECK(rings(&s));
    CHECK_EQUAL(rb_proxy_control(s.proxy), RB_CONTROL_DRAIN);
    die(&s, -1, 9);
    CHECK(lab_answer_has(s.lab.peer, "worker_crashed", 14));
    close_played(&s);
}

static void a_beat_is_the_telemetry_s_and_readiness_is_told_at_once(void) {
    struct played s;
    struct rb_worker_stats stats;
    open_played(&s);
    rb_proxy_beat(s.proxy, 1);
    round_after(&s, 1);
    CHECK_EQUAL(rb_relay_read_worker(s.lab.relay, WORKER, &stats), 0);
    CHECK_EQUAL(stats.heartbeats, 2);
    CHECK_EQUAL(stats.unready, 1);
    lab_submit(s.lab.peer, 1, "x", 1);
    round_after(&s, 1);
    CHECK_EQUAL(rb_proxy_waiting(s.proxy), 0);
    rb_proxy_beat(s.proxy, 0);
    round_after(&s, 1);
    CHECK_EQUAL(rb_proxy_waiting(s.proxy), 1);
    close_played(&s);
}

/* Its greeting too: nobody looks there until it rings. Then its end of the socket is closed, which would ring on and on. */
static void who_rings_at_the_bell_is_heard_and_its_hanging_up_once(void) {
    struct played s;
    struct rb_worker_stats stats;
    struct epoll_event event;
    open_played_so(&s, 1);
    rb_proxy_beat(s.proxy, 1);
    round_after(&s, 1);
    CHECK_EQUAL(rb_relay_read_worker(s.lab.relay, WORKER, &stats), 0);
    CHECK_EQUAL(stats.unready, 1);
    CHECK_EQUAL(epoll_wait(s.lab.relay->epoll, &event, 1, 0), 0);
    CHECK_EQUAL(shutdown(rb_proxy_bell(s.proxy), SHUT_RDWR), 0);
    CHECK_EQUAL(epoll_wait(s.lab.relay->epoll, &event, 1, 0), 1);
    round_after(&s, 1);
    CHECK_EQUAL(epoll_wait(s.lab.relay->epoll, &event, 1, 0), 0);
    die(&s, -1, 9);
    CHECK(lab_event(&s.lab, RB_EVENT_WORKER_ENDED));
    close_played(&s);
}

/* Cut off it lives on: what the relay did not see begun goes to others, so it may not be begun here. */
static void who_is_let_go_of_begins_nothing_more(void) {
    struct played s;
    struct rb_proxy_request begun, waits;
    open_played(&s);
    lab_submit(s.lab.peer, 1, "x", 1);
    round_after(&s, 1);
    lab_submit(s.lab.peer, 2, "y", 1);
    round_after(&s, 1);
    CHECK_EQUAL(rb_proxy_take(s.proxy, &begun), 1);
    CHECK_EQUAL(rb_proxy_start(s.proxy), 1);
    if (rb_proxy_take(s.proxy, &waits) != 1) memset(&waits, 0, sizeof waits);
    rb_proxy_park(s.proxy);
    die(&s, -1, 9);
    CHECK(lab_answer_has(s.lab.peer, "worker_crashed", 14));
    CHECK(rings(&s));
    CHECK_EQUAL(rb_proxy_unpark(s.proxy), -EPIPE);
    CHECK_EQUAL(rb_proxy_start(s.proxy), 0);
    CHECK_EQUAL(rb_proxy_control(s.proxy), RB_CONTROL_STOP);
    close_played(&s);
}

/* Others are killed then; whose process nobody here can end has broken a rule. */
static void a_cancel_that_is_ignored_breaks_a_rule(int unguarded) {
    struct played s;
    struct rb_proxy_request r;
    open_played(&s);
    if (unguarded) CHECK_EQUAL(rb_relay_unguarded_worker(s.lab.relay, WORKER), 0);
    lab_submit(s.lab.peer, 1, "x", 1);
    round_after(&s, 1);
    CHECK_EQUAL(rb_proxy_take(s.proxy, &r), 1);
    CHECK_EQUAL(rb_proxy_start(s.proxy), 1);
    lab_monitor(s.lab.peer, 0, 1, 1); /* its caller leaves */
    round_after(&s, 1);
    for (int i = 0; i < 3; i++) round_after(&s, lab_role_config().cancel_kill_ms + 1);
    if (unguarded) {
        CHECK(lab_event(&s.lab, RB_EVENT_WORKER_BROKE));
        CHECK(lab_event_says(&s.lab, "cancel_ignored"));
    }
    CHECK_EQUAL(rb_proxy_control(s.proxy), unguarded ? RB_CONTROL_STOP : RB_CONTROL_RUN);
    close_played(&s);
}

static void the_job_of_a_worker_that_is_played_may_ignore_its_cancel(void) {
    a_cancel_that_is_ignored_breaks_a_rule(0);
}

static void the_job_of_an_unguarded_worker_may_not(void) {
    a_cancel_that_is_ignored_breaks_a_rule(1);
}

int main(void) {
    RUN(jobs_are_taken_begun_and_answered_in_their_order);
    RUN(the_bell_rings_for_what_comes_after_the_parking);
    RUN(an_answer_without_room_waits_and_one_that_never_fits_is_told);
    RUN(what_is_drained_is_told_and_what_is_begun_dies_with_it);
    RUN(who_rings_at_the_bell_is_heard_and_its_hanging_up_once);
    RUN(a_beat_is_the_telemetry_s_and_readiness_is_told_at_once);
    RUN(who_is_let_go_of_begins_nothing_more);
    RUN(the_job_of_a_worker_that_is_played_may_ignore_its_cancel);
    RUN(the_job_of_an_unguarded_worker_may_not);
    return check_end();
}
