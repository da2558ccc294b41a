/* breaker.h: a circuit breaker: who fails too often is left alone for a while, then tried, then trusted again by and by.
 *
 *                    rate                        due                     proven
 *      CLOSED -----------------> OPEN -----------------> HALF_OPEN ----------------> RECLOSING --due--> CLOSED
 *                                 ^ ^------ failed -----------'                          |
 *                                 '------------------------- rate ----------------------'
 *
 *      HELD_OPEN, HELD_CLOSED: so it was told, until it is told otherwise.
 *
 * CLOSED and RECLOSING count how jobs end over a sliding window of ten slices; at `failure_percent` of at least `volume_min` it opens. OPEN
 * lasts open_ms, twice as long each time it opens again before it was closed, at most open_max_ms, with jitter. HALF_OPEN asks for `probes`
 * jobs, and the first that fails opens it again. RECLOSING grows the share of jobs from a tenth to the whole, linearly. A job that began before
 * the state did says nothing about it, except of the window. Pure: `now` and the random word are arguments. */
#ifndef RB_RELAY_BREAKER_H
#define RB_RELAY_BREAKER_H

#include <stdint.h>

#include "ringbridge/dispatch.h"

enum { RB_BREAKER_SLICES = 10, RB_BREAKER_WHOLE = 1000 };

enum rb_breaker_event {
    RB_BREAKER_FAILED, /* a job of this state failed */
    RB_BREAKER_RATE,   /* too many in the window did */
    RB_BREAKER_PROVEN, /* enough probes succeeded */
    RB_BREAKER_DUE,    /* the state's time is over */
    RB_BREAKER_HOLD_OPEN,
    RB_BREAKER_HOLD_CLOSED,
    RB_BREAKER_AUTO, /* nobody holds it any more */
    RB_BREAKER_EVENTS
};

struct rb_breaker {
    uint32_t state;
    uint32_t openings; /* since it was last closed */
    uint32_t proven;   /* probes that succeeded */
    uint64_t since_ns; /* the state's begin */
    uint64_t due_ns;   /* its end: OPEN, RECLOSING; else 0 */
    uint64_t slice_at_ns;
    uint32_t newest;
    uint32_t ended[RB_BREAKER_SLICES], failed[RB_BREAKER_SLICES];
};

/* 0, or -EINVAL. failure_percent 0 needs none of the others: such a breaker stays closed unless it is held. */
int rb_breaker_check(const struct rb_breaker_config *config);
/* All below return 1 when the state has changed. A zeroed breaker is closed. */
int rb_breaker_ended(struct rb_breaker *b, const struct rb_breaker_config *config, int failed,
                     uint64_t began_ns, uint64_t now, uint64_t random);
int rb_breaker_tick(struct rb_breaker *b, const struct rb_breaker_config *config, uint64_t now);
int rb_breaker_hold(struct rb_breaker *b, const struct rb_breaker_config *config,
                    enum rb_breaker_event how, uint64_t now);
/* The configuration has changed: one that is switched off closes, unless it is held. */
int rb_breaker_changed(struct rb_breaker *b, const struct rb_breaker_config *config, uint64_t now);
/* The share of jobs that it lets pass, of RB_BREAKER_WHOLE. HALF_OPEN: 1, which means one at a time. */
uint32_t rb_breaker_share(const struct rb_breaker *b, const struct rb_breaker_config *config,
                          uint64_t now);
/* When it is worth another try, in ms, at least 1. */
uint64_t rb_breaker_retry_ms(const struct rb_breaker *b, const struct rb_breaker_config *config,
                             uint64_t now);
/* How many of the window's jobs ended, and failed. */
void rb_breaker_window(const struct rb_breaker *b, uint32_t *ended, uint32_t *failed);
const char *rb_breaker_state_name(uint32_t state);

#endif
