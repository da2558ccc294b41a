/* dedupe: callers with one key share a run and its answer; how long it is kept, and for whom it counts. */
#define _GNU_SOURCE
#include "answers.h"

static void accepted(struct lab *lab, uint64_t count) {
    struct timespec t = {.tv_nsec = 1000000};
    for (int ms = 0; ms < LAB_WAIT_MS && stats_of(lab).accepted < count; ms++) nanosleep(&t, NULL);
    CHECK_EQUAL(stats_of(lab).accepted, count);
}

struct ask {
    uint32_t caller;
    const char *verb, *role;           /* submit, echo */
    const char *key;                   /* "key" */
    const char *payload;               /* "work" */
    size_t zeros;                      /* payload of so many of them instead */
    const char *tenant, *word, *value; /* more options */
    uint32_t ttl, timeout, opcode;
};

static void put_option(struct lab_bytes *b, uint32_t *count, const char *name, uint32_t number) {
    if (!number) return;
    lab_put_atom(b, name);
    PUT(b, "\x62");
    lab_put_u32(b, number);
    ++*count;
}
static void put_word(struct lab_bytes *b, uint32_t *count, const char *name, const char *value) {
    if (!value) return;
    lab_put_atom(b, name);
    lab_put_atom(b, value);
    ++*count;
}

static void ask(struct lab *lab, struct ask a) {
    struct lab_bytes head = {.size = 0}, options = {.size = 0}, map = {.size = 0};
    static const uint8_t zeros[300000];
    const uint8_t *payload = a.zeros ? zeros : (const uint8_t *)(a.payload ? a.payload : "work");
    size_t bytes = a.zeros ? a.zeros : strlen((const char *)payload);
    uint32_t count = 0;
    lab_monitor(lab->peer, 1, a.caller, a.caller);
    lab_call_head(&head, a.caller, a.caller);
    lab_verb_head(&head, 4, a.verb ? a.verb : "submit", a.role ? a.role : "echo");
    PUT(&head, "\x6d");
    lab_put_u32(&head, (uint32_t)bytes);
    put_word(&options, &count, "dedupe", a.key ? a.key : "key");
    put_word(&options, &count, "tenant", a.tenant);
    put_word(&options, &count, a.word, a.value);
    put_option(&options, &count, "ttl", a.ttl);
    put_option(&options, &count, "timeout", a.timeout);
    put_option(&options, &count, "opcode", a.opcode);
    PUT(&map, "\x74");
    lab_put_u32(&map, count);
    uint8_t length[7] = {0, 0, 0, 0, 131, 68, 0};
    rb_put_be32(length, (uint32_t)(head.size + bytes + map.size + options.size + 3));
    lab_write(lab->peer, length, sizeof length);
    lab_write(lab->peer, head.at, head.size);
    lab_write(lab->peer, payload, bytes);
    lab_write(lab->peer, map.at, map.size);
    lab_write(lab->peer, options.at, options.size);
}
#define ASK(lab, ...) ask(lab, (struct ask){__VA_ARGS__})
static void give_up(struct lab *lab, uint32_t caller) { lab_monitor(lab->peer, 0, caller, caller); }

/* The next frame answers this caller. */
static int is_for(uint32_t caller) {
    struct lab_bytes ref = {.size = 0};
    lab_put_ref(&ref, caller);
    return has(ref.at, ref.size);
}

static int requests_waiting(struct lab_worker *w) {
    return (int)rb_ring_available(&w->link.request_ring);
}

static void callers_of_one_key_share_one_run(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    for (uint32_t caller = 1; caller <= 10; caller++)
        ASK(&lab, .caller = caller); /* past LAB_DEPTH */
    accepted(&lab, 10);
    lab_complete(w, "once", 4);
    uint32_t seen = 0;
    for (int i = 0; i < 10; i++) {
        CHECK(NEXT(&lab) > 0 && HAS("\x68\2\x77\2ok\x6d\0\0\0\4once"));
        for (uint32_t caller = 1; caller <= 10; caller++) seen |= is_for(caller) ? 1u << caller : 0;
    }
    CHECK_EQUAL(seen, 0x7fe);
    CHECK_EQUAL(requests_waiting(w), 0);
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_OK], 10);
    /* Nothing was to be kept: the next one runs. */
    ASK(&lab, .caller = 11);
    CHECK(lab_request(w, 0) != NULL);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void the_run_goes_on_until_its_last_caller_leaves(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    ASK(&lab, .caller = 1);
    ASK(&lab, .caller = 2);
    CHECK(lab_request(w, 0) != NULL);
    lab_start(w, 1);
    give_up(&lab, 1);
    wait_until_answered(&lab, RB_REASON_CANCELLED, 1);
    CHECK_EQUAL(rb_load_acquire(&w->link.cancels[0]), 0);
    lab_complete(w, "second", 6);
    CHECK(NEXT(&lab) > 0 && is_for(2) && HAS("second"));
    give_up(&lab, 2);

    ASK(&lab, .caller = 3);
    ASK(&lab, .caller = 4);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r != NULL);
    uint64_t run = r ? r->job : 0;
    lab_start(w, 1);
    give_up(&lab, 4);
    give_up(&lab, 3);
    wait_until_answered(&lab, RB_REASON_CANCELLED, 3);
    CHECK_EQUAL(rb_load_acquire(&w->link.cancels[1]), run);
    /* Whoever comes now comes too late for that one. */
    ASK(&lab, .caller = 5);
    accepted(&lab, 5);
    lab_complete(w, "nobody", 6);
    lab_complete(w, "anew", 4);
    CHECK(NEXT(&lab) > 0 && is_for(5) && HAS("anew"));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void an_answer_is_kept_also_when_the_connection_was_lost(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    ASK(&lab, .caller = 1, .ttl = 60000);
    lab_complete(w, "kept", 4);
    CHECK(NEXT(&lab) > 0 && HAS("kept"));
    close(lab.peer);
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    lab.peer = lab_connect(&lab);
    ASK(&lab, .caller = 2);
    CHECK(NEXT(&lab) > 0 && is_for(2) && HAS("\x68\2\x77\2ok\x6d\0\0\0\4kept"));
    ASK(&lab, .caller = 3, .word = "detail", .value = "true");
    CHECK(NEXT(&lab) > 0 && HAS("\x68\3\x77\2ok\x6d\0\0\0\4kept\x74\0\0\0\4"));
    /* As a message, where it is asked for asynchronously. */
    ASK(&lab, .caller = 4, .verb = "submit_async");
    CHECK(NEXT(&lab) > 0 && memcmp(frame, "\x68\4\x61\x13", 4) == 0);
    CHECK(NEXT(&lab) > 0 && HAS("\x68\2\x77\2ok\x5a"));
    CHECK(NEXT(&lab) > 0 && HAS("\x77\x0aringbridge\x5a") && HAS("kept"));
    CHECK_EQUAL(requests_waiting(w), 0);
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_OK], 4);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void an_orphan_s_answer_waits_for_who_asks_again(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    ASK(&lab, .caller = 1, .ttl = 60000, .word = "orphan", .value = "finish");
    CHECK(lab_request(w, 0) != NULL);
    close(lab.peer);
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    lab.peer = lab_connect(&lab);
    ASK(&lab, .caller = 2); /* joins what runs on */
    accepted(&lab, 2);
    lab_complete(w, "found", 5);
    CHECK(NEXT(&lab) > 0 && is_for(2) && HAS("found"));
    ASK(&lab, .caller = 3);
    CHECK(NEXT(&lab) > 0 && is_for(3) && HAS("found"));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void an_answer_is_kept_for_its_time_only(void) {
    struct lab lab;
    struct timespec t = {.tv_nsec = 5000000};
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    ASK(&lab, .caller = 1, .ttl = 1);
    lab_complete(w, "old", 3);
    CHECK(NEXT(&lab) > 0 && HAS("old"));
    nanosleep(&t, NULL);
    ASK(&lab, .caller = 2);
    CHECK(lab_request(w, 0) != NULL);
    lab_complete(w, "new", 3);
    CHECK(NEXT(&lab) > 0 && HAS("new"));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void only_what_the_handler_said_is_kept(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    ASK(&lab, .caller = 1, .ttl = 60000);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r != NULL);
    struct rb_completion e = lab_completion(w, r->job, "bad", 3, 0);
    e.status = RB_STATUS_FAILED;
    e.code = 7;
    e.crc = rb_completion_crc(&e, e.body, w->link.header.features);
    lab_start(w, 1);
    rb_ring_release(&w->link.request_ring, 1);
    lab_publish(w, &e);
    CHECK(NEXT(&lab) > 0 && HAS("job_failed"));
    ASK(&lab, .caller = 2);
    CHECK(NEXT(&lab) > 0 && is_for(2) && HAS("job_failed\x61\x07"));
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_JOB_FAILED], 2);

    ASK(&lab, .caller = 3, .key = "crash", .ttl = 60000);
    CHECK(lab_request(w, 0) != NULL);
    lab_start(w, 1);
    struct rb_obituary o = {.magic = RB_OBITUARY_MAGIC, .status = -1, .signal = 9};
    lab_worker_end(&lab, w, &o);
    CHECK(NEXT(&lab) > 0 && HAS("worker_crashed"));
    w = lab_worker(&lab);
    ASK(&lab, .caller = 4, .key = "crash");
    CHECK(lab_request(w, 0) != NULL);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void a_key_is_for_one_piece_of_work(void) {
    struct lab lab;
    struct rb_role_config other = lab_role_config();
    other.name = "other";
    lab_open(&lab);
    if (rb_relay_add_role(lab.relay, 1, &other) < 0) abort();
    ASK(&lab, .caller = 1);
    ASK(&lab, .caller = 2, .payload = "else");
    CHECK(NEXT(&lab) > 0 && is_for(2) && HAS("this dedupe key stands for another payload"));
    ASK(&lab, .caller = 3, .opcode = 9);
    CHECK(NEXT(&lab) > 0 && is_for(3) && HAS("this dedupe key stands for another payload"));
    ASK(&lab, .caller = 4, .zeros = 300000);
    CHECK(NEXT(&lab) > 0 && is_for(4) && HAS("this dedupe key stands for another payload"));
    /* Another role's, another tenant's and another key are others. */
    ASK(&lab, .caller = 5, .role = "other", .payload = "else");
    ASK(&lab, .caller = 6, .tenant = "acme", .payload = "else");
    ASK(&lab, .caller = 7, .key = "other", .payload = "else");
    accepted(&lab, 4);
    SILENT(&lab);
    lab_close(&lab);
}

static void each_caller_has_its_own_deadline(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    ASK(&lab, .caller = 1);
    ASK(&lab, .caller = 2, .timeout = 1);
    CHECK(NEXT(&lab) > 0 && is_for(2) && HAS("deadline_exceeded"));
    lab_complete(w, "patient", 7);
    CHECK(NEXT(&lab) > 0 && is_for(1) && HAS("patient"));
    /* The run's own is that of the first. */
    ASK(&lab, .caller = 3, .timeout = 500);
    ASK(&lab, .caller = 4);
    for (int i = 0; i < 2; i++) CHECK(NEXT(&lab) > 0 && HAS("deadline_exceeded"));
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_DEADLINE_EXCEEDED], 3);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void large_payloads_are_shared_too(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    ASK(&lab, .caller = 1, .zeros = 300000, .ttl = 60000);
    ASK(&lab, .caller = 2, .zeros = 300000, .verb = "submit_async");
    CHECK(NEXT(&lab) > 0 && memcmp(frame, "\x68\4\x61\x13", 4) == 0);
    CHECK(NEXT(&lab) > 0 && HAS("\x68\2\x77\2ok\x5a"));
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r && r->payload_bytes == 300000);
    lab_complete(w, "large", 5);
    for (int i = 0; i < 2; i++) {
        CHECK(NEXT(&lab) > 0 && HAS("large"));
        if (HAS("ringbridge\x5a")) CHECK(NEXT(&lab) > 0); /* the end of its watch */
    }
    ASK(&lab, .caller = 3, .zeros = 300000);
    CHECK(NEXT(&lab) > 0 && is_for(3) && HAS("large"));
    CHECK_EQUAL(requests_waiting(w), 0);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab); /* and its books say that no block of the pool is taken */
}

/* An answer of so many bytes, from the region. */
static void complete_large(struct lab_worker *w, uint32_t bytes) {
    const struct rb_request *r = lab_request(w, 0);
    if (!r) return;
    struct rb_completion e = {.job = r->job, .payload_bytes = bytes};
    e.crc = rb_completion_crc(&e, w->link.results, w->link.header.features);
    lab_start(w, 1);
    rb_ring_release(&w->link.request_ring, 1);
    lab_publish(w, &e);
}

static void kept_answers_are_bounded_in_bytes(void) {
    struct lab lab;
    lab_open(&lab); /* 64 KiB of them */
    struct lab_worker *w = lab_worker(&lab);
    static const struct {
        const char *key;
        uint32_t bytes;
    } all[] = {{"a", 40000}, {"b", 40000}, {"c", 70000}};
    for (uint32_t i = 0; i < 3; i++) {
        ASK(&lab, .caller = i + 1, .key = all[i].key, .ttl = 60000);
        complete_large(w, all[i].bytes);
        CHECK(NEXT(&lab) > (int)all[i].bytes);
    }
    ASK(&lab, .caller = 4, .key = "b");
    CHECK(NEXT(&lab) > 40000 && is_for(4)); /* kept: `a` made room, `c` found none */
    CHECK_EQUAL(requests_waiting(w), 0);
    ASK(&lab, .caller = 5, .key = "a");
    CHECK(lab_request(w, 0) != NULL);
    complete_large(w, 1);
    CHECK(NEXT(&lab) > 0 && is_for(5));
    ASK(&lab, .caller = 6, .key = "c");
    CHECK(lab_request(w, 0) != NULL);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

/* The pool has room for thirteen of them. */
static void who_joins_keeps_no_payload(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    for (uint32_t caller = 1; caller <= 20; caller++) ASK(&lab, .caller = caller, .zeros = 300000);
    accepted(&lab, 20);
    lab_complete(w, "one", 3);
    for (int i = 0; i < 20; i++) CHECK(NEXT(&lab) > 0 && HAS("one"));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

/* 12 MB of answers on a connection on which 8 may wait: they leave as it is read. */
static void callers_of_a_large_answer_are_told_as_their_socket_takes_it(void) {
    enum { CALLERS = 40, BYTES = 300000 };
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    for (uint32_t caller = 1; caller <= CALLERS; caller++)
        ASK(&lab, .caller = caller, .ttl = caller == 2 ? 60000 : 0);
    accepted(&lab, CALLERS);
    complete_large(w, BYTES);
    uint64_t seen = 0;
    for (int i = 0; i < CALLERS - 2; i++) {
        CHECK(NEXT(&lab) > BYTES);
        for (uint32_t caller = 1; caller <= CALLERS; caller++)
            if (is_for(caller)) seen |= 1ull << caller;
        if (i > 0) continue;
        /* Two of those that wait for the socket leave; the answer was too large to be kept. */
        CHECK_EQUAL(stats_of(&lab).in_flight > 2, 1);
        uint32_t gone = 0;
        for (uint32_t caller = CALLERS; gone < 2; caller--) {
            if (seen >> caller & 1) continue;
            give_up(&lab, caller);
            seen |= 1ull << caller;
            gone++;
        }
        wait_until_answered(&lab, RB_REASON_CANCELLED, 2);
    }
    CHECK_EQUAL(seen, (1ull << (CALLERS + 1)) - 2);
    wait_until_answered(&lab, RB_REASON_OK, CALLERS - 2);
    ASK(&lab, .caller = CALLERS + 1);
    CHECK(lab_request(w, 0) != NULL);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void a_node_may_go_while_its_callers_wait_to_be_told(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    for (uint32_t caller = 1; caller <= 20; caller++)
        ASK(&lab, .caller = caller, .word = "orphan", .value = caller % 2 ? "finish" : "cancel");
    accepted(&lab, 20);
    complete_large(w, 300000);
    CHECK(NEXT(&lab) > 300000);
    close(lab.peer);
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    lab.peer = lab_connect(&lab);
    CHECK_EQUAL(stats_of(&lab).in_flight, 0);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

int main(void) {
    RUN(callers_of_one_key_share_one_run);
    RUN(the_run_goes_on_until_its_last_caller_leaves);
    RUN(an_answer_is_kept_also_when_the_connection_was_lost);
    RUN(an_orphan_s_answer_waits_for_who_asks_again);
    RUN(an_answer_is_kept_for_its_time_only);
    RUN(only_what_the_handler_said_is_kept);
    RUN(a_key_is_for_one_piece_of_work);
    RUN(each_caller_has_its_own_deadline);
    RUN(large_payloads_are_shared_too);
    RUN(kept_answers_are_bounded_in_bytes);
    RUN(who_joins_keeps_no_payload);
    RUN(callers_of_a_large_answer_are_told_as_their_socket_takes_it);
    RUN(a_node_may_go_while_its_callers_wait_to_be_told);
    return check_end();
}
