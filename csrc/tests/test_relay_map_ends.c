/* How jobs of several end: the first branch that does not end well ends the whole, its siblings are stopped, and its caller hears which it
 * was and why, once. What is refused before, and what waits for room. */
#define _GNU_SOURCE
#include "spread_lab.h"

#define ABC "\x6c\0\0\0\3" BIN("a") BIN("b") BIN("c") "\x6a"
#define BOTH "\x6c\0\0\0\2" ATOM_ECHO ATOM_OTHER "\x6a"

static void even_and_over(struct still *s) {
    even(s);
    CHECK(still_quiet(s));
    CHECK_EQUAL(still_stats(s).in_flight, 0);
}

/* --- A branch fails ------------------------------------------------------------------------------ */

static void the_first_failure_stops_its_siblings(void) {
    for (int first = 0; first < 3; first++) {
        const uint8_t wanted[] =
            FAILED_AT("\1", OF_MAP(ATOM_ECHO, "\0")) "\x68\3\x77\x0ajob_failed\x61\3\x6d\0\0\0\2no";
        uint8_t said[sizeof wanted - 1];
        struct still s;
        spread_open(&s);
        warm(&s);
        memcpy(said, wanted, sizeof said);
        said[sizeof FAILED_AT("\1", OF_MAP(ATOM_ECHO, "\0")) - 2] = (uint8_t)first;
        /* Of 20, 16 are in its ring and the others in the queue. */
        uint8_t list[5 + 20 * 2 + 1] = {RB_TAG_LIST, 0, 0, 0, 20};
        for (int i = 0; i < 20; i++) list[5 + 2 * i] = RB_TAG_SMALL_INTEGER;
        list[sizeof list - 1] = RB_TAG_NIL;
        spread_ask(&s, "submit", MAP(ATOM_ECHO), sizeof MAP(ATOM_ECHO) - 1, list, sizeof list,
                   STAGES("\1") ATOM_JOIN "\x6a", sizeof(STAGES("\1") ATOM_JOIN "\x6a") - 1, 1);
        CHECK_EQUAL(at_work(&s, ECHO), 16);
        CHECK_EQUAL(still_role(&s).queued, 4);
        answer_nth(&s, ECHO, (uint64_t)first, "no", 2, RB_STATUS_FAILED, 0);
        CHECK(still_told(&s, said, sizeof said));
        CHECK_EQUAL(still_role(&s).queued, 0);
        for (uint64_t k = 0; k < 16; k++)
            CHECK_EQUAL(is_stopped(&s, ECHO, k), k != (uint64_t)first);
        even_and_over(&s);
        CHECK_EQUAL(answered(&s, RB_REASON_JOB_FAILED), 1);
        CHECK_EQUAL(answered(&s, RB_REASON_CANCELLED), 0);
        /* They end as they like, and nobody hears of it. */
        for (uint64_t k = 0; k < 16; k++)
            if (k != (uint64_t)first) answer_nth(&s, ECHO, k, "late", 4, RB_STATUS_OK, 0);
        release(&s, ECHO, 16);
        even_and_over(&s);
        CHECK_EQUAL(at_work(&s, JOIN), 0);
        still_close(&s);
    }
}

static void a_death_names_its_branch(void) {
    struct still s;
    spread_open(&s);
    warm(&s);
    ASK(&s, BOTH, BIN("p"));
    ANSWER(&s, ECHO, 0, "e");
    release(&s, ECHO, 1);
    still_crash(&s, OTHER);
    CHECK(TOLD(&s, FAILED_AT("\1", OF_FAN_OUT(ATOM_OTHER, "\1")) "\x68\2\x77\x0eworker_crashed"));
    even_and_over(&s);
    CHECK_EQUAL(answered(&s, RB_REASON_WORKER_CRASHED), 1);
    /* And of a map in the middle, whose siblings lie in the ring of the dead: they are not run anew. */
    spread_hire(&s, OTHER);
    ASK_WITH(&s, ATOM_ECHO, BIN("a"), STAGES("\2") MAP(ATOM_JOIN) ATOM_ECHO "\x6a", 1);
    answer_nth(&s, ECHO, 0, ABC, sizeof ABC - 1, RB_STATUS_OK, RB_FLAG_TERM);
    release(&s, ECHO, 1);
    CHECK_EQUAL(at_work(&s, JOIN), 3);
    rb_lab_start(s.workers[JOIN], 1);
    rb_lab_die(s.workers[JOIN], -1, 9, 0);
    s.workers[JOIN] = NULL;
    still_round(&s, 0);
    CHECK(TOLD(&s, FAILED_AT("\2", OF_MAP(ATOM_JOIN, "\0")) "\x68\2\x77\x0eworker_crashed"));
    spread_hire(&s, JOIN);
    CHECK_EQUAL(at_work(&s, JOIN), 0);
    even_and_over(&s);
    still_close(&s);
}

static void what_may_be_retried_is_run_again_in_its_place(void) {
    struct rb_role_config roles[SPREAD_ROLES] = {spread_role(0), spread_role(1), spread_role(2)};
    struct still s;
    roles[ECHO].idempotent = 1;
    spread_open_with(&s, roles, 0);
    warm(&s);
    ASK_WITH(&s, MAP(ATOM_ECHO), ABC, "\x77\5retry\x61\1", 1);
    answer_nth(&s, ECHO, 1, "y", 1, RB_STATUS_OK, 0);
    rb_lab_start(s.workers[ECHO], 3);
    rb_lab_die(s.workers[ECHO], -1, 9, 0);
    s.workers[ECHO] = NULL;
    still_round(&s, 0);
    even(&s);
    spread_hire(&s, ECHO);
    CHECK_EQUAL(echo_all(&s), 2);
    CHECK(TOLD(&s, "\x68\2\x77\2ok\x6c\0\0\0\3" BIN("a") BIN("y") BIN("c") "\x6a"));
    even_and_over(&s);
    still_close(&s);
}

static void the_deadline_is_that_of_the_whole(void) {
    struct rb_role_config roles[SPREAD_ROLES] = {spread_role(0), spread_role(1), spread_role(2)};
    struct still s;
    roles[ECHO].admission.depth_max = 1;
    spread_open_with(&s, roles, 0);
    warm(&s);
    ASK_WITH(&s, BOTH, BIN("p"), "\x77\7timeout\x61\x64", 1);
    ANSWER(&s, ECHO, 0, "e");
    release(&s, ECHO, 1);
    still_round(&s, 101);
    CHECK(TOLD(&s, FAILED_AT("\1", OF_FAN_OUT(ATOM_OTHER, "\1")) "\x77\x11"
                                                                 "deadline_exceeded"));
    CHECK(is_stopped(&s, OTHER, 0));
    even_and_over(&s);
    CHECK_EQUAL(answered(&s, RB_REASON_DEADLINE_EXCEEDED), 1);
    still_close(&s);
}

/* --- Its caller leaves --------------------------------------------------------------------------- */

static uint8_t list_of_many[5 + 2 * 3000 + 1];
static uint32_t ask_many(struct still *s, const char *options, size_t size, uint32_t count) {
    uint8_t *at = list_of_many;
    *at = RB_TAG_LIST;
    rb_put_be32(at + 1, 3000);
    for (at += 5; at < list_of_many + sizeof list_of_many - 1; at += 2) {
        at[0] = RB_TAG_SMALL_INTEGER;
        at[1] = 7;
    }
    *at = RB_TAG_NIL;
    return spread_ask(s, "submit", MAP(ATOM_ECHO), sizeof MAP(ATOM_ECHO) - 1, list_of_many,
                      sizeof list_of_many, options, size, count);
}

static void the_caller_s_end_is_the_end_of_all(void) {
    struct still s;
    spread_open(&s);
    warm(&s);
    for (int rounds = 0; rounds < 4; rounds++) {
        uint32_t caller = ask_many(&s, "", 0, 0); /* a part of it has begun */
        for (int i = 0; i < rounds; i++) still_round(&s, 0);
        CHECK(at_work(&s, ECHO) == 16 && still_role(&s).queued > 0);
        lab_monitor(s.lab.peer, 0, caller, caller);
        still_round(&s, 0);
        CHECK_EQUAL(still_role(&s).queued, 0);
        for (uint64_t k = 0; k < 16; k++) CHECK(is_stopped(&s, ECHO, k));
        even_and_over(&s);
        CHECK_EQUAL(answered(&s, RB_REASON_CANCELLED), (uint64_t)rounds + 1);
        CHECK_EQUAL(echo_all(&s), 16);
        even_and_over(&s);
    }
    still_close(&s);
}

static void the_end_of_a_connection_is_too(void) {
    struct still s;
    spread_open(&s);
    warm(&s);
    ask_many(&s, "", 0, 0);
    close(s.lab.peer);
    still_round(&s, 0);
    CHECK_EQUAL(still_role(&s).queued, 0);
    CHECK_EQUAL(still_stats(&s).in_flight, 0);
    s.lab.peer = lab_connect(&s.lab);
    still_round(&s, 0);
    even_and_over(&s);
    still_close(&s);
}

static void who_may_finish_does_without_its_caller(void) {
    struct rb_allowance_config node = {.depth_max = 40};
    struct still s;
    spread_open(&s);
    warm(&s);
    /* Of whose node there is nobody to be counted for any more. */
    rb_relay_configure_allowance(s.lab.relay, RB_ACCOUNT_NODE, "", &node);
    uint32_t caller = ask_many(&s,
                               "\x77\6orphan\x77\6"
                               "finish" STAGES("\1") BOTH "\x6a",
                               sizeof("\x77\6orphan\x77\6"
                                      "finish" STAGES("\1") BOTH "\x6a") -
                                   1,
                               2);
    lab_monitor(s.lab.peer, 0, caller, caller);
    still_round(&s, 0);
    CHECK_EQUAL(still_stats(&s).in_flight, 1);
    even(&s);
    CHECK_EQUAL(echo_all(&s), 3000 + 2);
    even_and_over(&s);
    CHECK_EQUAL(answered(&s, RB_REASON_OK), 4);
    still_close(&s);
}

static void a_relay_ends_in_the_middle(void) {
    struct still s;
    spread_open(&s);
    warm(&s);
    ask_many(&s, "", 0, 0);
    uint32_t caller = ask_many(&s,
                               "\x77\6orphan\x77\6"
                               "finish",
                               sizeof("\x77\6orphan\x77\6"
                                      "finish") -
                                   1,
                               1);
    lab_monitor(s.lab.peer, 0, caller, caller);
    still_round(&s, 0);
    still_close(&s);
}

/* --- Cancelled by name --------------------------------------------------------------------------- */

static void cancel(struct still *s, uint64_t job) {
    struct lab_bytes b = {.size = 0};
    uint32_t caller = ++s->callers;
    lab_monitor(s->lab.peer, 1, caller, caller);
    lab_call_head(&b, caller, caller);
    PUT(&b, "\x68\2");
    lab_put_atom(&b, "cancel");
    PUT(&b, "\x6e\x08\x00");
    for (int i = 0; i < 8; i++) {
        uint8_t byte = (uint8_t)(job >> 8 * i);
        lab_put(&b, &byte, 1);
    }
    lab_frame(s->lab.peer, &b);
    still_round(s, 0);
}

static void who_cancels_a_branch_cancels_the_whole(void) {
    struct rb_lab_request r;
    struct still s;
    spread_open(&s);
    warm(&s);
    ASK(&s, MAP(ATOM_ECHO), ABC);
    CHECK(rb_lab_request(s.workers[ECHO], 2, &r) == 0);
    cancel(&s, r.job);
    CHECK(TOLD(&s, "\x77\2ok"));
    CHECK(TOLD(&s, FAILED_AT("\1", OF_MAP(ATOM_ECHO, "\2")) "\x77\x09"
                                                            "cancelled"));
    CHECK(is_stopped(&s, ECHO, 0) && is_stopped(&s, ECHO, 1) && is_stopped(&s, ECHO, 2));
    even_and_over(&s);
    still_close(&s);
}

int main(void) {
    RUN(the_first_failure_stops_its_siblings);
    RUN(a_death_names_its_branch);
    RUN(what_may_be_retried_is_run_again_in_its_place);
    RUN(the_deadline_is_that_of_the_whole);
    RUN(the_caller_s_end_is_the_end_of_all);
    RUN(the_end_of_a_connection_is_too);
    RUN(who_may_finish_does_without_its_caller);
    RUN(a_relay_ends_in_the_middle);
    RUN(who_cancels_a_branch_cancels_the_whole);
    return check_end();
}
