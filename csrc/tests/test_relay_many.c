/* submit_many: answers in the order of the payloads, each with its own fate; the caller's life is the life of all. */
#define _GNU_SOURCE
#include "answers.h"

enum { CALLER = 7 };

/* {submit_many, Role, | Payloads, and with an option its map. */
static void many(int fd, const char *role, const void *payloads, size_t bytes, const char *option,
                 const char *word) {
    struct lab_bytes b = {.size = 0};
    lab_monitor(fd, 1, CALLER, CALLER);
    lab_call_head(&b, CALLER, CALLER);
    lab_verb_head(&b, option ? 4 : 3, "submit_many", role);
    lab_put(&b, payloads, bytes);
    if (option) {
        PUT(&b, "\x74\x00\x00\x00\x01");
        lab_put_atom(&b, option);
        lab_put_atom(&b, word);
    }
    lab_frame(fd, &b);
}
#define MANY(lab, payloads) many((lab)->peer, "echo", payloads, sizeof(payloads) - 1, NULL, NULL)
#define A "\x6d\0\0\0\1a"
#define B "\x6d\0\0\0\1b"
#define C "\x6d\0\0\0\1c"
#define THREE "\x6c\0\0\0\3" A B C "\x6a"
#define SIX "\x6c\0\0\0\6" A A A A A A "\x6a"
#define OK(binary) "\x68\2\x77\2ok" binary

/* A worker that has done a job, so that its credit is its whole ring. One `ok` is counted. */
static struct lab_worker *warm_worker(struct lab *lab) {
    struct lab_worker *w = lab_worker(lab);
    lab_submit(lab->peer, 1, "w", 1);
    lab_complete(w, "w", 1);
    CHECK(NEXT(lab) > 0);
    return w;
}

/* The i-th oldest request is answered, with its own payload. */
static void echo(struct lab_worker *w, int64_t i) {
    const struct rb_request *r = lab_request(w, i);
    CHECK(r != NULL);
    if (!r) return;
    struct rb_completion e = lab_completion(w, r->job, lab_payload(w, r), r->payload_bytes, 0);
    lab_publish(w, &e);
}

static void answers_come_in_the_order_of_the_payloads(void) {
    static const int orders[][3] = {{0, 1, 2}, {2, 1, 0}, {1, 2, 0}};
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = warm_worker(&lab);
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        MANY(&lab, THREE);
        CHECK(lab_request(w, 2) != NULL);
        lab_start(w, 3);
        for (int k = 0; k < 3; k++) {
            echo(w, orders[i][k]);
            wait_until_answered(&lab, RB_REASON_OK, 3 * i + (uint64_t)k + 2); /* one at a time */
        }
        rb_ring_release(&w->link.request_ring, 3);
        CHECK(NEXT(&lab) > 0 && HAS("\x68\2\x77\2ok\x6c\0\0\0\3" OK(A) OK(B) OK(C) "\x6a"));
        lab_monitor(lab.peer, 0, CALLER, CALLER);
    }
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void a_list_counts_in_every_encoding(void) {
    static const struct {
        const char *bytes;
        size_t size;
    } lists[] = {
        {"\x6b\0\2\5\6", 5},                              /* a string */
        {"\x6c\0\0\0\1\x61\5\x6c\0\0\0\1\x61\6\x6a", 15}, /* two cells */
        {"\x6c\0\0\0\1\x61\5\x6b\0\1\6", 11},             /* a cell and a string */
        {"\x6c\0\0\0\0\x6c\0\0\0\2\x61\5\x61\6\x6a", 15},
    };
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = warm_worker(&lab);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        many(lab.peer, "echo", lists[i].bytes, lists[i].size, NULL, NULL);
        for (int k = 0; k < 2; k++) {
            const struct rb_request *r = lab_request(w, 0);
            CHECK(r && r->flags & RB_FLAG_TERM && r->payload_bytes == 2 && r->body[0] == 97 &&
                  r->body[1] == 5 + k);
            lab_complete(w, "x", 1);
        }
        CHECK(NEXT(&lab) > 0 && HAS("\x6c\0\0\0\2" OK("\x6d\0\0\0\1x") OK("\x6d\0\0\0\1x") "\x6a"));
        lab_monitor(lab.peer, 0, CALLER, CALLER);
    }
    MANY(&lab, "\x6a");
    CHECK(NEXT(&lab) > 0 && HAS("\x68\2\x77\2ok\x6a"));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void what_is_no_list_of_payloads_is_refused_as_a_whole(void) {
    struct lab lab;
    lab_open(&lab);
    MANY(&lab, A);
    CHECK(NEXT(&lab) > 0 && HAS("payloads must be a proper list"));
    MANY(&lab, "\x6c\0\0\0\1" A B);
    CHECK(NEXT(&lab) > 0 && HAS("payloads must be a proper list"));
    many(lab.peer, "nobody", THREE, sizeof THREE - 1, NULL, NULL);
    CHECK(NEXT(&lab) > 0 && HAS("unknown role nobody"));
    many(lab.peer, "echo", THREE, sizeof THREE - 1, "dedupe", "key");
    CHECK(NEXT(&lab) > 0 && HAS("submit_many: dedupe names one job"));
    many(lab.peer, "echo", THREE, sizeof THREE - 1, "color", "red");
    CHECK(NEXT(&lab) > 0 && HAS("submit_many: unknown option :color"));
    static uint8_t large[5 + 2 * 10001 + 1];
    memcpy(large, "\x6c\0\0\x27\x11", 5);
    for (int i = 0; i < 10001; i++) memcpy(large + 5 + 2 * i, "\x61\0", 2);
    large[sizeof large - 1] = 0x6a;
    struct lab_bytes head = {.size = 0};
    lab_monitor(lab.peer, 1, CALLER, CALLER);
    lab_call_head(&head, CALLER, CALLER);
    lab_verb_head(&head, 3, "submit_many", "echo");
    uint8_t length[7] = {0, 0, 0, 0, 131, 68, 0};
    rb_put_be32(length, (uint32_t)(head.size + sizeof large + 3));
    lab_write(lab.peer, length, sizeof length);
    lab_write(lab.peer, head.at, head.size);
    lab_write(lab.peer, large, sizeof large);
    CHECK(NEXT(&lab) > 0 && HAS("submit_many: at most 10000 payloads, got 10001"));
    CHECK_EQUAL(stats_of(&lab).accepted, 0);
    lab_close(&lab);
}

static void a_refused_element_says_so_in_its_place(void) {
    struct lab lab;
    lab_open(&lab);
    MANY(&lab, SIX);
    struct lab_worker *w = lab_worker(&lab);
    for (int i = 0; i < LAB_DEPTH; i++) lab_complete(w, "x", 1);
    CHECK(NEXT(&lab) > 0 && HAS("\x6c\0\0\0\6" OK("\x6d\0\0\0\1x")));
    CHECK(HAS(OK("\x6d\0\0\0\1x") "\x68\2\x77\5error\x68\2\x77\x0aoverloaded"));
    CHECK_EQUAL(stats_of(&lab).accepted, LAB_DEPTH);
    CHECK_EQUAL(stats_of(&lab).refused[RB_REASON_OVERLOADED], 2);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void only_what_was_refused_whole_is_an_error(void) {
    struct lab lab;
    lab_open(&lab);
    rb_relay_set_role_state(lab.relay, 0, RB_ROLE_DRAINING);
    MANY(&lab, THREE);
    CHECK(NEXT(&lab) > 0 && HAS("\x68\2\x77\5error\x77\x08"
                                "draining"));
    CHECK(!HAS("\x6c\0\0\0\3"));
    CHECK_EQUAL(stats_of(&lab).refused[RB_REASON_DRAINING], 3);
    SILENT(&lab);
    lab_close(&lab);
}

static void the_caller_s_end_is_the_end_of_all(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = warm_worker(&lab);
    MANY(&lab, THREE);
    CHECK(lab_request(w, 2) != NULL);
    uint64_t second = lab_request(w, 1)->job;
    lab_start(w, 2);
    echo(w, 0);
    wait_until_answered(&lab, RB_REASON_OK, 2);
    lab_monitor(lab.peer, 0, CALLER, CALLER);
    wait_until_answered(&lab, RB_REASON_CANCELLED, 2);
    CHECK_EQUAL(rb_load_acquire(&w->link.cancels[2]), second);
    echo(w, 1); /* too late for anybody */
    echo(w, 2);
    rb_ring_release(&w->link.request_ring, 3);
    SILENT(&lab);
    CHECK_EQUAL(stats_of(&lab).in_flight, 0);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void orphans_finish_where_that_was_asked_for(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = warm_worker(&lab);
    many(lab.peer, "echo", THREE, sizeof THREE - 1, "orphan", "finish");
    CHECK(lab_request(w, 2) != NULL);
    lab_complete(w, "x", 1);
    wait_until_answered(&lab, RB_REASON_OK, 2);
    close(lab.peer);
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    lab.peer = lab_connect(&lab);
    lab_complete(w, "x", 1);
    lab_complete(w, "x", 1);
    wait_until_answered(&lab, RB_REASON_OK, 4);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void one_element_may_be_cancelled_by_its_id(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = warm_worker(&lab);
    MANY(&lab, THREE);
    CHECK(lab_request(w, 2) != NULL);
    uint64_t id = lab_request(w, 1)->job;
    struct lab_bytes b = {.size = 0};
    lab_call_head(&b, 8, 8);
    PUT(&b, "\x68\x02");
    lab_put_atom(&b, "cancel");
    PUT(&b, "\x6e\x08\x00");
    for (int i = 0; i < 8; i++) lab_put(&b, &(uint8_t){(uint8_t)(id >> 8 * i)}, 1);
    lab_frame(lab.peer, &b);
    CHECK(NEXT(&lab) > 0 && HAS("\x77\2ok"));
    lab_start(w, 3);
    for (int i = 0; i < 3; i++) echo(w, i);
    rb_ring_release(&w->link.request_ring, 3);
    CHECK(NEXT(&lab) > 0 && HAS(OK(A) "\x68\2\x77\5error\x77\x09"
                                      "cancelled" OK(C) "\x6a"));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void each_element_has_its_deadline(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_bytes b = {.size = 0};
    lab_monitor(lab.peer, 1, CALLER, CALLER);
    lab_call_head(&b, CALLER, CALLER);
    lab_verb_head(&b, 4, "submit_many", "echo");
    PUT(&b, "\x6c\0\0\0\2" A B "\x6a\x74\0\0\0\1");
    lab_put_atom(&b, "timeout");
    PUT(&b, "\x61\x01");
    lab_frame(lab.peer, &b);
    CHECK(NEXT(&lab) > 0 && HAS("\x6c\0\0\0\2\x68\2\x77\5error\x77\x11"
                                "deadline_exceeded\x68\2\x77\5error\x77\x11"
                                "deadline_exceeded\x6a"));
    lab_close(&lab);
}

/* Answers that wait for the rest of their batch wait in the bridge's memory. */
static void answers_beyond_the_bound_are_replaced(void) {
    struct lab lab;
    struct rb_relay_config config = lab_config();
    struct rb_role_config role = lab_role_config();
    enum { ANSWER = 40000 };
    config.outgoing_bytes_max = 64 << 10;
    lab_open_relay(&lab, &config);
    if (rb_relay_add_role(lab.relay, 0, &role) < 0) abort();
    lab.peer = lab_connect(&lab);
    struct lab_worker *w = warm_worker(&lab);
    MANY(&lab, THREE);
    CHECK(lab_request(w, 2) != NULL);
    lab_start(w, 3);
    for (int i = 0; i < 3; i++) {
        struct rb_completion e = {.job = lab_request(w, i)->job,
                                  .payload_at = (uint64_t)i * (64 << 10),
                                  .payload_bytes = i == 2 ? 1000 : ANSWER};
        e.crc = rb_completion_crc(&e, w->link.results + e.payload_at, w->link.header.features);
        lab_publish(w, &e);
    }
    rb_ring_release(&w->link.request_ring, 3);
    CHECK(NEXT(&lab) > ANSWER + 1000 && size < 2 * ANSWER);
    CHECK(HAS("\x68\3\x77\x0ajob_failed\x62\0\0\xff\0\x6d"));
    CHECK(HAS("the answers of a batch may be 61440 bytes together"));
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_JOB_FAILED], 1);
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_OK], 3);
    lab_monitor(lab.peer, 0, CALLER, CALLER);
    /* And the account is even again: the next batch has as much room. */
    many(lab.peer, "echo", "\x6c\0\0\0\1" A "\x6a", 12, NULL, NULL);
    CHECK(lab_request(w, 0) != NULL);
    lab_start(w, 1);
    struct rb_completion e = {.job = lab_request(w, 0)->job, .payload_bytes = ANSWER};
    e.crc = rb_completion_crc(&e, w->link.results, w->link.header.features);
    rb_ring_release(&w->link.request_ring, 1);
    lab_publish(w, &e);
    CHECK(NEXT(&lab) > ANSWER);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

int main(void) {
    RUN(answers_come_in_the_order_of_the_payloads);
    RUN(a_list_counts_in_every_encoding);
    RUN(what_is_no_list_of_payloads_is_refused_as_a_whole);
    RUN(a_refused_element_says_so_in_its_place);
    RUN(only_what_was_refused_whole_is_an_error);
    RUN(the_caller_s_end_is_the_end_of_all);
    RUN(orphans_finish_where_that_was_asked_for);
    RUN(one_element_may_be_cancelled_by_its_id);
    RUN(each_element_has_its_deadline);
    RUN(answers_beyond_the_bound_are_replaced);
    return check_end();
}
