/* What fan-outs and maps may: who is refused at the door, what waits for room and for how long, and what is too much. */
#define _GNU_SOURCE
#include "spread_lab.h"

#define ABC "\x6c\0\0\0\3" BIN("a") BIN("b") BIN("c") "\x6a"
#define BOTH "\x6c\0\0\0\2" ATOM_ECHO ATOM_OTHER "\x6a"

static void even_and_over(struct still *s) {
    even(s);
    CHECK(still_quiet(s));
    CHECK_EQUAL(still_stats(s).in_flight, 0);
}

/* One job at a time at each worker, and one that waits. */
static void open_narrow(struct still *s, uint32_t on_full) {
    struct rb_role_config roles[SPREAD_ROLES];
    for (int i = 0; i < SPREAD_ROLES; i++) {
        roles[i] = spread_role(i);
        roles[i].choice.credit_us = 0;
        roles[i].admission.depth_max = 1;
        roles[i].admission.on_full = on_full;
        roles[i].admission.defer_max = 8;
        roles[i].admission.defer_ms = 50;
    }
    spread_open_with(s, roles, 0);
}
static void end_one(struct still *s, int role) {
    ANSWER(s, role, 0, "s");
    release(s, role, 1);
}

/* --- At the door --------------------------------------------------------------------------------- */

static void a_full_role_refuses_a_map_as_it_refuses_a_job(void) {
    struct still s;
    open_narrow(&s, RB_ADMISSION_REJECT);
    still_submit(&s);
    still_submit(&s);
    ASK(&s, MAP(ATOM_ECHO), ABC);
    CHECK(TOLD(&s, "\x68\2\x77\5error\x68\2\x77\x0aoverloaded"));
    ASK(&s, "\x6c\0\0\0\2" ATOM_OTHER ATOM_ECHO "\x6a", BIN("p"));
    CHECK(TOLD(&s, "\x68\2\x77\5error\x68\2\x77\x0aoverloaded"));
    CHECK_EQUAL(at_work(&s, OTHER), 0); /* none begins in vain */
    CHECK_EQUAL(still_stats(&s).accepted, 2);
    CHECK_EQUAL(still_stats(&s).refused[RB_REASON_OVERLOADED], 2);
    even(&s);
    rb_relay_set_role_state(s.lab.relay, OTHER, RB_ROLE_DRAINING);
    still_round(&s, 0);
    ASK(&s, MAP(ATOM_OTHER), ABC);
    CHECK(TOLD(&s, "\x68\2\x77\5error\x77\x08"
                   "draining"));
    ASK(&s, "\x6c\0\0\0\2" ATOM_JOIN ATOM_OTHER "\x6a", BIN("p"));
    CHECK(TOLD(&s, "\x68\2\x77\5error\x77\x08"
                   "draining"));
    CHECK_EQUAL(at_work(&s, JOIN), 0);
    still_close(&s);
}

static void a_later_step_is_refused_when_its_turn_comes(void) {
    struct still s;
    open_narrow(&s, RB_ADMISSION_REJECT);
    still_submit(&s);
    still_submit(&s);
    ASK_WITH(&s, ATOM_OTHER, BIN("p"), STAGES("\1") MAP(ATOM_ECHO) "\x6a", 1);
    answer_nth(&s, OTHER, 0, ABC, sizeof ABC - 1, RB_STATUS_OK, RB_FLAG_TERM);
    release(&s, OTHER, 1);
    CHECK(TOLD(&s, FAILED_AT("\2", OF_MAP(ATOM_ECHO, "\0")) "\x68\2\x77\x0aoverloaded"));
    CHECK_EQUAL(answered(&s, RB_REASON_OVERLOADED), 1);
    even(&s);
    rb_relay_set_role_state(s.lab.relay, JOIN, RB_ROLE_DRAINING);
    ASK_WITH(&s, ATOM_OTHER, BIN("p"), STAGES("\1") "\x6c\0\0\0\2" ATOM_OTHER ATOM_JOIN "\x6a\x6a",
             1);
    end_one(&s, OTHER);
    CHECK(TOLD(&s, FAILED_AT("\2", OF_FAN_OUT(ATOM_JOIN, "\1")) "\x77\x08"
                                                                "draining"));
    CHECK_EQUAL(at_work(&s, OTHER), 0); /* its sibling had not run yet */
    even(&s);
    still_close(&s);
}

/* --- What waits for room ------------------------------------------------------------------------- */

static void an_element_waits_for_a_sibling_to_end(void) {
    struct still s;
    open_narrow(&s, RB_ADMISSION_REJECT);
    ASK(&s, MAP(ATOM_ECHO), ABC); /* the queue takes one at a time */
    for (int k = 0; k < 3; k++) {
        CHECK_EQUAL(at_work(&s, ECHO), 1);
        even(&s);
        end_one(&s, ECHO); /* no time has passed */
    }
    CHECK(TOLD_OK(&s));
    even_and_over(&s);
    still_close(&s);
}

static void an_element_that_lost_its_room_to_others_comes_again(void) {
    struct still s;
    open_narrow(&s, RB_ADMISSION_REJECT);
    ASK(&s, MAP(ATOM_ECHO), ABC);
    still_submit(&s); /* is in the queue when the first element ends */
    end_one(&s, ECHO);
    CHECK_EQUAL(still_role(&s).queued, 0); /* none of the map's is under way */
    even(&s);
    still_submit(&s);
    still_round(&s, 10000);
    CHECK_EQUAL(still_role(&s).queued, 1); /* still the other's */
    end_one(&s, ECHO);
    CHECK(TOLD_OK(&s));
    still_round(&s, 10000);
    CHECK_EQUAL(still_role(&s).queued, 1); /* the second element */
    end_one(&s, ECHO);
    CHECK(TOLD_OK(&s));
    for (int k = 0; k < 2; k++) {
        CHECK(still_quiet(&s));
        end_one(&s, ECHO);
    }
    CHECK(TOLD_OK(&s));
    CHECK_EQUAL(still_stats(&s).overloaded_by[RB_RULE_ROLE_DEPTH], 0);
    even_and_over(&s);
    still_close(&s);
}

static void a_rate_paces_a_map(void) {
    struct rb_role_config roles[SPREAD_ROLES] = {spread_role(0), spread_role(1), spread_role(2)};
    struct still s;
    uint64_t began;
    /* One each 100 ms, of which one may be saved. */
    roles[ECHO].admission.rate = (struct rb_rate_config){RB_RATE_TOKEN_BUCKET, 10, 1000, 1};
    spread_open_with(&s, roles, 0);
    began = s.now;
    ASK(&s, MAP(ATOM_ECHO), ABC);
    for (int i = 0; i < 3; i++) {
        for (int ms = 0; ms < 1000 && at_work(&s, ECHO) == 0; ms++) still_round(&s, 1);
        CHECK_EQUAL(at_work(&s, ECHO), 1);
        end_one(&s, ECHO); /* nothing is under way, and the next is not let in */
        even(&s);
    }
    CHECK(s.now - began >= 200 * STILL_MS && s.now - began < 300 * STILL_MS);
    CHECK(TOLD_OK(&s));
    CHECK_EQUAL(still_stats(&s).overloaded_by[RB_RULE_ROLE_RATE], 0);
    even_and_over(&s);
    /* Until the deadline. */
    still_round(&s, 1000);
    ASK_WITH(&s, MAP(ATOM_ECHO), ABC, "\x77\7timeout\x61\x32", 1);
    end_one(&s, ECHO);
    CHECK(still_quiet(&s));
    for (int ms = 0; ms < 49; ms++) still_round(&s, 1);
    CHECK(still_quiet(&s));
    still_round(&s, 1);
    CHECK(TOLD(&s, FAILED_AT("\1", OF_MAP(ATOM_ECHO, "\1")) "\x77\x11"
                                                            "deadline_exceeded"));
    CHECK_EQUAL(answered(&s, RB_REASON_DEADLINE_EXCEEDED), 1);
    even_and_over(&s);
    /* And its caller may leave meanwhile. */
    still_round(&s, 1000);
    uint32_t caller = ASK(&s, MAP(ATOM_ECHO), ABC);
    end_one(&s, ECHO);
    lab_monitor(s.lab.peer, 0, caller, caller);
    still_round(&s, 0);
    even_and_over(&s);
    still_close(&s);
}

static void a_map_displaces_nobody_and_may_be_displaced(void) {
    struct still s;
    open_narrow(&s, RB_ADMISSION_DROP_OLDEST);
    ASK(&s, MAP(ATOM_ECHO), ABC);
    CHECK(still_quiet(&s));
    for (int i = 0; i < 10; i++)
        still_round(&s, 10); /* the second is queued, the third waits for its room */
    CHECK_EQUAL(still_role(&s).queued, 1);
    CHECK_EQUAL(still_stats(&s).overloaded_by[RB_RULE_DROPPED], 0);
    even(&s);
    still_submit(&s); /* takes the place of the one that is queued */
    CHECK(TOLD(&s, FAILED_AT("\1", OF_MAP(ATOM_ECHO, "\1")) "\x68\2\x77\x0aoverloaded"));
    CHECK(is_stopped(&s, ECHO, 0));
    CHECK_EQUAL(still_stats(&s).overloaded_by[RB_RULE_DROPPED], 1);
    CHECK_EQUAL(answered(&s, RB_REASON_OVERLOADED), 1);
    even(&s);
    end_one(&s, ECHO);
    end_one(&s, ECHO);
    CHECK(TOLD_OK(&s));
    even_and_over(&s);
    still_close(&s);
}

static void of_several_that_are_displaced_one_is_told(void) {
    struct rb_role_config roles[SPREAD_ROLES] = {spread_role(0), spread_role(1), spread_role(2)};
    struct still s;
    roles[ECHO].choice.credit_us = 0;
    roles[ECHO].admission.depth_max = 4;
    roles[ECHO].admission.on_full = RB_ADMISSION_DROP_OLDEST;
    spread_open_with(&s, roles, 0);
    still_submit(&s);
    uint32_t caller = spread_ask(&s, "submit", MAP(ATOM_ECHO), sizeof MAP(ATOM_ECHO) - 1, ABC,
                                 sizeof ABC - 1, "", 0, 0);
    still_submit(&s);
    /* Both in one round: two of the map's are dropped. */
    for (int i = 0; i < 2; i++) lab_submit(s.lab.peer, ++s.callers, "x", 1);
    still_round(&s, 0);
    CHECK(TOLD(&s, FAILED_AT("\1", OF_MAP(ATOM_ECHO, "\0")) "\x68\2\x77\x0aoverloaded"));
    CHECK_EQUAL(still_stats(&s).overloaded_by[RB_RULE_DROPPED], 1);
    even(&s);
    /* And one whose caller leaves in the same round is not counted. */
    echo_all(&s);
    for (int i = 0; i < 4; i++) CHECK(TOLD_OK(&s));
    still_submit(&s);
    caller = spread_ask(&s, "submit", MAP(ATOM_ECHO), sizeof MAP(ATOM_ECHO) - 1, ABC,
                        sizeof ABC - 1, "", 0, 0);
    still_submit(&s);
    lab_submit(s.lab.peer, ++s.callers, "x", 1);
    lab_monitor(s.lab.peer, 0, caller, caller);
    still_round(&s, 0);
    even(&s);
    CHECK_EQUAL(answered(&s, RB_REASON_OVERLOADED), 1);
    CHECK_EQUAL(answered(&s, RB_REASON_CANCELLED), 1);
    echo_all(&s);
    still_close(&s);
}

/* --- What is too much ---------------------------------------------------------------------------- */

static void what_a_role_does_not_take_names_the_element(void) {
    struct rb_role_config roles[SPREAD_ROLES] = {spread_role(0), spread_role(1), spread_role(2)};
    struct still s;
    roles[ECHO].payload_bytes_max = 4;
    roles[JOIN].payload_bytes_max = 18;
    spread_open_with(&s, roles, 0);
    warm(&s);
    ASK(&s, MAP(ATOM_ECHO), "\x6c\0\0\0\2" BIN("a") "\x6d\0\0\0\5large\x6a");
    CHECK(TOLD(&s, FAILED_AT("\1", OF_MAP(ATOM_ECHO, "\1")) "\x68\2\x77\x09too_large\x61\4"));
    CHECK_EQUAL(at_work(&s, ECHO), 0); /* the one before it had not run yet */
    even_and_over(&s);
    ASK(&s, BOTH, "\x6d\0\0\0\5large");
    CHECK(TOLD(&s, "\x68\2\x77\5error\x68\2\x77\x09too_large\x61\4"));
    CHECK_EQUAL(at_work(&s, OTHER), 0);
    /* Two values of one byte, and their list, are 18 bytes; a third ends the whole before its last one is there. */
    ASK_WITH(&s, MAP(ATOM_ECHO), "\x6c\0\0\0\2" BIN("a") BIN("b") "\x6a",
             STAGES("\1") ATOM_JOIN "\x6a", 1);
    CHECK_EQUAL(echo_all(&s), 3);
    CHECK(TOLD_OK(&s));
    ASK_WITH(&s, MAP(ATOM_OTHER), "\x6c\0\0\0\4" BIN("a") BIN("b") BIN("c") BIN("d") "\x6a",
             STAGES("\2") "\x6c\0\0\0\2" ATOM_OTHER ATOM_JOIN "\x6a" ATOM_ECHO "\x6a", 1);
    for (int k = 0; k < 2; k++) answer_nth(&s, OTHER, (uint64_t)k, "v", 1, RB_STATUS_OK, 0);
    CHECK(still_quiet(&s));
    answer_nth(&s, OTHER, 2, "v", 1, RB_STATUS_OK, 0);
    CHECK(TOLD(&s, FAILED_AT("\2", OF_FAN_OUT(ATOM_JOIN, "\1")) "\x68\2\x77\x09too_large\x61\x12"));
    CHECK(is_stopped(&s, OTHER, 3));
    even_and_over(&s);
    CHECK_EQUAL(answered(&s, RB_REASON_TOO_LARGE), 2);
    still_close(&s);
}

static void what_a_connection_keeps_is_bounded(void) {
    static uint8_t payload[60000];
    struct still s;
    spread_open_with(&s, NULL, 64 << 10); /* 61440 bytes may be kept */
    warm(&s);
    /* Answers. */
    ASK_WITH(&s, MAP(ATOM_ECHO), ABC, STAGES("\1") ATOM_JOIN "\x6a", 1);
    uint64_t own = kept(&s); /* its record */
    answer_nth(&s, ECHO, 0, payload, 30000, RB_STATUS_OK, 0);
    CHECK(still_quiet(&s));
    answer_nth(&s, ECHO, 2, payload, 31426 - own, RB_STATUS_OK, 0);
    CHECK(TOLD(&s,
               FAILED_AT("\1", OF_MAP(ATOM_ECHO, "\2")) "\x68\3\x77\x0ajob_failed\x62\0\0\xff\0"));
    even_and_over(&s);
    answer_nth(&s, ECHO, 1, "late", 4, RB_STATUS_OK, 0);
    release(&s, ECHO, 3);
    /* One byte less. */
    ASK_WITH(&s, "\x6c\0\0\0\2" ATOM_ECHO ATOM_ECHO "\x6a", BIN("a"), STAGES("\1") ATOM_JOIN "\x6a",
             1);
    own = kept(&s);
    answer_nth(&s, ECHO, 0, payload, 30000, RB_STATUS_OK, 0);
    answer_nth(&s, ECHO, 1, payload, 31425 - own, RB_STATUS_OK, 0);
    CHECK_EQUAL(at_work(&s, JOIN), 1);
    release(&s, ECHO, 2);
    end_one(&s, JOIN);
    CHECK(TOLD_OK(&s));
    even_and_over(&s);
    /* Payloads that wait: 200 of 800 bytes, of which 64 begin at once. */
    static uint8_t whole[5 + 200 * 805 + 1];
    memcpy(whole, "\x6c\0\0\0\xc8", 5);
    for (int i = 0; i < 200; i++) memcpy(whole + 5 + (size_t)i * 805, "\x6d\0\0\3\x20", 5);
    whole[sizeof whole - 1] = RB_TAG_NIL;
    spread_ask(&s, "submit", MAP(ATOM_ECHO), sizeof MAP(ATOM_ECHO) - 1, whole, sizeof whole, "", 0,
               0);
    CHECK(TOLD(&s, FAILED_AT("\1", ATOM_ECHO) "\x68\3\x77\x0ajob_failed\x62\0\0\xff\0"));
    even_and_over(&s);
    echo_all(&s);
    even_and_over(&s);
    still_close(&s);
}

/* --- What is none -------------------------------------------------------------------------------- */

#define BAD          \
    "\x68\2\x77\x0b" \
    "bad_request\x6d"

static void what_is_no_list_is_not_mapped(void) {
    static uint8_t list[5 + 2 * 10001 + 1] = {RB_TAG_LIST, 0, 0, 10001 >> 8, 10001 & 255};
    struct still s;
    spread_open(&s);
    warm(&s);
    for (int i = 0; i < 10001; i++) list[5 + 2 * i] = RB_TAG_SMALL_INTEGER;
    list[sizeof list - 1] = RB_TAG_NIL;
    ASK(&s, MAP(ATOM_ECHO), BIN("a"));
    CHECK(TOLD(&s, "the payload of a map must be a proper list, got a binary of 1 bytes"));
    ASK(&s, MAP(ATOM_ECHO), "\x6c\0\0\0\1\x61\1\x61\2");
    CHECK(TOLD(&s, "the payload of a map must be a proper list, got a list"));
    spread_ask(&s, "submit", MAP(ATOM_ECHO), sizeof MAP(ATOM_ECHO) - 1, list, sizeof list, "", 0,
               0);
    CHECK(TOLD(&s, "a map takes at most 10000 elements, got 10001"));
    CHECK_EQUAL(still_stats(&s).accepted, 3);
    /* What comes out of a step is looked at when its turn comes. */
    ASK_WITH(&s, ATOM_JOIN, BIN("a"), STAGES("\1") MAP(ATOM_ECHO) "\x6a", 1);
    end_one(&s, JOIN);
    CHECK(TOLD(&s, FAILED_AT("\2", ATOM_ECHO) BAD));
    ASK_WITH(&s, ATOM_JOIN, BIN("a"), STAGES("\1") MAP(ATOM_ECHO) "\x6a", 1);
    answer_nth(&s, JOIN, 0, "\x6c\0\0\0\1\x61\1\x61\2", 9, RB_STATUS_OK, RB_FLAG_TERM);
    release(&s, JOIN, 1);
    CHECK(TOLD(&s, FAILED_AT("\2", ATOM_ECHO) BAD));
    CHECK_EQUAL(at_work(&s, ECHO), 0);
    ASK_WITH(&s, ATOM_JOIN, BIN("a"), STAGES("\1") MAP(ATOM_ECHO) "\x6a", 1);
    answer_nth(&s, JOIN, 0, list, sizeof list, RB_STATUS_OK, RB_FLAG_TERM);
    release(&s, JOIN, 1);
    echo_all(&s);
    CHECK(TOLD(&s, FAILED_AT("\2", ATOM_ECHO) BAD));
    even_and_over(&s);
    CHECK_EQUAL(answered(&s, RB_REASON_BAD_REQUEST), 3);
    still_close(&s);
}

static void what_are_no_steps_is_refused(void) {
    static const struct {
        const char *verb, *role, *options;
        size_t role_size, options_size;
        const char *why;
    } asked[] = {
#define CASE(verb, role, options, why) \
    {verb, role, options, sizeof(role) - 1, sizeof(options) - 1, why}
        CASE("submit", "\x68\2\x77\3map\x61\5", "", "unknown role map"),
        CASE("submit", MAP("\x77\6nobody"), "", "unknown role nobody; this node has: echo"),
        CASE("submit", MAP(MAP(ATOM_ECHO)), "",
             "submit: role must be an atom or a binary, got a tuple; or {role, opcode}"),
        CASE("submit", MAP("\x6c\0\0\0\1" ATOM_ECHO "\x6a"), "",
             "submit: role must be an atom or a binary, got a tuple"),
        CASE("submit", "\x68\3" ATOM_ECHO ATOM_ECHO ATOM_ECHO, "",
             "submit: role must be an atom or a binary, got a tuple"),
        CASE("submit", "\x68\2" ATOM_ECHO "\x62\0\1\0\0", "",
             "submit: role must be an atom or a binary, got a tuple"),
        CASE("submit", "\x6a", "", "submit: role must be an atom or a binary, got []"),
        CASE("submit", "\x6c\0\0\0\1" ATOM_ECHO ATOM_ECHO, "",
             "submit: role must be an atom or a binary, got a list"),
        CASE("submit", "\x6c\0\0\0\1" MAP(ATOM_ECHO) "\x6a", "",
             "submit: role must be an atom or a binary, got a list"),
        CASE("submit", "\x6c\0\0\0\1\x6c\0\0\0\1" ATOM_ECHO "\x6a\x6a", "",
             "submit: role must be an atom or a binary, got a list"),
        CASE("submit_many", MAP(ATOM_ECHO), "",
             "submit_many: role must be an atom or a binary, got a tuple; stages are of submit"),
        CASE("submit", MAP(ATOM_ECHO),
             "\x77\6"
             "detail\x77\4true",
             "submit: detail tells of one job, and the last stage is a map; end in one role"),
        CASE("submit", ATOM_ECHO,
             "\x77\6"
             "detail\x77\4true" STAGES("\1") BOTH "\x6a",
             "submit: detail tells of one job, and the last stage is a fan-out"),
        CASE("submit", MAP(ATOM_ECHO),
             "\x77\6"
             "dedupe\x61\1",
             "submit: stages and dedupe do not go together: that is of one job, and a fan-out or "
             "map is several"),
        CASE("submit", BOTH, "\x77\6opcode\x61\1",
             "submit: opcode and op are of one role, and this fan-out has 2; give each its own"),
        CASE("submit", BOTH, "\x77\2op\x77\1x", "submit: opcode and op are of one role"),
        CASE("submit", "\x68\2" ATOM_ECHO "\x61\5", "\x77\6opcode\x61\1",
             "submit: the step says opcode 5, and so do the options; say it once"),
        CASE("submit", MAP("\x68\2" ATOM_ECHO "\x61\5"), "\x77\2op\x77\1x",
             "submit: the step says opcode 5, and so do the options"),
        CASE("submit", MAP(ATOM_ECHO), "\x77\5retry\x61\1",
             "submit: retry: 1, but role echo is not idempotent"),
        CASE("submit", ATOM_JOIN,
             "\x77\5retry\x61\0" STAGES("\1") "\x6c\0\0\0\2" ATOM_ECHO "\x77\6nobody\x6a\x6a",
             "submit: unknown role nobody of stage 2"),
        CASE("submit", ATOM_ECHO, STAGES("\1") MAP("\x6a") "\x6a",
             "stages must be a list of 1 to 16 roles"),
        CASE("submit", ATOM_ECHO, STAGES("\1") "\x6a\x6a",
             "stages must be a list of 1 to 16 roles"),
#undef CASE
    };
    struct still s;
    spread_open(&s);
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        uint32_t count = asked[i].options_size == 0 ? 0 : 1;
        for (size_t k = 1; k + 6 < asked[i].options_size; k++)
            count += memcmp(asked[i].options + k, "\x77\6stages", 8) == 0;
        spread_ask(&s, asked[i].verb, asked[i].role, asked[i].role_size, "\x6a", 1,
                   asked[i].options, asked[i].options_size, count);
        int told = still_told(&s, asked[i].why, strlen(asked[i].why));
        CHECK(told);
        if (!told) printf("case %zu: %s\n", i, asked[i].why);
    }
    CHECK_EQUAL(still_stats(&s).accepted, 0);
    /* A fan-out of 16, and of 17. */
    for (int n = 16; n <= 17; n++) {
        struct lab_bytes b = {.size = 0};
        PUT(&b, "\x6c");
        lab_put_u32(&b, (uint32_t)n);
        for (int i = 0; i < n; i++) PUT(&b, ATOM_ECHO);
        PUT(&b, "\x6a");
        spread_ask(&s, "submit", (const char *)b.at, b.size, BIN("p"), 6, "", 0, 0);
        if (n == 16) CHECK_EQUAL(echo_all(&s), 16);
        if (n == 16) CHECK(TOLD_OK(&s));
        if (n == 17) CHECK(TOLD(&s, "submit: role must be an atom or a binary, got a list"));
    }
    even_and_over(&s);
    still_close(&s);
}

int main(void) {
    RUN(a_full_role_refuses_a_map_as_it_refuses_a_job);
    RUN(a_later_step_is_refused_when_its_turn_comes);
    RUN(an_element_waits_for_a_sibling_to_end);
    RUN(an_element_that_lost_its_room_to_others_comes_again);
    RUN(a_rate_paces_a_map);
    RUN(a_map_displaces_nobody_and_may_be_displaced);
    RUN(of_several_that_are_displaced_one_is_told);
    RUN(what_a_role_does_not_take_names_the_element);
    RUN(what_a_connection_keeps_is_bounded);
    RUN(what_is_no_list_is_not_mapped);
    RUN(what_are_no_steps_is_refused);
    return check_end();
}
