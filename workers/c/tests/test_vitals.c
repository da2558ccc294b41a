/* test_vitals.c: what the kit says of itself: that it lives, that its job gets on, whether it wants jobs. */
#include <poll.h>
#include <unistd.h>

#include "expect.h"

static uint64_t pulse_of(const struct peer *p) { return rb_load_relaxed(&p->link.theirs->pulse); }

static struct rb_telemetry telemetry_of(const struct peer *p) {
    struct rb_telemetry t = {0};
    while (rb_link_telemetry(&p->link, &t) < 0) {
    }
    return t;
}

static void run(struct peer *p, uint16_t opcode, uint16_t flags, const char *text) {
    struct peer_request request = {
        .payload = text, .bytes = (uint32_t)strlen(text), .opcode = opcode, .flags = flags};
    peer_put(p, &request);
    peer_publish(p);
    expect_status(p, RB_STATUS_OK, 5000);
}

/* The worker's knocks, taken: 1 if there was one within `ms`. */
static int knocked(struct peer *p, int ms) {
    struct pollfd fd = {.fd = p->link.fds.wake_relay, .events = POLLIN};
    uint64_t count;
    return poll(&fd, 1, ms) > 0 && read(fd.fd, &count, sizeof count) == sizeof count;
}

static int beats_on(struct peer *p) {
    uint64_t before = telemetry_of(p).heartbeats;
    for (int ms = 0; ms < 5000; ms += 20) {
        if (telemetry_of(p).heartbeats > before) return 1;
        usleep(20000);
    }
    return 0;
}

static void every_pulse_counts_and_nothing_else_does(void) {
    struct peer p;
    peer_start(&p, "rb-vitals", &defaults, 1);
    CHECK_EQUAL(pulse_of(&p), 0);
    run(&p, 0, 0, "1");
    CHECK_EQUAL(pulse_of(&p), 1);
    run(&p, 0, 0, "100000");
    CHECK_EQUAL(pulse_of(&p), 100001);
    CHECK(beats_on(&p));
    CHECK_EQUAL(pulse_of(&p), 100001);
    peer_stop(&p);
}

static void parts_and_progress_are_signs_too(void) {
    struct peer p;
    struct peer_answer a;
    peer_start(&p, "rb-vitals", &defaults, 1);
    run(&p, 3, 0, ""); /* where nobody hears of it, progress still is one */
    CHECK_EQUAL(pulse_of(&p), 1);
    struct peer_request request = {.opcode = 3, .flags = RB_FLAG_PARTS};
    uint64_t job = peer_put(&p, &request);
    peer_publish(&p);
    peer_demand(&p, job, 1);
    CHECK(peer_answer(&p, &a, 5000));
    CHECK_EQUAL(a.completion.status, RB_STATUS_PART);
    expect_status(&p, RB_STATUS_OK, 5000);
    CHECK_EQUAL(pulse_of(&p), 3);
    peer_stop(&p);
}

static void readiness_is_told_at_once_with_a_knock(void) {
    struct peer p;
    peer_start(&p, "rb-vitals", &defaults, 1);
    CHECK_EQUAL(telemetry_of(&p).unready, 0);
    for (int i = 0; i < 3; i++) {
        while (knocked(&p, 0)) {
        }
        run(&p, 1, 0, "");
        while (telemetry_of(&p).unready == 0) usleep(1000);
        CHECK(knocked(&p, 5000));
        run(&p, 2, 0, "");
        while (telemetry_of(&p).unready == 1) usleep(1000);
        CHECK(knocked(&p, 5000));
    }
    CHECK(beats_on(&p)); /* as before: what is told at once does not put the next beat off */
    peer_stop(&p);
}

static void one_that_is_not_ready_from_the_beginning_says_so_before_its_hello(void) {
    struct peer p;
    peer_start(&p, "rb-vitals-unready", &defaults, 1);
    CHECK_EQUAL(telemetry_of(&p).unready, 1);
    run(&p, 2, 0, "");
    while (telemetry_of(&p).unready == 1) usleep(1000);
    peer_stop(&p);
}

static void a_worker_declares_its_operations_before_its_hello(void) {
    struct peer p;
    struct rb_worker_op ops[RB_OPS_MAX];
    struct rb_worker_header hello;
    char why[256];
    peer_start(&p, "rb-conformance", &defaults, 1);
    CHECK_EQUAL(rb_link_hello(&p.link, &hello, why, sizeof why), 1);
    CHECK_EQUAL(rb_link_ops(&p.link, &hello, ops, why, sizeof why), 20);
    CHECK_EQUAL(ops[3].opcode, 3);
    CHECK_EQUAL(ops[3].takes, RB_TAKES_RAW | RB_TAKES_PARTS);
    CHECK(strcmp((const char *)ops[3].name, "emit") == 0);
    CHECK(strcmp((const char *)ops[19].name, "peer_close") == 0);
    peer_stop(&p);
    peer_start(&p, "rb-sleep", &defaults, 1); /* it declares none */
    CHECK_EQUAL(rb_link_hello(&p.link, &hello, why, sizeof why), 1);
    CHECK_EQUAL(rb_link_ops(&p.link, &hello, ops, why, sizeof why), 0);
    peer_stop(&p);
}

int main(void) {
    RUN(every_pulse_counts_and_nothing_else_does);
    RUN(parts_and_progress_are_signs_too);
    RUN(readiness_is_told_at_once_with_a_knock);
    RUN(one_that_is_not_ready_from_the_beginning_says_so_before_its_hello);
    RUN(a_worker_declares_its_operations_before_its_hello);
    return check_end();
}
