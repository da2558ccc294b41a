/* The relay's jobs: who is answered what, when callers leave, deadlines pass, workers die and lie.
 */
#define _GNU_SOURCE
#include <stdlib.h>

#include "relay_lab.h"

static struct rb_relay_stats stats_of(struct lab *lab) {
    struct rb_relay_stats s;
    rb_relay_read_stats(lab->relay, &s);
    return s;
}

/* accepted == answered + in flight, whatever happened. */
static int accounts_are_even(struct lab *lab) {
    struct rb_relay_stats s = stats_of(lab);
    uint64_t sum = s.in_flight;
    for (int i = 0; i < RB_REASONS; i++) sum += s.answered[i];
    return sum == s.accepted;
}

static void wait_until_answered(struct lab *lab, enum rb_reason reason, uint64_t count) {
    for (int ms = 0; ms < LAB_WAIT_MS && stats_of(lab).answered[reason] < count; ms++) {
        struct timespec t = {.tv_nsec = 1000000};
        nanosleep(&t, NULL);
    }
    CHECK_EQUAL(stats_of(lab).answered[reason], count);
}

#define WITH_WORKER(lab, w) \
    struct lab lab;         \
    lab_open(&lab);         \
    struct lab_worker *w = lab_worker(&lab)
#define CLOSE(lab, w)               \
    CHECK(accounts_are_even(&lab)); \
    lab_worker_end(&lab, w, NULL);  \
    lab_close(&lab)

static void a_call_is_answered_by_its_worker(void) {
    WITH_WORKER(lab, w);
    lab_submit(lab.peer, 1, "question", 8);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r && r->payload_bytes == 8 && memcmp(lab_payload(w, r), "question", 8) == 0);
    lab_complete(w, "answer", 6);
    CHECK(ANSWER_HAS(lab.peer, "\x68\x02\x77\x02ok\x6d\x00\x00\x00\x06"
                               "answer"));
    wait_until_answered(&lab, RB_REASON_OK, 1);
    CLOSE(lab, w);
}

static void nothing_is_sent_after_the_caller_left(void) {
    WITH_WORKER(lab, w);
    lab_submit(lab.peer, 1, "first", 5);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r != NULL);
    lab_start(w, 1);
    lab_monitor(lab.peer, 0, 1, 1);
    wait_until_answered(&lab, RB_REASON_CANCELLED, 1);
    /* The worker is told by the slot's cancel word. */
    CHECK_EQUAL(rb_load_acquire(&w->link.cancels[rb_ring_slot(&w->link.request_ring, 0)]), r->job);
    lab_complete(w, "late", 4);
    lab_submit(lab.peer, 2, "second", 6);
    lab_complete(w, "in time", 7);
    CHECK(ANSWER_HAS(lab.peer, "in time"));
    CLOSE(lab, w);
}

static void a_queued_job_leaves_with_its_caller(void) {
    struct lab lab;
    lab_open(&lab);
    lab_submit(lab.peer, 1, "first", 5);
    lab_submit(lab.peer, 2, "second", 6);
    lab_monitor(lab.peer, 0, 1, 1);
    wait_until_answered(&lab, RB_REASON_CANCELLED, 1);
    struct lab_worker *w = lab_worker(&lab);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r && memcmp(lab_payload(w, r), "second", 6) == 0);
    lab_complete(w, "", 0);
    CHECK(ANSWER_HAS(lab.peer, "\x77\x02ok\x6d\x00\x00\x00\x00"));
    CLOSE(lab, w);
}

static void a_lost_connection_cancels_all_of_its_jobs(void) {
    WITH_WORKER(lab, w);
    int other = lab_connect(&lab);
    for (uint32_t i = 1; i <= 3; i++) lab_submit(other, i, "x", 1);
    CHECK(lab_request(w, 0) != NULL);
    while (stats_of(&lab).accepted < 3) {
    }
    close(other);
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    CHECK(lab_event_says(&lab, "closed_by_peer"));
    wait_until_answered(&lab, RB_REASON_CANCELLED, 3);
    CLOSE(lab, w);
}

static void a_deadline_is_answered_without_anybodys_help(void) {
    WITH_WORKER(lab, w);
    lab_submit_option(lab.peer, 1, "timeout", 20);
    lab_submit_option(lab.peer, 2, "timeout",
                      20); /* one runs, the other queues: credit is one job at first */
    CHECK(ANSWER_HAS(lab.peer, "deadline_exceeded"));
    CHECK(ANSWER_HAS(lab.peer, "deadline_exceeded"));
    wait_until_answered(&lab, RB_REASON_DEADLINE_EXCEEDED, 2);
    CLOSE(lab, w);
}

static void a_death_is_told_for_started_jobs_and_the_others_run_elsewhere(void) {
    WITH_WORKER(lab, w);
    const struct rb_obituary killed = {RB_OBITUARY_MAGIC, -1, 11, 0};
    lab_submit(lab.peer, 1, "warm", 4); /* shows a short job, so that credit lets two more in */
    lab_complete(w, "", 0);
    CHECK(ANSWER_HAS(lab.peer, "ok"));
    lab_submit(lab.peer, 2, "started", 7);
    lab_submit(lab.peer, 3, "waiting", 7);
    CHECK(lab_request(w, 1) != NULL);
    lab_start(w, 1);
    lab_worker_end(&lab, w, &killed);
    CHECK(ANSWER_HAS(lab.peer, "\x77\x06signal\x61\x0b"));
    CHECK(lab_event(&lab, RB_EVENT_WORKER_ENDED));
    CHECK_EQUAL(lab.event.b, 11);
    w = lab_worker(&lab);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r && memcmp(lab_payload(w, r), "waiting", 7) == 0);
    lab_complete(w, "done", 4);
    CHECK(ANSWER_HAS(lab.peer, "done"));
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_WORKER_CRASHED], 1);
    CLOSE(lab, w);
}

static void a_full_queue_is_an_answer(void) {
    struct lab lab;
    lab_open(&lab);
    for (uint32_t i = 1; i <= LAB_DEPTH + 1; i++) lab_submit(lab.peer, i, "x", 1);
    CHECK(ANSWER_HAS(lab.peer, "\x77\x0aoverloaded"));
    CHECK_EQUAL(stats_of(&lab).refused[RB_REASON_OVERLOADED], 1);
    CHECK(accounts_are_even(&lab));
    rb_relay_set_role_state(lab.relay, 0, RB_ROLE_GIVEN_UP);
    for (int i = 0; i < LAB_DEPTH; i++) CHECK(ANSWER_HAS(lab.peer, "no_worker"));
    CHECK(accounts_are_even(&lab));
    lab_close(&lab);
}

static void a_role_works_by_new_numbers_from_the_next_job_on(void) {
    struct lab lab;
    struct rb_role_config role = lab_role_config();
    lab_open(&lab);
    role.admission.depth_max = 1;
    CHECK_EQUAL(rb_relay_configure_role(lab.relay, 0, &role), 0);
    lab_submit(lab.peer, 1, "x", 1);
    lab_submit(lab.peer, 2, "x", 1);
    CHECK(ANSWER_HAS(lab.peer, "\x77\x0aoverloaded"));
    role.admission.depth_max = 2;
    role.timeout_max_ms = 20;
    CHECK_EQUAL(rb_relay_configure_role(lab.relay, 0, &role), 0);
    lab_submit(lab.peer, 3, "x", 1);
    CHECK(ANSWER_HAS(lab.peer, "deadline_exceeded"));
    CHECK_EQUAL(stats_of(&lab).accepted, 2); /* the first one keeps the time it came with */
    CHECK(accounts_are_even(&lab));
    lab_close(&lab);
}

static void what_a_role_keeps_for_life_is_refused_and_changes_nothing(void) {
    struct lab lab;
    struct rb_role_config role = lab_role_config(), other;
    lab_open(&lab);
    other = role;
    other.name = "another";
    other.admission.depth_max = 0;
    CHECK_EQUAL(rb_relay_configure_role(lab.relay, 0, &other), -EINVAL);
    other = role;
    other.pool_bytes *= 2;
    other.admission.depth_max = 0;
    CHECK_EQUAL(rb_relay_configure_role(lab.relay, 0, &other), -EINVAL);
    CHECK_EQUAL(rb_relay_configure_role(lab.relay, 1, &role), -ENOENT);
    struct lab_worker *w = lab_worker(&lab);
    lab_submit(lab.peer, 1, "x", 1);
    lab_complete(w, "served", 6);
    CHECK(ANSWER_HAS(lab.peer, "served"));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void a_removed_role_is_unknown_at_once_and_gone_with_its_last_job(void) {
    WITH_WORKER(lab, w);
    CHECK_EQUAL(rb_relay_remove_role(lab.relay, 0), -EBUSY);
    CHECK_EQUAL(rb_relay_remove_role(lab.relay, 1), -ENOENT);
    rb_relay_drain_worker(lab.relay, w->id);
    lab_worker_end(&lab, w, NULL);
    CHECK(lab_event(&lab, RB_EVENT_WORKER_ENDED));
    lab_submit(lab.peer, 1, "waits", 5);
    while (stats_of(&lab).accepted < 1) usleep(100);
    CHECK_EQUAL(rb_relay_remove_role(lab.relay, 0), 0);
    CHECK(ANSWER_HAS(lab.peer, "no_worker"));
    CHECK(lab_event(&lab, RB_EVENT_ROLE_GONE));
    CHECK_EQUAL(lab.event.a, 0);
    lab_submit(lab.peer, 2, "x", 1);
    CHECK(ANSWER_HAS(lab.peer, "unknown role echo"));
    CHECK_EQUAL(rb_relay_remove_role(lab.relay, 0), -ENOENT);
    struct rb_role_config again = lab_role_config();
    CHECK_EQUAL(rb_relay_add_role(lab.relay, 0, &again), 0);
    w = lab_worker(&lab);
    lab_submit(lab.peer, 3, "x", 1);
    lab_complete(w, "back", 4);
    CHECK(ANSWER_HAS(lab.peer, "back"));
    CHECK(accounts_are_even(&lab));
    CLOSE(lab, w);
}

static void a_held_dispatcher_keeps_jobs_until_it_is_let_go(void) {
    WITH_WORKER(lab, w);
    rb_relay_hold(lab.relay, RB_SERVICE_JOBS, 1);
    lab_submit_option(lab.peer, 1, "timeout", 20);
    CHECK(ANSWER_HAS(lab.peer, "deadline_exceeded")); /* its time runs, nobody works */
    CHECK_EQUAL(rb_ring_available(&w->link.request_ring), 0);
    lab_submit(lab.peer, 2, "patient", 7);
    rb_relay_hold(lab.relay, RB_SERVICE_JOBS, 0);
    lab_complete(w, "served", 6);
    CHECK(ANSWER_HAS(lab.peer, "served"));
    CLOSE(lab, w);
}

static void a_caller_without_a_monitor_is_watched(void) {
    WITH_WORKER(lab, w);
    struct lab_bytes b = {.size = 0};
    lab_call_head(&b, 9, 9);
    lab_submit_head(&b, 3, "echo");
    lab_put_binary(&b, "x", 1);
    lab_frame(lab.peer, &b);
    CHECK(ANSWER_HAS(lab.peer, "\x68\x04\x61\x13\x58")); /* {19, OurPid, ...} */
    lab_complete(w, "y", 1);
    CHECK(ANSWER_HAS(lab.peer, "\x77\x02ok\x6d\x00\x00\x00\x01y"));
    CHECK(ANSWER_HAS(lab.peer, "\x68\x04\x61\x14\x58")); /* {20, OurPid, ...} */
    CLOSE(lab, w);
}

/* Its tag names a monitor that it holds elsewhere, and the one that it holds on us is for something else. */
static void a_forwarded_call_does_not_hang_on_another_monitor_of_its_caller(void) {
    WITH_WORKER(lab, w);
    struct lab_bytes b = {.size = 0};
    lab_monitor(lab.peer, 1, 9, 1);
    lab_call_head(&b, 9, 2);
    lab_submit_head(&b, 3, "echo");
    lab_put_binary(&b, "x", 1);
    lab_frame(lab.peer, &b);
    CHECK(ANSWER_HAS(lab.peer, "\x68\x04\x61\x13\x58")); /* the watch on it */
    lab_monitor(lab.peer, 0, 9, 1);
    lab_complete(w, "y", 1);
    CHECK(ANSWER_HAS(lab.peer, "\x77\x02ok\x6d\x00\x00\x00\x01y"));
    CLOSE(lab, w);
}

/* {Name, Number} to the dispatcher, without a monitor's trouble: the answer goes to the alias. */
static void ask(int fd, uint32_t caller, const char *name, const void *term, size_t size) {
    struct lab_bytes b = {.size = 0};
    lab_call_head(&b, caller, caller);
    PUT(&b, "\x68\x02");
    lab_put_atom(&b, name);
    lab_put(&b, term, size);
    lab_frame(fd, &b);
}

static void a_job_can_be_listed_looked_at_and_cancelled_by_its_id(void) {
    WITH_WORKER(lab, w);
    lab_submit(lab.peer, 1, "x", 1);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r && r->job >> 32 == 0);
    uint8_t id[5] = {RB_TAG_INTEGER};
    rb_put_be32(id + 1, (uint32_t)r->job);
    ask(lab.peer, 2, "jobs",
        "\x77\x03"
        "all",
        5);
    CHECK(lab_answer_has(lab.peer, id, sizeof id));
    ask(lab.peer, 2, "jobs", "\x77\x05other", 7);
    CHECK(ANSWER_HAS(lab.peer, "\x77\x02ok\x6c\x00\x00\x00\x00\x6a"));
    ask(lab.peer, 2, "status", id, sizeof id);
    CHECK(ANSWER_HAS(lab.peer, "\x77\x06placed"));
    ask(lab.peer, 2, "cancel", id, sizeof id);
    CHECK(ANSWER_HAS(lab.peer, "\x77\x05"
                               "error\x77\x09"
                               "cancelled"));  /* its caller */
    CHECK(ANSWER_HAS(lab.peer, "\x77\x02ok")); /* who asked */
    ask(lab.peer, 2, "cancel", id, sizeof id);
    CHECK(ANSWER_HAS(lab.peer, "unknown_job"));
    CLOSE(lab, w);
}

/* --- Large payloads --------------------------------------------------------------------------- */

/* The head of a call whose payload of `size` bytes follows in `fragments` fragments. */
static void fragments_head(int fd, uint32_t caller, uint32_t size, uint64_t fragments,
                           const uint8_t *bytes, uint32_t in_first) {
    struct lab_bytes b = {.size = 0};
    lab_monitor(fd, 1, caller, caller);
    lab_call_head(&b, caller, caller);
    lab_submit_head(&b, 3, "echo");
    PUT(&b, "\x6d");
    lab_put_u32(&b, size);
    uint8_t head[4 + 19] = {0, 0, 0, 0, 131, 69};
    rb_put_be32(head, (uint32_t)(19 + b.size + in_first));
    rb_put_be32(head + 6 + 4, 77);
    rb_put_be32(head + 14 + 4, (uint32_t)fragments);
    lab_write(fd, head, sizeof head);
    lab_write(fd, b.at, b.size);
    lab_write(fd, bytes, in_first);
}
static void fragment(int fd, uint64_t left, const uint8_t *bytes, uint32_t size) {
    uint8_t head[4 + 18] = {0, 0, 0, 0, 131, 70};
    rb_put_be32(head, 18 + size);
    rb_put_be32(head + 6 + 4, 77);
    rb_put_be32(head + 14 + 4, (uint32_t)left);
    lab_write(fd, head, sizeof head);
    lab_write(fd, bytes, size);
}

enum { LARGE = 200000 };
static uint8_t large[LARGE];

static void a_payload_in_fragments_reaches_the_worker_whole(void) {
    WITH_WORKER(lab, w);
    for (size_t i = 0; i < LARGE; i++) large[i] = (uint8_t)(i * 7 + i / 251);
    fragments_head(lab.peer, 1, LARGE, 4, large, 60000);
    lab_submit(lab.peer, 2, "between", 7); /* a small signal overtakes */
    fragment(lab.peer, 3, large + 60000, 65536);
    fragment(lab.peer, 2, large + 125536, 65536);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r && memcmp(lab_payload(w, r), "between", 7) == 0);
    lab_complete(w, "small", 5);
    CHECK(ANSWER_HAS(lab.peer, "small"));
    fragment(lab.peer, 1, large + 191072, LARGE - 191072);
    r = lab_request(w, 0);
    CHECK(r && r->payload_bytes == LARGE && memcmp(lab_payload(w, r), large, LARGE) == 0);
    CHECK(r && rb_request_crc(r, lab_payload(w, r), w->link.header.features) == r->crc);
    lab_complete(w, "big", 3);
    CHECK(ANSWER_HAS(lab.peer, "big"));
    CLOSE(lab, w);
}

static void a_role_whose_payload_still_arrives_is_gone_after_it(void) {
    struct lab lab;
    lab_open(&lab);
    fragments_head(lab.peer, 1, LARGE, 4, large, 60000);
    lab_submit(lab.peer, 2, "after", 5); /* once this is taken in, the head before it is, too */
    while (stats_of(&lab).accepted < 1) usleep(100);
    CHECK_EQUAL(rb_relay_remove_role(lab.relay, 0), 0);
    CHECK(ANSWER_HAS(lab.peer, "no_worker"));
    lab_submit(lab.peer, 3, "x", 1);
    CHECK(ANSWER_HAS(lab.peer, "unknown role echo"));
    while (rb_relay_take(lab.relay, &lab.event)) CHECK(lab.event.kind != RB_EVENT_ROLE_GONE);
    fragment(lab.peer, 3, large + 60000, 65536);
    fragment(lab.peer, 2, large + 125536, 65536);
    fragment(lab.peer, 1, large + 191072, LARGE - 191072);
    CHECK(ANSWER_HAS(lab.peer, "no_worker"));
    CHECK(lab_event(&lab, RB_EVENT_ROLE_GONE));
    CHECK(accounts_are_even(&lab));
    lab_close(&lab);
}

static void bounds_of_connections_change_while_they_are_up(void) {
    struct lab lab;
    lab_open(&lab);
    struct rb_relay_config config = lab_config();
    config.arrival_ms = 20;
    CHECK_EQUAL(rb_relay_configure(lab.relay, &config), 0);
    fragments_head(lab.peer, 1, LARGE, 4, large, 60000);
    CHECK(ANSWER_HAS(lab.peer, "deadline_exceeded"));
    CHECK(accounts_are_even(&lab));
    lab_close(&lab);
}

static void too_large_is_answered_from_the_head_and_the_rest_passes_by(void) {
    WITH_WORKER(lab, w);
    fragments_head(lab.peer, 1, LAB_PAYLOAD_MAX + 1, 17, large, 60000);
    CHECK(ANSWER_HAS(lab.peer, "\x77\x09too_large\x62\x00\x10\x00\x00"));
    for (uint64_t left = 16; left > 0; left--) fragment(lab.peer, left, large, 62000);
    lab_submit(lab.peer, 2, "next", 4);
    lab_complete(w, "fine", 4);
    CHECK(ANSWER_HAS(lab.peer, "fine"));
    CHECK_EQUAL(stats_of(&lab).accepted, 1);
    CLOSE(lab, w);
}

static void a_payload_cut_off_by_a_dying_peer_is_forgotten(void) {
    WITH_WORKER(lab, w);
    int other = lab_connect(&lab);
    fragments_head(other, 1, LARGE, 4, large, 60000);
    close(other);
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    CHECK_EQUAL(stats_of(&lab).accepted, 0);
    CLOSE(lab, w);
}

/* --- Lies ------------------------------------------------------------------------------------- */

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

/* --- Peers ------------------------------------------------------------------------------------ */

static void lab_to_somebody_else(int fd, const void *message, size_t size) {
    struct lab_bytes b = {.size = 0};
    PUT(&b, "\x68\x04\x61\x06");
    lab_put_pid(&b, "peer@host", 1);
    lab_put_atom(&b, "");
    lab_put_atom(&b, "somebody_else");
    lab_put(&b, message, size);
    lab_frame(fd, &b);
}

static void what_is_not_ours_goes_up_whole_and_in_order(void) {
    struct lab lab;
    lab_open(&lab);
    for (uint8_t i = 0; i < 100; i++) {
        uint8_t message[2] = {RB_TAG_SMALL_INTEGER, i};
        lab_to_somebody_else(lab.peer, message, sizeof message);
    }
    for (uint8_t i = 0; i < 100; i++) {
        CHECK(lab_event(&lab, RB_EVENT_SIGNAL));
        CHECK_EQUAL(lab.event.data[lab.event.size - 1], i);
        CHECK_EQUAL(lab.event.a, (int64_t)lab.event.size - 2);
    }
    lab_close(&lab);
}

static void garbage_closes_its_own_connection_only(void) {
    WITH_WORKER(lab, w);
    int other = lab_connect(&lab);
    lab_write(other, "\x00\x00\x00\x05garbage", 11);
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    CHECK_EQUAL(lab.event.connection, 2);
    CHECK(lab_event_says(&lab, "not_a_distribution_header"));
    close(other);
    lab_submit(lab.peer, 1, "x", 1);
    lab_complete(w, "still here", 10);
    CHECK(ANSWER_HAS(lab.peer, "still here"));
    CLOSE(lab, w);
}

static void a_flood_for_a_stalled_interpreter_ends_at_its_bound(void) {
    struct lab lab;
    lab_open(&lab);
    static uint8_t block[5 + 4000] = {RB_TAG_BINARY, 0, 0, 4000 >> 8, 4000 & 255};
    /* 8 MB, the bound is 1 MiB; nobody takes events */
    for (int i = 0; i < 2000; i++) lab_to_somebody_else(lab.peer, block, sizeof block);
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    CHECK(lab_event_says(&lab, "interpreter_backlog_limit_reached"));
    lab_close(&lab);
}

static void monitors_end_with_the_service(void) {
    struct lab lab;
    lab_open(&lab);
    lab_monitor(lab.peer, 1, 1, 11);
    lab_to_somebody_else(lab.peer, "\x61\x00", 2);
    CHECK(lab_event(&lab, RB_EVENT_SIGNAL)); /* so the monitor before it is there */
    rb_relay_service_down(lab.relay, RB_SERVICE_JOBS, (const uint8_t *)"\x77\x08shutdown", 10);
    CHECK(ANSWER_HAS(lab.peer, "shutdown"));
    lab_monitor(lab.peer, 1, 1, 12);
    CHECK(ANSWER_HAS(lab.peer, "noproc"));
    lab_close(&lab);
}

/* Its caller has been told, and would take no answer: the alias is gone with the DOWN. */
static void a_job_ends_with_the_service_that_its_caller_had_called(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    lab_submit(lab.peer, 1, "work", 4);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r != NULL);
    lab_start(w, 1);
    rb_relay_service_down(lab.relay, RB_SERVICE_JOBS, (const uint8_t *)"\x77\x08shutdown", 10);
    CHECK(ANSWER_HAS(lab.peer, "shutdown"));
    struct rb_relay_stats stats = {0};
    for (int ms = 0; ms < LAB_WAIT_MS && !stats.answered[RB_REASON_CANCELLED]; ms++) {
        struct timespec t = {.tv_nsec = 1000000};
        nanosleep(&t, NULL);
        rb_relay_read_stats(lab.relay, &stats);
    }
    CHECK_EQUAL(stats.answered[RB_REASON_CANCELLED], 1);
    lab_complete(w, "late", 4);
    rb_relay_install_service(lab.relay, RB_SERVICE_JOBS, 1, 0, "job_dispatcher\0");
    lab_submit(lab.peer, 2, "anew", 4);
    lab_complete(w, "anew", 4);
    CHECK(ANSWER_HAS(lab.peer, "anew"));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

int main(void) {
    RUN(a_call_is_answered_by_its_worker);
    RUN(nothing_is_sent_after_the_caller_left);
    RUN(a_queued_job_leaves_with_its_caller);
    RUN(a_lost_connection_cancels_all_of_its_jobs);
    RUN(a_deadline_is_answered_without_anybodys_help);
    RUN(a_death_is_told_for_started_jobs_and_the_others_run_elsewhere);
    RUN(a_full_queue_is_an_answer);
    RUN(a_role_works_by_new_numbers_from_the_next_job_on);
    RUN(what_a_role_keeps_for_life_is_refused_and_changes_nothing);
    RUN(a_removed_role_is_unknown_at_once_and_gone_with_its_last_job);
    RUN(a_held_dispatcher_keeps_jobs_until_it_is_let_go);
    RUN(a_caller_without_a_monitor_is_watched);
    RUN(a_forwarded_call_does_not_hang_on_another_monitor_of_its_caller);
    RUN(a_job_can_be_listed_looked_at_and_cancelled_by_its_id);
    RUN(a_payload_in_fragments_reaches_the_worker_whole);
    RUN(a_role_whose_payload_still_arrives_is_gone_after_it);
    RUN(bounds_of_connections_change_while_they_are_up);
    RUN(too_large_is_answered_from_the_head_and_the_rest_passes_by);
    RUN(a_payload_cut_off_by_a_dying_peer_is_forgotten);
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
    RUN(what_is_not_ours_goes_up_whole_and_in_order);
    RUN(garbage_closes_its_own_connection_only);
    RUN(a_flood_for_a_stalled_interpreter_ends_at_its_bound);
    RUN(monitors_end_with_the_service);
    RUN(a_job_ends_with_the_service_that_its_caller_had_called);
    return check_end();
}
