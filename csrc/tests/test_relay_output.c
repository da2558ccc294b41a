/* What a worker writes to its stdout and stderr: which job the relay names with it. A relay without a thread: time is told.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>

#include "still_lab.h"

struct talker {
    struct still s;
    struct lab_worker *w;
    int says; /* the write end of its stderr */
};

static void open_talker(struct talker *t) {
    struct rb_role_config role = lab_role_config();
    int fds[5], obituary[2], errors[2];
    char why[256];
    still_open(&t->s, &role, 0);
    struct lab_worker *w = t->w = calloc(1, sizeof *w);
    if (!w) abort();
    w->id = 1;
    if (rb_relay_create_link(t->s.lab.relay, 0, w->id, 16, 1 << 20, 4096, 0, fds) < 0) abort();
    w->fds = (struct rb_link_fds){dup(fds[0]), dup(fds[1]), dup(fds[2]), dup(fds[3]), dup(fds[4])};
    if (rb_link_attach(&w->link, &w->fds, why, sizeof why) < 0) abort();
    rb_link_greet(&w->link, "lab", 1 << 16, "echo");
    if (pipe2(obituary, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0) abort();
    w->obituary = obituary[1];
    t->says = errors[1];
    if (rb_relay_add_worker(t->s.lab.relay, w->id, -1, obituary[0], -1, errors[0]) < 0) abort();
    still_round(&t->s, 0);
}

static void close_talker(struct talker *t) {
    close(t->says);
    lab_worker_end(&t->s.lab, t->w, NULL);
    lab_close(&t->s.lab);
}

/* The job named with what it writes now; -1: nothing was told. */
static int64_t job_of(struct talker *t, const char *words) {
    struct rb_event e;
    int64_t job = -1;
    if (write(t->says, words, strlen(words)) < 0) abort();
    still_round(&t->s, 0);
    while (rb_relay_take(t->s.lab.relay, &e)) {
        if (e.kind == RB_EVENT_WORKER_OUTPUT) {
            CHECK_EQUAL(e.a, 2);
            CHECK(e.size == strlen(words) && memcmp(e.data, words, e.size) == 0);
            job = e.b;
        }
    }
    return job;
}

static uint64_t give_job(struct talker *t, int64_t i) {
    lab_submit(t->s.lab.peer, ++t->s.callers, "x", 1);
    still_round(&t->s, 0);
    const struct rb_request *r = lab_request(t->w, i);
    return r ? r->job : 0;
}

static void end_job(struct talker *t) {
    lab_complete(t->w, "y", 1);
    still_round(&t->s, 0);
}

static void a_line_of_a_job_under_way_names_it(void) {
    struct talker t;
    open_talker(&t);
    CHECK_EQUAL(job_of(&t, "idle\n"), 0);
    uint64_t job = give_job(&t, 0);
    CHECK_EQUAL(job_of(&t, "before it begins\n"), 0);
    lab_start(t.w, 1);
    CHECK(job != 0);
    CHECK_EQUAL(job_of(&t, "in it\n"), (int64_t)job);
    still_round(&t.s, 5000);
    CHECK_EQUAL(job_of(&t, "long after\n"), (int64_t)job);
    close_talker(&t);
}

static void a_line_that_is_read_with_the_answer_names_the_job_that_ended(void) {
    struct talker t;
    open_talker(&t);
    uint64_t job = give_job(&t, 0);
    lab_start(t.w, 1);
    end_job(&t);
    CHECK_EQUAL(job_of(&t, "its last words\n"), (int64_t)job);
    still_round(&t.s, 19);
    CHECK_EQUAL(job_of(&t, "still\n"), (int64_t)job);
    still_round(&t.s, 1);
    CHECK_EQUAL(job_of(&t, "of a thread of its own\n"), 0);
    close_talker(&t);
}

static void of_several_jobs_it_is_the_one_that_began_last(void) {
    struct talker t;
    open_talker(&t);
    give_job(&t, 0);
    lab_start(t.w, 1);
    end_job(&t); /* a short one, so that two more are let in */
    uint64_t first = give_job(&t, 0), second = give_job(&t, 1);
    CHECK(first && second && first != second);
    lab_start(t.w, 1);
    CHECK_EQUAL(job_of(&t, "of the first\n"), (int64_t)first);
    lab_start(t.w, 2);
    CHECK_EQUAL(job_of(&t, "of the second\n"), (int64_t)second);
    close_talker(&t);
}

static void a_position_of_nonsense_names_no_job_of_another(void) {
    struct talker t;
    open_talker(&t);
    uint64_t job = give_job(&t, 0);
    static const uint64_t nonsense[] = {UINT64_MAX, 1ull << 40, 17};
    for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
        rb_store_release(&t.w->link.ours->started, nonsense[i]);
        int64_t named = job_of(&t, "lies\n");
        CHECK(named == 0 || named == (int64_t)job);
    }
    close_talker(&t);
}

static void the_last_words_of_a_crash_name_its_job(void) {
    struct talker t;
    open_talker(&t);
    const struct rb_obituary killed = {RB_OBITUARY_MAGIC, -1, 11, 0};
    uint64_t job = give_job(&t, 0);
    lab_start(t.w, 1);
    if (write(t.says, "help\n", 5) != 5) abort();
    lab_worker_end(&t.s.lab, t.w, &killed);
    still_round(&t.s, 0);
    struct rb_event e;
    int64_t named = -1;
    while (rb_relay_take(t.s.lab.relay, &e))
        if (e.kind == RB_EVENT_WORKER_OUTPUT) named = e.b;
    CHECK_EQUAL(named, (int64_t)job);
    close(t.says);
    lab_close(&t.s.lab);
}

int main(void) {
    RUN(a_line_of_a_job_under_way_names_it);
    RUN(a_line_that_is_read_with_the_answer_names_the_job_that_ended);
    RUN(of_several_jobs_it_is_the_one_that_began_last);
    RUN(a_position_of_nonsense_names_no_job_of_another);
    RUN(the_last_words_of_a_crash_name_its_job);
    return check_end();
}
