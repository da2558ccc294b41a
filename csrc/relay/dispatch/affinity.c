/* affinity.c: queues of workers for the keys that belong to them (affinity.h). */
#include "relay/dispatch/affinity.h"

#include <stdlib.h>

#include "relay/relay_pvt.h"
#include "ringbridge/crc32c.h"

enum {
    HASHED_BYTES = 4096, /* of a payload: enough to tell requests apart, and a flat cost */
    STEAL_MAX = 1024,    /* jobs in one go: a round is not held up */
};

void rb_affine_init(struct rb_affine *a) {
    *a = (struct rb_affine){.length.level = -1, .ready.level = -1, .idle.level = -1};
}

static struct rb_worker *worker_of(struct rb_levelled *n, size_t offset) {
    return n ? (struct rb_worker *)(void *)((char *)n - offset) : NULL;
}

/* --- Keys ---------------------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u; /* splitmix64 */
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void rb_affinity_key(const struct rb_role *role, struct rb_job *j) {
    if (role->config.choice.policy == RB_CHOICE_STICKY) {
        j->key = mix(rb_monitor_hash((struct rb_slice){j->caller, j->pid_size}));
    } else if (role->config.choice.policy == RB_CHOICE_CONSISTENT_HASH) {
        uint32_t size = j->request.payload_bytes;
        uint32_t crc = rb_crc32c(0, rb_job_payload(j), size < HASHED_BYTES ? size : HASHED_BYTES);
        j->key = mix((uint64_t)size << 32 | crc);
    } else {
        return;
    }
    j->keyed = RB_KEYED_BY_POLICY;
}

static struct rb_affinity *affinity_of(struct rb_role *role) {
    if (role->affinity) return role->affinity;
    struct rb_affinity *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    rb_anchor_init(&a->anchor);
    role->affinity = a;
    for (uint32_t i = 0; i < role->ready; i++) {
        struct rb_worker *w = role->workers[i];
        rb_affinity_weigh(w, w->health.share > 0 ? w->choosing.weight : 0);
        rb_affinity_look(w);
    }
    return a;
}

struct rb_queue *rb_affinity_home(struct rb_role *role, struct rb_job *j) {
    struct rb_affinity *a = affinity_of(role);
    struct rb_anchor_member *m = a ? rb_anchor_owner(&a->anchor, j->key) : NULL;
    j->home = NULL;
    if (!m) return &role->queue;
    j->home = (struct rb_worker *)(void *)((char *)m - offsetof(struct rb_worker, affine.member));
    /* One that ramps up has part of its keys, always the same; the others have a second home for so long. */
    if (j->home->choosing.share < RB_CHOICE_WHOLE &&
        (mix(j->key + 1) & (RB_CHOICE_WHOLE - 1)) >= j->home->choosing.share) {
        m = rb_anchor_owner(&a->anchor, mix(j->key));
        j->home =
            (struct rb_worker *)(void *)((char *)m - offsetof(struct rb_worker, affine.member));
    }
    return &j->home->affine.own;
}

/* --- Who has what -------------------------------------------------------------------------------------------------------- */

void rb_affinity_weigh(struct rb_worker *w, uint32_t buckets) {
    if (w->role->affinity) rb_anchor_set(&w->role->affinity->anchor, &w->affine.member, buckets);
}

static void stand(struct rb_levels *levels, struct rb_levelled *n, int32_t level) {
    if (n->level == level) return;
    rb_levels_leave(levels, n);
    if (level >= 0) rb_levels_join(levels, n, level);
}

static struct rb_rank rank_of(const struct rb_job *j) {
    return (struct rb_rank){
        .key = (uint64_t)(RB_BANDS - 1 - j->queued.band) << 62 | j->queued.age.key, .tie = j->id};
}

static void stand_by_age(struct rb_affinity *a, struct rb_worker *w, const struct rb_job *j) {
    if (w->affine.has_oldest) rb_heap_remove(&a->oldest, &w->affine.oldest);
    w->affine.has_oldest = j != NULL;
    if (!j) return;
    w->affine.oldest = rank_of(j);
    rb_heap_add(&a->oldest, &w->affine.oldest);
}

/* Who joins may be older than all; when one leaves, or moves up a band, it is enough to see that when it is asked for. */
static void look_at_oldest(struct rb_affinity *a, struct rb_worker *w) {
    const struct rb_job *j = rb_queue_oldest(&w->affine.own);
    if (!j && !w->affine.has_oldest) return;
    if (j && w->affine.has_oldest) {
        struct rb_rank rank = rank_of(j);
        if (!rb_rank_before(&rank, &w->affine.oldest)) return;
    }
    stand_by_age(a, w, j);
}

struct rb_job *rb_affinity_oldest(const struct rb_role *role) {
    struct rb_affinity *a = role->affinity;
    while (a && a->oldest.root) {
        struct rb_rank *first = a->oldest.root;
        struct rb_worker *w =
            (struct rb_worker *)(void *)((char *)first - offsetof(struct rb_worker, affine.oldest));
        struct rb_job *j = rb_queue_oldest(&w->affine.own);
        struct rb_rank rank = rank_of(j);
        if (!rb_rank_before(first, &rank)) return j;
        stand_by_age(a, w, j);
    }
    return NULL;
}

void rb_affinity_look(struct rb_worker *w) {
    struct rb_affinity *a = w->role->affinity;
    if (!a) return;
    uint32_t own = w->affine.own.count;
    int room = rb_choice_is_open(&w->choosing);
    look_at_oldest(a, w);
    stand(&a->lengths, &w->affine.length, own ? rb_level_of(own) : -1);
    stand(&a->ready, &w->affine.ready, own && room ? 0 : -1);
    /* Who ramps up, or is on probation, is not trusted with what belongs to others. */
    int idle = !own && room && w->in_flight == 0 && w->choosing.share == RB_CHOICE_WHOLE;
    stand(&a->idle, &w->affine.idle, idle ? 0 : -1);
}

struct rb_worker *rb_affinity_ready(const struct rb_role *role) {
    if (!role->affinity) return NULL;
    return worker_of(rb_levels_lowest(&role->affinity->ready, 0),
                     offsetof(struct rb_worker, affine.ready));
}

struct rb_worker *rb_affinity_idle(const struct rb_role *role) {
    if (!role->affinity) return NULL;
    return worker_of(rb_levels_lowest(&role->affinity->idle, 0),
                     offsetof(struct rb_worker, affine.idle));
}

/* The one for whom most jobs wait (to within a quarter). NULL: for none. */
static struct rb_worker *longest(const struct rb_role *role) {
    return worker_of(rb_levels_highest(&role->affinity->lengths),
                     offsetof(struct rb_worker, affine.length));
}

uint32_t rb_affinity_steal(struct rb_relay *r, struct rb_role *role, struct rb_worker *thief) {
    struct rb_worker *victim = longest(role);
    uint32_t count = victim ? victim->affine.own.count / 2 : 0;
    if (count > STEAL_MAX) count = STEAL_MAX;
    for (uint32_t i = 0; i < count; i++) {
        struct rb_job *j = rb_queue_first(&victim->affine.own, r->now);
        rb_queue_remove(&victim->affine.own, j);
        j->home = thief;
        rb_queue_push(&thief->affine.own, j, r->now);
    }
    if (count) {
        COUNT(role->stats.stolen, count);
        rb_affinity_look(victim);
        rb_affinity_look(thief);
    }
    return count;
}
