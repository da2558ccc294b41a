/* limiter.h: how many jobs may begin in a time: token bucket, leaky bucket, sliding window.
 *
 * Pure: `now` (ns, of a clock that does not go back; an earlier one is taken for the latest seen) is an argument. All three count
 * in whole units, so that nothing drifts: a bucket's level is kept in (jobs x ns of the period), of which each nanosecond adds `jobs`
 * and each job takes `per_ns`. With the bounds below the fullest bucket is 3.6e18 units, which fits into 63 bits.
 *
 *   token bucket    a job takes a token; `jobs` of them come in `per_ms`, evenly, at most `burst` are kept. Full at first.
 *   leaky bucket    jobs leave one by one, `per_ms` / `jobs` apart. Who asks too early waits; how many may is admission's `burst`.
 *   sliding window  at most `jobs` jobs in any `per_ms`. Counted in slices of a sixteenth: a job may be held up to a slice too long,
 *                   but no window, wherever it begins, ever holds more. */
#ifndef RB_RELAY_LIMITER_H
#define RB_RELAY_LIMITER_H

#include <stdint.h>

#include "ringbridge/dispatch.h"

enum { RB_WINDOW_SLICES = 16 };

struct rb_limiter { /* all zero: begins with the first question, as reset */
    int begun;
    uint64_t at_ns; /* bucket: when `level` was true; window: the begin of the newest slice */
    uint64_t level; /* bucket: jobs x per_ns */
    uint32_t
        taken[RB_WINDOW_SLICES + 1]; /* window: jobs by slice; [newest] is the one that fills */
    uint32_t newest;
};

/* 0, or -EINVAL: a number out of its range. kind RB_RATE_NONE needs none. */
int rb_rate_check(const struct rb_rate_config *config);
/* Begins anew, as after a long silence. Also where a live change altered the kind. */
void rb_limiter_reset(struct rb_limiter *l, const struct rb_rate_config *config, uint64_t now);
/* The configuration has changed: what was used up stays used up, as far as the new numbers know it. */
void rb_limiter_change(struct rb_limiter *l, const struct rb_rate_config *before,
                       const struct rb_rate_config *after, uint64_t now);
/* How long until a job may begin, in ns; 0: now. Takes nothing. */
uint64_t rb_limiter_wait_ns(struct rb_limiter *l, const struct rb_rate_config *config,
                            uint64_t now);
/* A job begins: only after rb_limiter_wait_ns() of the same moment said 0. */
void rb_limiter_take(struct rb_limiter *l, const struct rb_rate_config *config, uint64_t now);
/* Nothing is used up: as good as new. */
int rb_limiter_idle(struct rb_limiter *l, const struct rb_rate_config *config, uint64_t now);

#endif
