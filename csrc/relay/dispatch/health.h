/* health.h: whom jobs are given to: the circuit breakers of workers and of their role.
 *
 * What counts as a failure says the role's configuration: the worker crashed, broke a rule, let a deadline pass while the job ran, or
 * answered that the job failed. A job that nobody waited for any more, or that had not begun, says nothing. Each end counts for the
 * worker and for the role. What follows:
 *
 *   a worker's breaker is open       its `share` is 0, so that it is given no job; the others have the role's queue
 *   half open                        one job at a time
 *   recloses                         `share` of RB_BREAKER_WHOLE of what it would be given otherwise
 *   the role's is open, or all of
 *   its workers' are                 who calls is told {circuit_open, ...} at once, and so is what waits
 *
 * A worker that dies leaves its breaker to the one that is started in its stead: else none would ever see a second crash. */
#ifndef RB_RELAY_HEALTH_H
#define RB_RELAY_HEALTH_H

#include "relay/dispatch/breaker.h"
#include "ringbridge/relay.h"

struct rb_relay;
struct rb_role;
struct rb_worker;

enum { RB_BEREAVED_MAX = 16 };

struct rb_health { /* of a worker, or of a role */
    struct rb_breaker breaker;
    uint32_t share;   /* that it may be given now, of RB_BREAKER_WHOLE; none before it is ready */
    uint32_t unready; /* it says that it wants none for now: then its share is 0, too */
};

struct rb_role_health {
    struct rb_health own;
    struct rb_breaker bereaved[RB_BEREAVED_MAX]; /* of workers that died, the last one last */
    uint32_t bereaved_count;
    int watched;       /* a breaker of it is not closed */
    int workers_shut;  /* no worker may be given anything */
    uint64_t retry_ms; /* then: when one may again, as of `judged_ns` */
    uint64_t judged_ns;
};

/* Room for jobs of a worker that would have `credit` of them: none, one at a time, its share, all. */
static inline uint32_t rb_health_credit(const struct rb_health *h, uint32_t credit) {
    if (__builtin_expect(h->share == RB_BREAKER_WHOLE, 1)) return credit;
    uint32_t part = (uint32_t)((uint64_t)credit * h->share / RB_BREAKER_WHOLE);
    return part || h->share == 0 ? part : 1;
}

/* A role or a worker begins, healthy; a worker takes over from one that died. */
void rb_health_open_role(struct rb_role *role);
void rb_health_worker_ready(struct rb_worker *w);
/* It is among the ready ones no more. `died`: and left its breaker. */
void rb_health_worker_gone(struct rb_worker *w, int died);
/* What it says itself, whenever it is looked at (vitals.h). */
void rb_health_unready(struct rb_worker *w, int unready);
/* A job that was given to `w` at `placed_ns`, and begun, ended so. */
void rb_health_ended(struct rb_worker *w, uint64_t placed_ns, enum rb_reason reason);
/* Nothing of it is open, half open or reclosing. */
static inline int rb_health_is_whole(const struct rb_role_health *h) {
    return h->own.share == RB_BREAKER_WHOLE && !h->workers_shut;
}
/* 1: jobs of this role are refused just now; try again in *retry_ms. */
int rb_health_refuses(struct rb_relay *r, const struct rb_role *role, uint64_t *retry_ms);
/* 1: nor can those that wait be run. */
int rb_health_is_shut(const struct rb_relay *r, const struct rb_role *role, uint64_t *retry_ms);
/* The role has another configuration. */
void rb_health_configured(struct rb_relay *r, struct rb_role *role);
/* enum rb_breaker_force; worker 0: the role's own. */
void rb_health_force(struct rb_relay *r, struct rb_role *role, uint64_t worker, uint32_t how);
/* What time alone changes; once r->health_due_ns has come. */
void rb_health_tick(struct rb_relay *r);

#endif
