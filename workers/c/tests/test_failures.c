/* test_failures.c: failed jobs, crashes, a bridge that breaks a rule; and the simulation over a link. */
#define _GNU_SOURCE
#include <limits.h>
#include <sys/stat.h>

#include "expect.h"

/* --- failures ----------------------------------------------------------------------------------------------------------- */

static void failures_carry_code_and_message(void) {
    struct peer p;
    char request[1200], message[200];
    peer_start(&p, "rb-echo", &defaults, 1);
    peer_submit_text(&p, 1, "1234 out of luck");
    expect_failure(&p, 1234, "out of luck");
    peer_submit_text(&p, 1, "65535");
    expect_failure(&p, 65535, "");
    memset(message, 'm', 150);
    message[150] = '\0';
    snprintf(request, sizeof request, "7 %s", message);
    peer_submit_text(&p, 1, request);
    expect_failure(&p, 7, message); /* in the region */
    peer_submit_text(&p, 1, "65536 x");
    expect_failure(&p, 2, "opcode 1 takes \"CODE MESSAGE\" with a code of 0 to 65535");
    peer_submit_text(&p, 99, "x");
    expect_failure(&p, 1, "opcode must be 0 to 4, got 99");
    peer_submit_text(&p, 4, "x");
    expect_failure(&p, RB_CODE_NO_ANSWER, "the handler returned without an answer");
    peer_stop(&p);
}

static void a_crash_is_a_death_by_its_signal_with_the_job_started(void) {
    static const char *const signals[] = {"6", "11", "8", "9"};
    for (int i = 0; i < 4; i++) {
        struct peer p;
        peer_start(&p, "rb-echo", &defaults, 1);
        expect_echo(&p, peer_submit(&p, 0, big, 100), big, 100, 0);
        peer_submit_text(&p, 2, signals[i]);
        peer_submit(&p, 0, big, 100);
        CHECK_EQUAL(peer_wait(&p, 5000), -atoi(signals[i]));
        CHECK_EQUAL(rb_load_acquire(&p.link.theirs->started),
                    2); /* the third goes to another worker */
        CHECK_EQUAL(rb_ring_available(&p.link.completion_ring), 0);
        peer_close(&p);
    }
}

static void answers_given_before_a_crash_stand(void) {
    struct peer p;
    struct peer_request quick = {.payload = "0", .bytes = 1},
                        slow = {.payload = "60000", .bytes = 5};
    peer_start(&p, "rb-sleep", &defaults, 1);
    for (int i = 0; i < 5; i++) peer_put(&p, &quick);
    peer_put(&p, &slow);
    peer_publish(&p);
    CHECK_EQUAL(peer_await_started(&p, 6), 6);
    kill(p.pid, SIGKILL);
    CHECK_EQUAL(peer_wait(&p, 5000), -9);
    for (int i = 0; i < 5; i++) expect_echo(&p, (uint64_t)i + 1, (const uint8_t *)"0", 1, 0);
    CHECK_EQUAL(rb_ring_available(&p.link.completion_ring), 0);
    peer_close(&p);
}

static void an_exit_inside_a_job_is_seen_with_its_status(void) {
    struct peer p;
    peer_start(&p, "rb-echo", &defaults, 1);
    peer_submit_text(&p, 3, "42");
    CHECK_EQUAL(peer_wait(&p, 5000), 42);
    peer_close(&p);
}

static void expect_broken(struct peer *p, const char *what) {
    char text[4096];
    CHECK_EQUAL(peer_wait(p, 5000), 76);
    snprintf(text, sizeof text, "%s", peer_stderr(p));
    if (strstr(text, what) == NULL) printf("stderr: %s\n", text);
    CHECK(strstr(text, "the bridge broke a rule") != NULL);
    CHECK(strstr(text, what) != NULL);
    CHECK_EQUAL(rb_load_acquire(&p->link.theirs->started), 0);
    peer_close(p);
}

static void start_with_stderr(struct peer *p) {
    struct peer_options options = defaults;
    options.stderr_kept = 1;
    peer_start(p, "rb-echo", &options, 1);
}

static void a_request_whose_crc_is_wrong_ends_the_worker_with_76(void) {
    struct peer p;
    struct peer_request request = {.payload = big, .bytes = 10};
    start_with_stderr(&p);
    peer_put(&p, &request);
    p.link.requests[0].body[3] ^= 1;
    peer_publish(&p);
    expect_broken(&p, "has CRC");
    start_with_stderr(&p);
    request.bytes = 1000;
    peer_put(&p, &request);
    p.pool.base[p.link.requests[0].payload_at + 999] ^= 1;
    peer_publish(&p);
    expect_broken(&p, "has CRC");
}

static void a_payload_outside_the_pool_ends_the_worker_with_76(void) {
    struct peer p;
    struct peer_request request = {.payload = big, .bytes = 1000};
    start_with_stderr(&p);
    peer_put(&p, &request);
    p.link.requests[0].payload_at = p.pool.bytes - 999;
    peer_publish(&p);
    expect_broken(&p, "has 1000 bytes at");
    start_with_stderr(&p);
    request.bytes = 10;
    peer_put(&p, &request);
    p.link.requests[0].payload_bytes = 65;
    peer_publish(&p);
    expect_broken(&p, "has 65 bytes inline");
}

static void a_ring_position_too_far_ahead_ends_the_worker_with_76(void) {
    struct peer p;
    start_with_stderr(&p);
    rb_store_seq_cst(&p.link.ours->request_tail, 5000);
    rb_gate_ring(&p.link.waker);
    expect_broken(&p, "request ring");
    start_with_stderr(&p);
    p.link.givebacks[0] = (struct rb_giveback){.first = 5, .count = 1};
    rb_store_seq_cst(&p.link.ours->giveback_tail, 1);
    peer_submit(&p, 0, big, 8);
    expect_broken(&p, "blocks 5 to 5 were given back");
}

/* --- the simulation over a link; its numbers are tests/simulation's ------------------------------------------------------ */

static void put_double(uint8_t *at, double value) { memcpy(at, &value, sizeof value); }

/* A light body on a circle of 1e8 km around 1.3e11 km^3/s^2. */
static size_t circle(uint8_t *request, double span_days) {
    static const uint8_t head[8] = {1, 0, 2, 0};
    memset(request, 0, 152);
    memcpy(request, head, sizeof head);
    put_double(request + 8, 2451544.5);
    put_double(request + 16, span_days);
    request[24] = 10;
    put_double(request + 32, 1.3e11);
    request[88] = 3;
    put_double(request + 104, 1e8);
    put_double(request + 136, 36.05551275463989);
    return 152;
}

static void a_simulation_answers_end_states_and_refuses_by_rule(void) {
    struct peer p;
    struct peer_answer a;
    uint8_t request[152];
    double x, y;
    peer_start(&p, "rb-simulation", &defaults, 1);
    peer_submit(&p, 0, request, (uint32_t)circle(request, 100.0));
    CHECK(peer_answer(&p, &a, 5000));
    CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
    CHECK_EQUAL(a.completion.payload_bytes, 48 + 2 * 56);
    memcpy(&x, a.payload + 48 + 56 + 8, 8);
    memcpy(&y, a.payload + 48 + 56 + 16, 8);
    CHECK(x * x + y * y > 0.999999999e16 && x * x + y * y < 1.000000001e16);
    peer_give_back(&p, &a);
    peer_submit(&p, 0, request, 151);
    expect_failure(&p, 1, "2 bodies take 152 bytes, got 151");
    struct peer_request term = {.payload = "x", .bytes = 1, .flags = RB_FLAG_TERM};
    peer_put(&p, &term);
    peer_publish(&p);
    expect_failure(&p, 10, "the payload must be a binary, got an external term");
    peer_stop(&p);
}

static void a_simulation_of_a_thousand_years_notices_its_cancel(void) {
    struct peer p;
    uint8_t request[152];
    peer_start(&p, "rb-simulation", &defaults, 1);
    uint64_t job = peer_submit(&p, 0, request, (uint32_t)circle(request, 365000.0));
    CHECK_EQUAL(peer_await_started(&p, 1), 1);
    peer_cancel(&p, job);
    expect_status(&p, RB_STATUS_CANCELLED, 500);
    peer_stop(&p);
}

int main(void) {
    make_pattern();
    RUN(failures_carry_code_and_message);
    RUN(a_crash_is_a_death_by_its_signal_with_the_job_started);
    RUN(answers_given_before_a_crash_stand);
    RUN(an_exit_inside_a_job_is_seen_with_its_status);
    RUN(a_request_whose_crc_is_wrong_ends_the_worker_with_76);
    RUN(a_payload_outside_the_pool_ends_the_worker_with_76);
    RUN(a_ring_position_too_far_ahead_ends_the_worker_with_76);
    RUN(a_simulation_answers_end_states_and_refuses_by_rule);
    RUN(a_simulation_of_a_thousand_years_notices_its_cancel);
    free(big);
    return check_end();
}
