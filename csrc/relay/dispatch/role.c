/* role.c: the table of roles; what of a role's jobs waits, and who of its workers is ready. */
#include <errno.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"
#include "relay/service/encoding.h"

enum { RAMP_STEPS = 64 };

struct rb_role *rb_role_named(struct rb_relay *r, struct rb_slice name) {
    for (uint32_t i = 0; i < r->roles_count; i++) {
        if (r->roles[i] && !r->roles[i]->leaving && rb_slice_is(name, r->roles[i]->name))
            return r->roles[i];
    }
    return NULL;
}

static const enum rb_choice_kind kinds[] = {
    [RB_CHOICE_SHORTEST_QUEUE] = RB_CHOOSE_SHORTEST,
    [RB_CHOICE_ROUND_ROBIN] = RB_CHOOSE_IN_TURN,
    [RB_CHOICE_WEIGHTED] = RB_CHOOSE_BY_WEIGHT,
    [RB_CHOICE_TWO_CHOICES] = RB_CHOOSE_OF_TWO,
    /* What is left without a home goes the usual way. */
    [RB_CHOICE_CONSISTENT_HASH] = RB_CHOOSE_SHORTEST,
    [RB_CHOICE_STICKY] = RB_CHOOSE_SHORTEST,
};

static void choose_by_policy(struct rb_role *role) {
    enum rb_choice_kind kind = kinds[role->config.choice.policy];
    if (role->choice.kind == kind) return;
    for (uint32_t i = 0; i < role->ready; i++)
        rb_choice_shut(&role->choice, &role->workers[i]->choosing);
    role->choice.kind = kind;
    for (uint32_t i = 0; i < role->ready; i++) rb_place_look(role->workers[i]);
}

/* An answer that is being walked in portions goes by the new list from its next portion on. */
static void take_config(struct rb_role *role, const struct rb_role_config *config) {
    role->config = *config;
    role->config.name = role->name;
    for (uint32_t i = 0; i < config->atoms_count; i++) {
        const char *text = role->config.atoms[i];
        role->atoms[i] = (struct rb_slice){(const uint8_t *)text, strlen(text)};
    }
    role->rules = (struct rb_term_rules){.depth_max = 512,
                                         .terms_max = 10000000,
                                         .atoms = role->atoms,
                                         .atoms_count = config->atoms_count};
}

void rb_role_init(struct rb_role *role, const struct rb_role_config *config) {
    take_config(role, config);
    rb_admission_init(role);
    rb_queue_init(&role->queue, &config->order);
    rb_queue_init(&role->apart, &config->order);
    rb_choice_init(&role->choice, kinds[config->choice.policy]);
}

void rb_role_configure(struct rb_relay *r, struct rb_role *role,
                       const struct rb_role_config *config) {
    if (memcmp(&role->config.order, &config->order, sizeof config->order) != 0) {
        rb_queue_configure(&role->queue, &config->order, r->now);
        rb_queue_configure(&role->apart, &config->order, r->now);
        for (uint32_t i = 0; i < role->ready; i++)
            rb_queue_configure(&role->workers[i]->affine.own, &config->order, r->now);
        for (struct rb_worker *w = role->parting; w; w = w->next_parting)
            if (!w->listed) rb_queue_configure(&w->affine.own, &config->order, r->now);
    }
    struct rb_admission_config before = role->config.admission;
    take_config(role, config);
    for (uint32_t i = 0; i < role->ready; i++) rb_encoding_tell_limit(role->workers[i]);
    role->dirty = 1; /* what waits may be let through now */
    choose_by_policy(role);
    rb_health_configured(r, role);
    rb_vitals_soon(r);
    rb_admission_configured(r, role, &before);
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

static void count_queued(struct rb_role *role, const struct rb_job *j, int32_t change) {
    if (j->node || j->purse) rb_admission_count(j, change);
    role->queued += (uint32_t)change;
    GAUGE(role->stats.queued, role->queued);
}

int rb_role_is_choosy(const struct rb_role *role, const struct rb_job *j) {
    return (j->request.flags & RB_FLAG_ZSTD) != 0 && role->zstd_ready < role->ready;
}

/* Into the queue where it belongs. It is the first of its row, if it has one. */
static void stand(struct rb_relay *r, struct rb_role *role, struct rb_job *j) {
    role->dirty = 1;
    j->apart = j->request.flags & RB_FLAG_ZSTD && rb_role_is_choosy(role, j);
    struct rb_queue *q = j->apart   ? &role->apart
                         : j->keyed ? rb_affinity_home(role, j)
                                    : &role->queue;
    rb_queue_push(q, j, r->now);
    if (j->home) rb_affinity_look(j->home);
}

void rb_role_push(struct rb_relay *r, struct rb_role *role, struct rb_job *j) {
    count_queued(role, j, 1);
    if (!j->keyed && role->config.choice.policy >= RB_CHOICE_CONSISTENT_HASH)
        rb_affinity_key(role, j);
    /* One that comes back is in its row still, and the first of it. */
    if (role->config.choice.ordered && j->keyed && !j->in_row.row &&
        !rb_row_join(&role->rows, &j->in_row, j->key))
        return;
    stand(r, role, j);
}

void rb_role_over(struct rb_relay *r, struct rb_role *role, struct rb_job *j) {
    struct rb_in_row *next = rb_row_leave(&role->rows, &j->in_row);
    if (next)
        stand(r, role, (struct rb_job *)(void *)((char *)next - offsetof(struct rb_job, in_row)));
}

int rb_role_home(struct rb_relay *r, struct rb_role *role, struct rb_job *j) {
    if (!j->keyed || role->ready == 0) return 0;
    struct rb_queue *q = rb_affinity_home(role, j);
    if (!j->home) return 0;
    rb_queue_remove(&role->queue, j);
    rb_queue_push(q, j, r->now);
    rb_affinity_look(j->home);
    return 1;
}

/* The queue in which it stood. NULL: it waits behind another of its key, and its place in the row goes with it. */
static struct rb_queue *leave(struct rb_role *role, const struct rb_job *j) {
    count_queued(role, j, -1);
    if (rb_job_is_behind(j)) return NULL;
    return j->apart ? &role->apart : j->home ? &j->home->affine.own : &role->queue;
}

static void left(struct rb_job *j) {
    struct rb_worker *home = j->home;
    j->home = NULL;
    j->apart = 0;
    if (home) rb_affinity_look(home);
}

void rb_role_set_apart(struct rb_relay *r, struct rb_role *role, struct rb_job *j) {
    rb_queue_remove(j->home ? &j->home->affine.own : &role->queue, j);
    left(j);
    j->apart = 1;
    rb_queue_push(&role->apart, j, r->now);
}

void rb_role_unlink(struct rb_role *role, struct rb_job *j) {
    struct rb_queue *q = leave(role, j);
    if (q) rb_queue_remove(q, j);
    left(j);
}

void rb_role_take(struct rb_role *role, struct rb_job *j) {
    rb_queue_take(leave(role, j), j);
    left(j);
}

/* Of those that stand in a queue; who is behind one comes forward when that is over. */
struct rb_job *rb_role_oldest(const struct rb_role *role) {
    struct rb_job *j = rb_queue_oldest(&role->queue);
    struct rb_job *others[] = {rb_affinity_oldest(role), rb_queue_oldest(&role->apart)};
    for (int i = 0; i < 2; i++)
        if (!j || (others[i] && rb_queue_older(others[i], j))) j = others[i];
    return j;
}

void rb_role_tell(struct rb_relay *r, struct rb_job *j, enum rb_reason reason, uint64_t retry_ms) {
    struct rb_caller caller = rb_job_caller(j);
    if (reason == RB_REASON_CIRCUIT_OPEN)
        rb_answer_retry_after(&caller, reason, retry_ms);
    else
        rb_answer_reason(&caller, reason);
    rb_job_answered(r, j, reason);
}

void rb_role_give_up(struct rb_relay *r, struct rb_role *role, enum rb_reason reason,
                     uint64_t retry_ms) {
    struct rb_job *j;
    if (role->admission.kept) rb_admission_give_up(r, role, reason, retry_ms);
    for (int n = 0; (j = rb_role_oldest(role)); n++) {
        role->dirty = 1;
        if (n == RB_MOVES_A_ROUND) return;
        rb_role_tell(r, j, reason, retry_ms);
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

/* What waits for it is to wait for those to whom its keys belong now. */
static void leave_keys(struct rb_worker *w) {
    struct rb_role *role = w->role;
    rb_affinity_weigh(w, 0);
    rb_affinity_look(w);
    if (w->parting || w->affine.own.count == 0) return;
    w->parting = 1;
    w->next_parting = role->parting;
    role->parting = w;
    role->dirty = 1;
}

int rb_role_part(struct rb_relay *r, struct rb_role *role) {
    struct rb_worker *w;
    int left = RB_MOVES_A_ROUND;
    while ((w = role->parting)) {
        struct rb_queue *own = &w->affine.own;
        int keeps = w->listed && w->health.share > 0; /* it has keys again */
        for (; !keeps && own->count > 0; left--) {
            if (left == 0) return 1;
            struct rb_job *j = rb_queue_first(own, r->now);
            rb_queue_remove(own, j);
            stand(r, role, j);
        }
        rb_affinity_look(w);
        role->parting = w->next_parting;
        w->parting = 0;
        if (w->ended) rb_worker_leave(w);
    }
    return 0;
}

/* Its share follows from its ramp and its breaker; whose breaker is open has no keys. */
static void reckon(struct rb_worker *w) {
    uint32_t share = w->ramp * w->trust / RB_CHOICE_WHOLE;
    rb_choice_weigh(&w->role->choice, &w->choosing, w->choosing.weight, share);
    if (!w->listed) return;
    if (w->health.share > 0)
        rb_affinity_weigh(w, w->choosing.weight);
    else
        leave_keys(w);
    rb_place_look(w);
}

void rb_role_weigh(struct rb_worker *w, uint32_t weight) {
    rb_choice_weigh(&w->role->choice, &w->choosing, weight, w->choosing.share);
    reckon(w);
}

void rb_role_trust(struct rb_worker *w, uint32_t share) {
    w->trust = share;
    reckon(w);
}

/* Whoever just came has nothing in its caches, and may not live long: its share grows from a sixteenth to the whole. */
static void ramp_up(struct rb_role *role, struct rb_worker *w, uint64_t now) {
    uint64_t ramp_ns = role->config.choice.ramp_ms * NS_PER_MS, past = now - w->ramp_from_ns;
    uint64_t share = past >= ramp_ns ? RB_CHOICE_WHOLE : past * RB_CHOICE_WHOLE / ramp_ns;
    role->ramping -= w->ramp < RB_CHOICE_WHOLE;
    w->ramp = share < RB_CHOICE_WHOLE / 16 ? RB_CHOICE_WHOLE / 16 : (uint32_t)share;
    role->ramping += w->ramp < RB_CHOICE_WHOLE;
    reckon(w);
}

void rb_role_ramp(struct rb_relay *r, struct rb_role *role) {
    if (r->now - role->ramped_ns < role->config.choice.ramp_ms * NS_PER_MS / RAMP_STEPS) return;
    role->ramped_ns = r->now;
    for (uint32_t i = 0; role->ramping && i < role->ready; i++) {
        if (role->workers[i]->ramp < RB_CHOICE_WHOLE) ramp_up(role, role->workers[i], r->now);
    }
}

void rb_role_add_ready(struct rb_role *role, struct rb_worker *w) {
    if (make_room(role) < 0) {
        rb_worker_broke(w, "no_memory");
        return;
    }
    w->ready_at = role->ready;
    w->listed = 1;
    role->workers[role->ready++] = w;
    role->zstd_ready += (uint32_t)rb_encoding_worker_takes(w);
    rb_encoding_tell_limit(w);
    role->dirty = 1;
    GAUGE(role->stats.workers_ready, role->ready);
    rb_queue_init(&w->affine.own, &role->config.order);
    w->ramp_from_ns = w->relay->now;
    w->ramp = RB_CHOICE_WHOLE;
    ramp_up(role, w, w->ramp_from_ns);
}

void rb_role_remove_ready(struct rb_role *role, struct rb_worker *w) {
    struct rb_worker *last = role->workers[--role->ready];
    role->workers[w->ready_at] = last;
    last->ready_at = w->ready_at;
    w->listed = 0;
    role->zstd_ready -= (uint32_t)rb_encoding_worker_takes(w);
    if (role->apart.count)
        role->dirty = 1; /* it may have been the last that takes what waits there */
    GAUGE(role->stats.workers_ready, role->ready);
    role->ramping -= w->ramp < RB_CHOICE_WHOLE;
    w->ramp = RB_CHOICE_WHOLE;
    rb_place_forget(w);
    leave_keys(w);
}

/* --- The end ------------------------------------------------------------------------------------------------------------- */

void rb_role_clear(struct rb_relay *r, struct rb_role *role) {
    struct rb_job *j;
    while ((j = rb_role_oldest(role))) {
        rb_role_unlink(role, j);
        rb_job_free(r, j);
    }
}

void rb_role_free(struct rb_role *role) {
    rb_choice_fini(&role->choice);
    rb_rows_fini(&role->rows);
    free(role->affinity);
    rb_pool_close(&role->pool);
    free(role->workers);
    free(role);
}
