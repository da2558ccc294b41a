/* test_chaos.c: the hooks of the kit (docs/channel.md, "Hooks"), each held against a real worker process. */
#define _GNU_SOURCE
#include <unistd.h>

#include "channel_peer.h"
#include "ringbridge/envelope.h"
#include "ringbridge/telemetry.h"

static void start_troubled(struct peer *p) {
    struct peer_options options = defaults;
    options.channel = options.chaos = 1;
    peer_start(p, "rb-conformance", &options, 1);
}

static void hook(struct peer *p, const char *text) {
    say(p, RB_PACKET_CHAOS, 0, ASKED, text, strlen(text));
    expect_packet(p, RB_PACKET_REPLY);
    CHECK_EQUAL(got.head.id, ASKED);
    CHECK_EQUAL(got.head.flags, 0);
    CHECK_EQUAL(got.size, 0);
}

static void expect_refused(struct peer *p, const char *text, size_t size, uint64_t code) {
    say(p, RB_PACKET_CHAOS, 0, ASKED, text, size);
    expect_packet(p, RB_PACKET_REPLY);
    CHECK_EQUAL(got.head.flags, RB_PACKET_FLAG_ERROR);
    CHECK_EQUAL(got.body[0], code);
}

static void echo(struct peer *p) {
    peer_submit_text(p, 0, "hello");
    expect_text(p, "hello");
}

/* The next completion as it is, which no relay would take. */
static struct rb_completion take_raw(struct peer *p) {
    for (int ms = 0; rb_ring_available(&p->link.completion_ring) == 0; ms++) {
        CHECK(ms < 5000);
        usleep(1000);
    }
    return p->link.completions[rb_ring_slot(&p->link.completion_ring, 0)];
}

/* Did the worker ring for a job whose answer is there? */
static int rings(struct peer *p) {
    struct pollfd bell = {.fd = p->link.fds.wake_relay, .events = POLLIN};
    uint64_t count;
    while (poll(&bell, 1, 0) > 0) CHECK(read(bell.fd, &count, sizeof count) == sizeof count);
    rb_gate_announce(&p->link.waiter, RB_PARK_EVENTFD);
    peer_submit_text(p, 0, "hello");
    take_raw(p);
    int rang = poll(&bell, 1, 200) > 0;
    rb_gate_retract(&p->link.waiter);
    expect_text(p, "hello");
    return rang;
}

static void nothing_is_done_where_the_environment_does_not_allow_it(void) {
    struct peer p;
    start(&p, "rb-conformance"); /* it does not even look */
    say(&p, RB_PACKET_CHAOS, 0, ASKED, "crash 9 1", 9);
    echo(&p);
    CHECK_EQUAL(take(&p, 50), 0);
    peer_stop(&p);
    start_with(&p, NULL, 0);
    expect_refused(&p, "crash 9 1", 9, RB_CHANNEL_ERROR_UNAVAILABLE);
    peer_stop(&p);
}

static void a_hook_that_it_does_not_know_is_refused(void) {
    static const char *const wrong[] = {"",
                                        "crash",
                                        "crash 9",
                                        "crash 9 1 1",
                                        "crash 65 1",
                                        "CRASH 9 1",
                                        "no_such_hook 1 1",
                                        "stall -1 1",
                                        "stall 99999999999 1",
                                        "a_hook_whose_name_is_far_too_long_for_this 1 1"};
    char long_one[100];
    struct peer p;
    start_troubled(&p);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        expect_refused(&p, wrong[i], strlen(wrong[i]), RB_CHANNEL_ERROR_BAD_REQUEST);
    expect_refused(&p, "crash 9 1\0", 10, RB_CHANNEL_ERROR_BAD_REQUEST);
    memset(long_one, ' ', sizeof long_one);
    memcpy(long_one, "crash 9 1", 9);
    expect_refused(&p, long_one, sizeof long_one, RB_CHANNEL_ERROR_BAD_REQUEST);
    echo(&p);
    peer_stop(&p);
}

static void a_stall_is_for_as_many_jobs_as_it_says(void) {
    struct peer p;
    struct peer_answer a;
    start_troubled(&p);
    hook(&p, "stall 80 2");
    for (int i = 0; i < 2; i++) {
        peer_submit_text(&p, 0, "hello");
        CHECK(peer_answer(&p, &a, 5000));
        CHECK(a.completion.run_ns >= 80000000);
    }
    hook(&p, "stall 3600000 1");
    hook(&p, "stall 0 0"); /* which ends what was */
    echo(&p);
    hook(&p, "crash 9 1");
    hook(&p, "crash 9 0");
    echo(&p);
    peer_stop(&p);
}

static void a_crash_is_by_the_signal_that_it_names_and_in_the_job(void) {
    struct peer p;
    start_troubled(&p);
    echo(&p);
    hook(&p, "crash 9 1");
    CHECK_EQUAL(peer_wait(&p, 50), -1000);
    peer_submit_text(&p, 0, "hello");
    CHECK_EQUAL(peer_await_started(&p, 2), 2);
    CHECK_EQUAL(peer_wait(&p, 5000), -9);
    peer_close(&p);
}

static void an_answer_without_room_is_a_failed_job(void) {
    struct peer p;
    struct peer_answer a;
    start_troubled(&p);
    hook(&p, "oversize 1 1");
    peer_submit_text(&p, 0, "hello");
    CHECK(peer_answer(&p, &a, 5000));
    CHECK_EQUAL(a.completion.status, RB_STATUS_FAILED);
    CHECK_EQUAL(a.completion.code, RB_CODE_ANSWER_TOO_LARGE);
    peer_give_back(&p, &a);
    echo(&p);
    peer_stop(&p);
}

static void a_corrupt_answer_has_another_crc(void) {
    struct peer p;
    start_troubled(&p);
    hook(&p, "corrupt 1 1");
    peer_submit_text(&p, 0, "hello");
    struct rb_completion c = take_raw(&p);
    CHECK(c.crc == (rb_completion_crc(&c, NULL, p.link.config.features) ^ 1));
    peer_close(&p);
}

static void an_overrun_reaches_beyond_the_region(void) {
    struct peer p;
    start_troubled(&p);
    hook(&p, "overrun 1 1");
    peer_submit_text(&p, 0, "hello");
    struct rb_completion c = take_raw(&p);
    CHECK_EQUAL(c.payload_at + c.payload_bytes, p.link.config.result_bytes + 1);
    peer_close(&p);
}

static void a_lost_wake_leaves_its_answer_in_the_ring_untold(void) {
    struct peer p;
    start_troubled(&p);
    CHECK_EQUAL(rings(&p), 1);
    hook(&p, "lost_wake 0 1");
    CHECK_EQUAL(rings(&p), 0);
    CHECK_EQUAL(rings(&p), 1);
    peer_stop(&p);
}

static void without_files_a_job_can_open_none(void) {
    struct peer p;
    struct peer_answer a;
    start_troubled(&p);
    hook(&p, "no_files 0 1");
    CHECK_EQUAL(rings(&p), 1); /* what is open stays so */
    hook(&p, "no_files 0 1");
    submit_call(&p, 1000, NULL, 100000, 0); /* too large for a packet: it wants a memfd */
    CHECK(peer_answer(&p, &a, 5000));
    CHECK_EQUAL(a.completion.status, RB_STATUS_FAILED);
    CHECK_EQUAL(take(&p, 0), 0); /* nothing was sent */
    peer_give_back(&p, &a);
    submit_call(&p, 1000, NULL, 100000, 0);
    expect_packet(&p, RB_PACKET_CALL);
    peer_close(&p);
}

static void a_worker_that_holds_takes_no_job_and_then_all(void) {
    struct peer p;
    start_troubled(&p);
    hook(&p, "hold 200 0");
    uint64_t began = peer_now_ns();
    for (uint32_t i = 0; i < p.link.config.slots; i++) peer_submit_text(&p, 0, "hello");
    CHECK_EQUAL(rb_ring_free(&p.link.request_ring), 0);
    for (uint32_t i = 0; i < p.link.config.slots; i++) expect_text(&p, "hello");
    CHECK(peer_now_ns() - began >= 150000000);
    peer_stop(&p);
}

static uint64_t beats(const struct peer *p) {
    struct rb_telemetry t = {0};
    while (rb_link_telemetry(&p->link, &t) < 0) {
    }
    return t.heartbeats;
}

static void a_silent_worker_beats_no_more_and_works_on(void) {
    struct peer p;
    start_troubled(&p);
    hook(&p, "silence 1500 0");
    uint64_t before = beats(&p);
    for (int ms = 0; ms < 1200; ms += 100) {
        echo(&p);
        usleep(100000);
    }
    CHECK_EQUAL(beats(&p), before);
    for (int ms = 0; beats(&p) == before; ms++) {
        CHECK(ms < 10000);
        usleep(1000);
    }
    hook(&p, "silence 3600000 0"); /* whoever has to leave is not held up by it */
    peer_stop(&p);
}

int main(void) {
    make_pattern();
    RUN(nothing_is_done_where_the_environment_does_not_allow_it);
    RUN(a_hook_that_it_does_not_know_is_refused);
    RUN(a_stall_is_for_as_many_jobs_as_it_says);
    RUN(a_crash_is_by_the_signal_that_it_names_and_in_the_job);
    RUN(an_answer_without_room_is_a_failed_job);
    RUN(a_corrupt_answer_has_another_crc);
    RUN(an_overrun_reaches_beyond_the_region);
    RUN(a_lost_wake_leaves_its_answer_in_the_ring_untold);
    RUN(without_files_a_job_can_open_none);
    RUN(a_worker_that_holds_takes_no_job_and_then_all);
    RUN(a_silent_worker_beats_no_more_and_works_on);
    return check_end();
}
