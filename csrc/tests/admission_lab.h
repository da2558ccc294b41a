/* admission_lab.h: what tests of admission ask of a relay that stands still. */
#ifndef RINGBRIDGE_TESTS_ADMISSION_LAB_H
#define RINGBRIDGE_TESTS_ADMISSION_LAB_H

#include "still_lab.h"

static inline struct rb_role_config plain_role(void) {
    struct rb_role_config role = lab_role_config();
    role.choice.credit_us = 0; /* one job at a time at the worker */
    return role;
}
static inline struct rb_rate_config rate_of(uint32_t kind, uint32_t jobs, uint32_t per_ms,
                                            uint32_t burst) {
    return (struct rb_rate_config){kind, jobs, per_ms, burst};
}
static inline struct rb_slice slice_of(const char *text) {
    return (struct rb_slice){(const uint8_t *)text, strlen(text)};
}

/* {submit, echo, <<"x">>, #{Key => Value, ...}} with terms that are encoded already. */
static inline uint32_t submit_with(struct still *s, int fd, const char *options, size_t size,
                                   uint32_t count) {
    struct lab_bytes b = {.size = 0};
    uint32_t caller = ++s->callers;
    lab_monitor(fd, 1, caller, caller);
    lab_call_head(&b, caller, caller);
    lab_submit_head(&b, 4, "echo");
    lab_put_binary(&b, "x", 1);
    PUT(&b, "\x74");
    lab_put_u32(&b, count);
    lab_put(&b, options, size);
    lab_frame(fd, &b);
    still_round(s, 0);
    return caller;
}
#define SUBMIT_WITH(s, literal) submit_with((s), (s)->lab.peer, literal, sizeof(literal) - 1, 1)
#define TENANT_A             \
    "\x77\x06tenant\x77\x01" \
    "a"
#define TENANT_B             \
    "\x77\x06tenant\x77\x01" \
    "b"
#define FOR_A(s)                            \
    SUBMIT_WITH(s, "\x77\x06tenant\x77\x01" \
                   "a")
#define FOR_B(s)                            \
    SUBMIT_WITH(s, "\x77\x06tenant\x77\x01" \
                   "b")

static inline uint64_t by_rule(struct still *s, enum rb_rule rule) {
    CHECK_EQUAL(still_stats(s).overloaded_by[rule], still_role(s).overloaded_by[rule]);
    return still_stats(s).overloaded_by[rule];
}
/* The worker ends its job well, its caller is told. */
static inline void serve_one(struct still *s) {
    still_answer(s, 0, RB_STATUS_OK);
    CHECK(TOLD_OK(s));
}

static inline struct rb_role_config deferring_role(uint32_t most, uint32_t ms) {
    struct rb_role_config role = plain_role();
    role.admission.on_full = RB_ADMISSION_DEFER;
    role.admission.defer_max = most;
    role.admission.defer_ms = ms;
    return role;
}

static inline uint64_t told_retry_ms(struct still *s) {
    static uint8_t body[1024];
    int n = lab_read(s->lab.peer, body, sizeof body, 0);
    const uint8_t *at = n > 0 ? memmem(body, (size_t)n, "retry_after_ms", 14) : NULL;
    if (!at) return UINT64_MAX;
    return at[14] == RB_TAG_SMALL_INTEGER ? at[15] : rb_be32(at + 15);
}

#endif
