/* lane_lab.h: a lane to a real relay (relay_lab.h); the client library is the BEAM. */
#ifndef RINGBRIDGE_TESTS_LANE_LAB_H
#define RINGBRIDGE_TESTS_LANE_LAB_H

#include "core/lane_client.h"
#include "relay_lab.h"

struct lane {
    struct rb_lane_client *beam;
    uint64_t id;
    struct rb_lane_answer last; /* of the answer that came last; its bytes: */
    uint8_t bytes[LAB_PAYLOAD_MAX];
    int keep;
    uint64_t told, lost;
};

static inline struct rb_lane_config lane_config(uint64_t id) {
    return (struct rb_lane_config){.lane = id,
                                   .rings = 3,
                                   .slots = 16,
                                   .arena_bytes = 4 << 20,
                                   .result_bytes = 4 << 20,
                                   .result_block_bytes = 4096};
}

static inline struct lane *lane_open_as(struct lab *lab, const struct rb_lane_config *config) {
    struct lane *l = calloc(1, sizeof *l);
    int fds[4];
    char why[256] = "";
    int rc = rb_relay_open_lane(lab->relay, lab->connections, config, fds);
    CHECK_EQUAL(rc, 0);
    if (rc < 0) abort();
    struct rb_lane_fds own = {fds[0], fds[1], fds[2], fds[3]};
    CHECK_EQUAL(rb_lane_attach(&l->beam, &own, why, sizeof why), 0);
    if (!l->beam) abort();
    l->id = config->lane;
    return l;
}
static inline struct lane *lane_open(struct lab *lab, uint64_t id) {
    struct rb_lane_config config = lane_config(id);
    return lane_open_as(lab, &config);
}
static inline void lane_detach(struct lane *l) {
    rb_lane_detach(l->beam);
    free(l);
}

/* --- Requests --- */

static inline int lane_send(struct lane *l, uint32_t ring, const struct rb_lane_request *q,
                            uint64_t *number) {
    int rc = rb_lane_claim(l->beam, ring, number);
    return rc < 0 ? rc : rb_lane_send(l->beam, ring, *number, q);
}
static inline uint64_t lane_raw(struct lane *l, const char *role, const void *bytes, size_t size,
                                uint32_t timeout_ms) {
    struct iovec part = {(void *)(uintptr_t)bytes, size};
    struct rb_lane_request q = {.form = RB_LANE_RAW,
                                .caller = (uint32_t)l->told,
                                .parts = &part,
                                .count = 1,
                                .role = (const uint8_t *)role,
                                .role_bytes = (uint16_t)strlen(role),
                                .timeout_ms = timeout_ms};
    uint64_t number = UINT64_MAX;
    CHECK_EQUAL(lane_send(l, (uint32_t)(l->told % 3), &q, &number), 0);
    return number;
}
static inline uint64_t lane_term(struct lane *l, const void *bytes, size_t size) {
    struct iovec part = {(void *)(uintptr_t)bytes, size};
    struct rb_lane_request q = {.form = RB_LANE_TERM, .parts = &part, .count = 1};
    uint64_t number = UINT64_MAX;
    CHECK_EQUAL(lane_send(l, RB_LANE_SHARED, &q, &number), 0);
    return number;
}

/* --- Answers --- */

static inline int lane_see(void *arg, const struct rb_lane_answer *a) {
    struct lane *l = arg;
    l->last = *a;
    if (a->size <= sizeof l->bytes && a->size) memcpy(l->bytes, a->bytes, a->size);
    l->told++;
    l->lost += a->kind == RB_LANE_ANSWER_LOST;
    return l->keep && a->keepable ? RB_LANE_KEEP : RB_LANE_TAKEN;
}
/* Sleeps as a BEAM does, until something can be drained or the lane has ended. 0: not in time. */
static inline int lane_sleep(struct lane *l) {
    while (!rb_lane_park(l->beam)) {
        struct pollfd p = {.fd = rb_lane_wake_fd(l->beam), .events = POLLIN};
        if (poll(&p, 1, LAB_WAIT_MS) <= 0) return 0;
        if (rb_lane_hush(l->beam) < 0) return 1;
    }
    return 1;
}
/* The next answer, waited for. 1, or 0: none came, or the lane has ended. */
static inline int lane_answer(struct lane *l) {
    for (;;) {
        int n = rb_lane_drain(l->beam, lane_see, l, 1);
        if (n != 0) return n > 0;
        if (rb_lane_state(l->beam) != RB_LANE_OPEN || !lane_sleep(l)) return 0;
    }
}
static inline int lane_says(const struct lane *l, enum rb_lane_answer_kind kind, const void *bytes,
                            size_t size) {
    return l->last.kind == kind && l->last.size == size && memcmp(l->bytes, bytes, size) == 0;
}
#define LANE_RAW_IS(l, literal) lane_says((l), RB_LANE_ANSWER_RAW, (literal), sizeof(literal) - 1)
static inline int lane_has(const struct lane *l, const void *wanted, size_t size) {
    return l->last.kind == RB_LANE_ANSWER_TERM &&
           memmem(l->bytes, l->last.size, wanted, size) != NULL;
}
#define LANE_TERM_HAS(l, literal) lane_has((l), (literal), sizeof(literal) - 1)

/* Its stats, once `open` requests are open in the relay. */
static inline struct rb_lane_stats lane_stats(struct lab *lab, const struct lane *l,
                                              uint64_t open) {
    struct rb_lane_stats s = {.open = UINT64_MAX};
    for (int ms = 0; ms < LAB_WAIT_MS && s.open != open; ms++) {
        if (rb_relay_read_lane(lab->relay, l->id, &s) < 0) break;
        if (s.open != open) usleep(1000);
    }
    CHECK_EQUAL(s.open, open);
    return s;
}

#endif
