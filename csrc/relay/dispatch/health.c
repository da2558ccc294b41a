/* health.c: the breakers of workers and roles: what feeds them, what time does to them, what follows. */
#include "relay/dispatch/health.h"

#include "relay/relay_pvt.h"

enum { STEP_NS = 20000000 }; /* a share that grows is looked at so often */

static const struct rb_breaker_config *config_of(const struct rb_role *role) {
    return &role->config.breaker;
}

/* --- What follows from a breaker's state ----------------------------------------------------------------------------------- */

static void tell(struct rb_relay *r, const struct rb_role *role, uint64_t worker, uint32_t state) {
    const char *name = rb_breaker_state_name(state);
    rb_up_event(r, RB_EVENT_BREAKER, 0, worker, role->id, state, 0, name, strlen(name));
}

static void share_of_worker(struct rb_worker *w) {
    uint32_t share = rb_breaker_share(&w->health.breaker, config_of(w->role), w->relay->now);
    if (w->health.unready) share = 0;
    rb_store_relaxed(&w->stats.breaker, w->health.breaker.state);
    rb_store_relaxed(&w->stats.share, share);
    if (share == w->health.share) return;
    if (share > w->health.share && w->role->queued) w->role->dirty = 1;
    w->health.share = share;
    rb_role_trust(w, share * RB_CHOICE_WHOLE / RB_BREAKER_WHOLE);
}

/* Can any worker be given a job? Of those that are ready, or, where none is, of those that died and will be started again. */
static void judge_workers(struct rb_relay *r, struct rb_role *role) {
    const struct rb_breaker_config *config = config_of(role);
    struct rb_role_health *h = &role->health;
    uint64_t soonest_ms = UINT64_MAX;
    uint32_t count = role->ready ? role->ready : h->bereaved_count, shut = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct rb_breaker *b =
            role->ready ? &role->workers[i]->health.breaker : &h->bereaved[i];
        if (rb_breaker_share(b, config, r->now)) continue;
        uint64_t ms = rb_breaker_retry_ms(b, config, r->now);
        if (ms < soonest_ms) soonest_ms = ms;
        shut++;
    }
    h->workers_shut = count > 0 && shut == count;
    h->retry_ms = soonest_ms;
    h->judged_ns = r->now;
    if (h->workers_shut && (role->queued || role->admission.kept))
        role->dirty = 1; /* those that wait are told */
}

/* One of its breakers is not closed, or was not a moment ago: looked at until all are. */
static void watch(struct rb_relay *r, struct rb_role *role) {
    role->health.watched = 1;
    r->health_due_ns = r->now;
    judge_workers(r, role);
}

static void role_changed(struct rb_relay *r, struct rb_role *role) {
    struct rb_health *own = &role->health.own;
    own->share = rb_breaker_share(&own->breaker, config_of(role), r->now);
    GAUGE(role->stats.breaker, own->breaker.state);
    GAUGE(role->stats.breaker_openings, own->breaker.openings);
    if (role->queued || role->admission.kept) role->dirty = 1;
    tell(r, role, 0, own->breaker.state);
    watch(r, role);
}

static void worker_changed(struct rb_worker *w) {
    share_of_worker(w);
    tell(w->relay, w->role, w->id, w->health.breaker.state);
    watch(w->relay, w->role);
}

/* --- Lives ------------------------------------------------------------------------------------------------------------------ */

void rb_health_open_role(struct rb_role *role) { role->health.own.share = RB_BREAKER_WHOLE; }

void rb_health_worker_ready(struct rb_worker *w) {
    struct rb_role_health *h = &w->role->health;
    if (h->bereaved_count) w->health.breaker = h->bereaved[--h->bereaved_count];
    share_of_worker(w); /* it was none so far */
    if (h->watched) watch(w->relay, w->role);
}

void rb_health_worker_gone(struct rb_worker *w, int died) {
    struct rb_role_health *h = &w->role->health;
    uint32_t ended, failed;
    rb_breaker_window(&w->health.breaker, &ended, &failed);
    if (died && (failed || w->health.breaker.state != RB_BREAKER_CLOSED)) {
        if (h->bereaved_count == RB_BEREAVED_MAX) {
            memmove(&h->bereaved[0], &h->bereaved[1],
                    (RB_BEREAVED_MAX - 1) * sizeof h->bereaved[0]);
            h->bereaved_count--;
        }
        h->bereaved[h->bereaved_count++] = w->health.breaker;
    }
    if (h->watched) watch(w->relay, w->role);
}

void rb_health_unready(struct rb_worker *w, int unready) {
    if (w->health.unready == (uint32_t)unready) return;
    w->health.unready = (uint32_t)unready;
    if (w->listed) share_of_worker(w);
}

/* --- What happens to jobs ---------------------------------------------------------------------------------------------------- */

static int is_failure(const struct rb_breaker_config *config, enum rb_reason reason) {
    enum rb_breaker_failure kind;
    switch (reason) {
    case RB_REASON_WORKER_CRASHED: kind = RB_BREAKER_WORKER_CRASHED; break;
    case RB_REASON_WORKER_BROKE: kind = RB_BREAKER_WORKER_BROKE; break;
    case RB_REASON_DEADLINE_EXCEEDED: kind = RB_BREAKER_DEADLINE_EXCEEDED; break;
    case RB_REASON_JOB_FAILED: kind = RB_BREAKER_JOB_FAILED; break;
    default: return 0;
    }
    for (uint32_t i = 0; i < config->failures_count; i++)
        if (config->failures[i] == (uint32_t)kind) return 1;
    return 0;
}

void rb_health_ended(struct rb_worker *w, uint64_t placed_ns, enum rb_reason reason) {
    struct rb_role *role = w->role;
    const struct rb_breaker_config *config = config_of(role);
    struct rb_relay *r = w->relay;
    if (config->failure_percent == 0 || reason == RB_REASON_CANCELLED) return;
    int failed = is_failure(config, reason);
    uint64_t chance = failed ? rb_random_next(&r->random) : 0; /* opening alone needs it */
    if (rb_breaker_ended(&w->health.breaker, config, failed, placed_ns, r->now, chance))
        worker_changed(w);
    if (rb_breaker_ended(&role->health.own.breaker, config, failed, placed_ns, r->now, chance))
        role_changed(r, role);
}

int rb_health_is_shut(const struct rb_relay *r, const struct rb_role *role, uint64_t *retry_ms) {
    const struct rb_role_health *h = &role->health;
    if (h->own.share == 0) {
        *retry_ms = rb_breaker_retry_ms(&h->own.breaker, config_of(role), r->now);
        return 1;
    }
    if (!h->workers_shut) return 0;
    uint64_t passed_ms = (r->now - h->judged_ns) / NS_PER_MS;
    *retry_ms = h->retry_ms > passed_ms ? h->retry_ms - passed_ms : 1;
    return 1;
}

int rb_health_refuses(struct rb_relay *r, const struct rb_role *role, uint64_t *retry_ms) {
    const struct rb_health *own = &role->health.own;
    if (__builtin_expect(rb_health_is_whole(&role->health), 1)) return 0;
    if (rb_health_is_shut(r, role, retry_ms)) return 1;
    int refuses;
    if (own->breaker.state == RB_BREAKER_HALF_OPEN) /* no more than are needed to tell */
        refuses = role->open >= config_of(role)->probes;
    else
        refuses = rb_random_below(&r->random, RB_BREAKER_WHOLE) >= own->share;
    if (refuses) *retry_ms = rb_breaker_retry_ms(&own->breaker, config_of(role), r->now);
    return refuses;
}

/* --- By hand, by configuration, by time -------------------------------------------------------------------------------------- */

void rb_health_configured(struct rb_relay *r, struct rb_role *role) {
    struct rb_role_health *h = &role->health;
    for (uint32_t i = 0; i < role->ready; i++) {
        struct rb_worker *w = role->workers[i];
        if (rb_breaker_changed(&w->health.breaker, config_of(role), r->now)) worker_changed(w);
    }
    for (uint32_t i = 0; i < h->bereaved_count; i++)
        rb_breaker_changed(&h->bereaved[i], config_of(role), r->now);
    if (rb_breaker_changed(&h->own.breaker, config_of(role), r->now)) role_changed(r, role);
    if (h->watched) watch(r, role);
}

void rb_health_force(struct rb_relay *r, struct rb_role *role, uint64_t worker, uint32_t how) {
    enum rb_breaker_event event = how == RB_FORCE_OPEN     ? RB_BREAKER_HOLD_OPEN
                                  : how == RB_FORCE_CLOSED ? RB_BREAKER_HOLD_CLOSED
                                                           : RB_BREAKER_AUTO;
    const struct rb_breaker_config *config = config_of(role);
    if (worker == 0) {
        if (rb_breaker_hold(&role->health.own.breaker, config, event, r->now))
            role_changed(r, role);
        return;
    }
    struct rb_worker *w = rb_worker_find(r, worker);
    if (w && w->role == role && rb_breaker_hold(&w->health.breaker, config, event, r->now))
        worker_changed(w);
}

/* When the breaker has to be looked at again; UINT64_MAX: not for time's sake. */
static uint64_t next_look(const struct rb_relay *r, const struct rb_breaker *b) {
    if (b->state == RB_BREAKER_OPEN) return b->due_ns;
    return b->state == RB_BREAKER_RECLOSING ? r->now + STEP_NS : UINT64_MAX;
}

static int is_settled(const struct rb_breaker *b) {
    return b->state == RB_BREAKER_CLOSED || b->state == RB_BREAKER_HELD_CLOSED;
}

/* All breakers of a role, in a moment at which one of them may have to change. Returns when the next one is. */
static uint64_t tick_role(struct rb_relay *r, struct rb_role *role) {
    const struct rb_breaker_config *config = config_of(role);
    struct rb_role_health *h = &role->health;
    uint64_t due = UINT64_MAX, look;
    int settled = is_settled(&h->own.breaker);
    if (rb_breaker_tick(&h->own.breaker, config, r->now)) role_changed(r, role);
    h->own.share = rb_breaker_share(&h->own.breaker, config, r->now);
    if ((look = next_look(r, &h->own.breaker)) < due) due = look;
    for (uint32_t i = 0; i < role->ready; i++) {
        struct rb_worker *w = role->workers[i];
        if (rb_breaker_tick(&w->health.breaker, config, r->now)) worker_changed(w);
        share_of_worker(w);
        settled &= is_settled(&w->health.breaker);
        if ((look = next_look(r, &w->health.breaker)) < due) due = look;
    }
    for (uint32_t i = 0; i < h->bereaved_count; i++) {
        rb_breaker_tick(&h->bereaved[i], config, r->now);
        settled &= is_settled(&h->bereaved[i]);
        if ((look = next_look(r, &h->bereaved[i])) < due) due = look;
    }
    judge_workers(r, role);
    h->watched = !settled;
    return due;
}

void rb_health_tick(struct rb_relay *r) {
    uint64_t due = UINT64_MAX;
    for (uint32_t i = 0; i < r->roles_count; i++) {
        if (!r->roles[i] || !r->roles[i]->health.watched) continue;
        uint64_t next = tick_role(r, r->roles[i]);
        if (next < due) due = next;
    }
    r->health_due_ns = due;
}
