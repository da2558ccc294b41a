/* What a worker or a peer may do that breaks no rule by itself, and yet must not cost anybody else
 * an answer. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <sys/uio.h>

#include "accounts.h"

static int connect_as(struct lab *lab, const char *node) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) abort();
    if (rb_relay_adopt(lab->relay, ++lab->connections, pair[0], node, LAB_FLAGS, NULL, 0) < 0)
        abort();
    return pair[1];
}

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

/* --- Slots ------------------------------------------------------------------------------------ */

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
    settle(
        &lab,
        lab.peer); /* what is heard now came a round later: the relay has tried to place the job */
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

/* --- Answers ---------------------------------------------------------------------------------- */

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

/* --- Descriptors that a worker shares --------------------------------------------------------- */

static int teasing;
static void *tease(void *arg) {
    struct lab_worker *w = arg;
    int fd = w->fds.wake_relay;
    uint64_t one = 1, count;
    fcntl(fd, F_SETFL,
          fcntl(fd, F_GETFL) & ~O_NONBLOCK); /* of the description: the relay's end too */
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
    CHECK(write(w->fds.wake_relay, &one, sizeof one) ==
          sizeof one); /* should it be stuck, it can be closed */
    CLOSE(lab, w);
}

/* A worker with a stderr, of which someone else holds the read end too; nothing has been handed
 * over yet. */
static struct lab_worker *make_worker(struct lab *lab, uint64_t result_bytes, int obituary[2],
                                      int errors[2]) {
    struct lab_worker *w = calloc(1, sizeof *w);
    int fds[5];
    char why[256];
    w->id = ++lab->workers;
    if (rb_relay_create_link(lab->relay, 0, w->id, 16, result_bytes, 4096, 0, fds) < 0) abort();
    w->fds = (struct rb_link_fds){dup(fds[0]), dup(fds[1]), dup(fds[2]), dup(fds[3]), dup(fds[4])};
    if (rb_link_attach(&w->link, &w->fds, why, sizeof why) < 0) abort();
    rb_link_greet(&w->link, "lab", 1 << 16, "echo");
    if (pipe2(obituary, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0) abort();
    w->obituary = obituary[1];
    return w;
}

static void a_closed_pipe_that_someone_else_holds_open_costs_nothing(void) {
    struct lab lab;
    lab_open(&lab);
    int obituary[2], errors[2];
    struct lab_worker *w = make_worker(&lab, 1 << 20, obituary, errors);
    int held = dup(errors[0]);
    if (rb_relay_add_worker(lab.relay, w->id, -1, obituary[0], -1, errors[0]) < 0) abort();
    CHECK(lab_event(&lab, RB_EVENT_WORKER_READY));
    close(errors[1]);
    lab_submit(lab.peer, 1, "x", 1);
    lab_complete(w, "", 0);
    CHECK(ANSWER_HAS(lab.peer, "ok"));
    struct timespec t = {.tv_nsec = 100000000};
    nanosleep(&t, NULL);
    uint64_t before = stats_of(&lab).rounds;
    nanosleep(&t, NULL);
    nanosleep(&t, NULL);
    /* An idle relay makes a round a second, one that spins tens of thousands. */
    CHECK(stats_of(&lab).rounds - before < 200);
    close(held);
    CLOSE(lab, w);
}

static void a_service_that_is_held_costs_nothing(void) {
    WITH_WORKER(lab, w);
    rb_relay_hold(lab.relay, RB_SERVICE_JOBS, 1);
    lab_submit(lab.peer, 1, "x", 1);
    settle(&lab, lab.peer);
    struct timespec t = {.tv_nsec = 500000000};
    uint64_t before = stats_of(&lab).rounds;
    nanosleep(&t, NULL);
    CHECK(stats_of(&lab).rounds - before < 100);
    rb_relay_hold(lab.relay, RB_SERVICE_JOBS, 0);
    lab_complete(w, "released", 8);
    CHECK(ANSWER_HAS(lab.peer, "released"));
    CLOSE(lab, w);
}

static void the_last_words_are_the_last(void) {
    struct lab lab;
    lab_open(&lab);
    int obituary[2], errors[2];
    static char words[60000];
    const struct rb_obituary o = {RB_OBITUARY_MAGIC, -1, 6, 0};
    lab_submit(lab.peer, 1, "x", 1);
    while (stats_of(&lab).accepted < 1) {
    }
    struct lab_worker *w = make_worker(&lab, 1 << 20, obituary, errors);
    /* All of it is there before the relay looks: a job that is started as soon as it is placed, a
     * long report, the end. */
    lab_start(w, 1);
    memset(words, 'w', sizeof words);
    memcpy(words + sizeof words - 10, "last words", 10);
    CHECK(write(errors[1], words, sizeof words) == sizeof words);
    CHECK(write(obituary[1], &o, sizeof o) == sizeof o);
    if (rb_relay_add_worker(lab.relay, w->id, -1, obituary[0], -1, errors[0]) < 0) abort();
    CHECK(ANSWER_HAS(lab.peer, "last words"));
    close(errors[1]);
    CLOSE(lab, w);
}

static void a_worker_that_ended_can_not_be_dropped_before_its_end_was_heard(void) {
    WITH_WORKER(lab, w);
    const struct rb_obituary o = {RB_OBITUARY_MAGIC, 0, 0, 0};
    uint64_t id = w->id;
    rb_relay_hush(lab.relay);
    lab_worker_end(&lab, w, &o);
    struct pollfd p = {.fd = rb_relay_event_fd(lab.relay), .events = POLLIN};
    CHECK_EQUAL(poll(&p, 1, LAB_WAIT_MS), 1);
    CHECK_EQUAL(rb_relay_drop_link(lab.relay, id), -ENOENT);
    CHECK_EQUAL(rb_relay_add_worker(lab.relay, id, -1, -1, -1, -1), -ENOENT);
    CHECK(lab_event(&lab, RB_EVENT_WORKER_ENDED));
    CHECK_EQUAL(rb_relay_drop_link(lab.relay, id), -ENOENT);
    lab_close(&lab);
}

static void an_answer_that_no_socket_may_hold_costs_nobody_the_connection(void) {
    struct lab lab;
    lab_open(&lab);
    int obituary[2], errors[2];
    struct lab_worker *w = make_worker(&lab, 16 << 20, obituary, errors);
    if (rb_relay_add_worker(lab.relay, w->id, -1, obituary[0], -1, errors[0]) < 0) abort();
    lab_submit(lab.peer, 1, "x", 1);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r != NULL);
    lab_start(w, 1);
    struct rb_completion e = {.job = r ? r->job : 0,
                              .payload_bytes = 9 << 20}; /* the bound is 8 MiB */
    rb_ring_release(&w->link.request_ring, 1);
    lab_publish(w, &e);
    CHECK(ANSWER_HAS(lab.peer, "\x77\x0ajob_failed\x62\x00\x00\xff\x00"));
    lab_submit(lab.peer, 2, "x", 1);
    r = lab_request(w, 0);
    lab_start(w, 1);
    e = lab_completion(w, r ? r->job : 0, "small", 5, 0);
    lab_publish(w, &e);
    CHECK(ANSWER_HAS(lab.peer, "small"));
    close(errors[1]);
    CLOSE(lab, w);
}

/* --- Roles that close ------------------------------------------------------------------------- */

static void a_job_that_comes_back_to_a_given_up_role_is_answered(void) {
    WITH_WORKER(lab, w);
    lab_submit(lab.peer, 1, "x", 1);
    CHECK(lab_request(w, 0) != NULL); /* not started */
    rb_relay_set_role_state(lab.relay, 0, RB_ROLE_GIVEN_UP);
    lab_worker_end(&lab, w, NULL);
    CHECK(ANSWER_HAS(lab.peer, "no_worker"));
    lab_close(&lab);
}

enum { LARGE = 100000 };
static uint8_t large[LARGE];

/* The first or the last half of a call with a payload of LARGE bytes, in two fragments. */
static void half(int fd, uint32_t caller, int first) {
    struct lab_bytes b = {.size = 0};
    uint8_t frame[4 + 19] = {0, 0, 0, 0, 131, first ? 69 : 70};
    size_t size = first ? 19 : 18;
    if (first) {
        lab_monitor(fd, 1, caller, caller);
        lab_call_head(&b, caller, caller);
        lab_submit_head(&b, 3, "echo");
        PUT(&b, "\x6d");
        lab_put_u32(&b, LARGE);
    }
    rb_put_be32(frame, (uint32_t)(size + b.size + LARGE / 2));
    rb_put_be32(frame + 6 + 4, caller);
    rb_put_be32(frame + 14 + 4, first ? 2 : 1);
    lab_write(fd, frame, 4 + size);
    lab_write(fd, b.at, b.size);
    lab_write(fd, large, LARGE / 2);
}

static void a_role_that_closed_while_a_payload_came_does_not_take_it(void) {
    struct lab lab;
    lab_open(&lab);
    half(lab.peer, 1, 1);
    half(lab.peer, 2, 1);
    settle(&lab, lab.peer);
    rb_relay_set_role_state(lab.relay, 0, RB_ROLE_DRAINING);
    half(lab.peer, 1, 0);
    CHECK(ANSWER_HAS(lab.peer, "draining"));
    rb_relay_set_role_state(lab.relay, 0, RB_ROLE_GIVEN_UP);
    half(lab.peer, 2, 0);
    CHECK(ANSWER_HAS(lab.peer, "no_worker"));
    CHECK_EQUAL(stats_of(&lab).accepted, 0);
    CHECK_EQUAL(stats_of(&lab).refused[RB_REASON_DRAINING], 1);
    lab_close(&lab);
}

static void a_queue_that_filled_while_a_payload_came_is_full(void) {
    struct lab lab;
    lab_open(&lab);
    half(lab.peer, 1, 1);
    settle(&lab, lab.peer);
    for (uint32_t i = 2; i < 2 + LAB_DEPTH; i++) lab_submit(lab.peer, i, "x", 1);
    half(lab.peer, 1, 0);
    CHECK(ANSWER_HAS(lab.peer, "overloaded"));
    CHECK_EQUAL(stats_of(&lab).accepted, LAB_DEPTH);
    lab_close(&lab);
}

/* --- Watches ---------------------------------------------------------------------------------- */

static void only_its_own_node_can_tell_that_a_watched_caller_is_down(void) {
    WITH_WORKER(lab, w);
    int other = connect_as(&lab, "other@host");
    uint8_t watch[8192];
    struct lab_bytes b = {.size = 0};
    lab_call_head(&b, 9, 9);
    lab_submit_head(&b, 3, "echo");
    lab_put_binary(&b, "x", 1);
    lab_frame(lab.peer, &b);
    int n = lab_read(lab.peer, watch, sizeof watch, LAB_WAIT_MS);
    struct rb_cursor c = {watch, watch + (n > 0 ? n : 0)};
    struct rb_signal s;
    CHECK(rb_signal_parse(&c, &s) == 0 && s.op == RB_OP_MONITOR_P);
    for (int i = 0; i < 2; i++) { /* first as another node, then as its own */
        b.size = 0;
        PUT(&b, "\x68\x04\x61\x1c");
        lab_put(&b, s.to.at, s.to.size);
        lab_put(&b, s.from.at, s.from.size);
        lab_put(&b, s.ref.at, s.ref.size);
        lab_put_atom(&b, "killed");
        lab_frame(i == 0 ? other : lab.peer, &b);
        if (i == 0) {
            settle(&lab, other);
            CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_CANCELLED], 0);
        }
    }
    for (int ms = 0; ms < LAB_WAIT_MS && stats_of(&lab).answered[RB_REASON_CANCELLED] < 1; ms++) {
        struct timespec t = {.tv_nsec = 1000000};
        nanosleep(&t, NULL);
    }
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_CANCELLED], 1);
    close(other);
    CLOSE(lab, w);
}

/* --- Forwarded calls -------------------------------------------------------------------------- */

static void a_forwarded_callers_node_is_answered_on_its_newest_connection(void) {
    WITH_WORKER(lab, w);
    int before = connect_as(&lab, "twice@host"), now = connect_as(&lab, "twice@host");
    struct lab_bytes b = {.size = 0};
    lab_call_of(&b, 1, "twice@host", 1); /* a server of peer@host passes its caller's call on */
    lab_put_ref(&b, 1);
    lab_submit_head(&b, 3, "echo");
    lab_put_binary(&b, "x", 1);
    lab_frame(lab.peer, &b);
    CHECK(ANSWER_HAS(now, "\x68\x04\x61\x13\x58")); /* the watch on it */
    lab_complete(w, "forwarded", 9);
    CHECK(ANSWER_HAS(now, "forwarded"));
    close(before);
    close(now);
    CLOSE(lab, w);
}

/* --- The interpreter's backlog ---------------------------------------------------------------- */

static void a_flood_of_system_messages_is_named_as_such(void) {
    struct lab lab;
    lab_open(&lab);
    static uint8_t state[4000];
    for (int i = 0; i < 1000; i++) { /* 4 MB, the bound is 1 MiB; nobody takes events */
        struct lab_bytes b = {.size = 0};
        PUT(&b, "\x68\x04\x61\x06");
        lab_put_pid(&b, "peer@host", 1);
        lab_put_atom(&b, "");
        lab_put_atom(&b, "job_dispatcher");
        PUT(&b, "\x68\x03");
        lab_put_atom(&b, "system");
        PUT(&b, "\x6a");
        lab_put_binary(&b, state, sizeof state);
        lab_frame(lab.peer, &b);
    }
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    CHECK(lab_event_says(&lab, "interpreter_backlog_limit_reached"));
    lab_close(&lab);
}

/* --- Work ------------------------------------------------------------------------------------- */

/* To the dispatcher, which drops it: a list of one long atom, 4000 times by reference, 1.6 MB of terms from 8 KB. */
enum { FLOOD = 300 };
static void *flood(void *argument) {
    int fd = *(int *)argument;
    static uint8_t frame[16384];
    struct lab_bytes b = {.size = 0};
    PUT(&b, "\0\0\0\0\x83\x44\x01\x18\x00\x01\x90"); /* new, in slot 0, 400 bytes */
    for (int i = 0; i < 400; i++) PUT(&b, "a");
    PUT(&b, "\x68\x04\x61\x06");
    lab_put_pid(&b, "peer@host", 1);
    lab_put_atom(&b, "");
    lab_put_atom(&b, "job_dispatcher");
    PUT(&b, "\x6c");
    lab_put_u32(&b, 4000);
    memcpy(frame, b.at, b.size);
    size_t size = b.size;
    for (int i = 0; i < 4000; i++, size += 2) memcpy(frame + size, "\x52\x00", 2);
    frame[size++] = RB_TAG_NIL;
    rb_put_be32(frame, (uint32_t)size - 4);
    for (int i = 0; i < FLOOD; i++) lab_write(fd, frame, size);
    return NULL;
}

/* Its buffer holds more than one read takes, unlike that of a socket pair. */
static void tcp_pair(int pair[2]) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int bytes = 4 << 20, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    pair[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    if (bind(listener, (struct sockaddr *)&at, size) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&at, &size) < 0 ||
        connect(pair[1], (struct sockaddr *)&at, size) < 0 ||
        (pair[0] = accept(listener, NULL, NULL)) < 0)
        abort();
    close(listener);
}

static void bytes_that_make_much_work_are_taken_in_small_turns(void) {
    struct lab lab;
    pthread_t thread;
    int pair[2];
    lab_open(&lab);
    tcp_pair(pair);
    CHECK_EQUAL(rb_relay_adopt(lab.relay, ++lab.connections, pair[0], "flood@host",
                               LAB_FLAGS | RB_DFLAG_DIST_HDR_ATOM_CACHE, NULL, 0),
                0);
    uint64_t rounds = stats_of(&lab).rounds;
    pthread_create(&thread, NULL, flood, &pair[1]);
    pthread_join(thread, NULL);
    settle(&lab, pair[1]);
    /* 2.5 MB, of which a read takes 256 KiB at most: each of them ends its turn. */
    CHECK(stats_of(&lab).rounds - rounds >= 7);
    CHECK_EQUAL(stats_of(&lab).connections, 2);
    settle(&lab, lab.peer);
    close(pair[1]);
    lab_close(&lab);
}

int main(void) {
    RUN(a_job_waits_no_longer_than_for_the_slot);
    RUN(a_worker_that_keeps_its_slots_keeps_no_job_from_the_others);
    RUN(a_head_that_runs_ahead_ends_the_worker_and_its_jobs_go_on);
    RUN(no_bytes_are_no_term);
    RUN(an_eventfd_that_was_drained_by_its_worker_stops_nobody);
    RUN(a_closed_pipe_that_someone_else_holds_open_costs_nothing);
    RUN(a_service_that_is_held_costs_nothing);
    RUN(the_last_words_are_the_last);
    RUN(a_worker_that_ended_can_not_be_dropped_before_its_end_was_heard);
    RUN(an_answer_that_no_socket_may_hold_costs_nobody_the_connection);
    RUN(a_job_that_comes_back_to_a_given_up_role_is_answered);
    RUN(a_role_that_closed_while_a_payload_came_does_not_take_it);
    RUN(a_queue_that_filled_while_a_payload_came_is_full);
    RUN(only_its_own_node_can_tell_that_a_watched_caller_is_down);
    RUN(a_forwarded_callers_node_is_answered_on_its_newest_connection);
    RUN(a_flood_of_system_messages_is_named_as_such);
    RUN(bytes_that_make_much_work_are_taken_in_small_turns);
    return check_end();
}
