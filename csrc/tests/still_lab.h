/* still_lab.h: a relay without a thread, with a peer and some workers, for rules of dispatching: every step is a round, and time passes
 * when the test says so. */
#ifndef RINGBRIDGE_TESTS_STILL_LAB_H
#define RINGBRIDGE_TESTS_STILL_LAB_H

#include "relay_lab.h"

#define STILL_MS 1000000ull
enum { STILL_WORKERS = 4, STILL_CALLERS = 60000 };

struct still {
    struct lab lab;
    uint64_t now;
    struct rb_lab_worker *workers[STILL_WORKERS];
    uint64_t ids;     /* of workers, given out */
    uint32_t callers; /* that have called, each once */
};

static inline void still_round(struct still *s, uint64_t ms) {
    rb_lab_round(s->lab.relay, s->now += ms * STILL_MS);
}
/* Worker `i` begins, anew if there was one; its id. */
static inline uint64_t still_hire(struct still *s, int i) {
    if (rb_lab_hire(s->lab.relay, 0, ++s->ids, 16, &s->workers[i]) < 0) abort();
    rb_lab_greet(s->workers[i], "echo");
    still_round(s, 0);
    return s->ids;
}
/* A relay with the one role, a peer, and so many workers. */
static inline void still_open(struct still *s, const struct rb_role_config *role, int workers) {
    struct rb_relay_config config = lab_config();
    config.monitors_max = STILL_CALLERS;
    config.seed = 1;
    *s = (struct still){.now = 1000 * STILL_MS};
    lab_open_still(&s->lab, &config, role, s->now);
    for (int i = 0; i < workers; i++) still_hire(s, i);
    still_round(s, 0);
}
static inline void still_close(struct still *s) {
    for (int i = 0; i < STILL_WORKERS; i++)
        if (s->workers[i]) rb_lab_die(s->workers[i], 0, 0, 0);
    lab_close(&s->lab);
}
/* A process more calls; its number. */
static inline uint32_t still_submit(struct still *s) {
    lab_submit(s->lab.peer, ++s->callers, "x", 1);
    still_round(s, 0);
    return s->callers;
}
static inline int still_has_job(struct still *s, int i) {
    return rb_lab_requests(s->workers[i]) > 0;
}
/* The worker ends its oldest job: RB_STATUS_OK or RB_STATUS_FAILED. */
static inline void still_answer(struct still *s, int i, uint32_t status) {
    struct rb_lab_request r;
    if (rb_lab_request(s->workers[i], 0, &r) < 0) {
        CHECK(!"a job to end");
        return;
    }
    rb_lab_start(s->workers[i], 1);
    struct rb_lab_answer a = {
        .job = r.job, .status = status, .payload = (const uint8_t *)"y", .payload_bytes = 1};
    if (rb_lab_complete(s->workers[i], &a) < 0) abort();
    rb_lab_release(s->workers[i], 1);
    still_round(s, 0);
}
/* The worker is killed while it runs its oldest job, if it has one. */
static inline void still_crash(struct still *s, int i) {
    if (still_has_job(s, i)) rb_lab_start(s->workers[i], 1);
    rb_lab_die(s->workers[i], -1, 11, 0);
    s->workers[i] = NULL;
    still_round(s, 0);
}
/* The next frame for the peer has this in it. */
static inline int still_told(struct still *s, const void *wanted, size_t size) {
    static uint8_t body[2 << 20];
    int n = lab_read(s->lab.peer, body, sizeof body, 0);
    return n > 0 && memmem(body, (size_t)n, wanted, size) != NULL;
}
#define TOLD(s, literal) still_told((s), (literal), sizeof(literal) - 1)
#define TOLD_OK(s) TOLD((s), "\x77\x02ok")
static inline int still_quiet(struct still *s) {
    static uint8_t body[1 << 16];
    return lab_read(s->lab.peer, body, sizeof body, 0) == -1;
}
static inline struct rb_relay_stats still_stats(struct still *s) {
    struct rb_relay_stats stats;
    rb_relay_read_stats(s->lab.relay, &stats);
    return stats;
}
static inline struct rb_role_stats still_role(struct still *s) {
    struct rb_role_stats stats;
    if (rb_relay_read_role(s->lab.relay, 0, &stats) < 0) abort();
    return stats;
}

#endif
