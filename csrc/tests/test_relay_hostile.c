/* What a worker or a peer may do that breaks no rule by itself, and yet must not cost anybody else an answer. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <sys/uio.h>

#include "relay_lab.h"

#define WITH_WORKER(lab, w)                 \
    struct lab lab;                         \
    lab_open(&lab);                         \
    struct lab_worker *w = lab_worker(&lab)
#define CLOSE(lab, w)                       \
    lab_worker_end(&lab, w, NULL);          \
    lab_close(&lab)

/* Waits until the relay has read all that was sent to it by this way. */
static void settle(struct lab *lab, int fd) {
    struct lab_bytes b = {.size = 0};
    PUT(&b, "\x68\x04\x61\x06");
    lab_put_pid(&b, "peer@host", 1);
    lab_put_atom(&b, "");
    lab_put_atom(&b, "somebody_else");
    lab_put_atom(&b, "hello");
    lab_frame(fd, &b);
    CHECK(lab_event(lab, RB_EVENT_SIGNAL));
}

/* --- Slots ----------------------------------------------------------------------------------------------------------------- */

/* Takes the i-th request and answers it, but keeps its slot. */
static void answer_and_keep(struct lab_worker *w, int64_t i) {
    const struct rb_request *r = lab_request(w, i);
    CHECK(r != NULL);
    if (!r) return;
    lab_start(w, (uint64_t)i + 1);
    struct rb_completion e = lab_completion(w, r->job, "kept", 4, 0);
    lab_publish(w, &e);
}

static void keep_the_whole_ring(struct lab *lab, struct lab_worker *w) {
    for (uint32_t i = 0; i < 16; i++) {
        lab_submit(lab->peer, i + 1, "x", 1);
        answer_and_keep(w, i);
        CHECK(ANSWER_HAS(lab->peer, "kept"));
    }
}

static void a_job_waits_no_longer_than_for_the_slot(void) {
    WITH_WORKER(lab, w);
    keep_the_whole_ring(&lab, w);
    lab_submit(lab.peer, 17, "late", 4);
    settle(&lab, lab.peer);
    settle(&lab, lab.peer); /* what is heard now came a round later: the relay has tried to place the job */
    rb_ring_release(&w->link.request_ring, 16); /* without a word, as a kit does */
    lab_complete(w, "in time", 7);
    CHECK(ANSWER_HAS(lab.peer, "in time"));
    CLOSE(lab, w);
}

static void a_worker_that_keeps_its_slots_keeps_no_job_from_the_others(void) {
    WITH_WORKER(lab, w);
    keep_the_whole_ring(&lab, w);
    lab_submit(lab.peer, 17, "late", 4);
    settle(&lab, lab.peer);
    struct lab_worker *other = lab_worker(&lab);
    lab_complete(other, "elsewhere", 9);
    CHECK(ANSWER_HAS(lab.peer, "elsewhere"));
    lab_submit(lab.peer, 18, "next", 4);
    lab_complete(other, "again", 5);
    CHECK(ANSWER_HAS(lab.peer, "again"));
    lab_worker_end(&lab, other, NULL);
    CLOSE(lab, w);
}

static void a_head_that_runs_ahead_ends_the_worker_and_its_jobs_go_on(void) {
    WITH_WORKER(lab, w);
    keep_the_whole_ring(&lab, w);
    rb_store_release(&w->link.ours->request_head, 1000);
    lab_submit(lab.peer, 17, "x", 1);
    CHECK(lab_event(&lab, RB_EVENT_WORKER_BROKE));
    CHECK(lab_event_says(&lab, "request_head_out_of_range"));
    struct lab_worker *other = lab_worker(&lab);
    lab_complete(other, "elsewhere", 9);
    CHECK(ANSWER_HAS(lab.peer, "elsewhere"));
    lab_worker_end(&lab, other, NULL);
    CLOSE(lab, w);
}

/* --- Answers --------------------------------------------------------------------------------------------------------------- */

static void no_bytes_are_no_term(void) {
    WITH_WORKER(lab, w);
    lab_submit(lab.peer, 1, "", 0); /* raw, and as empty as the answer */
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r != NULL);
    lab_start(w, 1);
    struct rb_completion e = lab_completion(w, r ? r->job : 0, "", 0, RB_FLAG_TERM);
    lab_publish(w, &e);
    CHECK(ANSWER_HAS(lab.peer, "worker_broke"));
    CHECK(lab_event(&lab, RB_EVENT_WORKER_BROKE));
    CHECK(lab_event_says(&lab, "term_cut_short"));
    CLOSE(lab, w);
}

/* --- Descriptors that a worker shares -------------------------------------------------------------------------------------- */

static int teasing;
static void *tease(void *arg) {
    struct lab_worker *w = arg;
    int fd = w->fds.wake_relay;
    uint64_t one = 1, count;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK); /* of the description: the relay's end too */
    while (rb_load_acquire(&teasing)) {
        struct iovec into = {.iov_base = &count, .iov_len = sizeof count};
        if (write(fd, &one, sizeof one) < 0) break;
        sched_yield();
        if (preadv2(fd, &into, 1, -1, RWF_NOWAIT) < 0 && errno != EAGAIN) break;
    }
    return NULL;
}

static void an_eventfd_that_was_drained_by_its_worker_stops_nobody(void) {
    WITH_WORKER(lab, w);
    const uint64_t one = 1;
    pthread_t thread;
    for (uint32_t i = 1; i <= 20; i++) {
        rb_store_release(&teasing, 1);
        if (pthread_create(&thread, NULL, tease, w) != 0) abort();
        struct timespec t = {.tv_nsec = 5000000};
        nanosleep(&t, NULL);
        rb_store_release(&teasing, 0);
        pthread_join(thread, NULL);
        lab_submit(lab.peer, i, "x", 1);
        lab_complete(w, "awake", 5);
        CHECK(ANSWER_HAS(lab.peer, "awake"));
        if (check_breaches) break;
    }
    CHECK(write(w->fds.wake_relay, &one, sizeof one) == sizeof one); /* should it be stuck, it can be closed */
    CLOSE(lab, w);
}

int main(void) {
    RUN(a_job_waits_no_longer_than_for_the_slot);
    RUN(a_worker_that_keeps_its_slots_keeps_no_job_from_the_others);
    RUN(a_head_that_runs_ahead_ends_the_worker_and_its_jobs_go_on);
    RUN(no_bytes_are_no_term);
    RUN(an_eventfd_that_was_drained_by_its_worker_stops_nobody);
    return check_end();
}
