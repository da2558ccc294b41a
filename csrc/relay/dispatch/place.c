/* place.c: binding jobs to workers as late as credit allows (DESIGN.md, section 5: credit is time).
 *
 * A worker has room while its jobs in flight are fewer than its credit: those with room stand in the role's choice (choose.h), the
 * others nowhere, so that a job costs the same however many workers are full. Room is looked at where it changes: a job is placed, jobs
 * were completed, a worker comes or goes. One thing nobody tells: a worker may have answered a job and still hold its slot. It is
 * then late, and looked at again in a moment (wait.c, SLOT_WAIT_MS); the others do not wait for it. A stream has its worker to itself,
 * since its consumer says how long it takes.
 *
 * A job with a compressed payload is for workers that have taken RB_FEATURE_ZSTD. Mostly those are all of a role, or none, and it
 * stands where any other would. Where workers differ (an upgrade is under way) one that comes before a worker that may not have it
 * goes apart (role.h), so that nothing waits behind it; from there it goes by band, urgency and age, as before. */
#include "relay/dispatch/place.h"

#include "relay/relay_pvt.h"
#include "relay/service/encoding.h"
#include "ringbridge/envelope.h"

static void shut(struct rb_worker *w) {
    rb_choice_shut(&w->role->choice, &w->choosing);
    if (w->role->affinity) rb_affinity_look(w);
}

void rb_place_look(struct rb_worker *w) {
    if (w->state != RB_WORKER_READY || w->streams > 0 ||
        w->in_flight >= rb_health_credit(&w->health, w->credit)) {
        shut(w);
        return;
    }
    rb_choice_open(&w->role->choice, &w->choosing, rb_choice_load(w->in_flight, w->service_ns));
    if (w->role->affinity) rb_affinity_look(w);
}

void rb_place_forget(struct rb_worker *w) {
    shut(w);
    struct rb_worker **p = &w->role->late;
    while (w->late && *p != w) p = &(*p)->next_late;
    if (w->late) *p = w->next_late;
    w->late = 0;
}

/* Credit is not all: the next slot must be free, too. Else it stands aside until it may be. */
static int has_slot(struct rb_worker *w) {
    struct rb_ring_producer *ring = &w->link.request_ring;
    /* A kit may release a slot before its job is complete; the slot then waits for the completion, which looks again. */
    int taken = w->placed[ring->claimed & (ring->slots - 1)] != NULL;
    /* Or after it: nobody says when (a ring's room has no gate). */
    if (w->shadow) rb_tape_look(w);
    int late = !taken && ring->claimed - ring->head == ring->slots && rb_ring_free(ring) == 0;
    if (!taken && !late) return 1;
    shut(w);
    if (late && !w->late) {
        w->late = 1;
        w->next_late = w->role->late;
        w->role->late = w;
    }
    return 0;
}

static void look_at_the_late(struct rb_role *role) {
    struct rb_worker *w;
    while ((w = role->late)) {
        role->late = w->next_late;
        w->late = 0;
        rb_place_look(w);
    }
}

static struct rb_worker *choose(struct rb_relay *r, struct rb_role *role) {
    struct rb_choice_member *m;
    for (;;) {
        uint64_t chance = rb_choice_is_chancy(&role->choice) ? rb_random_next(&r->random) : 0;
        if (!(m = rb_choice_pick(&role->choice, chance))) return NULL;
        struct rb_worker *w =
            (struct rb_worker *)(void *)((char *)m - offsetof(struct rb_worker, choosing));
        if (has_slot(w)) return w;
    }
}

/* 0, or less when the worker broke a rule and was fenced. */
static int place(struct rb_relay *r, struct rb_worker *w, struct rb_job *j) {
    int64_t slot = rb_ring_claim(&w->link.request_ring);
    if (slot < 0) { /* there was room a moment ago */
        rb_worker_broke(w, "request_head_out_of_range");
        return (int)slot;
    }
    rb_role_take(j->role, j);
    j->request.flags &= (uint16_t)~RB_FLAG_ACCEPTS_ZSTD; /* of the last worker's */
    if (j->accepts && rb_encoding_worker_takes(w)) j->request.flags |= RB_FLAG_ACCEPTS_ZSTD;
    j->request.crc =
        j->summed ? rb_request_crc_summed(&j->request, j->payload_crc, w->link.config.features)
                  : rb_request_crc(&j->request, rb_job_payload(j), w->link.config.features);
    memcpy(&w->link.requests[slot], &j->request, sizeof j->request);
    if (w->shadow) rb_tape_out(r, RB_ITEM_REQUEST, w->id, 0, &j->request, sizeof j->request);
    j->state = RB_JOB_PLACED;
    j->worker = w;
    j->position = w->link.request_ring.claimed - 1;
    j->placed_ns = r->now;
    if (j->sampled) j->ringed_ns = rb_clock_ns();
    w->placed[slot] = j;
    w->in_flight++;
    if (j->request.flags & RB_FLAG_PARTS) {
        w->streams++;
        rb_stream_placed(j);
    }
    GAUGE(w->stats.placed, w->link.request_ring.claimed);
    GAUGE(w->stats.in_flight, w->in_flight);
    COUNT(j->role->stats.placed, 1);
    rb_worker_stirs(w);
    rb_place_look(w);
    return 0;
}

/* Workers whose rings are to be published, once each. */
struct filled {
    struct rb_worker *first;
};

static void put(struct rb_relay *r, struct filled *filled, struct rb_worker *w, struct rb_job *j) {
    if (place(r, w, j) < 0) return; /* it broke a rule, and is among the ready ones no more */
    if (w->filled) return;
    w->filled = 1;
    w->next_filled = filled->first;
    filled->first = w;
}

static void publish(struct filled *filled) {
    for (struct rb_worker *w = filled->first; w; w = w->next_filled) {
        w->filled = 0;
        /* One store publishes the batch; the worker is woken by a system call only if it sleeps. */
        if (w->state == RB_WORKER_READY && rb_ring_publish(&w->link.request_ring) > 0)
            rb_gate_ring(&w->link.waker);
    }
}

/* Of the jobs that wait for this worker alone, the first that it may have; what was stolen for it or came with its keys goes apart. */
static struct rb_job *first_own(struct rb_relay *r, struct rb_worker *w, int *moves) {
    while (w->affine.own.count > 0) {
        struct rb_job *own = rb_queue_first(&w->affine.own, r->now);
        if (!(own->request.flags & RB_FLAG_ZSTD) || rb_encoding_worker_takes(w)) return own;
        rb_role_set_apart(r, w->role, own);
        if (--*moves <= 0) break;
    }
    return NULL;
}

/* Whose its room is: whoever is first of `j` (which may be NULL), of those that wait for it alone, and of those apart. */
static struct rb_job *first_for(struct rb_relay *r, struct rb_worker *w, struct rb_job *j,
                                int *moves) {
    struct rb_job *own = first_own(r, w, moves), *apart = NULL;
    if (w->role->apart.count && rb_encoding_worker_takes(w))
        apart = rb_queue_first(&w->role->apart, r->now);
    if (own && (!j || rb_queue_before(own, j))) j = own;
    return apart && (!j || rb_queue_before(apart, j)) ? apart : j;
}

/* The role's queue, as far as any worker has room. 1: it goes on in the next round. */
static int place_queue(struct rb_relay *r, struct rb_role *role, struct filled *filled,
                       int *moves) {
    struct rb_job *j;
    while ((j = rb_queue_first(&role->queue, r->now))) {
        int apart = j->request.flags & RB_FLAG_ZSTD && rb_role_is_choosy(role, j);
        if (apart) rb_role_set_apart(r, role, j);
        if (apart || (j->keyed && rb_role_home(r, role, j))) {
            if (--*moves <= 0) return 1;
            continue;
        }
        struct rb_worker *w = choose(r, role);
        if (!w) return 0;
        if (w->affine.own.count | role->apart.count) j = first_for(r, w, j, moves);
        put(r, filled, w, j);
    }
    return 0;
}

/* Who has least to do, of those that may have what waits apart. It looks at all of them: workers differ for a while only. */
static struct rb_worker *choose_for_apart(struct rb_role *role) {
    for (;;) {
        struct rb_worker *best = NULL;
        for (uint32_t i = 0; i < role->ready; i++) {
            struct rb_worker *w = role->workers[i];
            if (!rb_choice_is_open(&w->choosing) || !rb_encoding_worker_takes(w)) continue;
            if (!best || w->in_flight < best->in_flight) best = w;
        }
        if (!best || has_slot(best)) return best; /* one without a slot is not open any more */
    }
}

/* What waits apart, or is told that nobody takes it any more. 1: it goes on in the next round. */
static int place_apart(struct rb_relay *r, struct rb_role *role, struct filled *filled,
                       int *moves) {
    struct rb_worker *w;
    while (role->apart.count > 0) {
        if (role->ready > 0 && role->zstd_ready == 0) {
            rb_encoding_refuse(r, rb_queue_first(&role->apart, r->now));
            if (--*moves <= 0) return 1;
        } else if ((w = choose_for_apart(role))) {
            put(r, filled, w, first_for(r, w, NULL, moves));
        } else {
            return 0;
        }
    }
    return 0;
}

/* The workers' own queues; then who has nothing at all takes of the longest. 1: it goes on in the next round. */
static int place_own(struct rb_relay *r, struct rb_role *role, struct filled *filled, int *moves) {
    struct rb_worker *w;
    do {
        while ((w = rb_affinity_ready(role))) {
            struct rb_job *own = has_slot(w) ? first_own(r, w, moves) : NULL;
            if (own) put(r, filled, w, own);
            if (*moves <= 0) return 1;
        }
        while ((w = rb_affinity_idle(role)) && !has_slot(w)) {
        }
    } while (w && role->config.choice.steal && rb_affinity_steal(r, role, w) > 0);
    return 0;
}

static void place_role(struct rb_relay *r, struct rb_role *role) {
    struct filled filled = {NULL};
    uint64_t retry_ms;
    int more = 0, closed = 1, moves = RB_MOVES_A_ROUND;
    if (role->state == RB_ROLE_GIVEN_UP) /* what came back to it, or arrived for long */
        rb_role_give_up(r, role, RB_REASON_NO_WORKER, 0);
    else if (rb_health_is_shut(r, role, &retry_ms))
        rb_role_give_up(r, role, RB_REASON_CIRCUIT_OPEN, retry_ms);
    else
        closed = 0;
    if (role->parting) more = rb_role_part(r, role);
    if (r->owned[RB_SERVICE_JOBS].held || (closed && role->queued)) return; /* it stays dirty */
    if (role->ramping) rb_role_ramp(r, role);
    if (role->late) look_at_the_late(role);
    more |= place_queue(r, role, &filled, &moves);
    if (role->affinity) more |= place_own(r, role, &filled, &moves);
    if (role->apart.count) more |= place_apart(r, role, &filled, &moves);
    role->dirty = more || (role->late && role->queued > 0); /* looked at again in a moment */
    publish(&filled);
}

void rb_roles_place(struct rb_relay *r) {
    for (uint32_t i = 0; i < r->roles_count; i++) {
        struct rb_role *role = r->roles[i];
        if (role && role->dirty) place_role(r, role);
    }
}
