/* A worker with one job in hand breaks a rule, and the running relay fences it. All rules are in a table in test_relay_liars.c, told to
 * a relay that is turned by hand; these few meet its thread. */
#define _GNU_SOURCE
#include "accounts.h"

/* A worker with one job in hand tells `lie`; the caller is answered, the worker fenced, a new one
 * goes on. */
static void lie(const char *rule, void (*tell)(struct lab_worker *w, const struct rb_request *r)) {
    WITH_WORKER(lab, w);
    lab_submit(lab.peer, 1, "x", 1);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r != NULL);
    lab_start(w, 1);
    tell(w, r);
    CHECK(lab_event(&lab, RB_EVENT_WORKER_BROKE));
    if (!lab_event_says(&lab, rule))
        printf("rule: %.*s\n", (int)lab.event.size, (const char *)lab.event.data);
    CHECK(lab_event_says(&lab, rule));
    CHECK(lab_answer_has(lab.peer, rule, strlen(rule)));
    lab_worker_end(&lab, w, NULL);
    CHECK(lab_event(&lab, RB_EVENT_WORKER_ENDED));
    w = lab_worker(&lab);
    lab_submit(lab.peer, 2, "x", 1);
    lab_complete(w, "honest", 6);
    CHECK(ANSWER_HAS(lab.peer, "honest"));
    CLOSE(lab, w);
}

static void tell_another_job(struct lab_worker *w, const struct rb_request *r) {
    struct rb_completion e = lab_completion(w, r->job + 1, "y", 1, 0);
    lab_publish(w, &e);
}
static void tell_a_wrong_crc(struct lab_worker *w, const struct rb_request *r) {
    struct rb_completion e = lab_completion(w, r->job, "y", 1, 0);
    e.body[0] = 'z';
    lab_publish(w, &e);
}
static void tell_a_far_offset(struct lab_worker *w, const struct rb_request *r) {
    struct rb_completion e = lab_completion(w, r->job, "y", 1, 0);
    e.flags = 0;
    e.payload_at = 1 << 20;
    lab_publish(w, &e);
}
static void tell_a_long_length(struct lab_worker *w, const struct rb_request *r) {
    struct rb_completion e = lab_completion(w, r->job, "y", 1, 0);
    e.flags = 0;
    e.payload_at = 4096;
    e.payload_bytes = UINT32_MAX;
    lab_publish(w, &e);
}
static void tell_a_long_inline(struct lab_worker *w, const struct rb_request *r) {
    struct rb_completion e = lab_completion(w, r->job, "y", 1, 0);
    e.payload_bytes = RB_INLINE_BYTES_MAX + 1;
    lab_publish(w, &e);
}
static void tell_an_unknown_status(struct lab_worker *w, const struct rb_request *r) {
    struct rb_completion e = lab_completion(w, r->job, "y", 1, 0);
    e.status = 99;
    lab_publish(w, &e);
}
static void tell_a_backward_tail(struct lab_worker *w, const struct rb_request *r) {
    (void)r;
    rb_store_seq_cst(&w->link.ours->completion_tail, UINT64_MAX);
    rb_gate_ring(&w->link.waker);
}
static void tell_an_ill_formed_term(struct lab_worker *w, const struct rb_request *r) {
    struct rb_completion e = lab_completion(w, r->job, "\x68\x02\x61\x01", 4, RB_FLAG_TERM);
    lab_publish(w, &e);
}
static void tell_a_pid_out_of_thin_air(struct lab_worker *w, const struct rb_request *r) {
    struct rb_completion e = lab_completion(w, r->job,
                                            "\x58\x77\x01"
                                            "a\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01",
                                            16, RB_FLAG_TERM);
    lab_publish(w, &e);
}

static void a_completion_of_another_job_ends_the_worker(void) {
    lie("completion_of_no_job_here", tell_another_job);
}
static void a_torn_completion_ends_the_worker(void) { lie("completion_crc", tell_a_wrong_crc); }
static void an_offset_outside_the_region_ends_the_worker(void) {
    lie("completion_payload_out_of_range", tell_a_far_offset);
}
static void a_length_outside_the_region_ends_the_worker(void) {
    lie("completion_payload_out_of_range", tell_a_long_length);
}
static void an_inline_payload_too_long_ends_the_worker(void) {
    lie("completion_payload_out_of_range", tell_a_long_inline);
}
static void an_unknown_status_ends_the_worker(void) {
    lie("completion_status", tell_an_unknown_status);
}
static void a_tail_that_runs_backwards_ends_the_worker(void) {
    lie("completion_tail_out_of_range", tell_a_backward_tail);
}
static void an_ill_formed_term_ends_the_worker(void) {
    lie("term_cut_short", tell_an_ill_formed_term);
}
static void an_invented_pid_ends_the_worker(void) {
    lie("term_identity", tell_a_pid_out_of_thin_air);
}

static void the_same_completion_twice_ends_the_worker_and_answers_once(void) {
    WITH_WORKER(lab, w);
    lab_submit(lab.peer, 1, "x", 1);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r != NULL);
    lab_start(w, 1);
    struct rb_completion e = lab_completion(w, r ? r->job : 0, "once", 4, 0);
    lab_publish(w, &e);
    lab_publish(w, &e);
    CHECK(ANSWER_HAS(lab.peer, "once"));
    /* A worker without jobs is not looked at, so the lie may show only now; the next job survives
     * it. */
    lab_submit(lab.peer, 2, "next", 4);
    CHECK(lab_event(&lab, RB_EVENT_WORKER_BROKE));
    lab_worker_end(&lab, w, NULL);
    w = lab_worker(&lab);
    lab_complete(w, "elsewhere", 9);
    CHECK(ANSWER_HAS(lab.peer, "elsewhere"));
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_OK], 2);
    CLOSE(lab, w);
}

int main(void) {
    RUN(a_completion_of_another_job_ends_the_worker);
    RUN(a_torn_completion_ends_the_worker);
    RUN(an_offset_outside_the_region_ends_the_worker);
    RUN(a_length_outside_the_region_ends_the_worker);
    RUN(an_inline_payload_too_long_ends_the_worker);
    RUN(an_unknown_status_ends_the_worker);
    RUN(a_tail_that_runs_backwards_ends_the_worker);
    RUN(an_ill_formed_term_ends_the_worker);
    RUN(an_invented_pid_ends_the_worker);
    RUN(the_same_completion_twice_ends_the_worker_and_answers_once);
    return check_end();
}
