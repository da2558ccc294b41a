/* What is told of jobs besides their answers: status and lists with their notes, lost ones, counts by role and reason, and how cancelled
 * ones were stopped. */
#define _GNU_SOURCE
#include "answers.h"

#define META                             \
    "\x74\0\0\0\1\x77\4user\x6d\0\0\0\3" \
    "ann"

static struct rb_role_stats role_stats(struct lab *lab, uint32_t role) {
    struct rb_role_stats s;
    if (rb_relay_read_role(lab->relay, role, &s) < 0) abort();
    return s;
}

static void submit_with_meta(struct lab *lab, uint32_t caller, const char *role) {
    struct lab_bytes b = {.size = 0};
    lab_monitor(lab->peer, 1, caller, caller);
    lab_call_head(&b, caller, caller);
    lab_submit_head(&b, 4, role);
    lab_put_binary(&b, "work", 4);
    PUT(&b, "\x74\0\0\0\1");
    lab_put_atom(&b, "meta");
    PUT(&b, META);
    lab_frame(lab->peer, &b);
}

static void ask(struct lab *lab, const char *verb, const char *role, uint64_t job) {
    struct lab_bytes b = {.size = 0};
    lab_call_head(&b, 99, 99);
    PUT(&b, "\x68\x02");
    lab_put_atom(&b, verb);
    if (role) {
        lab_put_atom(&b, role);
    } else {
        PUT(&b, "\x6e\x08\x00");
        for (int i = 0; i < 8; i++) lab_put(&b, &(uint8_t){(uint8_t)(job >> 8 * i)}, 1);
    }
    lab_frame(lab->peer, &b);
}

static void lists_are_of_one_role_in_order_and_show_notes(void) {
    struct lab lab;
    struct rb_role_config other = lab_role_config();
    other.name = "other";
    lab_open(&lab);
    if (rb_relay_add_role(lab.relay, 1, &other) < 0) abort();
    struct lab_worker *w = lab_worker(&lab);
    submit_with_meta(&lab, 1, "echo");
    uint64_t first = lab_request(w, 0) ? lab_request(w, 0)->job : 0;
    lab_submit(lab.peer, 2, "work", 4);
    submit_with_meta(&lab, 3, "other");
    ask(&lab, "jobs", "echo", 0);
    CHECK(NEXT(&lab) > 0 && HAS("\x6c\0\0\0\2\x74\0\0\0\6") && HAS(META) && !HAS("other"));
    const uint8_t *placed = memmem(frame, (size_t)size, "placed", 6);
    const uint8_t *queued = memmem(frame, (size_t)size, "queued", 6);
    CHECK(placed && queued && placed < queued);
    ask(&lab, "jobs", "other", 0);
    CHECK(NEXT(&lab) > 0 && HAS("\x6c\0\0\0\1\x74\0\0\0\6") && HAS(META));
    ask(&lab, "jobs", "nobody", 0);
    CHECK(NEXT(&lab) > 0 && HAS("\x6c\0\0\0\0\x6a"));
    ask(&lab, "jobs", "all", 0);
    CHECK(NEXT(&lab) > 0 && HAS("\x6c\0\0\0\3"));
    ask(&lab, "status", NULL, first);
    CHECK(NEXT(&lab) > 0 && HAS("\x74\0\0\0\6") && HAS("\x77\4meta" META));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void a_lost_job_is_told_with_its_note(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    submit_with_meta(&lab, 1, "echo");
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r != NULL);
    uint64_t job = r ? r->job : 0;
    lab_start(w, 1);
    struct rb_obituary o = {.magic = RB_OBITUARY_MAGIC, .status = -1, .signal = 9};
    lab_worker_end(&lab, w, &o);
    CHECK(lab_event(&lab, RB_EVENT_JOB_LOST));
    CHECK(lab.event.a == (int64_t)job && lab.event.b == RB_REASON_WORKER_CRASHED);
    CHECK(lab.event.size == sizeof META - 1 && memcmp(lab.event.data, META, sizeof META - 1) == 0);
    CHECK(NEXT(&lab) > 0 && HAS("worker_crashed"));
    lab_close(&lab);
}

static void a_role_counts_by_reason(void) {
    struct lab lab;
    struct rb_role_config other = lab_role_config();
    other.name = "other";
    lab_open(&lab);
    if (rb_relay_add_role(lab.relay, 1, &other) < 0) abort();
    struct lab_worker *w = lab_worker(&lab);
    lab_submit(lab.peer, 1, "x", 1);
    lab_complete(w, "x", 1);
    CHECK(NEXT(&lab) > 0);
    for (uint32_t caller = 2; caller < 2 + LAB_DEPTH + 1; caller++)
        submit_with_meta(&lab, caller, "other");
    CHECK(NEXT(&lab) > 0 && HAS("overloaded"));
    struct rb_role_stats echo = role_stats(&lab, 0), others = role_stats(&lab, 1);
    CHECK(echo.accepted == 1 && echo.answered[RB_REASON_OK] == 1);
    CHECK(others.accepted == LAB_DEPTH && others.refused[RB_REASON_OVERLOADED] == 1);
    CHECK(others.answered[RB_REASON_OK] == 0 && echo.refused[RB_REASON_OVERLOADED] == 0);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void stopped_jobs_are_counted_by_stage(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    lab_submit(lab.peer, 1, "runs", 4);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r != NULL);
    uint64_t job = r ? r->job : 0;
    lab_submit(lab.peer, 2, "waits", 5);
    lab_start(w, 1);
    lab_monitor(lab.peer, 0, 2, 2);
    lab_monitor(lab.peer, 0, 1, 1);
    ask(&lab, "status", NULL, 1);
    CHECK(NEXT(&lab) > 0 && HAS("unknown_job"));
    struct rb_role_stats s = role_stats(&lab, 0);
    CHECK(s.stopped_waiting == 1 && s.stopped_placed == 1 && s.told_word == 1);
    CHECK(s.told_term == 0 && s.told_kill == 0 && s.noticed == 0);
    struct rb_completion e = lab_completion(w, job, "", 0, 0);
    e.status = RB_STATUS_CANCELLED;
    e.crc = rb_completion_crc(&e, e.body, w->link.header.features);
    rb_ring_release(&w->link.request_ring, 1);
    lab_publish(w, &e);
    struct timespec t = {.tv_nsec = 1000000};
    for (int ms = 0; ms < LAB_WAIT_MS && role_stats(&lab, 0).noticed == 0; ms++)
        nanosleep(&t, NULL);
    s = role_stats(&lab, 0);
    CHECK(s.noticed == 1 && s.noticed_ns > 0);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

int main(void) {
    RUN(lists_are_of_one_role_in_order_and_show_notes);
    RUN(a_lost_job_is_told_with_its_note);
    RUN(a_role_counts_by_reason);
    RUN(stopped_jobs_are_counted_by_stage);
    return check_end();
}
