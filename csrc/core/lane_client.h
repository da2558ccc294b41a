/* lane_client.h: a lane's end in a BEAM, from inside (ringbridge/lane.h is its face).
 *
 * A request's slot. Free ones of a ring are a stack of its own: its one producer pops, whoever drains pushes. One who pops is what makes
 * the stack safe: between its look at the first element and its exchange nobody else can take that element and put it back.
 *
 *      FREE --claim--> CLAIMED --send--> OPEN --completion, or lose--> FREE
 *                         '--unclaim, or a send that fails--> FREE
 *
 * OPEN -> FREE is an exchange, because two may try: who drains (or loses), and a send that sees the lane closed under its hands. */
#ifndef RINGBRIDGE_LANE_CLIENT_H
#define RINGBRIDGE_LANE_CLIENT_H

#include <pthread.h>

#include "lane_pvt.h"
#include "ringbridge/gate.h"
#include "ringbridge/lane.h"
#include "ringbridge/ring.h"

enum rb_lane_slot_state { RB_SLOT_FREE, RB_SLOT_CLAIMED, RB_SLOT_OPEN };

struct rb_lane_slot {
    /* All atomic. */
    uint32_t state;      /* enum rb_lane_slot_state */
    uint32_t generation; /* of the request that was sent last; its producer writes it */
    uint32_t next;       /* in its stack, by index + 1 */
};

/* On line pairs of its own: what one scheduler's thread touches no other writes. Figures: one writer, read relaxed by anyone. */
struct rb_lane_ring {
    __attribute__((aligned(128))) struct rb_ring_producer producer;
    struct rb_gate_waker
        waker;         /* wakes the relay: by ring, so that nobody trusts another to have rung */
    uint32_t doorbell; /* the relay sleeps by its descriptors alone; nobody reads it */
    struct rb_lane_submission *submissions;
    uint8_t *arena;
    uint64_t arena_tail, arena_head; /* free-running bytes, taken and given back */
    uint64_t *arena_ends;            /* by slot of the ring: arena_tail behind what it holds */
    uint64_t sent, full;
    __attribute__((aligned(128))) uint32_t free; /* top of the stack: index + 1; 0: none */
};

struct rb_lane_client {
    struct rb_lane_relay_header header; /* a private copy, checked */
    struct rb_lane_fds fds;
    const uint8_t *relay_side;
    uint8_t *beam_side;
    const uint8_t *telemetry; /* NULL: none */
    const struct rb_lane_relay_positions *theirs;
    struct rb_lane_beam_positions *ours;
    const struct rb_lane_completion *completions;
    const uint8_t *results;
    struct rb_lane_cancel *cancels;
    struct rb_lane_giveback *givebacks;
    struct rb_lane_ring *rings; /* aligned inside rings_memory */
    void *rings_memory;
    struct rb_lane_slot *slots;
    uint32_t closed;  /* atomic: no more claims and sends */
    const char *why;  /* atomic: the rule that the relay broke, or NULL */
    uint32_t no_bell; /* we sleep by a descriptor: the relay's doorbell is not looked at */

    pthread_mutex_t shared; /* the last ring */

    /* For cancels, and for room that is wanted. A mutex of its own, not the last ring's: that one is held while a request is copied,
     * and who gives back or cancels may be a normal scheduler in its garbage collection. */
    __attribute__((aligned(128))) pthread_mutex_t waking;
    struct rb_gate_waker waker;
    uint32_t doorbell;  /* as a ring's */
    uint64_t cancelled; /* written under it */

    __attribute__((aligned(128))) pthread_mutex_t drain;
    struct rb_ring_consumer completion_ring;
    uint64_t drained; /* the ring's head, for a look without the lock */
    struct rb_gate_waiter waiter;
    uint8_t *scratch; /* private copy of a term */
    size_t scratch_bytes;
    uint64_t answered, dropped;

    __attribute__((aligned(128))) pthread_mutex_t giving;
    struct rb_ring_producer giveback_ring;
    uint32_t *held; /* by first block: how many; */
    uint8_t *busy;  /* by block: 1, it is part of one that is held */
    uint64_t held_bytes;
};

/* lane_drain.c: of an answer that was not kept, or never shown. */
int rb_lane_take_place(struct rb_lane_client *lane, uint64_t at, uint64_t bytes);

/* lane_send.c: wakes the relay if it sleeps; from any thread. */
void rb_lane_ring_relay(struct rb_lane_client *lane);
/* lane_send.c: to its ring's stack. */
void rb_lane_free_slot(struct rb_lane_client *lane, uint32_t slot);
/* Acquire with S1 in rb_lane_send(): who sees it open sees its generation, and all that its caller stored under it. */
static inline int rb_lane_is_open(const struct rb_lane_slot *s, uint64_t number) {
    return rb_load_acquire(&s->state) == RB_SLOT_OPEN &&
           rb_load_relaxed(&s->generation) == (uint32_t)(number >> 32);
}
static inline int rb_lane_is_closed(const struct rb_lane_client *lane) {
    return rb_load_relaxed(&lane->closed) != 0;
}

#endif
