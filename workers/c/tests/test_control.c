/* test_control.c: cancels, deadlines, drain and stop, and the heartbeat. */
#define _GNU_SOURCE
#include <limits.h>
#include <sys/stat.h>

#include "expect.h"

/* --- cancel, deadline, control ------------------------------------------------------------------------------------------ */

static void a_sleep_answers_its_payload_after_its_time(void) {
    struct peer p;
    struct peer_answer a;
    peer_start(&p, "rb-sleep", &defaults, 1);
    uint64_t begin = peer_now_ns();
    peer_submit_text(&p, 0, "80");
    CHECK(peer_answer(&p, &a, 5000));
    CHECK(peer_now_ns() - begin >= 80000000);
    CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
    CHECK(a.completion.run_ns >= 80000000 && a.completion.run_ns < 1000000000);
    CHECK(a.completion.payload_bytes == 2 && memcmp(a.payload, "80", 2) == 0);
    expect_echo(&p, peer_submit_text(&p, 0, "0"), (const uint8_t *)"0", 1, 0);
    peer_stop(&p);
}

static void what_is_no_number_of_milliseconds_is_refused(void) {
    static const char *const bad[] = {"",   "-1",  "1.5",      " 1",
                                      "1 ", "12x", "86400001", "99999999999999999999999"};
    struct peer p;
    char message[200];
    peer_start(&p, "rb-sleep", &defaults, 1);
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        peer_submit_text(&p, 0, bad[i]);
        snprintf(message, sizeof message,
                 "the payload must be milliseconds in decimal text, 0 to 86400000, got %zu bytes",
                 strlen(bad[i]));
        expect_failure(&p, 1, message);
    }
    peer_stop(&p);
}

static void a_running_job_notices_its_cancel(void) {
    struct peer p;
    peer_start(&p, "rb-sleep", &defaults, 1);
    uint64_t job = peer_submit_text(&p, 0, "60000");
    CHECK_EQUAL(peer_await_started(&p, 1), 1);
    peer_cancel(&p, job);
    expect_status(&p, RB_STATUS_CANCELLED, 500);
    expect_echo(&p, peer_submit_text(&p, 0, "1"), (const uint8_t *)"1", 1, 0);
    peer_stop(&p);
}

static void a_cancel_meant_for_an_earlier_job_of_the_slot_does_nothing(void) {
    struct peer p;
    struct peer_options options = defaults;
    options.link.slots = 2;
    peer_start(&p, "rb-sleep", &options, 1);
    expect_echo(&p, peer_submit_text(&p, 0, "0"), (const uint8_t *)"0", 1, 0);
    peer_cancel(&p, 1); /* answered long ago: the word stays */
    expect_echo(&p, peer_submit_text(&p, 0, "0"), (const uint8_t *)"0", 1, 0);
    expect_echo(&p, peer_submit_text(&p, 0, "20"), (const uint8_t *)"20", 2, 0);
    peer_stop(&p);
}

static void a_job_cancelled_before_its_turn_never_runs(void) {
    struct peer p;
    peer_start(&p, "rb-echo", &defaults, 1);
    kill(p.pid, SIGSTOP);
    peer_cancel(&p, peer_submit_text(&p, 3, "42")); /* would end the worker */
    kill(p.pid, SIGCONT);
    expect_status(&p, RB_STATUS_CANCELLED, 500);
    expect_echo(&p, peer_submit(&p, 0, big, 5), big, 5, 0);
    peer_stop(&p);
}

static void a_deadline_ends_a_job(void) {
    struct peer p;
    peer_start(&p, "rb-sleep", &defaults, 1);
    struct peer_request request = {
        .payload = "60000", .bytes = 5, .deadline_ns = peer_now_ns() + 50000000};
    peer_put(&p, &request);
    peer_publish(&p);
    expect_status(&p, RB_STATUS_CANCELLED, 500);
    CHECK(peer_now_ns() >= request.deadline_ns);
    peer_stop(&p);
}

static void a_started_job_keeps_its_slot_and_the_next_is_not_started(void) {
    struct peer p;
    peer_start(&p, "rb-sleep", &defaults, 1);
    uint64_t job = peer_submit_text(&p, 0, "60000");
    peer_submit_text(&p, 0, "0");
    CHECK_EQUAL(peer_await_started(&p, 1), 1);
    CHECK_EQUAL(rb_load_acquire(&p.link.theirs->request_head), 0);
    CHECK_EQUAL(rb_load_acquire(&p.link.theirs->started), 1);
    peer_cancel(&p, job);
    expect_status(&p, RB_STATUS_CANCELLED, 500);
    struct peer_answer a;
    CHECK(peer_answer(&p, &a, 200));
    CHECK_EQUAL(peer_await_started(&p, 2), 2);
    peer_stop(&p);
}

static void an_answer_does_not_wait_behind_the_next_job(void) {
    struct peer p;
    struct peer_request quick = {.payload = "0", .bytes = 1},
                        slow = {.payload = "60000", .bytes = 5};
    peer_start(&p, "rb-sleep", &defaults, 1);
    peer_put(&p, &quick);
    uint64_t job = peer_put(&p, &slow);
    peer_publish(&p);
    expect_echo(&p, 1, (const uint8_t *)"0", 1, 0);
    peer_cancel(&p, job);
    expect_status(&p, RB_STATUS_CANCELLED, 500);
    peer_stop(&p);
}

static void a_short_answer_does_not_wait_behind_a_large_job(void) {
    struct peer p;
    struct peer_request small = {.payload = big, .bytes = 8},
                        large = {.payload = big, .bytes = BIG_BYTES - 1};
    peer_start(&p, "rb-echo", &defaults, 1);
    kill(p.pid, SIGSTOP); /* so that it finds both as one batch */
    peer_put(&p, &small);
    peer_put(&p, &large);
    peer_publish(&p);
    kill(p.pid, SIGCONT);
    expect_echo(&p, 1, big, 8, 0);
    CHECK_EQUAL(rb_ring_available(&p.link.completion_ring), 0);
    expect_echo(&p, 2, big, BIG_BYTES - 1, 0);
    peer_stop(&p);
}

static void drain_finishes_what_is_in_the_ring_and_leaves_with_0(void) {
    struct peer p;
    struct peer_request request = {.payload = "20", .bytes = 2};
    peer_start(&p, "rb-sleep", &defaults, 1);
    for (int i = 0; i < 5; i++) peer_put(&p, &request);
    peer_publish(&p);
    peer_control(&p, RB_CONTROL_DRAIN);
    for (int i = 0; i < 5; i++) expect_echo(&p, (uint64_t)i + 1, (const uint8_t *)"20", 2, 0);
    CHECK_EQUAL(peer_wait(&p, 1000), 0);
    peer_close(&p);
}

static void an_idle_worker_drains_at_once(void) {
    struct peer p;
    peer_start(&p, "rb-echo", &defaults, 1);
    usleep(20000); /* long enough to be parked; drain must wake it in either case */
    peer_control(&p, RB_CONTROL_DRAIN);
    CHECK_EQUAL(peer_wait(&p, 500), 0);
    peer_close(&p);
}

static void stop_ends_a_job_that_looks_and_leaves_with_0(void) {
    struct peer p;
    peer_start(&p, "rb-sleep", &defaults, 1);
    peer_submit_text(&p, 0, "60000");
    peer_submit_text(&p, 0, "60000");
    CHECK_EQUAL(peer_await_started(&p, 1), 1);
    peer_control(&p, RB_CONTROL_STOP);
    CHECK_EQUAL(peer_wait(&p, 500), 0);
    CHECK_EQUAL(rb_load_acquire(&p.link.theirs->started), 1);
    peer_close(&p);
}

/* --- telemetry ---------------------------------------------------------------------------------------------------------- */

static void the_heart_beats_while_a_handler_runs(void) {
    struct peer p;
    struct rb_telemetry first, later;
    peer_start(&p, "rb-sleep", &defaults, 1);
    CHECK_EQUAL(rb_link_telemetry(&p.link, &first), 0);
    CHECK_EQUAL(first.heartbeats, 1); /* before the hello */
    expect_echo(&p, peer_submit_text(&p, 0, "0"), (const uint8_t *)"0", 1, 0);
    peer_submit_text(&p, 0, "nothing");
    expect_failure(&p, 1,
                   "the payload must be milliseconds in decimal text, 0 to 86400000, got 7 bytes");
    peer_submit_text(&p, 0, "60000");
    peer_submit_text(&p, 0, "60000");
    CHECK_EQUAL(peer_await_started(&p, 3), 3);
    usleep(2 * RB_HEARTBEAT_MS * 1000 + 200000);
    CHECK_EQUAL(rb_link_telemetry(&p.link, &later), 0);
    uint64_t passed_ms = (later.heartbeat_ns - first.heartbeat_ns) / 1000000;
    CHECK(passed_ms >= 2 * RB_HEARTBEAT_MS - 50);
    CHECK(later.heartbeats >= 3 && later.heartbeats <= passed_ms / RB_HEARTBEAT_MS + 2);
    CHECK_EQUAL(later.jobs, 2);
    CHECK_EQUAL(later.failed, 1);
    CHECK_EQUAL(later.last_code, 1);
    CHECK_EQUAL(later.queued, 1);
    peer_stop(&p);
}

static void the_last_beat_counts_every_job(void) {
    struct peer p;
    struct rb_telemetry last;
    peer_start(&p, "rb-echo", &defaults, 1);
    for (int i = 0; i < 10; i++) expect_echo(&p, peer_submit(&p, 0, big, 5), big, 5, 0);
    peer_control(&p, RB_CONTROL_DRAIN);
    CHECK_EQUAL(peer_wait(&p, 1000), 0);
    CHECK_EQUAL(rb_link_telemetry(&p.link, &last), 0);
    CHECK_EQUAL(last.jobs, 10);
    peer_close(&p);
    for (int i = 0; i < 20; i++) { /* also when it ends before the heartbeat's thread has run */
        peer_start(&p, "rb-echo", &defaults, 1);
        expect_echo(&p, peer_submit(&p, 0, big, 5), big, 5, 0);
        peer_control(&p, RB_CONTROL_DRAIN);
        CHECK_EQUAL(peer_wait(&p, 1000), 0);
        CHECK_EQUAL(rb_link_telemetry(&p.link, &last), 0);
        CHECK_EQUAL(last.jobs, 1);
        peer_close(&p);
    }
}

int main(void) {
    make_pattern();
    RUN(a_sleep_answers_its_payload_after_its_time);
    RUN(what_is_no_number_of_milliseconds_is_refused);
    RUN(a_running_job_notices_its_cancel);
    RUN(a_cancel_meant_for_an_earlier_job_of_the_slot_does_nothing);
    RUN(a_job_cancelled_before_its_turn_never_runs);
    RUN(a_deadline_ends_a_job);
    RUN(a_started_job_keeps_its_slot_and_the_next_is_not_started);
    RUN(an_answer_does_not_wait_behind_the_next_job);
    RUN(a_short_answer_does_not_wait_behind_a_large_job);
    RUN(drain_finishes_what_is_in_the_ring_and_leaves_with_0);
    RUN(an_idle_worker_drains_at_once);
    RUN(stop_ends_a_job_that_looks_and_leaves_with_0);
    RUN(the_heart_beats_while_a_handler_runs);
    RUN(the_last_beat_counts_every_job);
    free(big);
    return check_end();
}
