/* What batches and pipelines keep for a connection is bounded, also where it is many small things: who asks for more is told so. */
#define _GNU_SOURCE
#include "spread_lab.h"

enum { BOUND = 1 << 20, MANY = 10000, ASKED = 60 };

static uint64_t overloaded(struct still *s) { return still_stats(s).refused[RB_REASON_OVERLOADED]; }

/* Frames come and are thrown away. */
static void hear_all(struct still *s) {
    static uint8_t bytes[1 << 16];
    while (recv(s->lab.peer, bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
    }
}
static void ask_often(struct still *s, const char *verb, const char *role, size_t role_size,
                      const uint8_t *list, size_t size) {
    for (int i = 0; i < ASKED; i++) {
        spread_ask(s, verb, role, role_size, list, size, "", 0, 0);
        hear_all(s);
    }
    even(s);
}

static void open_bounded(struct still *s, uint64_t payload_bytes_max, uint32_t depth) {
    struct rb_role_config roles[SPREAD_ROLES] = {spread_role(0), spread_role(1), spread_role(2)};
    roles[ECHO].payload_bytes_max = payload_bytes_max;
    roles[ECHO].admission.depth_max = depth;
    roles[ECHO].choice.credit_us = 0;
    spread_open_with(s, roles, BOUND);
}

/* Of each batch one job runs and keeps it; the others were refused, in some words each. */
static void of_batches_that_are_mostly_refused(void) {
    static uint8_t list[5 + 6 + MANY * 10 + 1];
    struct still s;
    uint8_t *at = list;
    open_bounded(&s, 4, 4096);
    *at = RB_TAG_LIST;
    rb_put_be32(at + 1, MANY);
    at += 5;
    for (int i = 0; i < MANY; i++) {
        uint32_t size = i ? 5 : 1;
        *at = RB_TAG_BINARY;
        rb_put_be32(at + 1, size);
        at += 5 + size;
    }
    *at++ = RB_TAG_NIL;
    ask_often(&s, "submit_many", ATOM_ECHO, sizeof ATOM_ECHO - 1, list, (size_t)(at - list));
    /* The last one that came in found room, and is mostly refusals. */
    CHECK(kept(&s) <= BOUND + MANY * 64);
    CHECK(overloaded(&s) >= ASKED / 2);
    echo_all(&s);
    CHECK_EQUAL(kept(&s), 0);
    even(&s);
    still_close(&s);
}

/* Each has one value of a byte, and room for ten thousand. */
static void of_batches_of_almost_nothing(void) {
    static uint8_t list[3 + MANY + 1];
    struct still s;
    open_bounded(&s, 1000, 1);
    list[0] = RB_TAG_STRING;
    rb_put_be16(list + 1, MANY);
    for (int i = 0; i < 3; i++) {
        spread_ask(&s, "submit_many", ATOM_ECHO, sizeof ATOM_ECHO - 1, list, 3 + MANY, "", 0, 0);
        CHECK(kept(&s) == 0 || kept(&s) > MANY * 8);
    }
    even(&s);
    echo_all(&s);
    hear_all(&s);
    CHECK_EQUAL(kept(&s), 0);
    still_close(&s);
}

/* Maps whose elements have begun and ended one by one hold a row for each. */
static void of_maps_far_on_their_way(void) {
    static uint8_t list[3 + 2000];
    struct still s;
    open_bounded(&s, 1000, 64);
    list[0] = RB_TAG_STRING;
    rb_put_be16(list + 1, 2000);
    uint64_t before = 0;
    spread_ask(&s, "submit", MAP(ATOM_ECHO), sizeof MAP(ATOM_ECHO) - 1, list, 3 + 2000, "", 0, 0);
    for (int i = 0; i < 1900; i++) {
        ANSWER(&s, ECHO, 0, "v");
        release(&s, ECHO, 1);
    }
    before = kept(&s);
    CHECK(before >= 1900 * 24);
    CHECK(before <= 1900 * 128);
    even(&s);
    echo_all(&s);
    CHECK_EQUAL(kept(&s), 0);
    even(&s);
    still_close(&s);
}

/* Maps that wait for room, each with a course of many roles. */
static void of_courses_that_wait(void) {
    char stages[4096];
    struct still s;
    size_t size = 0;
    open_bounded(&s, 1000, 1);
    memcpy(stages, STAGES("\x0f"), sizeof STAGES("\x0f") - 1);
    size = sizeof STAGES("\x0f") - 1;
    for (int i = 0; i < 15; i++) {
        memcpy(stages + size, "\x6c\0\0\0\x10", 5);
        size += 5;
        for (int k = 0; k < 16; k++) {
            memcpy(stages + size, ATOM_OTHER, sizeof ATOM_OTHER - 1);
            size += sizeof ATOM_OTHER - 1;
        }
        stages[size++] = RB_TAG_NIL;
    }
    stages[size++] = RB_TAG_NIL;
    for (int i = 0; i < 400; i++) { /* the first element of each runs, the second waits */
        spread_ask(&s, "submit", MAP(ATOM_ECHO), sizeof MAP(ATOM_ECHO) - 1, "\x6b\0\2\1\2", 5,
                   stages, size, 1);
        if (at_work(&s, ECHO)) {
            ANSWER(&s, ECHO, 0, "v");
            release(&s, ECHO, 1);
        }
        hear_all(&s);
    }
    CHECK(kept(&s) <= BOUND);
    CHECK(kept(&s) >= still_stats(&s).in_flight * 15 * 16 * sizeof(char *));
    even(&s);
    still_close(&s);
}

int main(void) {
    RUN(of_batches_that_are_mostly_refused);
    RUN(of_batches_of_almost_nothing);
    RUN(of_maps_far_on_their_way);
    RUN(of_courses_that_wait);
    return check_end();
}
