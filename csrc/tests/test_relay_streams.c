/* Streams: subscriptions, demand, and the process that serves them. */
#define _GNU_SOURCE
#include "stage_lab.h"

/* --- Demand ------------------------------------------------------------------------------------------------------------ */

static void a_stream_goes_from_the_first_ask_to_its_end(void) {
    static struct stage s;
    struct rb_lab_request r;
    open_stage(&s);
    begin(&s, 1);
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    CHECK_EQUAL(r.flags, RB_FLAG_INLINE | RB_FLAG_PARTS);
    CHECK(r.payload_bytes == 2 && memcmp(r.payload, "go", 2) == 0);
    CHECK_EQUAL(r.demand, 0);
    CHECK_EQUAL(stats_of(&s).streams, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 5);
    CHECK_EQUAL(send_parts(&s, 0, 5, 20), 5);
    turn(&s);
    CHECK_EQUAL(hear_numbered(&s, 0), 5);
    send_end(&s);
    turn(&s);
    EXPECT_CANCEL(&s, 1, "\x77\x06normal");
    expect_kind(&s, UNWATCH, 1);
    expect_silence(&s);
    CHECK_EQUAL(stats_of(&s).streams, 0);
    CHECK_EQUAL(stats_of(&s).events, 5);
    CHECK_EQUAL(stats_of(&s).answered[RB_REASON_OK], 1);
    close_stage(&s);
}

static void parts_that_come_together_leave_as_one_list(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 10);
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 3, 6), 3);
    CHECK_EQUAL(send_as(&s, 0, RB_STATUS_PART, RB_FLAG_TERM, "\x61\x07", 2), 0);
    CHECK_EQUAL(send_as(&s, 0, RB_STATUS_PART, 0, "", 0), 0);
    turn(&s);
    struct heard h = listen_to(&s);
    CHECK_EQUAL(h.kind, EVENTS);
    CHECK_EQUAL(h.count, 5);
    CHECK_EQUAL(h.tag, 1);
    static const char wanted[] = "m\0\0\0\6"
                                 "000000m\0\0\0\6"
                                 "000001m\0\0\0\6"
                                 "000002\x61\x07m\0\0\0\0j";
    CHECK(h.term.size == sizeof wanted - 1 && memcmp(h.term.at, wanted, sizeof wanted - 1) == 0);
    expect_silence(&s);
    close_stage(&s);
}

static void demand_before_the_worker_is_there_is_kept(void) {
    static struct stage s;
    open_stage(&s);
    rb_relay_hold(s.lab.relay, RB_SERVICE_JOBS, 1);
    say_subscribe(&s, 1);
    say_ask(&s, 1, 3);
    say_ask(&s, 1, 4);
    turn(&s);
    CHECK_EQUAL(rb_lab_requests(s.worker), 0);
    rb_relay_hold(s.lab.relay, RB_SERVICE_JOBS, 0);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 7);
    close_stage(&s);
}

static void a_worker_is_never_further_ahead_than_the_window(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 100000);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 16); /* nobody knows how large they are */
    CHECK_EQUAL(send_parts(&s, 0, 1, 6), 1);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 1 + 1024); /* tiny */
    CHECK_EQUAL(send_parts(&s, 1, 1, 40000), 1);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 1 + 1024); /* what was allowed stays so */
    CHECK_EQUAL(hear_numbered(&s, 0), 2);
    /* 6 of 40 KB are what streams keep to here (256 KiB) */
    int64_t sent = 2;
    while (demand(&s, 0) == 1025) {
        sent += send_parts(&s, sent, 1, 40000);
        turn(&s);
        CHECK_EQUAL(hear_numbered(&s, sent - 1), 1);
        if (sent > 1100) break;
    }
    CHECK_EQUAL(demand(&s, 0), sent + 6);
    close_stage(&s);
}

static void no_demand_is_no_word_and_none_is_made_of_nonsense(void) {
    static struct stage s;
    static const char *const asks[] = {
        "\x61\x00",                     /* 0 */
        "\x62\xff\xff\xff\xff",         /* -1 */
        "\x6e\x08\x01\1\1\1\1\1\1\1\1", /* a large negative one */
        "\x77\x03"
        "all",
        "\x6a",
    };
    static const size_t sizes[] = {2, 5, 11, 5, 1};
    open_stage(&s);
    begin(&s, 1);
    for (unsigned i = 0; i < sizeof asks / sizeof *asks; i++) {
        struct lab_bytes b = {.size = 0};
        say_head(&b, 1, 1, "ask", 2);
        lab_put(&b, asks[i], sizes[i]);
        lab_frame(s.lab.peer, &b);
        turn(&s);
        CHECK_EQUAL(demand(&s, 0), 0);
    }
    struct lab_bytes b = {.size = 0};
    say_head(&b, 1, 1, "ask", 2);
    PUT(&b, "\x6e\x09\x00\1\1\1\1\1\1\1\1\1"); /* more than 2^64: all there will ever be */
    lab_frame(s.lab.peer, &b);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 16);
    expect_silence(&s);
    close_stage(&s);
}

static void a_slow_socket_holds_demand_and_parts_back(void) {
    enum { PART = 40000 };
    static struct stage s;
    int64_t sent = 0, heard = 0;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 1000);
    turn(&s);
    /* The consumer's node reads nothing: the worker sends all it may, whatever it finds room for. */
    for (int i = 0; i < 200; i++) {
        uint32_t allowed = demand(&s, 0);
        sent += send_parts(&s, sent, (int64_t)allowed - sent, PART);
        turn(&s);
    }
    CHECK(sent < 100); /* of 1000: 6 MB where 60 were asked for */
    CHECK(rb_relay_backlog(s.lab.relay, 1) <= (256 << 10) + 2 * PART);
    uint64_t due = s.now;
    for (int i = 0; i < 3000 && heard < 1000; i++) {
        heard += hear_numbered(&s, heard);
        turn(&s);
        uint32_t allowed = demand(&s, 0);
        sent += send_parts(&s, sent, (int64_t)allowed - sent, PART);
    }
    CHECK_EQUAL(heard, 1000);
    CHECK(s.now > due);
    close_stage(&s);
}

static void a_stream_has_its_worker_to_itself(void) {
    static struct stage s;
    open_stage(&s);
    for (int i = 0; i < 30; i++) { /* quick jobs: it has credit for many */
        lab_submit(s.lab.peer, 9, "x", 1);
        turn(&s);
        CHECK_EQUAL(send_as(&s, 0, RB_STATUS_OK, 0, "", 0), 0);
        rb_lab_release(s.worker, 1);
        turn(&s);
        while (listen_to(&s).kind != NOTHING) {
        }
        lab_monitor(s.lab.peer, 0, 9, 9);
    }
    for (uint32_t i = 20; i < 22; i++) lab_submit(s.lab.peer, i, "x", 1);
    turn(&s);
    CHECK_EQUAL(rb_lab_requests(s.worker), 2);
    say_subscribe(&s, 1);
    turn(&s);
    CHECK_EQUAL(rb_lab_requests(s.worker), 3); /* behind those that will end by themselves */
    for (uint32_t i = 30; i < 32; i++) lab_submit(s.lab.peer, i, "x", 1);
    turn(&s);
    CHECK_EQUAL(rb_lab_requests(s.worker), 3); /* and nothing behind it */
    for (int i = 0; i < 3; i++) {
        CHECK_EQUAL(send_as(&s, 0, RB_STATUS_OK, 0, "", 0), 0);
        rb_lab_release(s.worker, 1);
    }
    turn(&s);
    CHECK_EQUAL(rb_lab_requests(s.worker), 2);
    close_stage(&s);
}

/* With the relay's thread: held parts must not keep it awake. */
static void parts_that_wait_for_the_socket_let_the_relay_sleep(void) {
    enum { PART = 40000, PARTS = 16 };
    static struct stage s;
    struct rb_relay_stats before, after;
    struct timespec pause = {.tv_nsec = 100000000};
    s = (struct stage){.now = 0};
    lab_open(&s.lab);
    if (rb_relay_install_service(s.lab.relay, RB_SERVICE_STREAMS, 2, 0, "streams\0") < 0) abort();
    struct lab_worker *w = lab_worker(&s.lab);
    say_subscribe(&s, 1);
    say_ask(&s, 1, PARTS);
    const struct rb_request *r = lab_request(w, 0);
    if (!r) abort();
    lab_start(w, 1);
    for (int ms = 0; ms < LAB_WAIT_MS && /* D0, stream.c */
                     rb_demand_left(rb_load_seq_cst(&w->link.demands[0]), 0, 0) < PARTS;
         ms++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    for (int i = 0; i < PARTS; i++) {
        int64_t first = rb_region_take(&w->link.result_region, PART);
        if (first < 0) abort();
        struct rb_completion e = {.job = r->job,
                                  .status = RB_STATUS_PART,
                                  .payload_at = (uint64_t)first * 4096,
                                  .payload_bytes = PART};
        e.crc = rb_completion_crc(&e, w->link.results + e.payload_at, w->link.header.features);
        lab_publish(w, &e);
    }
    nanosleep(&pause, NULL);
    CHECK(rb_ring_free(&w->link.completion_ring) < 16); /* some are in the ring still */
    rb_relay_read_stats(s.lab.relay, &before);
    nanosleep(&pause, NULL);
    rb_relay_read_stats(s.lab.relay, &after);
    CHECK(after.rounds - before.rounds < 100); /* awake it makes tens of thousands */
    CHECK(after.events < PARTS);
    int64_t heard = 0;
    for (int ms = 0; ms < LAB_WAIT_MS && heard < PARTS; ms++) {
        struct heard h = listen_to(&s);
        if (h.kind == EVENTS) heard += h.count;
        if (h.kind == NOTHING) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    CHECK_EQUAL(heard, PARTS);
    lab_worker_end(&s.lab, w, NULL);
    lab_close(&s.lab);
}

/* --- Subscriptions ----------------------------------------------------------------------------------------------------- */

static void two_subscriptions_of_one_consumer_are_two_streams(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_subscribe_as(&s, 1, 7, "job", "echo");
    turn(&s);
    expect_kind(&s, WATCH, 1);
    CHECK_EQUAL(rb_lab_requests(s.worker), 1); /* a stream has its worker to itself */
    CHECK_EQUAL(stats_of(&s).streams, 2);
    say_cancel(&s, 1, "enough");
    turn(&s);
    EXPECT_CANCEL(&s, 1, "enough");
    expect_kind(&s, UNWATCH, 1);
    CHECK_EQUAL(send_as(&s, 0, RB_STATUS_CANCELLED, 0, "", 0), 0);
    rb_lab_release(s.worker, 1);
    turn(&s);
    CHECK_EQUAL(rb_lab_requests(s.worker), 1);
    struct lab_bytes b = {.size = 0};
    say_head(&b, 1, 7, "ask", 2);
    put_small(&b, 2);
    lab_frame(s.lab.peer, &b);
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 2, 20), 2);
    turn(&s);
    struct heard h = listen_to(&s);
    CHECK_EQUAL(h.kind, EVENTS);
    CHECK_EQUAL(h.tag, 7);
    close_stage(&s);
}

static void a_second_subscription_of_the_same_tag_is_refused_and_the_first_goes_on(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_subscribe(&s, 1);
    turn(&s);
    EXPECT_CANCEL(&s, 1, "duplicated_subscription");
    say_ask(&s, 1, 2);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 2);
    close_stage(&s);
}

static void a_new_subscription_may_end_another_first(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    struct lab_bytes b = {.size = 0};
    say_head(&b, 1, 2, "subscribe", 3);
    PUT(&b, "\x68\x02"); /* {Tag 1, moved_on} */
    lab_put_ref(&b, 1);
    lab_put_atom(&b, "moved_on");
    put_options(&b, "job", "echo");
    lab_frame(s.lab.peer, &b);
    turn(&s);
    EXPECT_CANCEL(&s, 1, "moved_on");
    expect_kind(&s, UNWATCH, 1);
    expect_kind(&s, WATCH, 1);
    CHECK_EQUAL(stats_of(&s).streams, 1);
    close_stage(&s);
}

static void what_cannot_be_begun_is_cancelled_with_the_reason(void) {
    static struct stage s;
    open_stage(&s);
    say_subscribe_as(&s, 1, 1, "jobb", "echo");
    say_subscribe_as(&s, 1, 2, "job", "nosuch");
    turn(&s);
    EXPECT_CANCEL(&s, 1, "bad_request");
    EXPECT_CANCEL(&s, 1, "unknown role nosuch");
    rb_relay_hold(s.lab.relay, RB_SERVICE_JOBS, 1);
    for (uint32_t i = 10; i < 10 + LAB_DEPTH; i++) say_subscribe(&s, i);
    turn(&s);
    for (uint32_t i = 10; i < 10 + LAB_DEPTH; i++) expect_kind(&s, WATCH, i);
    say_subscribe(&s, 20);
    turn(&s);
    EXPECT_CANCEL(&s, 20, "overloaded");
    rb_relay_set_role_state(s.lab.relay, 0, RB_ROLE_DRAINING);
    turn(&s);
    say_subscribe(&s, 21);
    turn(&s);
    EXPECT_CANCEL(&s, 21, "draining");
    close_stage(&s);
}

/* A consumer asks as soon as it has subscribed: it is told of the refusal, and of nothing more. */
static void what_crosses_a_refusal_is_not_answered(void) {
    static struct stage s;
    open_stage(&s);
    say_subscribe_as(&s, 1, 1, "job", "nosuch");
    say_ask(&s, 1, 1000);
    say_subscribe_as(&s, 2, 2, "jobb", "echo");
    say_cancel(&s, 2, "enough");
    turn(&s);
    EXPECT_CANCEL(&s, 1, "unknown role nosuch");
    EXPECT_CANCEL(&s, 2, "bad_request");
    expect_silence(&s);
    close_stage(&s);
}

static void a_word_about_no_subscription_is_answered_unless_it_crossed_the_end(void) {
    static struct stage s;
    open_stage(&s);
    say_ask(&s, 5, 1);
    say_cancel(&s, 6, "enough");
    turn(&s);
    EXPECT_CANCEL(&s, 5, "unknown_subscription");
    EXPECT_CANCEL(&s, 6, "unknown_subscription");
    begin(&s, 1);
    send_end(&s);
    turn(&s);
    EXPECT_CANCEL(&s, 1, "normal");
    expect_kind(&s, UNWATCH, 1);
    say_ask(&s, 1, 1);
    say_cancel(&s, 1, "enough");
    turn(&s);
    expect_silence(&s);
    close_stage(&s);
}

static void other_messages_are_ignored_and_calls_are_told_why_not(void) {
    static struct stage s;
    struct lab_bytes b = {.size = 0};
    open_stage(&s);
    say_head(&b, 1, 1, "dance", 2);
    PUT(&b, "\x6a");
    lab_frame(s.lab.peer, &b);
    turn(&s);
    expect_silence(&s);
    b.size = 0;
    PUT(&b, "\x68\x04\x61\x06");
    lab_put_pid(&b, "peer@host", 1);
    lab_put_atom(&b, "");
    lab_put_atom(&b, "Elixir.Ringbridge.Streams");
    PUT(&b, "\x68\x03");
    lab_put_atom(&b, "$gen_call");
    PUT(&b, "\x68\x02");
    lab_put_pid(&b, "peer@host", 1);
    lab_put_ref(&b, 1);
    lab_put_atom(&b, "stats");
    lab_frame(s.lab.peer, &b);
    turn(&s);
    CHECK(FRAME_HAS(&s, "takes no calls"));
    close_stage(&s);
}

/* --- The process ------------------------------------------------------------------------------------------------------- */

static void monitor_streams(struct stage *s, uint32_t caller) {
    struct lab_bytes b = {.size = 0};
    PUT(&b, "\x68\x04\x61\x13");
    lab_put_pid(&b, "peer@host", caller);
    lab_put_atom(&b, "streams");
    lab_put_ref(&b, caller);
    lab_frame(s->lab.peer, &b);
}

static void the_end_of_the_process_ends_its_streams_and_no_job(void) {
    static struct stage s;
    struct rb_lab_request r;
    open_stage(&s);
    monitor_streams(&s, 1);
    lab_monitor(s.lab.peer, 1, 2, 2); /* the JobDispatcher's */
    begin(&s, 1);
    lab_submit(s.lab.peer, 3, "x", 1);
    turn(&s);
    rb_relay_service_down(s.lab.relay, RB_SERVICE_STREAMS, (const uint8_t *)"\x77\x06killed", 8);
    turn(&s);
    expect_kind(&s, UNWATCH, 1);
    CHECK(FRAME_HAS(&s, "killed"));
    expect_silence(&s);
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    CHECK(r.cancelled);
    CHECK_EQUAL(stats_of(&s).in_flight, 1);
    monitor_streams(&s, 4);
    turn(&s);
    CHECK(FRAME_HAS(&s, "noproc"));
    say_subscribe(&s, 4); /* to nobody */
    turn(&s);
    expect_silence(&s);
    close_stage(&s);
}

static void suspended_it_asks_no_worker_for_more(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    rb_relay_hold(s.lab.relay, RB_SERVICE_STREAMS, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 0);
    rb_relay_hold(s.lab.relay, RB_SERVICE_STREAMS, 0);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 5);
    close_stage(&s);
}

int main(void) {
    RUN(a_stream_goes_from_the_first_ask_to_its_end);
    RUN(parts_that_come_together_leave_as_one_list);
    RUN(demand_before_the_worker_is_there_is_kept);
    RUN(a_worker_is_never_further_ahead_than_the_window);
    RUN(no_demand_is_no_word_and_none_is_made_of_nonsense);
    RUN(a_slow_socket_holds_demand_and_parts_back);
    RUN(a_stream_has_its_worker_to_itself);
    RUN(parts_that_wait_for_the_socket_let_the_relay_sleep);
    RUN(two_subscriptions_of_one_consumer_are_two_streams);
    RUN(a_second_subscription_of_the_same_tag_is_refused_and_the_first_goes_on);
    RUN(a_new_subscription_may_end_another_first);
    RUN(what_cannot_be_begun_is_cancelled_with_the_reason);
    RUN(what_crosses_a_refusal_is_not_answered);
    RUN(a_word_about_no_subscription_is_answered_unless_it_crossed_the_end);
    RUN(other_messages_are_ignored_and_calls_are_told_why_not);
    RUN(the_end_of_the_process_ends_its_streams_and_no_job);
    RUN(suspended_it_asks_no_worker_for_more);
    return check_end();
}
