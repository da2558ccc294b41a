/* role.c: a role's queue, and binding jobs to workers as late as credit allows. */
#include <errno.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"
#include "ringbridge/envelope.h"

enum {
    LOOK_AT = 8
}; /* workers compared for one job: joins the shortest of a rotating few, at a flat cost */

struct rb_role *rb_role_named(struct rb_relay *r, struct rb_slice name) {
    for (uint32_t i = 0; i < r->roles_count; i++) {
        if (r->roles[i] && !r->roles[i]->leaving && rb_slice_is(name, r->roles[i]->name))
            return r->roles[i];
    }
    return NULL;
}

void rb_role_configure(struct rb_relay *r, struct rb_role *role,
                       const struct rb_role_config *config) {
    if (memcmp(&role->config.order, &config->order, sizeof config->order) != 0)
        rb_queue_configure(&role->queue, &config->order, r->now);
    role->config = *config;
    role->config.name = role->name;
    role->dirty = 1; /* what waits may be let through now */
}

void rb_role_leave(struct rb_relay *r, struct rb_role *role) {
    role->leaving = 1;
    role->state = RB_ROLE_GIVEN_UP; /* for a payload that is arriving, too */
    r->roles_leaving++;
    rb_role_give_up(r, role, RB_REASON_NO_WORKER);
}

/* Not as soon as the last job is freed: who frees it may still hold the role, and the other thread frees its memory when it has taken the
 * event. Whoever keeps a pointer to a role without a job of it has to let go in here. */
void rb_roles_leave(struct rb_relay *r) {
    for (uint32_t i = 0; r->roles_leaving && i < r->roles_count; i++) {
        struct rb_role *role = r->roles[i];
        if (!role || !role->leaving || role->jobs) continue;
        r->roles[i] = NULL;
        r->roles_leaving--;
        rb_up_event(r, RB_EVENT_ROLE_GONE, 0, 0, i, 0, 0, NULL, 0);
    }
}

void rb_role_free(struct rb_role *role) {
    rb_pool_close(&role->pool);
    free(role->workers);
    free(role);
}

void rb_role_push(struct rb_relay *r, struct rb_role *role, struct rb_job *j) {
    rb_queue_push(&role->queue, j, r->now);
    role->dirty = 1;
    GAUGE(role->stats.queued, role->queue.count);
}

void rb_role_unlink(struct rb_role *role, struct rb_job *j) {
    rb_queue_remove(&role->queue, j);
    GAUGE(role->stats.queued, role->queue.count);
}

void rb_role_add_ready(struct rb_role *role, struct rb_worker *w) {
    if (role->ready == role->capacity) {
        uint32_t capacity = role->capacity ? 2 * role->capacity : 8;
        struct rb_worker **workers = realloc(role->workers, capacity * sizeof *workers);
        if (!workers) {
            rb_worker_broke(w, "no_memory");
            return;
        }
        role->workers = workers;
        role->capacity = capacity;
    }
    role->workers[role->ready++] = w;
    role->dirty = 1;
    GAUGE(role->stats.workers_ready, role->ready);
}

void rb_role_remove_ready(struct rb_role *role, struct rb_worker *w) {
    for (uint32_t i = 0; i < role->ready; i++) {
        if (role->workers[i] == w) {
            role->workers[i] = role->workers[--role->ready];
            break;
        }
    }
    GAUGE(role->stats.workers_ready, role->ready);
}

/* Free credit of a worker, at most the slots that can really be claimed. `late`: it has answered its jobs but holds their slots. */
static int has_room(struct rb_worker *w, int *late) {
    struct rb_ring_producer *ring = &w->link.request_ring;
    if (w->state != RB_WORKER_READY || w->in_flight >= w->credit) return 0;
    /* A kit may release a slot before its job is complete; the slot then waits for the completion. */
    if (w->placed[ring->claimed & (ring->slots - 1)]) return 0;
    /* Or after it: nobody says when (a ring's room has no gate), and the other workers must not wait for this one. */
    if (ring->claimed - ring->head == ring->slots && rb_ring_free(ring) == 0) return *late = 1, 0;
    return 1;
}

static struct rb_worker *choose(struct rb_role *role, int *late) {
    struct rb_worker *best = NULL;
    uint32_t looked = 0;
    for (uint32_t i = 0; i < role->ready; i++) {
        struct rb_worker *w = role->workers[(role->turn + i) % role->ready];
        if (!has_room(w, late)) continue;
        if (!best || w->in_flight < best->in_flight) best = w;
        if (best->in_flight == 0 || ++looked == LOOK_AT) break;
    }
    if (best) role->turn++;
    return best;
}

static const uint8_t *payload_of(const struct rb_job *j) {
    return j->pool_count ? j->role->pool.base + j->request.payload_at : j->request.body;
}

/* 0, or less when the worker broke a rule and was fenced. */
static int place(struct rb_relay *r, struct rb_worker *w, struct rb_job *j) {
    int64_t slot = rb_ring_claim(&w->link.request_ring);
    if (slot < 0) { /* there was room a moment ago */
        rb_worker_broke(w, "request_head_out_of_range");
        return (int)slot;
    }
    rb_queue_take(&j->role->queue, j);
    GAUGE(j->role->stats.queued, j->role->queue.count);
    j->request.crc = rb_request_crc(&j->request, payload_of(j), w->link.config.features);
    memcpy(&w->link.requests[slot], &j->request, sizeof j->request);
    j->state = RB_JOB_PLACED;
    j->worker = w;
    j->position = w->link.request_ring.claimed - 1;
    j->placed_ns = r->now;
    if (j->sampled) j->ringed_ns = rb_clock_ns();
    w->placed[slot] = j;
    w->in_flight++;
    GAUGE(w->stats.in_flight, w->in_flight);
    COUNT(j->role->stats.placed, 1);
    if (!w->polled) {
        w->polled = 1;
        w->next_polled = r->polled_workers;
        r->polled_workers = w;
    }
    return 0;
}

static void place_role(struct rb_relay *r, struct rb_role *role) {
    struct rb_job *j;
    struct rb_worker *filled = NULL;
    int late = 0;
    if (role->state == RB_ROLE_GIVEN_UP)
        rb_role_give_up(r, role,
                        RB_REASON_NO_WORKER); /* what came back to it, or arrived for long */
    while ((j = rb_queue_first(&role->queue, r->now))) {
        late = 0;
        struct rb_worker *w = choose(role, &late);
        if (!w) break;
        if (place(r, w, j) < 0)
            continue; /* it broke a rule, and is not among those to choose from any more */
        if (!w->filled) {
            w->filled = 1;
            w->next_filled = filled;
            filled = w;
        }
    }
    role->dirty =
        late && role->queue.count > 0; /* looked at again in a moment (relay.c, SLOT_WAIT_MS) */
    for (struct rb_worker *w = filled; w; w = w->next_filled) {
        w->filled = 0;
        /* One store publishes the batch; the worker is woken by a system call only if it sleeps. */
        if (w->state == RB_WORKER_READY && rb_ring_publish(&w->link.request_ring) > 0)
            rb_gate_ring(&w->link.waker);
    }
}

void rb_roles_place(struct rb_relay *r) {
    if (r->held) return;
    for (uint32_t i = 0; i < r->roles_count; i++) {
        struct rb_role *role = r->roles[i];
        if (role && role->dirty) place_role(r, role);
    }
}

void rb_role_give_up(struct rb_relay *r, struct rb_role *role, enum rb_reason reason) {
    struct rb_job *j;
    while ((j = rb_queue_oldest(&role->queue))) {
        struct rb_caller caller = rb_job_caller(j);
        rb_answer_reason(&caller, reason);
        rb_job_answered(r, j, reason);
    }
}
