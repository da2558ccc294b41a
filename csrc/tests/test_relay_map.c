/* Steps of several jobs: a fan-out gives one payload to several roles, a map a job to each element of a list; what comes out is the list
 * of the answers, in order. The ways in which they end are test_relay_map_ends.c's. */
#define _GNU_SOURCE
#include "spread_lab.h"

#define ABC "\x6c\0\0\0\3" BIN("a") BIN("b") BIN("c") "\x6a"
#define XYZ "\x6c\0\0\0\3" BIN("x") BIN("y") BIN("z") "\x6a"

static void a_map_s_answers_are_in_the_order_of_its_elements(void) {
    static const int orders[][3] = {{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {2, 0, 1}};
    static const char *const letters[] = {"x", "y", "z"};
    struct still s;
    spread_open(&s);
    warm(&s);
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        ASK(&s, MAP(ATOM_ECHO), ABC);
        CHECK(at_work(&s, ECHO) == 3 && ASKED(&s, ECHO, 0, "a") && ASKED(&s, ECHO, 1, "b") &&
              ASKED(&s, ECHO, 2, "c"));
        for (int k = 0; k < 3; k++) {
            CHECK(still_quiet(&s));
            even(&s);
            answer_nth(&s, ECHO, (uint64_t)orders[i][k], letters[orders[i][k]], 1, RB_STATUS_OK, 0);
        }
        CHECK(TOLD(&s, "\x68\2\x77\2ok" XYZ));
        release(&s, ECHO, 3);
        CHECK_EQUAL(still_stats(&s).accepted, 3 + i + 1);
        CHECK_EQUAL(still_stats(&s).in_flight, 0);
    }
    CHECK_EQUAL(answered(&s, RB_REASON_OK), 7);
    still_close(&s);
}

static void the_step_behind_a_map_joins_it(void) {
    struct still s;
    spread_open(&s);
    warm(&s);
    ASK_WITH(&s, MAP(ATOM_ECHO), ABC, STAGES("\1") ATOM_JOIN "\x6a", 1);
    for (uint64_t k = 3; k-- > 0;) {
        CHECK_EQUAL(at_work(&s, JOIN), 0);
        static const char *const letters[] = {"x", "y", "z"};
        answer_nth(&s, ECHO, k, letters[k], 1, RB_STATUS_OK, 0);
    }
    CHECK(ASKED_TERM(&s, JOIN, 0, XYZ));
    CHECK(still_quiet(&s));
    ANSWER(&s, JOIN, 0, "j");
    CHECK(TOLD(&s, "\x68\2\x77\2ok" BIN("j")));
    still_close(&s);
}

static void terms_are_elements_and_values_as_they_are(void) {
    struct still s;
    spread_open(&s);
    warm(&s);
    ASK_WITH(&s, MAP("\x68\2" ATOM_ECHO "\x61\7"), "\x6c\0\0\0\2\x61\5\x68\1\x61\6\x6a",
             STAGES("\1") "\x68\2" ATOM_JOIN "\x61\x09\x6a", 1);
    struct rb_lab_request r;
    CHECK(ASKED_TERM(&s, ECHO, 0, "\x61\5") && ASKED_TERM(&s, ECHO, 1, "\x68\1\x61\6"));
    CHECK(rb_lab_request(s.workers[ECHO], 1, &r) == 0 && r.opcode == 7);
    answer_nth(&s, ECHO, 1, "\x6a", 1, RB_STATUS_OK, RB_FLAG_TERM);
    ANSWER(&s, ECHO, 0, "raw");
    CHECK(ASKED_TERM(&s, JOIN, 0, "\x6c\0\0\0\2\x6d\0\0\0\3raw\x6a\x6a"));
    CHECK(rb_lab_request(s.workers[JOIN], 0, &r) == 0 && r.opcode == 9);
    ANSWER(&s, JOIN, 0, "j");
    CHECK(TOLD(&s, "\x68\2\x77\2ok" BIN("j")));
    still_close(&s);
}

static void a_list_counts_in_every_encoding(void) {
    static const struct {
        const char *bytes;
        size_t size;
    } lists[] = {
        {"\x6b\0\2\5\6", 5},                              /* a string */
        {"\x6c\0\0\0\1\x61\5\x6c\0\0\0\1\x61\6\x6a", 15}, /* two cells */
        {"\x6c\0\0\0\1\x61\5\x6b\0\1\6", 11},             /* a cell and a string */
    };
    struct still s;
    spread_open(&s);
    warm(&s);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        spread_ask(&s, "submit", MAP(ATOM_ECHO), sizeof MAP(ATOM_ECHO) - 1, lists[i].bytes,
                   lists[i].size, "", 0, 0);
        CHECK(ASKED_TERM(&s, ECHO, 0, "\x61\5") && ASKED_TERM(&s, ECHO, 1, "\x61\6"));
        CHECK_EQUAL(echo_all(&s), 2);
        CHECK(TOLD(&s, "\x68\2\x77\2ok\x6c\0\0\0\2\x61\5\x61\6\x6a"));
        /* And of a list that comes out of another step. */
        ASK_WITH(&s, ATOM_JOIN, BIN("a"), STAGES("\1") MAP(ATOM_ECHO) "\x6a", 1);
        answer_nth(&s, JOIN, 0, lists[i].bytes, lists[i].size, RB_STATUS_OK, RB_FLAG_TERM);
        release(&s, JOIN, 1);
        CHECK_EQUAL(echo_all(&s), 2);
        CHECK(TOLD(&s, "\x68\2\x77\2ok\x6c\0\0\0\2\x61\5\x61\6\x6a"));
    }
    still_close(&s);
}

/* More than begins in one turn, so that a part is kept. */
static void a_long_list_counts_in_every_encoding(void) {
    uint8_t string[3 + 300] = {RB_TAG_STRING, 300 >> 8, 300 & 255};
    uint8_t cells[300 * 7 + 1],
        expected[5 + 300 * 2 + 1] = {RB_TAG_LIST, 0, 0, 300 >> 8, 300 & 255};
    for (int i = 0; i < 300; i++) {
        uint8_t cell[7] = {RB_TAG_LIST, 0, 0, 0, 1, RB_TAG_SMALL_INTEGER, (uint8_t)i};
        memcpy(cells + (size_t)i * 7, cell, 7);
        memcpy(expected + 5 + (size_t)i * 2, cell + 5, 2);
        string[3 + i] = (uint8_t)i;
    }
    cells[sizeof cells - 1] = expected[sizeof expected - 1] = RB_TAG_NIL;
    struct still s;
    spread_open(&s);
    warm(&s);
    for (int i = 0; i < 2; i++) {
        spread_ask(&s, "submit", MAP(ATOM_ECHO), sizeof MAP(ATOM_ECHO) - 1, i ? cells : string,
                   i ? sizeof cells : sizeof string, "", 0, 0);
        even(&s);
        CHECK_EQUAL(echo_all(&s), 300);
        CHECK(still_told(&s, expected, sizeof expected));
    }
    still_close(&s);
}

static void an_empty_list_needs_no_job(void) {
    struct still s;
    spread_open(&s);
    warm(&s);
    ASK(&s, MAP(ATOM_ECHO), "\x6a");
    CHECK(TOLD(&s, "\x68\2\x77\2ok\x6a"));
    ASK_WITH(&s, MAP(ATOM_ECHO), "\x6a", STAGES("\2") MAP(ATOM_OTHER) ATOM_JOIN "\x6a", 1);
    CHECK(ASKED_TERM(&s, JOIN, 0, "\x6a"));
    ANSWER(&s, JOIN, 0, "j");
    CHECK(TOLD(&s, "\x68\2\x77\2ok" BIN("j")));
    CHECK_EQUAL(still_stats(&s).accepted, 5);
    still_close(&s);
}

static void a_fan_out_gives_each_role_the_same(void) {
    struct still s;
    spread_open(&s);
    warm(&s);
    ASK_WITH(&s, "\x6c\0\0\0\2" ATOM_ECHO "\x68\2" ATOM_OTHER "\x61\4\x6a", BIN("p"),
             STAGES("\1") ATOM_JOIN "\x6a", 1);
    struct rb_lab_request r;
    CHECK(ASKED(&s, ECHO, 0, "p") && ASKED(&s, OTHER, 0, "p"));
    CHECK(rb_lab_request(s.workers[OTHER], 0, &r) == 0 && r.opcode == 4);
    ANSWER(&s, OTHER, 0, "o");
    CHECK_EQUAL(at_work(&s, JOIN), 0);
    ANSWER(&s, ECHO, 0, "e");
    CHECK(ASKED_TERM(&s, JOIN, 0, "\x6c\0\0\0\2" BIN("e") BIN("o") "\x6a"));
    ANSWER(&s, JOIN, 0, "j");
    CHECK(TOLD(&s, "\x68\2\x77\2ok" BIN("j")));
    CHECK_EQUAL(still_stats(&s).accepted, 4);
    still_close(&s);
}

static void steps_of_all_kinds_follow_each_other(void) {
    struct still s;
    spread_open(&s);
    warm(&s);
    /* echo, then echo and other, then each of the two, then all of it once more in one, then alone. */
    ASK_WITH(&s, ATOM_ECHO, BIN("p"),
             STAGES("\4") "\x6c\0\0\0\2" ATOM_ECHO ATOM_OTHER
                          "\x6a" MAP(ATOM_OTHER) "\x6c\0\0\0\1" ATOM_JOIN "\x6a" ATOM_JOIN "\x6a",
             1);
    CHECK_EQUAL(echo_all(&s), 1 + 2 + 2 + 1 + 1);
    CHECK(TOLD(&s, "\x68\2\x77\2ok\x6c\0\0\0\1\x6c\0\0\0\2" BIN("p") BIN("p") "\x6a\x6a"));
    CHECK_EQUAL(still_stats(&s).accepted, 4);
    still_close(&s);
}

static void a_step_of_one_in_the_role_s_place_is_a_plain_job(void) {
    struct still s;
    struct rb_lab_request r;
    spread_open(&s);
    warm(&s);
    ASK(&s, "\x68\2" ATOM_ECHO "\x61\5", BIN("p"));
    CHECK(rb_lab_request(s.workers[ECHO], 0, &r) == 0 && r.opcode == 5);
    CHECK_EQUAL(echo_all(&s), 1);
    CHECK(TOLD(&s, "\x68\2\x77\2ok" BIN("p")));
    ASK_WITH(&s, "\x68\2" ATOM_ECHO "\x61\5", BIN("p"), STAGES("\1") ATOM_JOIN "\x6a", 1);
    CHECK(rb_lab_request(s.workers[ECHO], 0, &r) == 0 && r.opcode == 5);
    CHECK_EQUAL(echo_all(&s), 2);
    CHECK(TOLD(&s, "\x68\2\x77\2ok" BIN("p")));
    still_close(&s);
}

/* [<<0, 0>>, <<0, 1>>, ...], each element with so many bytes more. */
static size_t numbers(uint8_t *to, uint32_t count, uint32_t more) {
    uint8_t *at = to;
    *at = RB_TAG_LIST;
    rb_put_be32(at + 1, count);
    at += 5;
    for (uint32_t i = 0; i < count; i++, at += 7 + more) {
        memset(at, 'n', 7 + more);
        *at = RB_TAG_BINARY;
        rb_put_be32(at + 1, 2 + more);
        rb_put_be16(at + 5, (uint16_t)i);
    }
    *at++ = RB_TAG_NIL;
    return (size_t)(at - to);
}
static uint8_t many[2 << 20], body[2 << 20];

/* The caller hears the very list. */
static void told_many(struct still *s, size_t size) {
    CHECK(lab_read(s->lab.peer, body, sizeof body, 0) > (int)size &&
          memmem(body, sizeof body, many, size));
}

static void a_long_map_begins_as_there_is_room(void) {
    struct rb_role_config roles[SPREAD_ROLES] = {spread_role(0), spread_role(1), spread_role(2)};
    static const uint32_t policies[] = {RB_ADMISSION_REJECT, RB_ADMISSION_DROP_OLDEST,
                                        RB_ADMISSION_DEFER};
    size_t size = numbers(many, 1000, 0);
    roles[ECHO].admission.depth_max = 4;
    roles[ECHO].admission.defer_max = 2;
    roles[ECHO].admission.defer_ms = 1;
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        struct still s;
        roles[ECHO].admission.on_full = policies[i];
        spread_open_with(&s, roles, 0);
        warm(&s);
        spread_ask(&s, "submit", MAP(ATOM_ECHO), sizeof MAP(ATOM_ECHO) - 1, many, size, "", 0, 0);
        CHECK(still_role(&s).queued <= 4);
        CHECK_EQUAL(still_role(&s).deferred, 0);
        still_round(&s, 100); /* nobody was kept where he would have been told by now */
        even(&s);
        CHECK_EQUAL(echo_all(&s), 1000);
        told_many(&s, size);
        CHECK_EQUAL(still_stats(&s).overloaded_by[RB_RULE_ROLE_DEPTH], 0);
        still_close(&s);
    }
}

static void a_map_leaves_room_for_others(void) {
    struct rb_role_config roles[SPREAD_ROLES] = {spread_role(0), spread_role(1), spread_role(2)};
    struct still s;
    size_t size = numbers(many, 3000, 0);
    for (int i = 0; i < SPREAD_ROLES; i++) roles[i].admission.depth_max = 100000;
    spread_open_with(&s, roles, 0);
    warm(&s);
    spread_ask(&s, "submit", MAP(ATOM_ECHO), sizeof MAP(ATOM_ECHO) - 1, many, size, "", 0, 0);
    for (int i = 0; i < 100; i++) still_round(&s, 0);
    CHECK_EQUAL(still_role(&s).queued + (uint64_t)at_work(&s, ECHO), 1024);
    /* Of large payloads it has a quarter of the pool, of 4 MiB. */
    ASK(&s, MAP(ATOM_JOIN), "\x6a");
    CHECK(TOLD_OK(&s));
    size_t large = numbers(many, 10, 200000);
    spread_ask(&s, "submit", MAP(ATOM_OTHER), sizeof MAP(ATOM_OTHER) - 1, many, large, "", 0, 0);
    for (int i = 0; i < 100; i++) still_round(&s, 0);
    CHECK_EQUAL(at_work(&s, OTHER), 5);
    even(&s);
    for (int i = 0; i < 10 && at_work(&s, OTHER) > 0; i++) {
        ANSWER(&s, OTHER, 0, "s");
        release(&s, OTHER, 1);
        CHECK_EQUAL(at_work(&s, OTHER), i < 5 ? 5 : 9 - i);
    }
    CHECK(TOLD(&s, "\x68\2\x77\2ok\x6c\0\0\0\x0a" BIN("s")));
    CHECK_EQUAL(echo_all(&s), 3000);
    CHECK(TOLD_OK(&s));
    CHECK_EQUAL(answered(&s, RB_REASON_OK), 3 + 3);
    still_close(&s);
}

static void a_large_payload_fans_out_as_the_pool_has_room(void) {
    enum { BYTES = 900000 };
    static uint8_t payload[5 + BYTES] = {0x6d, 0, BYTES >> 16, BYTES >> 8 & 255, BYTES & 255};
    static const char roles[] =
        "\x6c\0\0\0\6" ATOM_ECHO ATOM_ECHO ATOM_ECHO ATOM_ECHO ATOM_ECHO ATOM_OTHER "\x6a";
    struct still s;
    memset(payload + 5, 'p', BYTES);
    spread_open(&s);
    warm(&s);
    spread_ask(&s, "submit", roles, sizeof roles - 1, payload, sizeof payload,
               STAGES("\1") ATOM_JOIN "\x6a", sizeof(STAGES("\1") ATOM_JOIN "\x6a") - 1, 1);
    int count = 0;
    for (int i = 0; i < 1000 && count < 6; i++) {
        even(&s);
        for (int role = 0; role < JOIN; role++) {
            if (at_work(&s, role) == 0) continue;
            CHECK(asked(&s, role, 0, payload + 5, BYTES, 0));
            ANSWER(&s, role, 0, "s");
            release(&s, role, 1);
            count++;
        }
        still_round(&s, 1000);
    }
    CHECK_EQUAL(count, 6);
    CHECK(ASKED_TERM(&s, JOIN, 0,
                     "\x6c\0\0\0\6" BIN("s") BIN("s") BIN("s") BIN("s") BIN("s") BIN("s") "\x6a"));
    ANSWER(&s, JOIN, 0, "j");
    CHECK(TOLD(&s, "\x68\2\x77\2ok" BIN("j")));
    still_close(&s);
}

static void an_asynchronous_caller_hears_of_the_whole(void) {
    struct still s;
    spread_open(&s);
    warm(&s);
    ASK_VERB(&s, "submit_async", MAP(ATOM_ECHO), ABC, "", 0);
    CHECK_EQUAL(echo_all(&s), 3);
    int told = 0;
    for (int i = 0; i < 4 && !told; i++) told = TOLD(&s, "\x68\2\x77\2ok" ABC);
    CHECK(told);
    still_close(&s);
}

static void options_are_those_of_every_job(void) {
    struct still s;
    struct rb_lab_request r;
    spread_open(&s);
    warm(&s);
    ASK_WITH(&s, MAP(ATOM_ECHO), ABC,
             "\x77\6opcode\x61\2\x77\x08priority\x77\4high\x77\7timeout\x61\x64", 3);
    for (uint64_t k = 0; k < 3; k++) {
        CHECK(rb_lab_request(s.workers[ECHO], k, &r) == 0 && r.opcode == 2 && r.priority == 1);
        CHECK_EQUAL(r.deadline_ns, s.now + 100 * STILL_MS);
    }
    echo_all(&s);
    CHECK(TOLD(&s, "\x68\2\x77\2ok" ABC));
    still_close(&s);
}

int main(void) {
    RUN(a_map_s_answers_are_in_the_order_of_its_elements);
    RUN(the_step_behind_a_map_joins_it);
    RUN(terms_are_elements_and_values_as_they_are);
    RUN(a_list_counts_in_every_encoding);
    RUN(a_long_list_counts_in_every_encoding);
    RUN(an_empty_list_needs_no_job);
    RUN(a_fan_out_gives_each_role_the_same);
    RUN(steps_of_all_kinds_follow_each_other);
    RUN(a_step_of_one_in_the_role_s_place_is_a_plain_job);
    RUN(a_long_map_begins_as_there_is_room);
    RUN(a_map_leaves_room_for_others);
    RUN(a_large_payload_fans_out_as_the_pool_has_room);
    RUN(an_asynchronous_caller_hears_of_the_whole);
    RUN(options_are_those_of_every_job);
    return check_end();
}
