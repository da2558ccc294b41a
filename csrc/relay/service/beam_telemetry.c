/* beam_telemetry.c: the relay's part of what BEAMs with a lane may read (ringbridge/lane_telemetry.h): figures of roles and workers.
 *
 * Written with each look at the workers' vitals, which is where most of it comes from, and only while there is a lane. */
#include <unistd.h>

#include "relay/relay_pvt.h"
#include "ringbridge/lane_telemetry.h"

#define SAME(ours, theirs) \
    __extension__ _Static_assert((int)(ours) == RB_LANE_##theirs, "the same words")
SAME(RB_ROLE_RUNNING, ROLE_RUNNING);
SAME(RB_ROLE_DRAINING, ROLE_DRAINING);
SAME(RB_ROLE_GIVEN_UP, ROLE_GIVEN_UP);
SAME(RB_BREAKER_CLOSED, BREAKER_CLOSED);
SAME(RB_BREAKER_OPEN, BREAKER_OPEN);
SAME(RB_BREAKER_HALF_OPEN, BREAKER_HALF_OPEN);
SAME(RB_BREAKER_RECLOSING, BREAKER_RECLOSING);
SAME(RB_BREAKER_HELD_OPEN, BREAKER_HELD_OPEN);
SAME(RB_BREAKER_HELD_CLOSED, BREAKER_HELD_CLOSED);
__extension__ _Static_assert(ROLES_MAX <= RB_LANE_TELEMETRY_ROLES_MAX, "each role has room");

static uint64_t sum(const uint64_t counts[RB_REASONS]) {
    uint64_t all = 0;
    for (int i = 0; i < RB_REASONS; i++) all += counts[i];
    return all;
}

static struct rb_lane_telemetry_role of_role(const struct rb_role *role) {
    const struct rb_role_stats *s = &role->stats;
    struct rb_lane_telemetry_role t = {.role = role->id,
                                       .state = role->state,
                                       .breaker = (uint32_t)s->breaker,
                                       .queued = s->queued,
                                       .deferred = s->deferred,
                                       .placed = s->placed,
                                       .workers_ready = s->workers_ready,
                                       .depth_max = role->config.admission.depth_max,
                                       .accepted = s->accepted,
                                       .answered = sum(s->answered),
                                       .refused = sum(s->refused)};
    __extension__ _Static_assert(sizeof t.name == sizeof role->name, "one size");
    memcpy(t.name, role->name, sizeof t.name);
    return t;
}

static struct rb_lane_telemetry_worker of_worker(const struct rb_worker *w) {
    const struct rb_worker_stats *s = &w->stats;
    return (struct rb_lane_telemetry_worker){.worker = w->id,
                                             .in_flight = s->in_flight,
                                             .done = s->done,
                                             .lost = s->lost,
                                             .credit = s->credit,
                                             .service_ns = s->service_ns,
                                             .heartbeat_ns = s->heartbeat_ns,
                                             .still_ns = s->still_ns,
                                             .failed = s->failed,
                                             .run_ns = s->run_ns,
                                             .pulses = s->pulses,
                                             .last_code = s->last_code,
                                             .waiting = s->ring_queued,
                                             .unready = s->unready,
                                             .breaker = s->breaker};
}

void rb_beams_tell(struct rb_relay *r) {
    struct rb_lane_telemetry_figures head = {.at_ns = r->now, .os_pid = (uint32_t)getpid()};
    rb_lane_figures_begin(r->telemetry);
    for (uint32_t i = 0; i < r->roles_count; i++) {
        if (!r->roles[i]) continue;
        struct rb_lane_telemetry_role t = of_role(r->roles[i]);
        rb_lane_figures_role(r->telemetry, head.roles++, &t);
    }
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        if (!r->workers[i]) continue;
        if (head.workers == RB_LANE_TELEMETRY_WORKERS_MAX) {
            head.workers_hidden++;
            continue;
        }
        struct rb_lane_telemetry_worker t = of_worker(r->workers[i]);
        rb_lane_figures_worker(r->telemetry, head.workers++, &t);
    }
    rb_lane_figures_end(r->telemetry, &head);
}
