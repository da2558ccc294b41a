/* How streams end: who leaves, what dies, what fails. */
#define _GNU_SOURCE
#include "stage_lab.h"

/* --- Who leaves -------------------------------------------------------------------------------------------------------- */

static void a_consumer_that_cancels_is_told_so_and_the_worker_stops(void) {
    for (int when = 0; when < 3;
         when++) { /* while queued, while running without demand, and amid its parts */
        static struct stage s;
        struct rb_lab_request r;
        open_stage(&s);
        if (when == 0) rb_relay_hold(s.lab.relay, RB_SERVICE_JOBS, 1);
        say_subscribe(&s, 1);
        if (when == 2) say_ask(&s, 1, 5);
        turn(&s);
        expect_kind(&s, WATCH, 1);
        if (when == 2) CHECK_EQUAL(send_parts(&s, 0, 2, 20), 2);
        if (when == 2) turn(&s);
        if (when == 2) CHECK_EQUAL(hear_numbered(&s, 0), 2);
        say_cancel(&s, 1, "enough");
        turn(&s);
        EXPECT_CANCEL(&s, 1, "enough");
        expect_kind(&s, UNWATCH, 1);
        CHECK_EQUAL(stats_of(&s).answered[RB_REASON_CANCELLED], 1);
        if (when > 0) {
            CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
            CHECK(r.cancelled);
            /* A part that was on its way is nobody's. */
            if (when == 2) CHECK_EQUAL(send_parts(&s, 2, 3, 20), 3);
            CHECK_EQUAL(send_as(&s, 0, RB_STATUS_CANCELLED, 0, "", 0), 0);
            rb_lab_release(s.worker, 1);
            turn(&s);
        }
        expect_silence(&s);
        rb_relay_hold(s.lab.relay, RB_SERVICE_JOBS, 0);
        turn(&s);
        CHECK_EQUAL(rb_lab_requests(s.worker), 0);
        close_stage(&s);
    }
}

static void a_consumer_that_dies_stops_the_worker_and_hears_nothing(void) {
    static struct stage s;
    struct rb_lab_request r;
    struct lab_bytes b = {.size = 0};
    uint8_t body[512];
    open_stage(&s);
    say_subscribe(&s, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    int n = lab_read(s.lab.peer, body, sizeof body, 0); /* {19, Streams, Consumer, Ref} */
    struct rb_cursor c = rb_cursor_of((struct rb_slice){body, (size_t)n});
    struct rb_signal watch;
    CHECK(n > 0 && rb_signal_parse(&c, &watch) == 0 && watch.op == RB_OP_MONITOR_P);
    PUT(&b, "\x68\x04\x61\x1c"); /* {28, Consumer, Streams, Ref} and the reason */
    lab_put(&b, watch.to.at, watch.to.size);
    lab_put(&b, watch.from.at, watch.from.size);
    lab_put(&b, watch.ref.at, watch.ref.size);
    lab_put_atom(&b, "killed");
    CHECK_EQUAL(send_parts(&s, 0, 2, 20), 2);
    lab_frame(s.lab.peer, &b);
    turn(&s);
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    CHECK(r.cancelled);
    expect_silence(&s); /* not even DEMONITOR */
    CHECK_EQUAL(stats_of(&s).streams, 0);
    close_stage(&s);
}

static void a_node_that_goes_ends_its_streams(void) {
    static struct stage s;
    struct rb_lab_request r;
    open_stage(&s);
    begin(&s, 1);
    close(s.lab.peer);
    s.lab.peer = -1;
    turn(&s);
    turn(&s);
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    CHECK(r.cancelled);
    CHECK_EQUAL(stats_of(&s).streams, 0);
    close_stage(&s);
}

static void a_deadline_ends_a_stream_with_its_name(void) {
    static struct stage s;
    struct rb_lab_request r;
    open_stage(&s);
    begin(&s, 1);
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    CHECK_EQUAL(r.deadline_ns, s.now + 60000 * MS); /* the role's cap, where none is asked for */
    s.now += 60000 * MS;
    turn(&s);
    EXPECT_CANCEL(&s, 1, "deadline_exceeded");
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    CHECK(r.cancelled);
    close_stage(&s);
}

static void a_worker_that_dies_amid_its_parts_gives_cancel_with_the_reason(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 2, 20), 2); /* its last words count */
    rb_lab_die(s.worker, -1, 11, 0);
    s.worker = NULL;
    turn(&s);
    struct heard h = listen_to(&s);
    CHECK_EQUAL(h.kind, EVENTS);
    CHECK_EQUAL(h.count, 2);
    EXPECT_CANCEL(&s, 1, "worker_crashed");
    expect_kind(&s, UNWATCH, 1);
    expect_silence(&s);
    close_stage(&s);
}

static void a_stream_that_had_not_begun_goes_to_the_next_worker_with_its_demand(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 5);
    rb_lab_die(s.worker, -1, 11, 0);
    turn(&s);
    if (rb_lab_hire(s.lab.relay, 0, 2, SLOTS, &s.worker) < 0) abort();
    rb_lab_greet(s.worker, "echo");
    turn(&s);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 5);
    CHECK_EQUAL(send_parts(&s, 0, 5, 20), 5);
    turn(&s);
    CHECK_EQUAL(hear_numbered(&s, 0), 5);
    close_stage(&s);
}

static void one_whose_parts_have_left_is_not_run_again_whatever_its_worker_says(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 2, 20), 2);
    rb_lab_start(s.worker, 0); /* "it was never entered" */
    turn(&s);
    CHECK_EQUAL(hear_numbered(&s, 0), 2);
    rb_lab_die(s.worker, -1, 11, 0);
    s.worker = NULL;
    turn(&s);
    EXPECT_CANCEL(&s, 1, "worker_crashed");
    close_stage(&s);
}

static void a_failed_job_gives_cancel_with_code_and_message(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 1, 20), 1);
    CHECK_EQUAL(send_as(&s, 0, RB_STATUS_FAILED, 0, "no more", 7), 0);
    turn(&s);
    struct heard h = listen_to(&s);
    CHECK_EQUAL(h.kind, EVENTS); /* the events that were there before come first */
    EXPECT_CANCEL(&s, 1, "\x68\x03\x77\x0ajob_failed\x61\x00m\0\0\0\7no more");
    close_stage(&s);
}

int main(void) {
    RUN(a_consumer_that_cancels_is_told_so_and_the_worker_stops);
    RUN(a_consumer_that_dies_stops_the_worker_and_hears_nothing);
    RUN(a_node_that_goes_ends_its_streams);
    RUN(a_deadline_ends_a_stream_with_its_name);
    RUN(a_worker_that_dies_amid_its_parts_gives_cancel_with_the_reason);
    RUN(a_stream_that_had_not_begun_goes_to_the_next_worker_with_its_demand);
    RUN(one_whose_parts_have_left_is_not_run_again_whatever_its_worker_says);
    RUN(a_failed_job_gives_cancel_with_code_and_message);
    return check_end();
}
