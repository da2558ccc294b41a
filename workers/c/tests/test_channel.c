/* test_channel.c: what a worker says over its channel (docs/channel.md), each rule held against a real worker process. */
#define _GNU_SOURCE
#include "channel_peer.h"

/* --- messages and calls ------------------------------------------------------------------------------------------------ */

static void a_message_is_a_tuple_of_dest_and_term_without_an_id(void) {
    struct peer p;
    start(&p, "rb-conformance");
    uint64_t job = peer_submit(&p, SEND, "\5\0\0\0w\3regaA", 11);
    expect_packet(&p, RB_PACKET_SEND);
    CHECK_EQUAL(got.head.flags, 0);
    CHECK_EQUAL(got.head.id, 0);
    CHECK_EQUAL(got.head.job, job);
    CHECK_EQUAL(got.size, 9);
    CHECK(memcmp(got.body, "h\2w\3regaA", 9) == 0);
    expect_status(&p, RB_STATUS_OK, 5000);
    peer_stop(&p);
}

static void a_call_waits_for_the_reply_of_its_id(void) {
    struct peer p;
    struct peer_answer a;
    start(&p, "rb-conformance");
    uint64_t job = submit_call(&p, 5000, "a\7", 2, 0);
    expect_packet(&p, RB_PACKET_CALL);
    CHECK(got.head.id != 0 && !(got.head.id & RB_PACKET_ID_BRIDGE));
    CHECK_EQUAL(got.head.job, job);
    CHECK_EQUAL(got.size, 14);
    CHECK(memcmp(got.body, "h\3w\3rega\7b\0\0\x13\x88", 14) == 0);
    say(&p, RB_PACKET_REPLY, 0, got.head.id + 1, "a\1", 2); /* of nobody's: dropped */
    expect_no_answer(&p);
    say(&p, RB_PACKET_REPLY, 0, got.head.id, "a\2", 2);
    CHECK(peer_answer(&p, &a, 5000));
    CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
    CHECK_EQUAL(a.completion.payload_bytes, 2);
    CHECK(memcmp(a.payload, "a\2", 2) == 0);
    peer_give_back(&p, &a);
    peer_stop(&p);
}

static void what_fits_in_no_packet_goes_in_a_sealed_memfd_both_ways(void) {
    enum { FITS = RB_PACKET_BYTES_MAX - sizeof(struct rb_packet) - (2 + 5 + 5) };
    static const uint32_t sizes[] = {FITS, FITS + 1, 500000};
    static uint8_t answer[300000];
    struct peer p;
    struct peer_answer a;
    start(&p, "rb-conformance");
    for (int i = 0; i < 3; i++) {
        memset(big + 13, 'x', sizes[i]);
        submit_call(&p, 5000, NULL, sizes[i], 0);
        expect_packet(&p, RB_PACKET_CALL);
        CHECK_EQUAL(got.memfd, i > 0);
        CHECK_EQUAL(got.size, sizes[i] + 12);
        CHECK(got.body[7] == 'x' && got.body[6 + sizes[i]] == 'x' && got.body[7 + sizes[i]] == 'b');
        memset(answer, 'a' + i, sizeof answer);
        say_by_memfd(&p, RB_PACKET_REPLY, got.head.id, answer, sizeof answer,
                     F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL, sizeof answer);
        CHECK(peer_answer(&p, &a, 5000));
        CHECK_EQUAL(a.completion.payload_bytes, sizeof answer);
        CHECK(memcmp(a.payload, answer, sizeof answer) == 0);
        peer_give_back(&p, &a);
    }
    peer_stop(&p);
}

static void each_error_has_its_errno(void) {
    static const int numbers[] = {EIO,      EINVAL, EACCES,  ESRCH,  EHOSTUNREACH, EPIPE, ETIMEDOUT,
                                  EMSGSIZE, EBUSY,  ENOTSUP, ESTALE, EIO,          EIO};
    struct peer p;
    start(&p, "rb-conformance");
    for (unsigned code = 0; code < sizeof numbers / sizeof *numbers; code++) {
        submit_call(&p, 5000, "a\7", 2, 0);
        expect_packet(&p, RB_PACKET_CALL);
        say_error(&p, got.head.id, code);
        expect_failure(&p, 2, strerror(numbers[code]));
    }
    peer_stop(&p);
}

static void a_cancel_ends_a_call_and_the_bridge_hears_that_nobody_waits(void) {
    struct peer p;
    start(&p, "rb-conformance");
    uint64_t job = submit_call(&p, 60000, "a\7", 2, 0);
    expect_packet(&p, RB_PACKET_CALL);
    uint64_t id = got.head.id;
    expect_no_answer(&p);
    peer_cancel(&p, job);
    rb_gate_ring(&p.link.waker);
    expect_packet(&p, RB_PACKET_FORGET);
    CHECK_EQUAL(got.head.id, id);
    CHECK_EQUAL(got.size, 0);
    expect_status(&p, RB_STATUS_CANCELLED, 5000);
    say(&p, RB_PACKET_REPLY, 0, id, "a\1", 2); /* too late, and dropped */
    submit_call(&p, 5000, "a\7", 2, 0);
    expect_packet(&p, RB_PACKET_CALL);
    say_error(&p, got.head.id, RB_CHANNEL_ERROR_REFUSED);
    expect_failure(&p, 2, strerror(EACCES));
    peer_stop(&p);
}

static void so_do_the_deadline_the_timeout_and_a_stop(void) {
    struct peer p;
    start(&p, "rb-conformance");
    submit_call(&p, 60000, "a\7", 2, peer_now_ns() + 50000000);
    expect_packet(&p, RB_PACKET_CALL);
    CHECK(got.body[9] == 'b' && got.body[10] == 0 && got.body[12] == 0 && got.body[13] <= 50);
    expect_packet(&p, RB_PACKET_FORGET);
    expect_status(&p, RB_STATUS_CANCELLED, 5000);

    submit_call(&p, 40, "a\7", 2, 0);
    expect_packet(&p, RB_PACKET_CALL);
    expect_packet(&p, RB_PACKET_FORGET);
    expect_failure(&p, 2, strerror(ETIMEDOUT));

    submit_call(&p, 60000, "a\7", 2, 0);
    expect_packet(&p, RB_PACKET_CALL);
    expect_no_answer(&p);
    peer_stop(&p);
}

static void a_closed_channel_ends_what_waits_and_refuses_what_follows_but_not_jobs(void) {
    struct peer p;
    start(&p, "rb-conformance");
    submit_call(&p, 60000, "a\7", 2, 0);
    expect_packet(&p, RB_PACKET_CALL);
    close(p.channel);
    p.channel = -1;
    expect_failure(&p, 2, strerror(ESHUTDOWN));
    submit_call(&p, 60000, "a\7", 2, 0);
    expect_failure(&p, 2, strerror(ESHUTDOWN));
    peer_submit_text(&p, LOG, "\1 to nobody");
    expect_failure(&p, 2, strerror(ESHUTDOWN));
    peer_submit_text(&p, 0, "echo");
    expect_text(&p, "echo");
    peer_stop(&p);
}

static void without_a_channel_each_call_says_so(void) {
    struct peer p;
    peer_start(&p, "rb-conformance", &defaults, 1);
    submit_call(&p, 60000, "a\7", 2, 0);
    expect_failure(&p, 2, strerror(ENOTCONN));
    peer_submit_text(&p, LOG, "\1 to nobody");
    expect_failure(&p, 2, strerror(ENOTCONN));
    peer_submit(&p, CHECKPOINT, "\0 state", 7);
    expect_failure(&p, 2, strerror(ENOTCONN));
    peer_stop(&p);
}

static void a_send_waits_for_room_until_it_is_cancelled(void) {
    struct peer p;
    struct peer_answer a;
    uint64_t job = 0;
    start(&p, "rb-conformance");
    memset(big, 0, 60000);
    memcpy(big, "\5\0\0\0w\3reg", 9);
    for (int sent = 0;; sent++) {
        job = peer_submit(&p, SEND, big, 60000);
        if (!peer_answer(&p, &a, 300)) break;
        CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
        if (sent > 1000) break;
    }
    peer_cancel(&p, job);
    rb_gate_ring(&p.link.waker);
    expect_status(&p, RB_STATUS_CANCELLED, 5000);
    job = peer_submit(&p, SEND, big, 60000);
    expect_no_answer(&p);
    while (take(&p, 0) == 1) CHECK_EQUAL(got.head.kind, RB_PACKET_SEND);
    expect_status(&p, RB_STATUS_OK, 5000);
    peer_stop(&p);
}

/* --- log lines --------------------------------------------------------------------------------------------------------- */

static void a_line_has_its_level_and_its_job(void) {
    static const char *const bodies[] = {"h\2w\5debugm\0\0\0\2hi", "h\2w\4infom\0\0\0\2hi",
                                         "h\2w\7warningm\0\0\0\2hi", "h\2w\5errorm\0\0\0\2hi"};
    static const unsigned sizes[] = {16, 15, 18, 16};
    struct peer p;
    start(&p, "rb-conformance");
    for (int level = 0; level < 4; level++) {
        char payload[] = {(char)level, 'h', 'i'};
        uint64_t job = peer_submit(&p, LOG, payload, sizeof payload);
        expect_status(&p, RB_STATUS_OK, 5000);
        expect_packet(&p, RB_PACKET_LOG);
        CHECK_EQUAL(got.head.id, 0);
        CHECK_EQUAL(got.head.job, job);
        CHECK_EQUAL(got.size, sizes[level]);
        CHECK(memcmp(got.body, bodies[level], sizes[level]) == 0);
    }
    peer_stop(&p);
}

static void a_line_never_waits_and_what_is_missing_is_told(void) {
    struct peer p;
    struct peer_answer a;
    int sent = 0, dropped = 0, told = 0;
    start(&p, "rb-conformance");
    memset(big, 'y', 4000);
    big[0] = 1;
    while (dropped < 3 && sent < 100000) {
        peer_submit(&p, LOG, big, 4000);
        CHECK(peer_answer(&p, &a, 5000));
        if (a.completion.status == RB_STATUS_OK)
            sent++;
        else
            dropped++;
        peer_give_back(&p, &a);
    }
    CHECK_EQUAL(dropped, 3);
    while (take(&p, 0) == 1) told += got.size < 100;
    CHECK_EQUAL(told, 0);
    peer_submit_text(&p, LOG, "\1last");
    expect_status(&p, RB_STATUS_OK, 5000);
    expect_packet(&p, RB_PACKET_LOG);
    CHECK(memmem(got.body, got.size, "3 log lines are missing", 23) != NULL);
    expect_packet(&p, RB_PACKET_LOG);
    CHECK(memmem(got.body, got.size, "last", 4) != NULL);
    peer_stop(&p);
}

/* --- a bridge that breaks the rules -------------------------------------------------------------------------------------- */

static void a_kind_that_it_does_not_know_is_refused_or_dropped(void) {
    struct peer p;
    start_with(&p, NULL, 0);
    say(&p, 999, 0, 0, "abc", 3);
    say(&p, RB_PACKET_CHAOS, 0, ASKED, "abc", 3);
    expect_packet(&p, RB_PACKET_REPLY);
    CHECK_EQUAL(got.head.id, ASKED);
    CHECK_EQUAL(got.head.flags, RB_PACKET_FLAG_ERROR);
    CHECK_EQUAL(got.body[0], RB_CHANNEL_ERROR_UNAVAILABLE);
    peer_stop(&p);
}

static void expect_broken(struct peer *p, const char *why) {
    CHECK_EQUAL(peer_wait(p, 5000), 76);
    const char *line = peer_stderr(p);
    CHECK(strstr(line, "broke a rule of the channel") != NULL && strstr(line, why) != NULL);
    peer_close(p);
}

static void a_packet_that_breaks_a_rule_ends_it_with_76(void) {
    struct rb_packet lies = {.kind = RB_PACKET_RESTORE, .bytes = 9};
    int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
    struct peer p;
    start_with(&p, NULL, 0);
    CHECK(send(p.channel, &lies, 31, 0) == 31);
    expect_broken(&p, "too short");
    start_with(&p, NULL, 0);
    CHECK(send(p.channel, &lies, sizeof lies, 0) == sizeof lies);
    expect_broken(&p, "not as long as its head says");
    start_with(&p, NULL, 0);
    say_by_memfd(&p, RB_PACKET_RESTORE, 0, big, 100, F_SEAL_SEAL, 100);
    expect_broken(&p, "sealed memfd");
    start_with(&p, NULL, 0);
    say_by_memfd(&p, RB_PACKET_RESTORE, 0, big, 100, all, 101);
    expect_broken(&p, "sealed memfd");
    start_with(&p, NULL, 0);
    say_restore(&p, RB_RESTORE_STATE, 0, 7, "of no kind");
    expect_broken(&p, "of no kind");
}

int main(void) {
    make_pattern();
    RUN(a_message_is_a_tuple_of_dest_and_term_without_an_id);
    RUN(a_call_waits_for_the_reply_of_its_id);
    RUN(what_fits_in_no_packet_goes_in_a_sealed_memfd_both_ways);
    RUN(each_error_has_its_errno);
    RUN(a_cancel_ends_a_call_and_the_bridge_hears_that_nobody_waits);
    RUN(so_do_the_deadline_the_timeout_and_a_stop);
    RUN(a_closed_channel_ends_what_waits_and_refuses_what_follows_but_not_jobs);
    RUN(without_a_channel_each_call_says_so);
    RUN(a_send_waits_for_room_until_it_is_cancelled);
    RUN(a_line_has_its_level_and_its_job);
    RUN(a_line_never_waits_and_what_is_missing_is_told);
    RUN(a_kind_that_it_does_not_know_is_refused_or_dropped);
    RUN(a_packet_that_breaks_a_rule_ends_it_with_76);
    return check_end();
}
