/* `stages:` of a submit: what one role answers is the next one's payload; the caller's life, deadline and answer are those of the whole. */
#define _GNU_SOURCE
#include "answers.h"

enum { CALLER = 7 };

/* {Verb, echo, Payload, #{stages => Stages}} and perhaps another option. */
static void submit(int fd, const char *verb, const void *payload, size_t bytes, const char *stages,
                   size_t stages_bytes, const char *option, uint8_t value) {
    struct lab_bytes b = {.size = 0}, rest = {.size = 0};
    lab_monitor(fd, 1, CALLER, CALLER);
    lab_call_head(&b, CALLER, CALLER);
    lab_verb_head(&b, 4, verb, "echo");
    lab_put(&rest, "\x74\0\0\0", 4);
    lab_put(&rest, option ? "\2" : "\1", 1);
    lab_put_atom(&rest, "stages");
    lab_put(&rest, stages, stages_bytes);
    if (option) {
        uint8_t number[2] = {RB_TAG_SMALL_INTEGER, value};
        lab_put_atom(&rest, option);
        lab_put(&rest, number, 2);
    }
    uint8_t length[7] = {0, 0, 0, 0, 131, 68, 0};
    rb_put_be32(length, (uint32_t)(b.size + bytes + rest.size + 3));
    lab_write(fd, length, sizeof length);
    lab_write(fd, b.at, b.size);
    lab_write(fd, payload, bytes);
    lab_write(fd, rest.at, rest.size);
}
#define ECHO "\x77\4echo"
#define ONE_MORE "\x6c\0\0\0\1" ECHO "\x6a"
#define TWO_MORE "\x6c\0\0\0\2" ECHO "\x68\2" ECHO "\x61\x09\x6a"
#define A "\x6d\0\0\0\1a"
#define SUBMIT(lab, payload, stages) \
    submit((lab)->peer, "submit", payload, sizeof(payload) - 1, stages, sizeof(stages) - 1, NULL, 0)
#define IS(r, text) ((r) && (r)->payload_bytes == 1 && (r)->body[0] == (text)[0])
#define STAGE(number) "\x68\2\x77\5error\x68\4\x77\5stage\x61" number ECHO

static void each_stage_is_given_what_the_last_one_said(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    for (int i = 0; i < 3; i++) {
        SUBMIT(&lab, A, TWO_MORE);
        const struct rb_request *r = lab_request(w, 0);
        CHECK(IS(r, "a") && r->opcode == 0);
        uint64_t deadline = r ? r->deadline_ns : 0;
        lab_complete(w, "b", 1);
        r = lab_request(w, 0);
        CHECK(IS(r, "b") && r->opcode == 0 && !(r->flags & RB_FLAG_TERM));
        /* Of what was left; in whole milliseconds, rounded up. */
        CHECK(r && r->deadline_ns >= deadline && r->deadline_ns < deadline + 2000000);
        lab_complete(w, "c", 1);
        r = lab_request(w, 0);
        CHECK(IS(r, "c") && r->opcode == 9);
        SILENT(&lab);
        lab_complete(w, "d", 1);
        CHECK(NEXT(&lab) > 0 && HAS("\x68\2\x77\2ok\x6d\0\0\0\1d"));
        lab_monitor(lab.peer, 0, CALLER, CALLER);
        CHECK_EQUAL(stats_of(&lab).accepted, i + 1);
    }
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_OK], 3);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void a_term_goes_on_as_a_term(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    SUBMIT(&lab, "\x61\5", ONE_MORE);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r && r->flags & RB_FLAG_TERM);
    struct rb_completion e = lab_completion(w, r ? r->job : 0, "\x68\1\x61\6", 4, RB_FLAG_TERM);
    lab_start(w, 1);
    rb_ring_release(&w->link.request_ring, 1);
    lab_publish(w, &e);
    r = lab_request(w, 0);
    CHECK(r && r->flags & RB_FLAG_TERM && r->payload_bytes == 4 &&
          memcmp(r->body, "\x68\1\x61\6", 4) == 0);
    lab_complete(w, "x", 1);
    CHECK(NEXT(&lab) > 0 && HAS("\x77\2ok\x6d\0\0\0\1x"));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void a_large_payload_goes_all_the_way(void) {
    enum { BYTES = 300000 };
    static uint8_t payload[5 + BYTES] = {0x6d, 0, BYTES >> 16, BYTES >> 8 & 255, BYTES & 255};
    memset(payload + 5, 'p', BYTES);
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    submit(lab.peer, "submit", payload, sizeof payload, ONE_MORE, sizeof ONE_MORE - 1, NULL, 0);
    for (int i = 0; i < 2; i++) {
        const struct rb_request *r = lab_request(w, 0);
        CHECK(r && r->payload_bytes == BYTES);
        if (!r) break;
        CHECK(memcmp(lab_payload(w, r), payload + 5, BYTES) == 0);
        memcpy(w->link.results, lab_payload(w, r), BYTES);
        struct rb_completion e = {.job = r->job, .payload_bytes = BYTES};
        e.crc = rb_completion_crc(&e, w->link.results, w->link.header.features);
        lab_start(w, 1);
        rb_ring_release(&w->link.request_ring, 1);
        lab_publish(w, &e);
    }
    CHECK(NEXT(&lab) > BYTES && has(payload, sizeof payload));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void what_fails_names_its_stage(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    SUBMIT(&lab, A, TWO_MORE);
    lab_complete(w, "b", 1);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(IS(r, "b"));
    struct rb_completion e = lab_completion(w, r ? r->job : 0, "no", 2, 0);
    e.status = RB_STATUS_FAILED;
    e.code = 3;
    e.crc = rb_completion_crc(&e, e.body, w->link.header.features);
    lab_start(w, 1);
    rb_ring_release(&w->link.request_ring, 1);
    lab_publish(w, &e);
    CHECK(NEXT(&lab) > 0 && HAS(STAGE("\2") "\x68\3\x77\x0ajob_failed\x61\3\x6d\0\0\0\2no"));
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_JOB_FAILED], 1);
    CHECK_EQUAL(stats_of(&lab).in_flight, 0);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void a_death_in_the_middle_names_its_stage(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    SUBMIT(&lab, A, ONE_MORE);
    lab_complete(w, "b", 1);
    CHECK(IS(lab_request(w, 0), "b"));
    lab_start(w, 1);
    lab_worker_end(&lab, w, NULL);
    CHECK(NEXT(&lab) > 0 && HAS(STAGE("\2") "\x68\2\x77\x0eworker_crashed"));
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_WORKER_CRASHED], 1);
    lab_close(&lab);
}

static void the_deadline_is_that_of_the_whole(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    submit(lab.peer, "submit", A, sizeof A - 1, ONE_MORE, sizeof ONE_MORE - 1, "timeout", 200);
    lab_complete(w, "b", 1);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(IS(r, "b"));
    uint64_t job = r ? r->job : 0;
    lab_start(w, 1);
    CHECK(NEXT(&lab) > 0 && HAS(STAGE("\2") "\x77\x11"
                                            "deadline_exceeded"));
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_DEADLINE_EXCEEDED], 1);
    struct rb_completion e = lab_completion(w, job, "c", 1, 0); /* too late for anybody */
    rb_ring_release(&w->link.request_ring, 1);
    lab_publish(w, &e);
    SILENT(&lab);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void the_caller_s_end_is_the_end_of_the_stage_under_way(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    SUBMIT(&lab, A, TWO_MORE);
    lab_complete(w, "b", 1);
    const struct rb_request *r = lab_request(w, 0);
    uint64_t job = r ? r->job : 0, position = w->link.request_ring.head;
    lab_start(w, 1);
    lab_monitor(lab.peer, 0, CALLER, CALLER);
    wait_until_answered(&lab, RB_REASON_CANCELLED, 1);
    CHECK_EQUAL(rb_load_acquire(&w->link.cancels[position & 15]), job);
    struct rb_completion e = lab_completion(w, job, "c", 1, 0);
    rb_ring_release(&w->link.request_ring, 1);
    lab_publish(w, &e);
    SILENT(&lab);
    CHECK(rb_ring_available(&w->link.request_ring) == 0);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void a_role_that_closes_before_its_turn_says_so(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    SUBMIT(&lab, A, ONE_MORE);
    CHECK(lab_request(w, 0) != NULL);
    rb_relay_set_role_state(lab.relay, 0, RB_ROLE_DRAINING);
    lab_complete(w, "b", 1);
    CHECK(NEXT(&lab) > 0 && HAS(STAGE("\2") "\x77\x08"
                                            "draining"));
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_DRAINING], 1);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void what_are_no_stages_is_refused(void) {
    struct lab lab;
    lab_open(&lab);
    SUBMIT(&lab, A, "\x6a");
    CHECK(NEXT(&lab) > 0 && HAS("stages must be a list of 1 to 16 roles"));
    SUBMIT(&lab, A, ECHO);
    CHECK(NEXT(&lab) > 0 && HAS("stages must be a list of 1 to 16 roles"));
    SUBMIT(&lab, A, "\x6c\0\0\0\1\x61\1\x6a");
    CHECK(NEXT(&lab) > 0 && HAS("stages must be a list of 1 to 16 roles"));
    SUBMIT(&lab, A, "\x6c\0\0\0\1" ECHO ECHO);
    CHECK(NEXT(&lab) > 0 && HAS("stages must be a list of 1 to 16 roles"));
    SUBMIT(&lab, A, "\x6c\0\0\0\2" ECHO "\x77\6nobody\x6a");
    CHECK(NEXT(&lab) > 0 && HAS("submit: unknown role nobody of stage 3"));
    submit(lab.peer, "submit", A, sizeof A - 1, ONE_MORE, sizeof ONE_MORE - 1, "dedupe", 1);
    CHECK(NEXT(&lab) > 0 && HAS("stages and dedupe do not go together"));
    submit(lab.peer, "submit_many", "\x6c\0\0\0\1" A "\x6a", 12, ONE_MORE, sizeof ONE_MORE - 1,
           NULL, 0);
    CHECK(NEXT(&lab) > 0 && HAS("stages are of submit and submit_async"));
    CHECK_EQUAL(stats_of(&lab).accepted, 0);
    lab_close(&lab);
}

static void an_asynchronous_caller_hears_of_the_whole(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    submit(lab.peer, "submit_async", A, sizeof A - 1, ONE_MORE, sizeof ONE_MORE - 1, NULL, 0);
    lab_complete(w, "b", 1);
    lab_complete(w, "c", 1);
    int told = 0;
    for (int i = 0; i < 3 && !told && NEXT(&lab) > 0; i++)
        told = HAS("ringbridge") && HAS("\x68\2\x77\2ok\x6d\0\0\0\1c");
    CHECK(told);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

int main(void) {
    RUN(each_stage_is_given_what_the_last_one_said);
    RUN(a_term_goes_on_as_a_term);
    RUN(a_large_payload_goes_all_the_way);
    RUN(what_fails_names_its_stage);
    RUN(a_death_in_the_middle_names_its_stage);
    RUN(the_deadline_is_that_of_the_whole);
    RUN(the_caller_s_end_is_the_end_of_the_stage_under_way);
    RUN(a_role_that_closes_before_its_turn_says_so);
    RUN(what_are_no_stages_is_refused);
    RUN(an_asynchronous_caller_hears_of_the_whole);
    return check_end();
}
