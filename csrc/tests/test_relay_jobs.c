/* The relay's jobs: who is answered what, when callers leave, deadlines pass, workers die, roles change and the service ends. */
#define _GNU_SOURCE
#include <stdlib.h>

#include "accounts.h"

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
    RUN(monitors_end_with_the_service);
    RUN(a_job_ends_with_the_service_that_its_caller_had_called);
    return check_end();
}
