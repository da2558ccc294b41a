/* limiter.c: token bucket, leaky bucket, sliding window, in whole numbers. */
#include "relay/dispatch/limiter.h"

#include <errno.h>
#include <string.h>

#define NS_PER_MS 1000000ull

int rb_rate_check(const struct rb_rate_config *config) {
    if (config->kind == RB_RATE_NONE) return 0;
    if (config->kind > RB_RATE_SLIDING_WINDOW) return -EINVAL;
    if (config->jobs < 1 || config->jobs > RB_RATE_JOBS_MAX) return -EINVAL;
    if (config->per_ms < 1 || config->per_ms > RB_RATE_PER_MS_MAX) return -EINVAL;
    if (config->burst < 1 || config->burst > RB_RATE_BURST_MAX) return -EINVAL;
    return 0;
}

static uint64_t per_ns(const struct rb_rate_config *config) { return config->per_ms * NS_PER_MS; }

/* --- Buckets: `level` is what may still begin ---------------------------------------------------------------------------- */

/* A leaky bucket that lets them out one by one is a token bucket that keeps one token. */
static uint64_t full(const struct rb_rate_config *config) {
    return per_ns(config) * (config->kind == RB_RATE_LEAKY_BUCKET ? 1 : config->burst);
}

static void refill(struct rb_limiter *l, const struct rb_rate_config *config, uint64_t now) {
    if (!l->begun) rb_limiter_reset(l, config, now);
    if (now <= l->at_ns) return;
    uint64_t missing = full(config) - l->level, passed = now - l->at_ns;
    /* Divided before it is multiplied: a long silence must not overflow. */
    l->level = passed > missing / config->jobs ? full(config) : l->level + passed * config->jobs;
    l->at_ns = now;
}

/* --- Window: slices that have left it are forgotten ---------------------------------------------------------------------- */

static uint64_t slice_ns(const struct rb_rate_config *config) {
    return per_ns(config) / RB_WINDOW_SLICES; /* no remainder: a millisecond has 62,500 of them */
}

static void slide(struct rb_limiter *l, const struct rb_rate_config *config, uint64_t now) {
    if (!l->begun) rb_limiter_reset(l, config, now);
    if (now < l->at_ns) return;
    uint64_t passed = (now - l->at_ns) / slice_ns(config);
    l->at_ns += passed * slice_ns(config);
    for (uint64_t i = 0; i < passed && i <= RB_WINDOW_SLICES; i++) {
        l->newest = (l->newest + 1) % (RB_WINDOW_SLICES + 1);
        l->taken[l->newest] = 0;
    }
}

/* The window reaches back over all seventeen slices: sixteen whole ones and the part of the newest that has passed. It has room
 * again when enough of the oldest have left. */
static uint64_t window_wait_ns(const struct rb_limiter *l, const struct rb_rate_config *config,
                               uint64_t now) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i <= RB_WINDOW_SLICES; i++) sum += l->taken[i];
    if (now < l->at_ns) now = l->at_ns;
    uint64_t wait = 0;
    for (uint32_t i = 1; sum >= config->jobs && i <= RB_WINDOW_SLICES + 1; i++) {
        sum -= l->taken[(l->newest + i) % (RB_WINDOW_SLICES + 1)];
        wait = l->at_ns + i * slice_ns(config) - now;
    }
    return wait;
}

/* --- All three ----------------------------------------------------------------------------------------------------------- */

void rb_limiter_reset(struct rb_limiter *l, const struct rb_rate_config *config, uint64_t now) {
    *l = (struct rb_limiter){.begun = 1, .at_ns = now};
    if (config->kind != RB_RATE_NONE && config->kind != RB_RATE_SLIDING_WINDOW)
        l->level = full(config);
}

void rb_limiter_change(struct rb_limiter *l, const struct rb_rate_config *before,
                       const struct rb_rate_config *after, uint64_t now) {
    int window = after->kind == RB_RATE_SLIDING_WINDOW;
    if (before->kind != after->kind || (window && before->per_ms != after->per_ms)) {
        rb_limiter_reset(l, after, now);
        return;
    }
    if (after->kind == RB_RATE_NONE || window) return;
    refill(l, before, now);
    /* Whole jobs are what is kept; the part of one is lost where the period changes. */
    uint64_t jobs = l->level / per_ns(before);
    if (before->per_ms != after->per_ms) l->level = jobs * per_ns(after);
    if (l->level > full(after)) l->level = full(after);
}

uint64_t rb_limiter_wait_ns(struct rb_limiter *l, const struct rb_rate_config *config,
                            uint64_t now) {
    if (config->kind == RB_RATE_NONE) return 0;
    if (config->kind == RB_RATE_SLIDING_WINDOW) {
        slide(l, config, now);
        return window_wait_ns(l, config, now);
    }
    refill(l, config, now);
    if (l->level >= per_ns(config)) return 0;
    uint64_t behind = l->at_ns > now ? l->at_ns - now : 0;
    return behind + (per_ns(config) - l->level + config->jobs - 1) / config->jobs;
}

void rb_limiter_take(struct rb_limiter *l, const struct rb_rate_config *config, uint64_t now) {
    if (config->kind == RB_RATE_NONE) return;
    if (config->kind == RB_RATE_SLIDING_WINDOW) {
        slide(l, config, now);
        l->taken[l->newest]++;
        return;
    }
    refill(l, config, now);
    l->level -= l->level < per_ns(config) ? l->level : per_ns(config);
}

int rb_limiter_idle(struct rb_limiter *l, const struct rb_rate_config *config, uint64_t now) {
    if (config->kind == RB_RATE_NONE) return 1;
    if (config->kind != RB_RATE_SLIDING_WINDOW)
        return refill(l, config, now), l->level == full(config);
    slide(l, config, now);
    for (uint32_t i = 0; i <= RB_WINDOW_SLICES; i++)
        if (l->taken[i]) return 0;
    return 1;
}
