/* test_state.c: the state that a worker saves and is given (docs/channel.md), each rule held against a real worker process. */
#define _GNU_SOURCE
#include "channel_peer.h"

/* --- checkpoints out of a handler ---------------------------------------------------------------------------------------- */

static void a_checkpoint_is_done_when_the_bridge_says_so(void) {
    struct peer p;
    start(&p, "rb-conformance");
    for (int kind = 0; kind < 2; kind++) {
        peer_submit(&p, CHECKPOINT, kind ? "\1state" : "\0state", 6);
        expect_packet(&p, RB_PACKET_CHECKPOINT_SAVE);
        CHECK(got.head.id != 0 && !(got.head.id & RB_PACKET_ID_BRIDGE));
        CHECK_EQUAL(got.size, 13);
        CHECK_EQUAL(got.body[0], kind);
        CHECK(memcmp(got.body + 1, "\0\0\0\0\0\0\0state", 12) == 0);
        expect_no_answer(&p);
        say(&p, RB_PACKET_REPLY, 0, got.head.id, NULL, 0);
        expect_status(&p, RB_STATUS_OK, 5000);
    }
    peer_submit(&p, CHECKPOINT, "\1state", 6);
    expect_packet(&p, RB_PACKET_CHECKPOINT_SAVE);
    say_error(&p, got.head.id, RB_CHANNEL_ERROR_FULL_WANTED);
    expect_failure(&p, 2, strerror(ESTALE));
    peer_stop(&p);
}

static void a_state_is_loaded_with_its_increments_behind(void) {
    uint8_t state[200];
    struct peer p;
    size_t size = add_part(state, 0, RB_CHECKPOINT_FULL, "one");
    size = add_part(state, size, RB_CHECKPOINT_INCREMENTAL, "two");
    start(&p, "rb-conformance");
    peer_submit(&p, CHECKPOINT, "\2", 1);
    expect_packet(&p, RB_PACKET_CHECKPOINT_LOAD);
    CHECK_EQUAL(got.size, 0);
    say(&p, RB_PACKET_REPLY, 0, got.head.id, state, size);
    expect_text(&p, "onetwo");
    /* From now on it can be asked; this one has nothing to save. */
    ask_to_save(&p, ASKED, RB_CHECKPOINT_FULL, RB_SAVE_NOW);
    expect_packet(&p, RB_PACKET_REPLY);
    CHECK_EQUAL(got.head.flags, RB_PACKET_FLAG_ERROR);
    CHECK_EQUAL(got.head.id, ASKED);
    CHECK_EQUAL(got.body[0], RB_CHANNEL_ERROR_UNAVAILABLE);
    CHECK_EQUAL(got.size, 8u + 2 + 13 + 5 + got.body[8 + 2 + 13 + 4]);
    peer_stop(&p);
}

/* --- a worker that keeps state ------------------------------------------------------------------------------------------- */

static void it_has_its_state_before_its_first_job(void) {
    uint8_t state[200];
    struct peer p;
    size_t size = add_part(state, 0, RB_CHECKPOINT_FULL, "one");
    size = add_part(state, size, RB_CHECKPOINT_INCREMENTAL, "two");
    start_with(&p, state, size);
    peer_submit_text(&p, 0, "!");
    expect_text(&p, "onetwo!");
    peer_stop(&p);
}

static void a_state_that_it_does_not_take_ends_it(void) {
    uint8_t state[200];
    struct peer p;
    size_t size = add_part(state, 0, RB_CHECKPOINT_FULL, "?");
    start_with(&p, state, size);
    CHECK_EQUAL(peer_wait(&p, 5000), 65);
    CHECK(strstr(peer_stderr(&p), "it has no state to begin with") != NULL);
    peer_close(&p);
}

static void where_its_role_keeps_none_it_begins_without(void) {
    struct peer_options options = defaults;
    struct peer p;
    options.channel = 1;
    peer_start(&p, "rb-state", &options, 0);
    expect_packet(&p, RB_PACKET_CHECKPOINT_LOAD);
    say_error(&p, got.head.id, RB_CHANNEL_ERROR_UNAVAILABLE);
    peer_submit_text(&p, 0, "a");
    expect_text(&p, "a");
    peer_stop(&p);
    peer_start(&p, "rb-state", &defaults, 1);
    peer_submit_text(&p, 0, "b");
    expect_text(&p, "b");
    peer_stop(&p);
}

static void asked_while_idle_it_saves_the_whole_or_what_is_new(void) {
    struct peer p;
    start_with(&p, NULL, 0);
    peer_submit_text(&p, 0, "ab");
    expect_text(&p, "ab");
    usleep(20000); /* parked by now, most likely; the rule holds anyway */
    ask_to_save(&p, ASKED, RB_CHECKPOINT_FULL, RB_SAVE_NOW);
    expect_save(&p, ASKED, RB_CHECKPOINT_FULL, "ab");
    peer_submit_text(&p, 0, "cd");
    expect_text(&p, "abcd");
    ask_to_save(&p, ASKED + 1, RB_CHECKPOINT_INCREMENTAL, RB_SAVE_NOW);
    expect_save(&p, ASKED + 1, RB_CHECKPOINT_INCREMENTAL, "cd");
    peer_submit_text(&p, 0, "!");
    expect_text(&p, "abcd!");
    ask_to_save(&p, ASKED + 2, RB_CHECKPOINT_FULL, RB_SAVE_NOW);
    expect_packet(&p, RB_PACKET_REPLY);
    CHECK_EQUAL(got.head.id, ASKED + 2);
    CHECK_EQUAL(got.head.flags, RB_PACKET_FLAG_ERROR);
    peer_stop(&p);
}

static void asked_in_the_midst_of_a_job_it_saves_behind_it(void) {
    struct peer p;
    start_with(&p, NULL, 0);
    peer_submit_text(&p, 0, "ab");
    expect_text(&p, "ab");
    peer_submit_text(&p, 2, "150");
    peer_submit_text(&p, 0, "cd");
    peer_await_started(&p, 2);
    ask_to_save(&p, ASKED, RB_CHECKPOINT_FULL, RB_SAVE_NOW);
    CHECK(!came(&p, 20));
    expect_save(&p, ASKED, RB_CHECKPOINT_FULL, "ab");
    expect_text(&p, "ab");
    expect_text(&p, "abcd");
    peer_stop(&p);
}

static void asked_for_the_end_it_saves_behind_its_last_job(void) {
    struct peer p;
    start_with(&p, NULL, 0);
    peer_submit_text(&p, 2, "50");
    peer_submit_text(&p, 0, "ab");
    peer_await_started(&p, 1);
    ask_to_save(&p, ASKED, RB_CHECKPOINT_FULL, RB_SAVE_LEAVING);
    peer_control(&p, RB_CONTROL_DRAIN);
    CHECK_EQUAL(peer_wait(&p, 5000), 0);
    expect_save(&p, ASKED, RB_CHECKPOINT_FULL, "ab");
    CHECK_EQUAL(take(&p, 1000), -1);
    peer_close(&p);
}

static void it_takes_a_state_between_two_jobs(void) {
    struct peer p;
    start_with(&p, NULL, 0);
    peer_submit_text(&p, 0, "ab");
    expect_text(&p, "ab");
    say_restore(&p, RB_RESTORE_STATE, ASKED, RB_CHECKPOINT_FULL, "xy");
    expect_packet(&p, RB_PACKET_REPLY);
    CHECK_EQUAL(got.head.id, ASKED);
    CHECK_EQUAL(got.head.flags, 0);
    say_restore(&p, RB_RESTORE_STATE, ASKED + 1, RB_CHECKPOINT_INCREMENTAL, "z");
    expect_packet(&p, RB_PACKET_REPLY);
    peer_submit_text(&p, 0, "c");
    expect_text(&p, "xyzc");
    say_restore(&p, RB_RESTORE_STATE, ASKED + 2, RB_CHECKPOINT_FULL, "?");
    expect_packet(&p, RB_PACKET_REPLY);
    CHECK_EQUAL(got.head.flags, RB_PACKET_FLAG_ERROR);
    peer_stop(&p);
}

static void held_it_begins_no_job_before_the_state_comes(void) {
    struct peer p;
    start_with(&p, NULL, 0);
    say_restore(&p, RB_RESTORE_HOLD, 0, 0, "");
    usleep(20000);
    peer_submit_text(&p, 0, "c");
    expect_no_answer(&p);
    say_restore(&p, RB_RESTORE_STATE, ASKED, RB_CHECKPOINT_FULL, "xy");
    expect_text(&p, "xyc");
    expect_packet(&p, RB_PACKET_REPLY);
    say_restore(&p, RB_RESTORE_HOLD, 0, 0, "");
    usleep(20000);
    peer_submit_text(&p, 0, "d");
    expect_no_answer(&p);
    say_restore(&p, RB_RESTORE_ABANDONED, 0, 0, "");
    expect_text(&p, "xycd");
    say_restore(&p, RB_RESTORE_HOLD, 0, 0, "");
    peer_submit_text(&p, 0, "e");
    close(p.channel);
    p.channel = -1;
    expect_text(&p, "xycde");
    peer_stop(&p);
}

static void a_promised_state_holds_only_the_job_that_needs_it(void) {
    struct peer p;
    start_with(&p, NULL, 0);
    say_restore(&p, RB_RESTORE_COMING, 0, 0, "");
    peer_submit_text(&p, 0, "c");
    expect_text(&p, "c");
    peer_submit_text(&p, 1, "");
    expect_no_answer(&p);
    say_restore(&p, RB_RESTORE_STATE, ASKED, RB_CHECKPOINT_FULL, "xy");
    expect_text(&p, "xy");
    expect_packet(&p, RB_PACKET_REPLY);
    say_restore(&p, RB_RESTORE_COMING, 0, 0, "");
    uint64_t job = peer_submit_text(&p, 1, "");
    expect_no_answer(&p);
    peer_cancel(&p, job);
    rb_gate_ring(&p.link.waker);
    expect_status(&p, RB_STATUS_CANCELLED, 5000);
    peer_stop(&p);
}

int main(void) {
    RUN(a_checkpoint_is_done_when_the_bridge_says_so);
    RUN(a_state_is_loaded_with_its_increments_behind);
    RUN(it_has_its_state_before_its_first_job);
    RUN(a_state_that_it_does_not_take_ends_it);
    RUN(where_its_role_keeps_none_it_begins_without);
    RUN(asked_while_idle_it_saves_the_whole_or_what_is_new);
    RUN(asked_in_the_midst_of_a_job_it_saves_behind_it);
    RUN(asked_for_the_end_it_saves_behind_its_last_job);
    RUN(it_takes_a_state_between_two_jobs);
    RUN(held_it_begins_no_job_before_the_state_comes);
    RUN(a_promised_state_holds_only_the_job_that_needs_it);
    return check_end();
}
