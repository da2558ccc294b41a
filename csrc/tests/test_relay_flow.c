/* What waits is bounded for each connection by itself, and who waits for room is told; payloads do not stop half way for ever. */
#define _GNU_SOURCE
#include "accounts.h"
#include "still_lab.h"

/* {6, Caller, '', elsewhere} and a binary: for the interpreter. */
static void to_somebody_else(int fd, size_t size) {
    static uint8_t bytes[4000];
    struct lab_bytes b = {.size = 0};
    PUT(&b, "\x68\x04\x61\x06");
    lab_put_pid(&b, "peer@host", 1);
    lab_put_atom(&b, "");
    lab_put_atom(&b, "elsewhere");
    lab_put_binary(&b, bytes, size);
    lab_frame(fd, &b);
}

/* Waits until the relay has read all that was written before: it answers in order. */
static int answers(int fd, uint32_t caller) {
    struct lab_bytes b = {.size = 0};
    lab_call_head(&b, caller, caller);
    lab_put_atom(&b, "stats");
    lab_frame(fd, &b);
    return ANSWER_HAS(fd, "accepted");
}

/* Nobody takes events meanwhile: the interpreter stalls. */
static void a_flood_of_one_connection_costs_no_other_its_own(void) {
    struct lab lab;
    lab_open(&lab); /* 1 MiB each */
    int other = lab_connect(&lab);
    for (int i = 0; i < 200; i++) to_somebody_else(lab.peer, 4000);
    CHECK(answers(lab.peer, 1));
    for (int i = 0; i < 200; i++) to_somebody_else(other, 4000);
    CHECK(answers(other, 2)); /* it has as much room as the first */
    for (int i = 0; i < 200; i++) to_somebody_else(lab.peer, 4000);
    uint8_t byte[64];
    CHECK_EQUAL(lab_read(lab.peer, byte, sizeof byte, LAB_WAIT_MS), 0);
    for (int i = 0; i < 10; i++) to_somebody_else(other, 4000);
    CHECK(answers(other, 3));
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    CHECK(lab_event_says(&lab, "interpreter_backlog_limit_reached"));
    CHECK_EQUAL(lab.event.connection, 1);
    close(other);
    lab_close(&lab);
}

/* What was taken makes room again. */
static void what_the_interpreter_has_taken_counts_no_more(void) {
    struct lab lab;
    lab_open(&lab);
    for (int i = 0; i < 1000; i++) {
        to_somebody_else(lab.peer, 4000);
        CHECK(lab_event(&lab, RB_EVENT_SIGNAL));
    }
    CHECK(answers(lab.peer, 1));
    lab_close(&lab);
}

/* The interpreter takes the large one and lags behind the small ones for a moment: that is no backlog. */
static void a_large_signal_that_was_taken_leaves_no_debt(void) {
    static uint8_t large[500000];
    struct lab lab;
    lab_open(&lab);
    struct lab_bytes b = {.size = 0};
    uint8_t head[7] = {0, 0, 0, 0, 131, 68, 0};
    PUT(&b, "\x68\x04\x61\x06");
    lab_put_pid(&b, "peer@host", 1);
    lab_put_atom(&b, "");
    lab_put_atom(&b, "elsewhere");
    PUT(&b, "\x6d");
    lab_put_u32(&b, sizeof large);
    rb_put_be32(head, (uint32_t)(3 + b.size + sizeof large));
    lab_write(lab.peer, head, sizeof head);
    lab_write(lab.peer, b.at, b.size);
    lab_write(lab.peer, large, sizeof large);
    for (int i = 0; i < 3; i++) to_somebody_else(lab.peer, 10);
    CHECK(answers(lab.peer, 1));
    CHECK(lab_event(&lab, RB_EVENT_SIGNAL)); /* the large one; the three still wait */
    for (int i = 0; i < 10; i++) to_somebody_else(lab.peer, 10);
    CHECK(answers(lab.peer, 2));
    lab_close(&lab);
}

/* Small signals of one take all of the duct's places: no other is cut off for want of one, and none is lost. */
static void many_small_signals_take_nobodys_place(void) {
    enum { PLACES = 1 << 16, MORE = 70000 };
    struct rb_relay_config config = lab_config();
    config.upward_bytes_max = 64 << 20;
    config.upward_total_max = 256 << 20;
    struct lab lab;
    lab_open_relay(&lab, &config);
    lab.peer = lab_connect(&lab);
    int other = lab_connect(&lab), seen = 0, of_other = 0;
    for (int i = 0; i < MORE; i++) to_somebody_else(lab.peer, 1);
    CHECK(answers(lab.peer, 1));
    to_somebody_else(other, 2);
    CHECK(answers(other, 2));
    while (!of_other && lab_event(&lab, RB_EVENT_SIGNAL)) {
        if (lab.event.connection == 2)
            of_other++;
        else
            seen++;
    }
    CHECK(of_other == 1 && seen == MORE && MORE > PLACES);
    close(other);
    lab_close(&lab);
}

/* Past the bound for all, who has more than a share is cut off, and who has less is not. */
static void the_bound_for_all_hits_those_that_have_much(void) {
    struct rb_relay_config config = lab_config();
    config.upward_bytes_max = 3 << 20;
    config.upward_total_max = 5 << 20;
    struct lab lab;
    lab_open_relay(&lab, &config);
    int much = lab_connect(&lab), more = lab_connect(&lab), little = lab_connect(&lab);
    lab.peer = lab_connect(&lab);
    for (int i = 0; i < 700; i++) to_somebody_else(much, 4000); /* 2.8 MB */
    CHECK(answers(much, 1));
    for (int i = 0; i < 700; i++) to_somebody_else(more, 4000);
    CHECK_EQUAL(lab_read(more, (uint8_t[64]){0}, 64, LAB_WAIT_MS), 0);
    for (int i = 0; i < 200; i++) to_somebody_else(little, 4000);
    CHECK(answers(little, 2));
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    CHECK_EQUAL(lab.event.connection, 2);
    close(much);
    close(more);
    close(little);
    lab_close(&lab);
}

/* --- Room ------------------------------------------------------------------------------------- */

static uint8_t message[3000000];

static void who_waits_for_room_is_told_when_there_is(void) {
    struct lab lab;
    lab_open(&lab);
    message[0] = RB_TAG_BINARY;
    rb_put_be32(message + 1, sizeof message - 5);
    CHECK_EQUAL(rb_relay_backlog(lab.relay, 1), 0);
    CHECK_EQUAL(rb_relay_want_room(lab.relay, 1), 0); /* nothing waits: at once */
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_ROOM));
    rb_relay_send(lab.relay, 1, (const uint8_t *)"\x68\x01\x61\x01", 4, message, sizeof message);
    CHECK(rb_relay_backlog(lab.relay, 1) >
          1000000); /* handed, whether the relay has seen it or not */
    rb_relay_want_room(lab.relay, 1);
    CHECK(answers(lab_connect(&lab), 1)); /* a round has passed */
    struct pollfd p = {.fd = rb_relay_event_fd(lab.relay), .events = POLLIN};
    rb_relay_hush(lab.relay);
    CHECK_EQUAL(poll(&p, 1, 50), 0);
    CHECK(rb_relay_backlog(lab.relay, 1) > 1000000);
    for (size_t n = 0; n < sizeof message;) {
        static uint8_t piece[1 << 16];
        ssize_t got = recv(lab.peer, piece, sizeof piece, 0);
        CHECK(got > 0);
        if (got <= 0) break;
        n += (size_t)got;
    }
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_ROOM));
    CHECK_EQUAL(lab.event.connection, 1);
    CHECK(rb_relay_backlog(lab.relay, 1) <= 256 << 10);
    lab_close(&lab);
}

/* --- A payload that stops arriving ------------------------------------------------------------- */

/* To a relay without a thread: it reads between two pieces, and no time passes. */
static struct still *between;
static void write_all(int fd, const void *bytes, size_t size) {
    enum { PIECE = 16384 };
    const uint8_t *p = bytes;
    if (!between) {
        lab_write(fd, p, size);
        return;
    }
    for (size_t at = 0; at < size; at += PIECE) {
        lab_write(fd, p + at, size - at < PIECE ? size - at : PIECE);
        still_round(between, 0);
    }
}
/* With one worker, and so many ms between two bytes of a payload at most. */
static void open_waiting(struct still *s, uint32_t arrival_ms) {
    struct rb_role_config role = lab_role_config();
    lab_arrival_ms = arrival_ms;
    still_open(s, &role, 1);
    lab_arrival_ms = 60000;
    between = s;
}
static void close_waiting(struct still *s) {
    between = NULL;
    still_close(s);
}

/* The first of two fragments of a call with a large payload: all but its last 1000 bytes. */
static void half_a_call(int fd, uint32_t caller, uint32_t size) {
    static uint8_t zeros[LAB_PAYLOAD_MAX];
    struct lab_bytes b = {.size = 0};
    uint8_t head[4 + 19] = {0, 0, 0, 0, 131, 69, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0};
    lab_monitor(fd, 1, caller, caller);
    lab_call_head(&b, caller, caller);
    lab_submit_head(&b, 3, "echo");
    PUT(&b, "\x6d");
    lab_put_u32(&b, size);
    rb_put_be32(head, (uint32_t)(19 + b.size + size - 1000));
    rb_put_be32(head + 10, caller);
    write_all(fd, head, sizeof head);
    write_all(fd, b.at, b.size);
    write_all(fd, zeros, size - 1000);
}
static void other_half(int fd, uint32_t caller) {
    uint8_t frame[4 + 18 + 1000] = {0, 0, 0, 0, 131, 70};
    rb_put_be32(frame, sizeof frame - 4);
    rb_put_be32(frame + 10, caller);
    frame[21] = 1;
    write_all(fd, frame, sizeof frame);
}

static void a_payload_that_stops_arriving_is_given_up(void) {
    struct still s;
    open_waiting(&s, 100); /* a pool of 4 MiB, four of these */
    for (uint32_t i = 1; i <= 4; i++) half_a_call(s.lab.peer, i, 1000000);
    still_round(&s, 100); /* they have got on, since it looked last */
    still_round(&s, 99);
    CHECK(still_quiet(&s));
    still_round(&s, 1);
    for (uint32_t i = 1; i <= 4; i++) CHECK(TOLD(&s, "deadline_exceeded"));
    CHECK_EQUAL(still_stats(&s).refused[RB_REASON_DEADLINE_EXCEEDED], 4);
    CHECK_EQUAL(still_stats(&s).accepted, 0);
    /* Their room is free again, and what still comes of them passes by. */
    for (uint32_t i = 1; i <= 4; i++) other_half(s.lab.peer, i);
    half_a_call(s.lab.peer, 9, 1000000);
    other_half(s.lab.peer, 9);
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK(TOLD_OK(&s));
    close_waiting(&s);
}

static void a_payload_that_comes_slowly_is_waited_for(void) {
    struct still s;
    open_waiting(&s, 200);
    struct lab_bytes b = {.size = 0};
    lab_monitor(s.lab.peer, 1, 1, 1);
    lab_call_head(&b, 1, 1);
    lab_submit_head(&b, 3, "echo");
    PUT(&b, "\x6d");
    lab_put_u32(&b, 40 * 1000);
    uint8_t head[7] = {0, 0, 0, 0, 131, 68, 0}, piece[1000] = {0};
    rb_put_be32(head, (uint32_t)(3 + b.size + 40 * 1000));
    write_all(s.lab.peer, head, sizeof head);
    write_all(s.lab.peer, b.at, b.size);
    for (int i = 0; i < 40; i++) { /* 8 s in all */
        still_round(&s, 199);
        write_all(s.lab.peer, piece, sizeof piece);
    }
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK(TOLD_OK(&s));
    close_waiting(&s);
}

static void a_caller_that_leaves_gives_its_payloads_room_back_at_once(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    for (uint32_t i = 1; i <= 12; i++) { /* three times as many as the pool holds */
        half_a_call(lab.peer, i, 1000000);
        lab_monitor(lab.peer, 0, i, i);
    }
    for (uint32_t i = 1; i <= 12; i++) other_half(lab.peer, i);
    half_a_call(lab.peer, 99, 1000000);
    other_half(lab.peer, 99);
    lab_complete(w, "done", 4);
    CHECK(ANSWER_HAS(lab.peer, "done"));
    CHECK_EQUAL(stats_of(&lab).accepted, 1);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

int main(void) {
    RUN(a_flood_of_one_connection_costs_no_other_its_own);
    RUN(what_the_interpreter_has_taken_counts_no_more);
    RUN(a_large_signal_that_was_taken_leaves_no_debt);
    RUN(many_small_signals_take_nobodys_place);
    RUN(the_bound_for_all_hits_those_that_have_much);
    RUN(who_waits_for_room_is_told_when_there_is);
    RUN(a_payload_that_stops_arriving_is_given_up);
    RUN(a_payload_that_comes_slowly_is_waited_for);
    RUN(a_caller_that_leaves_gives_its_payloads_room_back_at_once);
    return check_end();
}
