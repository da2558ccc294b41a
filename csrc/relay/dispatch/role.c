/* role.c: the table of roles; what of a role's jobs waits, and who of its workers is ready. */
#include <errno.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"

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
    rb_health_configured(r, role);
}

void rb_role_leave(struct rb_relay *r, struct rb_role *role) {
    role->leaving = 1;
    role->state = RB_ROLE_GIVEN_UP; /* for a payload that is arriving, too */
    r->roles_leaving++;
    rb_role_give_up(r, role, RB_REASON_NO_WORKER, 0);
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

/* --- What waits ---------------------------------------------------------------------------------------------------------- */

static void count_queued(struct rb_role *role, int32_t change) {
    role->queued += (uint32_t)change;
    GAUGE(role->stats.queued, role->queued);
}

void rb_role_push(struct rb_relay *r, struct rb_role *role, struct rb_job *j) {
    rb_queue_push(&role->queue, j, r->now);
    role->dirty = 1;
    count_queued(role, 1);
}

void rb_role_unlink(struct rb_role *role, struct rb_job *j) {
    rb_queue_remove(&role->queue, j);
    count_queued(role, -1);
}

void rb_role_take(struct rb_role *role, struct rb_job *j) {
    rb_queue_take(&role->queue, j);
    count_queued(role, -1);
}

void rb_role_give_up(struct rb_relay *r, struct rb_role *role, enum rb_reason reason,
                     uint64_t retry_ms) {
    struct rb_job *j;
    while ((j = rb_queue_oldest(&role->queue))) {
        struct rb_caller caller = rb_job_caller(j);
        if (reason == RB_REASON_CIRCUIT_OPEN)
            rb_answer_retry_after(&caller, reason, retry_ms);
        else
            rb_answer_reason(&caller, reason);
        rb_job_answered(r, j, reason);
    }
}

/* --- Who is ready -------------------------------------------------------------------------------------------------------- */

static int make_room(struct rb_role *role) {
    if (role->ready < role->capacity) return 0;
    uint32_t capacity = role->capacity ? 2 * role->capacity : 8;
    struct rb_worker **workers = realloc(role->workers, capacity * sizeof *workers);
    if (!workers) return -ENOMEM;
    role->workers = workers;
    role->capacity = capacity;
    return rb_choice_reserve(&role->choice, capacity);
}

void rb_role_add_ready(struct rb_role *role, struct rb_worker *w) {
    if (make_room(role) < 0) {
        rb_worker_broke(w, "no_memory");
        return;
    }
    w->ready_at = role->ready;
    role->workers[role->ready++] = w;
    role->dirty = 1;
    GAUGE(role->stats.workers_ready, role->ready);
    rb_place_look(w);
}

void rb_role_remove_ready(struct rb_role *role, struct rb_worker *w) {
    struct rb_worker *last = role->workers[--role->ready];
    role->workers[w->ready_at] = last;
    last->ready_at = w->ready_at;
    GAUGE(role->stats.workers_ready, role->ready);
    rb_place_forget(w);
}

/* --- The end ------------------------------------------------------------------------------------------------------------- */

void rb_role_clear(struct rb_relay *r, struct rb_role *role) {
    struct rb_job *j;
    while ((j = rb_queue_oldest(&role->queue))) {
        rb_role_unlink(role, j);
        rb_job_free(r, j);
    }
}

void rb_role_free(struct rb_role *role) {
    rb_choice_fini(&role->choice);
    rb_pool_close(&role->pool);
    free(role->workers);
    free(role);
}
