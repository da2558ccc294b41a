/* A relay without a thread: nothing happens between two rounds, and time is what they say. */
#define _GNU_SOURCE
#include "relay_lab.h"

static const uint64_t MS = 1000000;

struct still {
    struct lab lab;
    uint64_t now;
    struct rb_lab_worker *worker;
};

static void open_still(struct still *s) {
    struct rb_relay_config config = lab_config();
    struct rb_role_config role = lab_role_config();
    *s = (struct still){.now = 1000 * MS};
    lab_open_still(&s->lab, &config, &role, s->now);
    if (rb_lab_hire(s->lab.relay, 0, 1, 16, &s->worker) < 0) abort();
    rb_lab_greet(s->worker, "echo");
    rb_lab_round(s->lab.relay, s->now);
}

static int round_after(struct still *s, uint64_t ms) {
    return rb_lab_round(s->lab.relay, s->now += ms * MS);
}

static void close_still(struct still *s) {
    rb_lab_die(s->worker, 0, 0, 0);
    lab_close(&s->lab);
}

static void a_call_takes_one_round_each_way(void) {
    struct still s;
    struct rb_lab_request r;
    uint8_t body[256];
    open_still(&s);
    lab_submit(s.lab.peer, 1, "question", 8);
    CHECK_EQUAL(rb_lab_requests(s.worker), 0);
    CHECK(round_after(&s, 1));
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    CHECK(r.payload_bytes == 8 && memcmp(r.payload, "question", 8) == 0);
    struct rb_lab_answer a = {
        .job = r.job, .payload = (const uint8_t *)"answer", .payload_bytes = 6};
    CHECK_EQUAL(rb_lab_complete(s.worker, &a), 0);
    rb_lab_release(s.worker, 1);
    CHECK_EQUAL(lab_read(s.lab.peer, body, sizeof body, 0), -1);
    CHECK(round_after(&s, 1));
    CHECK(ANSWER_HAS(s.lab.peer, "answer"));
    CHECK(!round_after(&s, 1)); /* nothing is left to do */
    close_still(&s);
}

static void time_passes_when_it_is_told_to(void) {
    struct still s;
    uint8_t body[256];
    open_still(&s);
    lab_submit_option(s.lab.peer, 1, "timeout", 20);
    round_after(&s, 1);
    CHECK_EQUAL(rb_lab_due(s.lab.relay), s.now + 20 * MS);
    round_after(&s, 19);
    CHECK_EQUAL(lab_read(s.lab.peer, body, sizeof body, 0), -1);
    round_after(&s, 1);
    CHECK(ANSWER_HAS(s.lab.peer, "deadline_exceeded"));
    close_still(&s);
}

static void a_large_answer_goes_through_the_region(void) {
    static uint8_t large[100000];
    struct still s;
    struct rb_lab_request r;
    open_still(&s);
    for (int i = 0; i < 30; i++) { /* more than the region holds at once */
        lab_submit(s.lab.peer, 1, "x", 1);
        round_after(&s, 1);
        CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
        large[500] = (uint8_t)i;
        struct rb_lab_answer a = {.job = r.job, .payload = large, .payload_bytes = sizeof large};
        CHECK_EQUAL(rb_lab_complete(s.worker, &a), 0);
        rb_lab_release(s.worker, 1);
        round_after(&s, 1);
        static uint8_t body[200000];
        int n = lab_read(s.lab.peer, body, sizeof body, 0);
        CHECK(n > (int)sizeof large && body[n - (int)sizeof large + 500] == (uint8_t)i);
        lab_monitor(s.lab.peer, 0, 1, 1);
    }
    close_still(&s);
}

static void a_death_is_heard_of_in_the_next_round(void) {
    struct still s;
    open_still(&s);
    lab_submit(s.lab.peer, 1, "x", 1);
    round_after(&s, 1);
    rb_lab_start(s.worker, 1);
    rb_lab_die(s.worker, -1, 11, 0);
    round_after(&s, 1);
    CHECK(ANSWER_HAS(s.lab.peer, "\x77\x06signal\x61\x0b"));
    CHECK(lab_event(&s.lab, RB_EVENT_WORKER_ENDED));
    lab_close(&s.lab);
}

int main(void) {
    RUN(a_call_takes_one_round_each_way);
    RUN(time_passes_when_it_is_told_to);
    RUN(a_large_answer_goes_through_the_region);
    RUN(a_death_is_heard_of_in_the_next_round);
    return check_end();
}
