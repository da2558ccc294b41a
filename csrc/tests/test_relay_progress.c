/* Progress of asynchronous jobs: told while it is new and there is room, never piled up. */
#define _GNU_SOURCE
#include "relay_lab.h"

static const uint64_t MS = 1000000;
static uint8_t frame[1 << 20];

struct stage {
    struct lab lab;
    uint64_t now;
    struct rb_lab_worker *worker;
};

static void turn(struct stage *s) { rb_lab_round(s->lab.relay, s->now += MS); }
static void open_stage(struct stage *s) {
    struct rb_relay_config config = lab_config();
    struct rb_role_config role = lab_role_config();
    *s = (struct stage){.now = 1000 * MS};
    lab_open_still(&s->lab, &config, &role, s->now);
    if (rb_lab_hire(s->lab.relay, 0, 1, 16, &s->worker) < 0) abort();
    rb_lab_greet(s->worker, "echo");
    rb_lab_round(s->lab.relay, s->now);
}
static void close_stage(struct stage *s) {
    rb_lab_die(s->worker, 0, 0, 0);
    lab_close(&s->lab);
}
/* Submitted, {ok, Ref} taken; with the worker. */
static void begin(struct stage *s, const char *verb) {
    struct lab_bytes b = {.size = 0};
    lab_monitor(s->lab.peer, 1, 7, 7);
    lab_call_head(&b, 7, 7);
    lab_verb_head(&b, 3, verb, "echo");
    lab_put_binary(&b, "go", 2);
    lab_frame(s->lab.peer, &b);
    turn(s);
    while (lab_read(s->lab.peer, frame, sizeof frame, 0) > 0) {
    }
    CHECK_EQUAL(rb_lab_requests(s->worker), 1);
}
static int say(struct stage *s, uint32_t status, uint32_t flags, const void *bytes, uint32_t size) {
    struct rb_lab_request r;
    if (rb_lab_request(s->worker, 0, &r) < 0) return -ENOENT;
    rb_lab_start(s->worker, 1);
    struct rb_lab_answer a = {
        .job = r.job, .status = status, .flags = flags, .payload = bytes, .payload_bytes = size};
    return rb_lab_complete(s->worker, &a);
}
static int hears(struct stage *s, const void *wanted, size_t size) {
    int n = lab_read(s->lab.peer, frame, sizeof frame, 0);
    return n > 0 && memmem(frame, (size_t)n, wanted, size) != NULL;
}
#define HEARS(s, literal) hears((s), (literal), sizeof(literal) - 1)
static int silent(struct stage *s) { return lab_read(s->lab.peer, frame, sizeof frame, 0) == -1; }

static void reports_are_messages_of_the_handle_and_the_answer_is_the_last(void) {
    struct stage s;
    struct rb_lab_request r;
    open_stage(&s);
    begin(&s, "submit_async");
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    CHECK(r.flags & RB_FLAG_PROGRESS);
    CHECK_EQUAL(say(&s, RB_STATUS_PROGRESS, RB_FLAG_TERM, "\x61\x0a", 2), 0);
    turn(&s);
    CHECK(HEARS(&s, "\x68\2\x77\x08progress\x61\x0a"));
    CHECK_EQUAL(say(&s, RB_STATUS_PROGRESS, 0, "half", 4), 0);
    turn(&s);
    CHECK(HEARS(&s, "\x68\2\x77\x08progressm\0\0\0\4half"));
    CHECK_EQUAL(say(&s, RB_STATUS_OK, 0, "done", 4), 0);
    turn(&s);
    CHECK(HEARS(&s, "\x77\2okm\0\0\0\4done"));
    while (lab_read(s.lab.peer, frame, sizeof frame, 0) > 0) /* DEMONITOR */
        CHECK(!memmem(frame, 200, "progress", 8));
    close_stage(&s);
}

static void of_many_in_a_round_the_newest_is_told(void) {
    struct stage s;
    open_stage(&s);
    begin(&s, "submit_async");
    for (uint8_t i = 0; i < 9; i++) {
        uint8_t term[2] = {97, i};
        CHECK_EQUAL(say(&s, RB_STATUS_PROGRESS, RB_FLAG_TERM, term, 2), 0);
    }
    turn(&s);
    CHECK(HEARS(&s, "progress\x61\x08"));
    CHECK(silent(&s));
    close_stage(&s);
}

static void one_that_comes_with_the_answer_is_not_told(void) {
    struct stage s;
    open_stage(&s);
    begin(&s, "submit_async");
    CHECK_EQUAL(say(&s, RB_STATUS_PROGRESS, 0, "late", 4), 0);
    CHECK_EQUAL(say(&s, RB_STATUS_OK, 0, "done", 4), 0);
    turn(&s);
    CHECK(HEARS(&s, "done"));
    while (lab_read(s.lab.peer, frame, sizeof frame, 0) > 0)
        CHECK(!memmem(frame, 200, "progress", 8));
    close_stage(&s);
}

/* Reports wait behind what waits on the socket, and are one when it drains. */
static void a_slow_socket_holds_reports_back_and_keeps_the_newest(void) {
    static const uint8_t large[200000];
    struct stage s;
    open_stage(&s);
    for (int i = 0; i < 6; i++) { /* answers of 1.2 MB, which nobody reads */
        lab_submit(s.lab.peer, 9, "x", 1);
        turn(&s);
        CHECK_EQUAL(say(&s, RB_STATUS_OK, 0, large, sizeof large), 0);
        rb_lab_release(s.worker, 1);
        turn(&s);
        lab_monitor(s.lab.peer, 0, 9, 9);
        turn(&s);
    }
    struct lab_bytes b = {.size = 0};
    lab_monitor(s.lab.peer, 1, 8, 8);
    lab_call_head(&b, 8, 8);
    lab_verb_head(&b, 3, "submit_async", "echo");
    lab_put_binary(&b, "go", 2);
    lab_frame(s.lab.peer, &b);
    turn(&s);
    CHECK(rb_relay_backlog(s.lab.relay, 1) > 256 << 10);
    for (uint8_t i = 1; i <= 20; i++) {
        uint8_t term[2] = {97, i};
        CHECK_EQUAL(say(&s, RB_STATUS_PROGRESS, RB_FLAG_TERM, term, 2), 0);
        turn(&s);
    }
    /* What waited is read; then one report comes. */
    static uint8_t all[8 << 20];
    size_t size = 0;
    for (int i = 0; i < 2000; i++) {
        ssize_t n = recv(s.lab.peer, all + size, sizeof all - size, MSG_DONTWAIT);
        if (n > 0) size += (size_t)n;
        turn(&s);
    }
    int reports = 0;
    for (uint8_t *p = all; (p = memmem(p, size - (size_t)(p - all), "\x77\x08progress\x61", 11));
         p += 11, reports++)
        CHECK_EQUAL(p[11], 20);
    CHECK_EQUAL(reports, 1);
    close_stage(&s);
}

static void nobody_is_told_of_a_job_that_was_cancelled(void) {
    struct stage s;
    open_stage(&s);
    begin(&s, "submit_async");
    CHECK_EQUAL(say(&s, RB_STATUS_PROGRESS, 0, "gone", 4), 0);
    close(s.lab.peer);
    s.lab.peer = -1;
    turn(&s);
    CHECK_EQUAL(say(&s, RB_STATUS_PROGRESS, 0, "gone", 4), 0);
    turn(&s);
    close_stage(&s);
}

static void a_report_that_breaks_a_rule_fences(void) {
    static const uint8_t large[RB_PROGRESS_BYTES_MAX + 1];
    static const struct {
        const char *verb;
        uint32_t flags, size;
        const void *bytes;
        const char *rule;
    } cases[] = {
        {"submit", 0, 1, "x", "progress_not_asked"},
        {"submit_async", 0, sizeof large, large, "progress_too_large"},
        {"submit_async", RB_FLAG_TERM, 2, "\x68\x02", "term_cut_short"},
        {"submit_async", RB_FLAG_TERM, 0, "", "term_cut_short"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct stage s;
        open_stage(&s);
        begin(&s, cases[i].verb);
        CHECK_EQUAL(say(&s, RB_STATUS_PROGRESS, cases[i].flags, cases[i].bytes, cases[i].size), 0);
        turn(&s);
        CHECK(lab_event(&s.lab, RB_EVENT_WORKER_BROKE));
        CHECK(lab_event_says(&s.lab, cases[i].rule));
        CHECK(HEARS(&s, "worker_broke"));
        close_stage(&s);
    }
}

static void the_largest_report_goes(void) {
    static uint8_t most[RB_PROGRESS_BYTES_MAX];
    struct stage s;
    open_stage(&s);
    begin(&s, "submit_async");
    memset(most, 'm', sizeof most);
    CHECK_EQUAL(say(&s, RB_STATUS_PROGRESS, 0, most, sizeof most), 0);
    turn(&s);
    CHECK(hears(&s, most, sizeof most));
    close_stage(&s);
}

int main(void) {
    RUN(reports_are_messages_of_the_handle_and_the_answer_is_the_last);
    RUN(of_many_in_a_round_the_newest_is_told);
    RUN(one_that_comes_with_the_answer_is_not_told);
    RUN(a_slow_socket_holds_reports_back_and_keeps_the_newest);
    RUN(nobody_is_told_of_a_job_that_was_cancelled);
    RUN(a_report_that_breaks_a_rule_fences);
    RUN(the_largest_report_goes);
    return check_end();
}
