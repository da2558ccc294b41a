/* adaptive.c: the limit of jobs in flight, from the gradient of their latency. */
#include "relay/dispatch/adaptive.h"

#include <errno.h>

#define NS_PER_MS 1000000ull
#define LATENCY_MAX (1ull << 40) /* 18 minutes: keeps every product below within 64 bits */

enum {
    START = 20,          /* jobs, before anything is known */
    WARM_WINDOWS = 10,   /* of which the usual latency is the plain mean */
    USUAL_WINDOWS = 600, /* over which it moves then: each new window weighs 2 / (600 + 1) */
    GRADIENT_ONE = 1024,
    SMOOTHING = 5, /* a fifth of each step is taken */
};

int rb_adaptive_check(const struct rb_adaptive_config *config) {
    if (config->limit_max == 0) return 0;
    if (config->limit_max > 1u << 20) return -EINVAL; /* as many jobs as there can be */
    if (config->limit_min < 1 || config->limit_min > config->limit_max) return -EINVAL;
    if (config->window_ms < 1 || config->window_ms > 60000) return -EINVAL;
    if (config->tolerance_percent < 100 || config->tolerance_percent > 1000) return -EINVAL;
    if (config->headroom < 1 || config->headroom > 1000) return -EINVAL;
    return 0;
}

static uint64_t held(uint64_t limit_256, const struct rb_adaptive_config *config) {
    uint64_t least = (uint64_t)config->limit_min * 256, most = (uint64_t)config->limit_max * 256;
    return limit_256 < least ? least : limit_256 > most ? most : limit_256;
}

static uint64_t limit_of(const struct rb_adaptive *a, const struct rb_adaptive_config *config) {
    return held(a->limit_256 ? a->limit_256 : START * 256, config);
}

uint32_t rb_adaptive_limit(const struct rb_adaptive *a, const struct rb_adaptive_config *config) {
    return config->limit_max ? (uint32_t)(limit_of(a, config) / 256) : UINT32_MAX;
}

/* The usual latency, this window's included. */
static uint64_t learn(struct rb_adaptive *a, uint64_t latency_ns) {
    uint64_t latency_256 = latency_ns * 256;
    if (a->windows < WARM_WINDOWS) {
        a->usual_256 = (a->usual_256 * a->windows + latency_256) / (a->windows + 1);
        a->windows++;
    } else if (latency_256 >= a->usual_256) {
        a->usual_256 += (latency_256 - a->usual_256) * 2 / (USUAL_WINDOWS + 1);
    } else {
        a->usual_256 -= (a->usual_256 - latency_256) * 2 / (USUAL_WINDOWS + 1);
    }
    uint64_t usual_ns = a->usual_256 / 256;
    if (usual_ns > 2 * latency_ns) a->usual_256 -= a->usual_256 / 10;
    return usual_ns;
}

static void step(struct rb_adaptive *a, const struct rb_adaptive_config *config) {
    uint64_t latency_ns = a->sum_ns / a->samples, limit_256 = limit_of(a, config);
    if (latency_ns < 1) latency_ns = 1;
    uint64_t usual_ns = learn(a, latency_ns);
    if (a->in_flight_most * 512ull < limit_256) return;
    uint64_t gradient = usual_ns * config->tolerance_percent / 100 * GRADIENT_ONE / latency_ns;
    if (gradient < GRADIENT_ONE / 2) gradient = GRADIENT_ONE / 2;
    if (gradient > GRADIENT_ONE) gradient = GRADIENT_ONE;
    uint64_t wanted = limit_256 * gradient / GRADIENT_ONE + config->headroom * 256ull;
    a->limit_256 = held((limit_256 * (SMOOTHING - 1) + wanted) / SMOOTHING, config);
}

void rb_adaptive_ended(struct rb_adaptive *a, const struct rb_adaptive_config *config,
                       uint64_t latency_ns, uint32_t in_flight, uint64_t now) {
    if (config->limit_max == 0) return;
    if (a->samples == 0 && a->window_end_ns == 0)
        a->window_end_ns = now + config->window_ms * NS_PER_MS;
    a->sum_ns += latency_ns < LATENCY_MAX ? latency_ns : LATENCY_MAX;
    a->samples++;
    if (in_flight > a->in_flight_most) a->in_flight_most = in_flight;
    /* A window lasts until it has enough jobs; a flood of the longest ends it before the sum could overflow. */
    int enough = a->samples >= RB_ADAPTIVE_SAMPLES_MIN && now >= a->window_end_ns;
    if (!enough && a->samples < 1u << 20) return;
    step(a, config);
    a->samples = a->in_flight_most = 0;
    a->sum_ns = a->window_end_ns = 0;
}
