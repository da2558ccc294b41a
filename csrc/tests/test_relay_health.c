/* Circuit breakers of workers and of their role, in a relay that stands still between two steps. */
#define _GNU_SOURCE
#include "relay/dispatch/breaker.h"
#include "still_lab.h"

static struct rb_role_config role_with_breaker(void) {
    struct rb_role_config role = lab_role_config();
    role.choice.credit_us = 0; /* one job at a time */
    role.breaker = (struct rb_breaker_config){.failure_percent = 50,
                                              .window_ms = 10000,
                                              .volume_min = 3,
                                              .open_ms = 100,
                                              .open_max_ms = 1000,
                                              .probes = 2,
                                              .reclose_ms = 1000,
                                              .failures = {RB_BREAKER_WORKER_CRASHED,
                                                           RB_BREAKER_DEADLINE_EXCEEDED,
                                                           RB_BREAKER_JOB_FAILED},
                                              .failures_count = 3};
    return role;
}

#define WITH_BREAKER(s, workers)                      \
    struct still s;                                   \
    struct rb_role_config role = role_with_breaker(); \
    still_open(&s, &role, workers)

static uint32_t state_of(struct still *s, uint64_t worker) {
    struct rb_worker_stats stats;
    return rb_relay_read_worker(s->lab.relay, worker, &stats) < 0 ? 99 : stats.breaker;
}

/* Worker 0 ends `count` jobs so, one after the other. */
static void serve(struct still *s, int count, uint32_t status) {
    for (int k = 0; k < count; k++) {
        still_submit(s);
        still_answer(s, 0, status);
        CHECK(status == RB_STATUS_OK ? TOLD_OK(s) : TOLD(s, "job_failed"));
    }
}

static void jobs_that_fail_open_the_role_and_a_refusal_says_for_how_long(void) {
    WITH_BREAKER(s, 1);
    serve(&s, 3, RB_STATUS_FAILED);
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_OPEN);
    still_submit(&s);
    CHECK(TOLD(&s, "\x68\x02\x77\x0c"
                   "circuit_open\x74\x00\x00\x00\x01\x77\x0e"
                   "retry_after_ms\x61\x65")); /* 101: the rest of 100 ms, rounded up */
    CHECK_EQUAL(still_stats(&s).refused[RB_REASON_CIRCUIT_OPEN], 1);
    CHECK_EQUAL(still_stats(&s).accepted, 3);
    still_close(&s);
}

static void successes_between_failures_keep_it_closed(void) {
    WITH_BREAKER(s, 1);
    for (int i = 0; i < 20; i++) {
        serve(&s, 2, RB_STATUS_OK);
        serve(&s, 1, RB_STATUS_FAILED);
    }
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_CLOSED);
    still_close(&s);
}

static void what_waits_when_it_opens_is_told_at_once(void) {
    WITH_BREAKER(s, 1);
    serve(&s, 2, RB_STATUS_FAILED);
    still_submit(&s);
    for (int i = 0; i < LAB_DEPTH; i++) still_submit(&s); /* one has credit, these wait */
    still_answer(&s, 0, RB_STATUS_FAILED);
    CHECK(TOLD(&s, "job_failed"));
    for (int i = 0; i < LAB_DEPTH; i++) CHECK(TOLD(&s, "circuit_open"));
    CHECK_EQUAL(still_stats(&s).answered[RB_REASON_CIRCUIT_OPEN], LAB_DEPTH);
    CHECK(still_quiet(&s));
    still_close(&s);
}

static void it_is_tried_half_open_and_recloses_by_and_by(void) {
    WITH_BREAKER(s, 1);
    serve(&s, 3, RB_STATUS_FAILED);
    still_round(&s, 0);
    CHECK_EQUAL(rb_lab_due(s.lab.relay), s.now + 100 * STILL_MS + 1);
    still_round(&s, 101);
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_HALF_OPEN);
    CHECK_EQUAL(state_of(&s, 1), RB_BREAKER_HALF_OPEN);
    for (int i = 0; i < 3; i++) still_submit(&s); /* two probes are let in, no third */
    CHECK(TOLD(&s, "circuit_open"));
    CHECK_EQUAL(rb_lab_requests(s.workers[0]), 1); /* and the worker gets one at a time */
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK(TOLD_OK(&s));
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK(TOLD_OK(&s));
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_RECLOSING);
    uint32_t refused = 0;
    for (int ms = 0; ms < 900; ms++) {
        still_round(&s, 1);
        uint64_t before = still_stats(&s).accepted;
        still_submit(&s);
        if (still_stats(&s).accepted == before) {
            CHECK(TOLD(&s, "circuit_open"));
            refused += ms < 450 ? 1 : 1000;
        } else {
            still_answer(&s, 0, RB_STATUS_OK);
            CHECK(TOLD_OK(&s));
        }
    }
    /* shares of 10 % to 50 % let some 130 of the first 450 pass, shares of 50 % to 91 % some 320 of the others */
    CHECK(refused % 1000 > 270 && refused % 1000 < 360);
    CHECK(refused / 1000 > 80 && refused / 1000 < 190);
    still_round(&s, 102);
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_CLOSED);
    still_close(&s);
}

static void a_probe_that_fails_opens_it_for_longer(void) {
    WITH_BREAKER(s, 1);
    serve(&s, 3, RB_STATUS_FAILED);
    still_round(&s, 101);
    serve(&s, 1, RB_STATUS_FAILED);
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_OPEN);
    CHECK_EQUAL(still_role(&s).breaker_openings, 2);
    still_round(&s, 199);
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_OPEN);
    still_round(&s, 2);
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_HALF_OPEN);
    still_close(&s);
}

/* Of two workers one fails all its jobs: its breaker opens, the role's does not. */
static void a_worker_that_fails_is_passed_over(void) {
    struct still s;
    struct rb_role_config role = role_with_breaker();
    role.breaker.failure_percent = 100;
    still_open(&s, &role, 2);
    int served[2] = {0};
    for (int i = 0; i < 40; i++) {
        still_submit(&s);
        int which = still_has_job(&s, 0) ? 0 : 1;
        served[which]++;
        still_answer(&s, which, which == 0 ? RB_STATUS_FAILED : RB_STATUS_OK);
        CHECK(which == 0 ? TOLD(&s, "job_failed") : TOLD_OK(&s));
    }
    CHECK_EQUAL(served[0], 3); /* as many as it took to know */
    CHECK_EQUAL(state_of(&s, 1), RB_BREAKER_OPEN);
    CHECK_EQUAL(state_of(&s, 2), RB_BREAKER_CLOSED);
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_CLOSED);
    still_close(&s);
}

static void crashes_open_it_across_the_workers_that_follow_each_other(void) {
    WITH_BREAKER(s, 1);
    for (int i = 0; i < 3; i++) {
        still_submit(&s);
        still_crash(&s, 0);
        CHECK(TOLD(&s, "worker_crashed"));
        if (i < 2) still_hire(&s, 0);
    }
    /* No worker is there, and all that were have failed: who calls is told so. */
    still_submit(&s);
    CHECK(TOLD(&s, "circuit_open"));
    still_round(&s, 101);
    uint64_t id = still_hire(&s, 0);
    CHECK_EQUAL(state_of(&s, id), RB_BREAKER_HALF_OPEN); /* it inherits the breaker */
    serve(&s, 2, RB_STATUS_OK);
    CHECK_EQUAL(state_of(&s, id), RB_BREAKER_RECLOSING);
    still_close(&s);
}

static void a_worker_that_dies_idle_has_failed_too(void) {
    WITH_BREAKER(s, 1);
    for (int i = 0; i < 3; i++) {
        still_crash(&s, 0);
        still_hire(&s, 0);
    }
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_OPEN);
    still_close(&s);
}

static void a_drained_worker_leaves_no_breaker(void) {
    WITH_BREAKER(s, 1);
    serve(&s, 1, RB_STATUS_FAILED);
    serve(&s, 1, RB_STATUS_OK);
    rb_relay_force_breaker(s.lab.relay, 0, 1, RB_FORCE_OPEN);
    rb_relay_drain_worker(s.lab.relay, 1);
    still_round(&s, 1);
    rb_lab_die(s.workers[0], 0, 0, 0);
    still_round(&s, 1);
    uint64_t id = still_hire(&s, 0);
    CHECK_EQUAL(state_of(&s, id), RB_BREAKER_CLOSED);
    still_close(&s);
}

static void a_deadline_counts_only_if_the_job_had_begun(void) {
    WITH_BREAKER(s, 1);
    for (int i = 0; i < 4; i++) {
        lab_submit_option(s.lab.peer, ++s.callers, "timeout", 20);
        still_round(&s, 0);
        if (i >= 1) rb_lab_start(s.workers[0], 1); /* the first never begins */
        still_round(&s, 21);
        CHECK(TOLD(&s, "deadline_exceeded"));
        CHECK_EQUAL(still_role(&s).breaker, i < 3 ? RB_BREAKER_CLOSED : RB_BREAKER_OPEN);
        struct rb_lab_request r; /* the worker gives it up */
        rb_lab_request(s.workers[0], 0, &r);
        rb_lab_start(s.workers[0], 1);
        struct rb_lab_answer a = {.job = r.job, .status = RB_STATUS_CANCELLED};
        rb_lab_complete(s.workers[0], &a);
        rb_lab_release(s.workers[0], 1);
        still_round(&s, 0);
    }
    still_close(&s);
}

static void what_the_role_does_not_name_is_no_failure(void) {
    struct still s;
    struct rb_role_config role = role_with_breaker();
    role.breaker.failures_count = 1; /* crashes alone */
    still_open(&s, &role, 1);
    serve(&s, 20, RB_STATUS_FAILED);
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_CLOSED);
    still_close(&s);
}

static void it_is_held_open_and_let_go_by_hand(void) {
    WITH_BREAKER(s, 1);
    CHECK_EQUAL(rb_relay_force_breaker(s.lab.relay, 7, 0, RB_FORCE_OPEN), -ENOENT);
    CHECK_EQUAL(rb_relay_force_breaker(s.lab.relay, 0, 0, 3), -EINVAL);
    rb_relay_force_breaker(s.lab.relay, 0, 0, RB_FORCE_OPEN);
    still_round(&s, 100000);
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_HELD_OPEN);
    CHECK(lab_event(&s.lab, RB_EVENT_BREAKER));
    CHECK(lab_event_says(&s.lab, "held_open") && s.lab.event.worker == 0 && s.lab.event.a == 0);
    still_submit(&s);
    CHECK(TOLD(&s, "circuit_open"));
    rb_relay_force_breaker(s.lab.relay, 0, 0, RB_FORCE_CLOSED);
    rb_relay_force_breaker(s.lab.relay, 0, 1, RB_FORCE_CLOSED);
    still_round(&s, 1);
    serve(&s, 10, RB_STATUS_FAILED); /* whatever happens */
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_HELD_CLOSED);
    CHECK_EQUAL(state_of(&s, 1), RB_BREAKER_HELD_CLOSED);
    rb_relay_force_breaker(s.lab.relay, 0, 0, RB_FORCE_AUTO);
    still_round(&s, 1);
    serve(&s, 3, RB_STATUS_FAILED);
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_OPEN);
    still_close(&s);
}

static void a_worker_held_open_is_given_nothing_until_it_is_let_go(void) {
    WITH_BREAKER(s, 2);
    rb_relay_force_breaker(s.lab.relay, 0, 1, RB_FORCE_OPEN);
    still_round(&s, 1);
    for (int i = 0; i < 3; i++) still_submit(&s);
    CHECK(!still_has_job(&s, 0) && still_has_job(&s, 1));
    rb_relay_force_breaker(s.lab.relay, 0, 2, RB_FORCE_OPEN);
    still_round(&s, 1); /* nobody is left: what waits is told */
    CHECK(TOLD(&s, "circuit_open"));
    CHECK(TOLD(&s, "circuit_open"));
    rb_relay_force_breaker(s.lab.relay, 0, 1, RB_FORCE_AUTO);
    still_round(&s, 1);
    still_submit(&s);
    CHECK(still_has_job(&s, 0));
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK(TOLD_OK(&s));
    still_answer(&s, 1, RB_STATUS_OK); /* what ran, runs on */
    CHECK(TOLD_OK(&s));
    still_close(&s);
}

static void a_live_change_switches_it_off_and_on(void) {
    WITH_BREAKER(s, 1);
    serve(&s, 3, RB_STATUS_FAILED);
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_OPEN);
    role.breaker.failure_percent = 0;
    CHECK_EQUAL(rb_relay_configure_role(s.lab.relay, 0, &role), 0);
    still_round(&s, 1);
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_CLOSED);
    CHECK_EQUAL(state_of(&s, 1), RB_BREAKER_CLOSED);
    serve(&s, 10, RB_STATUS_FAILED);
    role.breaker.failure_percent = 100;
    rb_relay_configure_role(s.lab.relay, 0, &role);
    still_round(&s, 1);
    serve(&s, 3, RB_STATUS_FAILED);
    CHECK_EQUAL(still_role(&s).breaker, RB_BREAKER_OPEN);
    still_close(&s);
}

int main(void) {
    RUN(jobs_that_fail_open_the_role_and_a_refusal_says_for_how_long);
    RUN(successes_between_failures_keep_it_closed);
    RUN(what_waits_when_it_opens_is_told_at_once);
    RUN(it_is_tried_half_open_and_recloses_by_and_by);
    RUN(a_probe_that_fails_opens_it_for_longer);
    RUN(a_worker_that_fails_is_passed_over);
    RUN(crashes_open_it_across_the_workers_that_follow_each_other);
    RUN(a_worker_that_dies_idle_has_failed_too);
    RUN(a_drained_worker_leaves_no_breaker);
    RUN(a_deadline_counts_only_if_the_job_had_begun);
    RUN(what_the_role_does_not_name_is_no_failure);
    RUN(it_is_held_open_and_let_go_by_hand);
    RUN(a_worker_held_open_is_given_nothing_until_it_is_let_go);
    RUN(a_live_change_switches_it_off_and_on);
    return check_end();
}
