/* breaker.c: the circuit breaker's table, its window, its backoff. */
#include "relay/dispatch/breaker.h"

#include <errno.h>
#include <string.h>

#define NS_PER_MS 1000000ull
enum { HOUR_MS = 3600000, SHARE_AT_FIRST = RB_BREAKER_WHOLE / 10 };

int rb_breaker_check(const struct rb_breaker_config *config) {
    if (config->failure_percent == 0) return 0;
    if (config->failure_percent > 100) return -EINVAL;
    if (config->window_ms < RB_BREAKER_SLICES || config->window_ms > HOUR_MS) return -EINVAL;
    if (config->volume_min < 1) return -EINVAL;
    if (config->open_ms < 1 || config->open_ms > config->open_max_ms) return -EINVAL;
    if (config->open_max_ms > HOUR_MS || config->jitter_percent > 100) return -EINVAL;
    if (config->probes < 1 || config->probes > 1000) return -EINVAL;
    if (config->reclose_ms > HOUR_MS || config->failures_count < 1) return -EINVAL;
    return 0;
}

const char *rb_breaker_state_name(uint32_t state) {
    static const char *const names[RB_BREAKER_STATES] = {"closed",    "open",      "half_open",
                                                         "reclosing", "held_open", "held_closed"};
    return state < RB_BREAKER_STATES ? names[state] : "unknown";
}

/* --- The table: what is not named leaves the state as it is ---------------------------------------------------------------- */

#define STAY RB_BREAKER_STATES
/* clang-format off */
static const uint8_t next_state[RB_BREAKER_STATES][RB_BREAKER_EVENTS] = {
    /*                          FAILED           RATE             PROVEN                DUE                   HOLD_OPEN             HOLD_CLOSED             AUTO */
    [RB_BREAKER_CLOSED]      = {STAY,            RB_BREAKER_OPEN, STAY,                 STAY,                 RB_BREAKER_HELD_OPEN, RB_BREAKER_HELD_CLOSED, STAY},
    [RB_BREAKER_OPEN]        = {STAY,            STAY,            STAY,                 RB_BREAKER_HALF_OPEN, RB_BREAKER_HELD_OPEN, RB_BREAKER_HELD_CLOSED, STAY},
    [RB_BREAKER_HALF_OPEN]   = {RB_BREAKER_OPEN, STAY,            RB_BREAKER_RECLOSING, STAY,                 RB_BREAKER_HELD_OPEN, RB_BREAKER_HELD_CLOSED, STAY},
    [RB_BREAKER_RECLOSING]   = {STAY,            RB_BREAKER_OPEN, STAY,                 RB_BREAKER_CLOSED,    RB_BREAKER_HELD_OPEN, RB_BREAKER_HELD_CLOSED, STAY},
    [RB_BREAKER_HELD_OPEN]   = {STAY,            STAY,            STAY,                 STAY,                 STAY,                 RB_BREAKER_HELD_CLOSED, RB_BREAKER_HALF_OPEN},
    [RB_BREAKER_HELD_CLOSED] = {STAY,            STAY,            STAY,                 STAY,                 RB_BREAKER_HELD_OPEN, STAY,                   RB_BREAKER_CLOSED},
};
/* clang-format on */

/* open_ms, doubled with each opening, at most open_max_ms; then some of it more or less, so that many do not come back at once. */
static uint64_t backoff_ns(const struct rb_breaker_config *config, uint32_t openings,
                           uint64_t random) {
    uint64_t ms = config->open_ms;
    for (uint32_t i = 1; i < openings && ms < config->open_max_ms; i++) ms *= 2;
    if (ms > config->open_max_ms) ms = config->open_max_ms;
    uint64_t ns = ms * NS_PER_MS, spread = ns / 100 * config->jitter_percent;
    return ns - spread + (spread ? random % (2 * spread + 1) : 0);
}

static int happened(struct rb_breaker *b, const struct rb_breaker_config *config,
                    enum rb_breaker_event event, uint64_t now, uint64_t random) {
    uint32_t next = next_state[b->state][event];
    if (next == STAY) return 0;
    b->state = next;
    b->since_ns = now;
    b->due_ns = 0;
    b->proven = 0;
    memset(b->ended, 0, sizeof b->ended);
    memset(b->failed, 0, sizeof b->failed);
    switch ((enum rb_breaker_state)next) {
    case RB_BREAKER_OPEN:
        if (b->openings < UINT32_MAX) b->openings++;
        b->due_ns = now + backoff_ns(config, b->openings, random) + 1; /* 0 means never */
        break;
    case RB_BREAKER_RECLOSING: b->due_ns = now + config->reclose_ms * NS_PER_MS + 1; break;
    case RB_BREAKER_CLOSED:
    case RB_BREAKER_HELD_CLOSED: b->openings = 0; break;
    default: break;
    }
    return 1;
}

/* --- The window ------------------------------------------------------------------------------------------------------------ */

static void slide(struct rb_breaker *b, const struct rb_breaker_config *config, uint64_t now) {
    uint64_t slice_ns = config->window_ms * NS_PER_MS / RB_BREAKER_SLICES;
    if (now < b->slice_at_ns) return;
    uint64_t passed = (now - b->slice_at_ns) / slice_ns;
    b->slice_at_ns += passed * slice_ns;
    for (uint64_t i = 0; i < passed && i < RB_BREAKER_SLICES; i++) {
        b->newest = (b->newest + 1) % RB_BREAKER_SLICES;
        b->ended[b->newest] = b->failed[b->newest] = 0;
    }
}

void rb_breaker_window(const struct rb_breaker *b, uint32_t *ended, uint32_t *failed) {
    uint64_t all = 0, bad = 0;
    for (int i = 0; i < RB_BREAKER_SLICES; i++) {
        all += b->ended[i];
        bad += b->failed[i];
    }
    *ended = all > UINT32_MAX ? UINT32_MAX : (uint32_t)all;
    *failed = bad > UINT32_MAX ? UINT32_MAX : (uint32_t)bad;
}

static int too_many(const struct rb_breaker *b, const struct rb_breaker_config *config) {
    uint32_t ended, failed;
    rb_breaker_window(b, &ended, &failed);
    return ended >= config->volume_min &&
           (uint64_t)failed * 100 >= (uint64_t)ended * config->failure_percent;
}

/* --- What happens to it ---------------------------------------------------------------------------------------------------- */

int rb_breaker_tick(struct rb_breaker *b, const struct rb_breaker_config *config, uint64_t now) {
    if (b->due_ns == 0 || now < b->due_ns) return 0;
    return happened(b, config, RB_BREAKER_DUE, now, 0);
}

int rb_breaker_ended(struct rb_breaker *b, const struct rb_breaker_config *config, int failed,
                     uint64_t began_ns, uint64_t now, uint64_t random) {
    if (config->failure_percent == 0) return 0;
    int changed = rb_breaker_tick(b, config, now), fresh = began_ns >= b->since_ns;
    if (b->state == RB_BREAKER_HALF_OPEN && fresh) {
        if (failed) return happened(b, config, RB_BREAKER_FAILED, now, random) || changed;
        if (++b->proven >= config->probes)
            changed |= happened(b, config, RB_BREAKER_PROVEN, now, random);
    } else if (b->state == RB_BREAKER_CLOSED || (b->state == RB_BREAKER_RECLOSING && fresh)) {
        slide(b, config, now);
        b->ended[b->newest]++;
        b->failed[b->newest] += failed != 0;
        /* A success never opens it, not even by filling up the volume. */
        if (failed && too_many(b, config))
            changed |= happened(b, config, RB_BREAKER_RATE, now, random);
    }
    return changed;
}

int rb_breaker_hold(struct rb_breaker *b, const struct rb_breaker_config *config,
                    enum rb_breaker_event how, uint64_t now) {
    int changed = happened(b, config, how, now, 0);
    return rb_breaker_changed(b, config, now) || changed;
}

int rb_breaker_changed(struct rb_breaker *b, const struct rb_breaker_config *config, uint64_t now) {
    int held = b->state == RB_BREAKER_HELD_OPEN || b->state == RB_BREAKER_HELD_CLOSED;
    if (config->failure_percent || held || b->state == RB_BREAKER_CLOSED) return 0;
    /* Nobody counts any more what would close it. */
    happened(b, config, RB_BREAKER_HOLD_CLOSED, now, 0);
    return happened(b, config, RB_BREAKER_AUTO, now, 0);
}

uint32_t rb_breaker_share(const struct rb_breaker *b, const struct rb_breaker_config *config,
                          uint64_t now) {
    switch ((enum rb_breaker_state)b->state) {
    case RB_BREAKER_OPEN:
    case RB_BREAKER_HELD_OPEN: return 0;
    case RB_BREAKER_HALF_OPEN: return 1;
    case RB_BREAKER_RECLOSING: break;
    default: return RB_BREAKER_WHOLE;
    }
    uint64_t passed_ms = now > b->since_ns ? (now - b->since_ns) / NS_PER_MS : 0;
    if (passed_ms >= config->reclose_ms) return RB_BREAKER_WHOLE;
    return (uint32_t)(SHARE_AT_FIRST +
                      (RB_BREAKER_WHOLE - SHARE_AT_FIRST) * passed_ms / config->reclose_ms);
}

uint64_t rb_breaker_retry_ms(const struct rb_breaker *b, const struct rb_breaker_config *config,
                             uint64_t now) {
    uint64_t ms = config->open_ms; /* half open: somebody is trying */
    if (b->state == RB_BREAKER_OPEN)
        ms = b->due_ns > now ? (b->due_ns - now + NS_PER_MS - 1) / NS_PER_MS : 1;
    else if (b->state == RB_BREAKER_HELD_OPEN)
        ms = config->open_max_ms; /* nobody knows */
    else if (b->state == RB_BREAKER_RECLOSING)
        ms = config->reclose_ms / 10;
    return ms < 1 ? 1 : ms;
}
