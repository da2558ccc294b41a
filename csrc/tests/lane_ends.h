/* lane_ends.h: both ends of a lane in the test's own process; the relay's is played by hand. */
#ifndef RINGBRIDGE_TESTS_LANE_ENDS_H
#define RINGBRIDGE_TESTS_LANE_ENDS_H

#include "check.h"
#include "ringbridge/lane.h"
#include "ringbridge/lane_link.h"

struct ends {
    struct rb_lane_link relay;
    struct rb_lane_client *beam;
};

static inline struct rb_lane_config ends_config(void) {
    return (struct rb_lane_config){.lane = 7,
                                   .rings = 3,
                                   .slots = 8,
                                   .arena_bytes = 64 << 10,
                                   .result_bytes = 1 << 20,
                                   .result_block_bytes = 4096};
}

static inline struct rb_lane_fds ends_fds(const struct rb_lane_link *relay) {
    return (struct rb_lane_fds){dup(relay->relay_side_fd), dup(relay->beam_side_fd),
                                dup(relay->beam_bell), -1};
}
static inline void ends_close_fds(const struct rb_lane_fds *fds) {
    close(fds->relay_side);
    close(fds->beam_side);
    close(fds->bell);
}

static inline void ends_open_as(struct ends *e, const struct rb_lane_config *config) {
    char why[256] = "";
    if (rb_lane_link_create(&e->relay, config) < 0) abort();
    struct rb_lane_fds fds = ends_fds(&e->relay);
    CHECK_EQUAL(rb_lane_attach(&e->beam, &fds, why, sizeof why), 0);
    rb_lane_link_handed_over(&e->relay);
    if (!e->beam) abort();
}
static inline void ends_open(struct ends *e) {
    struct rb_lane_config config = ends_config();
    ends_open_as(e, &config);
}
static inline void ends_close(struct ends *e) {
    rb_lane_detach(e->beam);
    rb_lane_link_close(&e->relay);
}

/* --- The BEAM's --- */

static inline int ends_send(struct ends *e, uint32_t ring, const void *bytes, size_t size,
                            uint64_t *number) {
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct rb_lane_request q = {.form = RB_LANE_TERM, .parts = &part, .count = 1};
    int rc = rb_lane_claim(e->beam, ring, number);
    return rc < 0 ? rc : rb_lane_send(e->beam, ring, *number, &q);
}
/* What a drain has shown last, and how often. */
struct seen {
    struct rb_lane_answer last;
    uint8_t bytes[64 << 10];
    int count, lost, dropped, verdict;
};
static inline int ends_see(void *arg, const struct rb_lane_answer *a) {
    struct seen *seen = arg;
    seen->last = *a;
    if (a->size && a->size <= sizeof seen->bytes) memcpy(seen->bytes, a->bytes, a->size);
    seen->count++;
    seen->lost += a->kind == RB_LANE_ANSWER_LOST;
    seen->dropped += a->kind == RB_LANE_ANSWER_DROPPED;
    return seen->verdict;
}

/* --- The relay's --- */

/* Takes up to `max` of a ring, answering each with its own bytes. How many. */
static inline int ends_echo(struct ends *e, uint32_t ring, int max, uint32_t status) {
    struct rb_ring_consumer *c = &e->relay.submission_rings[ring];
    int64_t count = rb_ring_available(c);
    if (count > max) count = max;
    for (int64_t i = 0; i < count; i++) {
        struct rb_lane_submission s = *rb_lane_link_submission(&e->relay, ring, (uint64_t)i);
        const uint8_t *bytes = rb_lane_link_bytes(&e->relay, ring, &s);
        if (!bytes) abort();
        struct rb_lane_piece piece = {bytes, s.bytes};
        rb_lane_link_reclaim(&e->relay);
        if (rb_lane_link_put(&e->relay, s.request, status, &piece, 1) < 0) abort();
    }
    if (count > 0) rb_ring_release(c, (uint64_t)count);
    rb_lane_link_publish(&e->relay);
    return (int)count;
}

#endif
