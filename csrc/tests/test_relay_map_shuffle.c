/* Fan-outs, maps and courses of both at random, while workers fail, lie down and die, callers cancel, leave and lose their connection, roles
 * close, queues are narrow, time passes and little may be kept. Whatever comes of it: the books are even after each step, who stays has one
 * answer, and in the end nothing is kept. */
#define _GNU_SOURCE
#include "spread_lab.h"

enum { STEPS = 2500, RUNS = 12, CALLS = 60000 };

struct shuffle {
    struct still still;
    uint64_t seed;
    uint8_t answers[CALLS]; /* by the number of the caller */
    uint8_t left[CALLS];
    uint32_t first; /* of those of the connection that is there */
    uint64_t some_job;
};
static struct shuffle shuffled;

static unsigned pick(struct shuffle *s, unsigned below) {
    return (unsigned)(check_random(&s->seed) % below);
}

static void put_step(struct shuffle *s, struct lab_bytes *b, unsigned kind) {
    uint8_t count = (uint8_t)(1 + pick(s, 4));
    switch (kind) {
    case 0:
        PUT(b, "\x68\2\x77\3map");
        lab_put_atom(b, spread_names[pick(s, 3)]);
        break;
    case 1:
        PUT(b, "\x6c\0\0\0");
        lab_put(b, &count, 1);
        while (count--) lab_put_atom(b, spread_names[pick(s, 3)]);
        PUT(b, "\x6a");
        break;
    default: lab_put_atom(b, spread_names[pick(s, 3)]);
    }
}
static void put_number(struct lab_bytes *b, uint32_t number) {
    PUT(b, "\x62");
    lab_put_u32(b, number);
}

/* A list of lists, so that maps may follow each other; or what is none. */
static void put_value(struct shuffle *s, struct lab_bytes *b, int depth) {
    static const uint8_t zeros[1500];
    uint8_t count = (uint8_t)pick(s, pick(s, 4) ? 5 : 60);
    if (b->size > 5000) {
        lab_put_binary(b, zeros, 1);
    } else if (depth == 0 || pick(s, 5) == 0) {
        lab_put_binary(b, zeros, pick(s, 6) ? 1 + pick(s, 8) : pick(s, 400));
    } else if (pick(s, 6) == 0) {
        PUT(b, "\x6b\0\3abc");
    } else {
        if (depth > 1 && count > 6) count = 6;
        PUT(b, "\x6c\0\0\0");
        lab_put(b, &count, 1);
        for (; count; count--) put_value(s, b, depth > 1 ? depth - 1 : 0);
        PUT(b, "\x6a");
    }
}

static void ask(struct shuffle *s) {
    struct lab_bytes role = {.size = 0}, value = {.size = 0}, o = {.size = 0};
    uint32_t count = 0;
    uint8_t stages = (uint8_t)pick(s, 4);
    put_step(s, &role, pick(s, 3));
    put_value(s, &value, (int)pick(s, 3));
    if (stages) {
        count++;
        lab_put_atom(&o, "stages");
        PUT(&o, "\x6c\0\0\0");
        lab_put(&o, &stages, 1);
        for (; stages; stages--) put_step(s, &o, pick(s, 3));
        PUT(&o, "\x6a");
    }
    if (pick(s, 2)) lab_put_atom(&o, "timeout"), put_number(&o, 1 + pick(s, 200)), count++;
    if (pick(s, 3) == 0) lab_put_atom(&o, "retry"), put_number(&o, pick(s, 3)), count++;
    if (pick(s, 4) == 0) lab_put_atom(&o, "key"), put_number(&o, pick(s, 3)), count++;
    if (pick(s, 4) == 0) lab_put_atom(&o, "orphan"), lab_put_atom(&o, "finish"), count++;
    if (pick(s, 6) == 0) lab_put_atom(&o, "meta"), PUT(&o, "\x74\0\0\0\1\x61\1\x61\2"), count++;
    if (value.size + o.size + role.size > 7000) return;
    spread_ask(&s->still, "submit", (const char *)role.at, role.size, value.at, value.size,
               (const char *)o.at, o.size, count);
}

/* --- What is heard ------------------------------------------------------------------------------------------------------------ */

static void hear(struct shuffle *s) {
    static uint8_t body[1 << 20];
    int n;
    while ((n = lab_read(s->still.lab.peer, body, sizeof body, 0)) > 0) {
        struct rb_cursor c = {.at = body, .end = body + n};
        struct rb_signal signal;
        struct rb_slice to;
        uint64_t op;
        CHECK(rb_signal_parse(&c, &signal) == 0);
        struct rb_cursor at = rb_cursor_of(signal.control);
        rb_term_tuple(&at);
        rb_term_unsigned(&at, &op);
        if (op != RB_OP_ALIAS_SEND) continue;
        rb_term_skip(&at, NULL);
        rb_term_skip(&at, &to);
        uint32_t caller = rb_be32(to.at + to.size - 12);
        CHECK(caller > s->first && caller <= s->still.callers);
        if (caller < CALLS) CHECK_EQUAL(++s->answers[caller], 1);
    }
    CHECK_EQUAL(n, -1);
}

/* --- What happens ------------------------------------------------------------------------------------------------------------- */

static void work(struct shuffle *s, int i) {
    struct still *t = &s->still;
    struct rb_lab_request r;
    if (!t->workers[i] || rb_lab_request(t->workers[i], 0, &r) < 0) return;
    s->some_job = r.job;
    rb_lab_start(t->workers[i], 1);
    if (pick(s, 6) == 0) return; /* it takes its time */
    unsigned how = pick(s, 12);
    struct rb_lab_answer a = {.job = r.job,
                              .status = r.cancelled ? RB_STATUS_CANCELLED
                                        : how == 0  ? RB_STATUS_FAILED
                                                    : RB_STATUS_OK,
                              .flags = how ? r.flags & RB_FLAG_TERM : 0,
                              .payload = r.payload,
                              .payload_bytes = r.payload_bytes};
    if (r.cancelled) a.payload_bytes = a.flags = 0;
    if (how == 1 && !r.cancelled) { /* an improper list, out of the blue */
        static const uint8_t improper[] = "\x6c\0\0\0\2\x61\1\x61\2\x61\3";
        a.payload = improper;
        a.payload_bytes = sizeof improper - 1;
        a.flags = RB_FLAG_TERM;
    }
    if (rb_lab_complete(t->workers[i], &a) < 0) abort();
    rb_lab_release(t->workers[i], 1);
    still_round(t, 0);
}

static void leave(struct shuffle *s) {
    struct still *t = &s->still;
    uint32_t back = pick(s, 8);
    if (t->callers <= s->first + back) return;
    uint32_t caller = t->callers - back;
    lab_monitor(t->lab.peer, 0, caller, caller);
    s->left[caller] = 1;
    still_round(t, 0);
}

static void cancel(struct shuffle *s) {
    struct lab_bytes b = {.size = 0};
    uint32_t caller = ++s->still.callers;
    uint64_t job = s->some_job;
    lab_call_head(&b, caller, caller);
    PUT(&b, "\x68\2");
    lab_put_atom(&b, "cancel");
    PUT(&b, "\x6e\x08\x00");
    for (int i = 0; i < 8; i++) {
        uint8_t byte = (uint8_t)(job >> 8 * i);
        lab_put(&b, &byte, 1);
    }
    lab_frame(s->still.lab.peer, &b);
    still_round(&s->still, 0);
}

static void reconnect(struct shuffle *s) {
    close(s->still.lab.peer);
    s->first = s->still.callers;
    s->still.lab.peer = lab_connect(&s->still.lab);
    still_round(&s->still, 0);
}

static void step(struct shuffle *s) {
    struct still *t = &s->still;
    int i = (int)pick(s, 3);
    switch (pick(s, 40)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4: ask(s); break;
    case 5: leave(s); break;
    case 6: cancel(s); break;
    case 7:
        if (pick(s, 8) == 0) reconnect(s);
        break;
    case 8:
        if (!t->workers[i] || pick(s, 3)) break;
        if (at_work(t, i) > 0 && pick(s, 2)) rb_lab_start(t->workers[i], 1);
        rb_lab_die(t->workers[i], -1, 9, 0);
        t->workers[i] = NULL;
        still_round(t, 0);
        break;
    case 9: rb_relay_set_role_state(t->lab.relay, (uint32_t)i, pick(s, 3) ? 0 : pick(s, 3)); break;
    case 10: rb_relay_hold(t->lab.relay, RB_SERVICE_JOBS, pick(s, 4) == 0); break;
    case 11:
    case 12: still_round(t, pick(s, 30)); break;
    case 13:
        if (!t->workers[i]) spread_hire(t, i);
        break;
    default: work(s, i);
    }
    struct rb_event e;
    while (rb_relay_take(t->lab.relay, &e)) {
    }
    hear(s);
    even(t);
}

static void run(uint64_t seed) {
    struct shuffle *s = &shuffled;
    struct rb_role_config roles[SPREAD_ROLES];
    memset(s, 0, sizeof *s);
    s->seed = seed;
    for (int i = 0; i < SPREAD_ROLES; i++) {
        roles[i] = spread_role(i);
        roles[i].idempotent = pick(s, 2) != 0;
        roles[i].admission.depth_max = 1 + pick(s, 20);
        roles[i].admission.on_full = pick(s, 3);
        roles[i].admission.defer_max = 8;
        roles[i].admission.defer_ms = 1 + pick(s, 50);
        if (pick(s, 3) == 0) roles[i].choice.credit_us = 0;
        if (pick(s, 4) == 0)
            roles[i].admission.rate = (struct rb_rate_config){RB_RATE_TOKEN_BUCKET, 50, 1000, 4};
        roles[i].cancel_term_ms = roles[i].cancel_kill_ms = 5;
        if (pick(s, 3) == 0) roles[i].payload_bytes_max = 600;
    }
    spread_open_with(&s->still, roles, pick(s, 2) ? 0 : 48 << 10);
    for (int k = 0; k < STEPS && !check_breaches; k++) step(s);
    /* Everybody is well again. */
    for (uint32_t i = 0; i < SPREAD_ROLES; i++) {
        rb_relay_set_role_state(s->still.lab.relay, i, RB_ROLE_RUNNING);
        if (!s->still.workers[i]) spread_hire(&s->still, (int)i);
    }
    rb_relay_hold(s->still.lab.relay, RB_SERVICE_JOBS, 0);
    for (int k = 0; k < 20000 && (still_stats(&s->still).in_flight || k < 50); k++) {
        for (int i = 0; i < SPREAD_ROLES; i++)
            if (s->still.workers[i]) work(s, i);
        still_round(&s->still, 5);
        hear(s);
    }
    even(&s->still);
    CHECK_EQUAL(still_stats(&s->still).in_flight, 0);
    CHECK_EQUAL(kept(&s->still), 0);
    for (uint32_t i = s->first + 1; i <= s->still.callers; i++) {
        if (s->left[i] || s->answers[i] == 1) continue;
        printf("seed %llu: caller %u had %u answers\n", (unsigned long long)seed, i, s->answers[i]);
        CHECK(!"who stays has one answer");
    }
    struct rb_relay_stats stats = still_stats(&s->still);
    CHECK(stats.answered[RB_REASON_OK] > 0);
    if (check_breaches || getenv("RINGBRIDGE_SHUFFLE_SEED")) {
        printf("seed %llu: %u callers, accepted %llu\n", (unsigned long long)seed, s->still.callers,
               (unsigned long long)stats.accepted);
        for (int i = 0; i < RB_REASONS; i++)
            printf("  reason %d: answered %llu refused %llu\n", i,
                   (unsigned long long)stats.answered[i], (unsigned long long)stats.refused[i]);
    }
    still_close(&s->still);
}

static void the_books_are_even_whatever_happens(void) {
    const char *one = getenv("RINGBRIDGE_SHUFFLE_SEED"), *more = getenv("RINGBRIDGE_SHUFFLE_RUNS");
    uint64_t runs = more ? strtoull(more, NULL, 0) : RUNS;
    if (one) {
        run(strtoull(one, NULL, 0));
        return;
    }
    for (uint64_t seed = 1; seed <= runs && !check_breaches; seed++) run(seed);
}

int main(void) {
    RUN(the_books_are_even_whatever_happens);
    return check_end();
}
