/* What answers in terms may cost: a large one is walked in portions, beside the jobs of others, and at its worker's end only so far; atoms have
 * a budget, but those that the role declares cost nothing of it. What terms may not say at all is in test_relay_liars.c. */
#define _GNU_SOURCE
#include "liar.h"

/* --- Work ---------------------------------------------------------------------------------------- */

/* A list of a million empty lists, which is a term as good as any. */
static uint8_t million[1000000 + 6];
static void a_million_terms(struct liar *l) {
    memset(million, RB_TAG_NIL, sizeof million);
    million[0] = RB_TAG_LIST;
    rb_put_be32(million + 1, 1000000);
    say_bytes(l, million, sizeof million, RB_STATUS_OK, RB_FLAG_TERM);
}
static void a_large_answer_keeps_nobody_waiting(void) {
    static struct liar all;
    struct liar *l = &all;
    struct rb_role_config role = crew_role();
    crew_open(&l->c, 1, &role);
    crew_submit(&l->c, 1, "x", 1);
    crew_round(&l->c);
    crew_hire(&l->c, HONEST);
    CHECK(rb_lab_request(l->c.workers[LIAR], 0, &l->job) == 0);
    rb_lab_start(l->c.workers[LIAR], 1);
    a_million_terms(l);
    rb_lab_release(l->c.workers[LIAR], 1);
    int rounds = 0, between = 0;
    for (heard_size = 0; rounds < 1000 && heard_size < sizeof million; rounds++) {
        if (rounds == 1) memset(rb_lab_link(l->c.workers[LIAR])->results, 255, sizeof million);
        crew_submit(&l->c, 2, "short", 5);
        crew_round(&l->c);
        if (crew_has(&l->c, HONEST)) {
            crew_begin(&l->c, HONEST);
            crew_finish(&l->c, HONEST, 1000);
        }
        crew_round(&l->c);
        /* A relay that stands still has written as much of a large answer as the socket takes. */
        size_t before = heard_size;
        for (ssize_t n; (n = recv(l->c.lab.peer, heard + heard_size, sizeof heard - heard_size,
                                  MSG_DONTWAIT)) > 0;) {
            heard_size += (size_t)n;
            crew_round(&l->c);
        }
        between += heard_size > before && heard_size < sizeof million;
        if (heard_size < sizeof million) heard_size = 0;
    }
    CHECK(rounds > 20);
    CHECK_EQUAL(between, rounds - 1);
    CHECK(heard_size > sizeof million && memmem(heard, heard_size, million, sizeof million));
    crew_close(&l->c);
}

static void next_job(struct liar *l) {
    crew_submit(&l->c, 1, "x", 1);
    crew_round(&l->c);
    CHECK(rb_lab_request(l->c.workers[LIAR], 0, &l->job) == 0);
    rb_lab_start(l->c.workers[LIAR], 1);
}
/* A map of 140,000 pairs. */
static void a_large_map(struct liar *l) {
    enum { PAIRS = 140000, PAIR = 7 };
    million[0] = RB_TAG_MAP;
    rb_put_be32(million + 1, PAIRS);
    for (uint32_t i = 0; i < PAIRS; i++) {
        uint8_t *at = million + 5 + (size_t)PAIR * i;
        at[0] = RB_TAG_INTEGER;
        rb_put_be32(at + 1, 1000 + i);
        at[5] = RB_TAG_SMALL_INTEGER;
        at[6] = 1;
    }
    say_bytes(l, million, 5 + PAIR * PAIRS, RB_STATUS_OK, RB_FLAG_TERM);
}
/* More terms than are walked at a worker's end. */
static void terms_over_the_effort(struct liar *l) {
    static uint8_t bytes[(1 << 20) - 64];
    memset(bytes, RB_TAG_NIL, sizeof bytes);
    bytes[0] = RB_TAG_LIST;
    rb_put_be32(bytes + 1, sizeof bytes - 6);
    say_bytes(l, bytes, sizeof bytes, RB_STATUS_OK, RB_FLAG_TERM);
}
static void what_is_not_walked_when_its_worker_has_ended_is_lost_with_it(void) {
    static const struct {
        void (*tell)(struct liar *);
        enum rb_reason told;
        int rounds;
    } cases[] = {{a_million_terms, RB_REASON_OK, 1},
                 {a_large_map, RB_REASON_OK, 1},
                 {terms_over_the_effort, RB_REASON_OK, 1},
                 {terms_over_the_effort, RB_REASON_WORKER_CRASHED, 0}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        static struct liar all;
        struct liar *l = &all;
        struct rb_role_config role = crew_role();
        crew_open(&l->c, 1, &role);
        next_job(l);
        cases[i].tell(l);
        for (int k = 0; k < cases[i].rounds; k++) crew_round(&l->c);
        crew_die(&l->c, LIAR);
        CHECK_EQUAL(crew_stats(&l->c).answered[cases[i].told], 1);
        crew_close(&l->c);
    }
}

/* --- Atoms that the role declares ------------------------------------------------------------------ */

static int told_broke(struct liar *l) { return told(l, RB_EVENT_WORKER_BROKE, "term_atom_new"); }
/* [n000000, n000001, ..., and one of `last`: so many that the worker's own budget is spent. */
static void spend_and_say(struct liar *l, const char *last) {
    static uint8_t bytes[8192];
    size_t size = 5;
    bytes[0] = RB_TAG_LIST;
    rb_put_be32(bytes + 1, 257);
    for (int i = 0; i < 257; i++) {
        char text[64];
        int n = i < 256 ? snprintf(text, sizeof text, "n%06d", i)
                        : snprintf(text, sizeof text, "%s", last);
        bytes[size++] = RB_TAG_SMALL_ATOM_UTF8;
        bytes[size++] = (uint8_t)n;
        memcpy(bytes + size, text, (size_t)n);
        size += (size_t)n;
    }
    bytes[size++] = RB_TAG_NIL;
    say_bytes(l, bytes, (uint32_t)size, RB_STATUS_OK, RB_FLAG_TERM);
}
static void a_declared_atom_costs_no_budget_and_may_change_while_it_runs(void) {
    static struct liar all;
    struct liar *l = &all;
    struct rb_role_config role = crew_role();
    strcpy(role.atoms[0], "declared");
    strcpy(role.atoms[1], "l\xc3\xa4nge");
    role.atoms_count = 2;
    crew_open(&l->c, 1, &role);
    for (int i = 0; i < 3; i++) {
        next_job(l);
        spend_and_say(l, i < 2 ? "declared" : "l\xc3\xa4nge");
        rb_lab_release(l->c.workers[LIAR], 1);
        listen_to(l);
        CHECK(has("declared") || has("nge"));
        CHECK(!told_broke(l));
    }
    strcpy(l->c.role.atoms[0], "another");
    l->c.role.atoms_count = 1;
    crew_configure(&l->c);
    next_job(l);
    spend_and_say(l, "another");
    rb_lab_release(l->c.workers[LIAR], 1);
    listen_to(l);
    CHECK(has("another"));
    next_job(l);
    spend_and_say(l, "declared"); /* not any more */
    listen_to(l);
    CHECK_EQUAL(told_broke(l), 1);
    CHECK(has("term_atom_new"));
    crew_close(&l->c);
}
static void atoms_that_are_no_texts_are_refused(void) {
    struct crew c;
    struct rb_role_config role = crew_role();
    crew_open(&c, 0, &role);
    c.role.atoms_count = 65;
    CHECK_EQUAL(rb_relay_configure_role(c.lab.relay, 0, &c.role), -EINVAL);
    c.role.atoms_count = 1;
    memset(c.role.atoms[0], 'a', sizeof c.role.atoms[0]); /* without an end */
    CHECK_EQUAL(rb_relay_configure_role(c.lab.relay, 0, &c.role), -EINVAL);
    crew_close(&c);
}

int main(void) {
    RUN(a_large_answer_keeps_nobody_waiting);
    RUN(what_is_not_walked_when_its_worker_has_ended_is_lost_with_it);
    RUN(a_declared_atom_costs_no_budget_and_may_change_while_it_runs);
    RUN(atoms_that_are_no_texts_are_refused);
    return check_end();
}
