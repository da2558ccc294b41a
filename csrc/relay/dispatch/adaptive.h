/* adaptive.h: how many jobs may be in flight, found from how long they take.
 *
 * The gradient of Netflix' concurrency-limits (Gradient2Limit): where the latency of just now is longer than the usual one, jobs queue
 * somewhere, and the limit shrinks in that proportion; where it is not, the limit grows by a little headroom.
 *
 *      gradient = usual * tolerance / now, held between 1/2 and 1
 *      limit    = limit * (1 - 1/5) + (limit * gradient + headroom) * 1/5
 *
 * `now` is the mean of a window's jobs, `usual` a moving mean over some 600 windows, so that a lasting change becomes the usual. When the
 * latency falls to less than half of the usual, the usual follows by a tenth a window. A limit that less than half is used of does not
 * grow: nothing was learnt about it. Pure; whole numbers (limit in 1/256 of a job, latencies in ns, at most 2^40). */
#ifndef RB_RELAY_ADAPTIVE_H
#define RB_RELAY_ADAPTIVE_H

#include <stdint.h>

#include "ringbridge/dispatch.h"

enum { RB_ADAPTIVE_SAMPLES_MIN = 10 };

struct rb_adaptive {
    uint64_t limit_256; /* in 1/256 of a job; 0: nothing is known yet */
    uint64_t usual_256; /* ns in 1/256 */
    uint32_t windows;   /* that `usual` was made of, while it warms up */
    uint64_t window_end_ns, sum_ns;
    uint32_t samples, in_flight_most;
};

/* 0, or -EINVAL. limit_max 0 needs none of the others. */
int rb_adaptive_check(const struct rb_adaptive_config *config);
/* Jobs that may be in flight; UINT32_MAX where there is no such limit. */
uint32_t rb_adaptive_limit(const struct rb_adaptive *a, const struct rb_adaptive_config *config);
/* A job that was served has ended: how long it took from its arrival, and how many were in flight with it, itself included. */
void rb_adaptive_ended(struct rb_adaptive *a, const struct rb_adaptive_config *config,
                       uint64_t latency_ns, uint32_t in_flight, uint64_t now);

#endif
