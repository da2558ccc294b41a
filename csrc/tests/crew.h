/* crew.h: a relay without a thread, one role, and several workers that the test plays: rounds and time are the test's (ringbridge/lab.h). */
#ifndef RINGBRIDGE_TESTS_CREW_H
#define RINGBRIDGE_TESTS_CREW_H

#include "relay_lab.h"

enum { CREW_MOST = 64 };
static const uint64_t CREW_MS = 1000000;

struct crew {
    struct lab lab;
    struct rb_role_config role;
    uint64_t now;
    uint32_t slots, refs;
    struct rb_lab_worker *workers[CREW_MOST]; /* NULL: died */
    uint64_t ids[CREW_MOST];
};

static inline struct rb_role_config crew_role(void) {
    struct rb_role_config role = lab_role_config();
    role.admission.depth_max = 100000;
    return role;
}
static inline void crew_round(struct crew *c) { rb_lab_round(c->lab.relay, c->now += 1000); }
static inline void crew_after(struct crew *c, uint64_t ms) {
    c->now += ms * CREW_MS;
    crew_round(c);
}
/* A worker at place i of the test's table. */
static inline void crew_hire(struct crew *c, int i) {
    c->ids[i] = ++c->lab.workers;
    if (rb_lab_hire(c->lab.relay, 0, c->ids[i], c->slots, &c->workers[i]) < 0) abort();
    rb_lab_greet(c->workers[i], "echo");
    crew_round(c);
}
static inline void crew_open(struct crew *c, int workers, const struct rb_role_config *role) {
    struct rb_relay_config config = lab_config();
    config.monitors_max = 100000;
    config.seed = 11;
    *c = (struct crew){.role = *role, .now = 1000 * CREW_MS, .slots = 16};
    lab_open_still(&c->lab, &config, role, c->now);
    for (int i = 0; i < workers; i++) crew_hire(c, i);
}
static inline void crew_configure(struct crew *c) {
    if (rb_relay_configure_role(c->lab.relay, 0, &c->role) < 0) abort();
    crew_round(c);
}
static inline void crew_die(struct crew *c, int i) {
    rb_lab_die(c->workers[i], -1, 9, 0);
    c->workers[i] = NULL;
    crew_round(c);
}
static inline void crew_close(struct crew *c) {
    for (int i = 0; i < CREW_MOST; i++) {
        if (c->workers[i]) crew_die(c, i);
    }
    lab_close(&c->lab);
}

/* A call, answered under its own reference, which is returned. */
static inline uint32_t crew_submit(struct crew *c, uint32_t caller, const void *payload,
                                   size_t size) {
    struct lab_bytes b = {.size = 0};
    uint32_t ref = ++c->refs;
    lab_monitor(c->lab.peer, 1, caller, ref);
    lab_call_head(&b, caller, ref);
    lab_submit_head(&b, 3, "echo");
    lab_put_binary(&b, payload, size);
    lab_frame(c->lab.peer, &b);
    return ref;
}
/* The same with one option, of a small integer. */
static inline uint32_t crew_submit_with(struct crew *c, uint32_t caller, const char *key,
                                        uint8_t value) {
    struct lab_bytes b = {.size = 0};
    uint32_t ref = ++c->refs;
    lab_monitor(c->lab.peer, 1, caller, ref);
    lab_call_head(&b, caller, ref);
    lab_submit_head(&b, 4, "echo");
    lab_put_binary(&b, &ref, sizeof ref);
    PUT(&b, "\x74\x00\x00\x00\x01");
    lab_put_atom(&b, key);
    uint8_t number[2] = {RB_TAG_SMALL_INTEGER, value};
    lab_put(&b, number, 2);
    lab_frame(c->lab.peer, &b);
    crew_round(c);
    return ref;
}
static inline int64_t crew_has(const struct crew *c, int i) {
    return c->workers[i] ? rb_lab_requests(c->workers[i]) : 0;
}
/* The oldest request of worker i is begun; its number if its payload is one. */
static inline uint32_t crew_begin(struct crew *c, int i) {
    struct rb_lab_request q;
    uint32_t number = 0;
    if (rb_lab_request(c->workers[i], 0, &q) < 0) abort();
    rb_lab_start(c->workers[i], 1);
    if (q.payload_bytes == sizeof number) memcpy(&number, q.payload, sizeof number);
    return number;
}
/* ... and is done, after so long by the worker's clock. */
static inline void crew_finish(struct crew *c, int i, uint64_t run_ns) {
    struct rb_lab_request q;
    if (rb_lab_request(c->workers[i], 0, &q) < 0) abort();
    struct rb_lab_answer a = {
        .job = q.job, .run_ns = run_ns, .payload = q.payload, .payload_bytes = q.payload_bytes};
    if (rb_lab_complete(c->workers[i], &a) < 0) abort();
    rb_lab_release(c->workers[i], 1);
}
/* All that is in the rings is done, round by round, until nothing is left. `ran` counts by worker. */
static inline void crew_run_dry(struct crew *c, uint32_t *ran) {
    for (int busy = 1; busy;) {
        busy = 0;
        for (int i = 0; i < CREW_MOST; i++) {
            while (crew_has(c, i) > 0) {
                crew_begin(c, i);
                crew_finish(c, i, 1000);
                if (ran) ran[i]++;
                busy = 1;
            }
        }
        crew_round(c);
    }
}
static inline struct rb_role_stats crew_stats(const struct crew *c) {
    struct rb_role_stats stats;
    rb_relay_read_role(c->lab.relay, 0, &stats);
    return stats;
}
static inline uint64_t crew_answered(const struct crew *c) {
    struct rb_role_stats stats = crew_stats(c);
    uint64_t all = 0;
    for (int i = 0; i < RB_REASONS; i++) all += stats.answered[i];
    return all;
}

#endif
