#include "relay/dispatch/vitals.h"

#include "relay/relay_pvt.h"
#include "ringbridge/telemetry.h"

enum { STEP_MS = RB_HEARTBEAT_MS, STEP_MS_MIN = 10, STEPS = 4 };

/* --- Over time (pure) ------------------------------------------------------------------------------------------------------ */

static int gets_on(const struct rb_vital_signs *a, const struct rb_vital_signs *b) {
    return a->pulse != b->pulse || a->started != b->started || a->request_head != b->request_head ||
           a->completion_tail != b->completion_tail;
}

void rb_vitals_take(struct rb_vitals *v, const struct rb_vital_signs *seen, int busy,
                    uint64_t step_ns) {
    int beats = !seen->torn && seen->telemetry.heartbeats != v->seen.telemetry.heartbeats;
    v->silent_ns = beats ? 0 : v->silent_ns + step_ns;
    v->still_ns = !busy || gets_on(seen, &v->seen) ? 0 : v->still_ns + step_ns;
    struct rb_telemetry before = v->seen.telemetry;
    v->seen = *seen;
    if (seen->torn) v->seen.telemetry = before;
}

enum rb_vitals_verdict rb_vitals_judge(const struct rb_vitals *v,
                                       const struct rb_health_config *config) {
    if (config->hang_ms && v->silent_ns >= config->hang_ms * NS_PER_MS) return RB_VITALS_HUNG;
    if (config->progress_timeout_ms && v->still_ns >= config->progress_timeout_ms * NS_PER_MS)
        return RB_VITALS_STUCK;
    return RB_VITALS_FINE;
}

uint64_t rb_vitals_step_ns(const struct rb_health_config *config) {
    uint64_t ms = STEP_MS;
    if (config->hang_ms && config->hang_ms / STEPS < ms) ms = config->hang_ms / STEPS;
    if (config->progress_timeout_ms && config->progress_timeout_ms / STEPS < ms)
        ms = config->progress_timeout_ms / STEPS;
    return (ms < STEP_MS_MIN ? STEP_MS_MIN : ms) * NS_PER_MS;
}

/* --- A worker -------------------------------------------------------------------------------------------------------------- */

static struct rb_vital_signs look(struct rb_worker *w) {
    struct rb_vital_signs seen;
    if (w->shadow) {
        rb_tape_vitals(w, &seen);
        return seen;
    }
    return rb_vital_signs_of(&w->link, w->link.theirs);
}

struct rb_vital_signs rb_vital_signs_of(const struct rb_link *link,
                                        const struct rb_worker_positions *theirs) {
    struct rb_vital_signs seen;
    memset(&seen, 0, sizeof seen); /* it goes on a tape as it is */
    seen.torn = rb_link_telemetry(link, &seen.telemetry) < 0;
    /* Relaxed: only whether they change counts, and nothing is read on the strength of that. */
    seen.pulse = rb_load_relaxed(&theirs->pulse);
    seen.started = rb_load_relaxed(&theirs->started);
    seen.request_head = rb_load_relaxed(&theirs->request_head);
    seen.completion_tail = rb_load_relaxed(&theirs->completion_tail);
    return seen;
}

/* A stream whose consumer has not asked for more, or whose socket has no room. */
static int waits_for_consumer(const struct rb_worker *w) {
    if (w->streams == 0) return 0;
    if (w->held) return 1;
    for (uint32_t i = 0; i < w->link.config.slots; i++) {
        const struct rb_job *j = w->placed[i];
        if (j && j->request.flags & RB_FLAG_PARTS && j->parts_sent == j->parts_granted) return 1;
    }
    return 0;
}

static void show(struct rb_worker *w) {
    const struct rb_telemetry *t = &w->vitals.seen.telemetry;
    GAUGE(w->stats.heartbeats, t->heartbeats);
    GAUGE(w->stats.heartbeat_ns, t->heartbeat_ns);
    GAUGE(w->stats.failed, t->failed);
    GAUGE(w->stats.run_ns, t->run_ns);
    GAUGE(w->stats.pulses, w->vitals.seen.pulse);
    GAUGE(w->stats.silent_ns, w->vitals.silent_ns);
    GAUGE(w->stats.still_ns, w->vitals.still_ns);
    GAUGE(w->stats.wakes, w->link.waker.wakes);
    rb_store_relaxed(&w->stats.gate, t->gate);
    rb_store_relaxed(&w->stats.last_code, t->last_code);
    rb_store_relaxed(&w->stats.ring_queued, t->queued);
    rb_store_relaxed(&w->stats.unready, w->health.unready);
    GAUGE(w->stats.begun, w->vitals.seen.started);
}

static void take(struct rb_worker *w) {
    struct rb_vital_signs seen = look(w);
    int busy = w->in_flight > 0 && !waits_for_consumer(w);
    uint64_t past = w->relay->now - w->vitals.looked_ns, most = w->relay->vitals.step_ns;
    w->vitals.looked_ns = w->relay->now;
    rb_vitals_take(&w->vitals, &seen, busy, past < most ? past : most);
    rb_health_unready(w, w->vitals.seen.telemetry.unready != 0);
    show(w);
}

void rb_vitals_begin(struct rb_worker *w) {
    memset(&w->vitals, 0, sizeof w->vitals);
    w->vitals.looked_ns = w->relay->now; /* what was before is nothing to it */
    take(w);
    rb_vitals_soon(w->relay);
}

void rb_vitals_heard(struct rb_worker *w) {
    if (w->state == RB_WORKER_READY) take(w);
}

/* Whose end is bounded by other means is not judged: one that has nothing left to do has stopped its heart before it leaves. */
static int is_judged(const struct rb_worker *w) {
    const struct rb_health_config *config = &w->role->config.health;
    if (w->spared || (!config->hang_ms && !config->progress_timeout_ms)) return 0;
    return w->state == RB_WORKER_READY || (w->state == RB_WORKER_DRAINING && w->in_flight > 0);
}

static void judge(struct rb_worker *w) {
    const struct rb_health_config *config = &w->role->config.health;
    enum rb_vitals_verdict verdict = rb_vitals_judge(&w->vitals, config);
    if (verdict == RB_VITALS_FINE) return;
    /* What lies in its ring may have lain there for long, without a bell: it was heard too late, and did not stand still. */
    if (verdict == RB_VITALS_STUCK && rb_worker_poll(w) > 0) {
        w->vitals.still_ns = 0;
        return;
    }
    rb_worker_broke(w, verdict == RB_VITALS_HUNG ? "no_heartbeat" : "no_progress");
}

/* --- All of them ----------------------------------------------------------------------------------------------------------- */

void rb_vitals_soon(struct rb_relay *r) {
    r->vitals.due_ns = r->now;
    r->vitals.needed = 1;
}

void rb_vitals_round(struct rb_relay *r) {
    struct rb_vitals_watch *all = &r->vitals;
    uint64_t step_ns = STEP_MS * NS_PER_MS; /* until the next look */
    all->needed = 0;
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        struct rb_worker *w = r->workers[i];
        if (!w || (w->state != RB_WORKER_READY && w->state != RB_WORKER_DRAINING)) continue;
        take(w);
        if (!is_judged(w)) continue;
        uint64_t step = rb_vitals_step_ns(&w->role->config.health);
        if (step < step_ns) step_ns = step;
        all->needed = 1;
        judge(w);
    }
    all->step_ns = step_ns;
    all->due_ns = r->now + step_ns;
    if (!r->beams) return;
    all->needed = 1; /* a BEAM takes figures that are old for those of a relay that stands still */
    rb_beams_tell(r);
}
