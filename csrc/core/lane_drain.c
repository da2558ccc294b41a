/* lane_drain.c: answers on their way to their callers, and what is kept of them.
 *
 * Everything read here was written by the relay, which is another process: an envelope is copied before it is looked at, its number is held
 * against the slots, its place against the region and against what is held already. A broken rule ends the lane. A term is copied before
 * anybody decodes it: here, or by its decoder where it is large. A binary's bytes are shown where they lie: the relay alone can write there. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lane_client.h"

enum { SCRATCH_KEEP = 1 << 20 };

static int broke(struct rb_lane_client *l, const char *rule) {
    rb_store_release(&l->why, rule); /* pairs with the acquire in rb_lane_state() */
    rb_lane_close(l);
    return -EPROTO;
}

/* --- Places in the result region --------------------------------------------------------------------------------------------- */

int rb_lane_take_place(struct rb_lane_client *l, uint64_t at, uint64_t bytes) {
    const uint64_t block = l->header.result_block_bytes;
    if (bytes == 0 || at % block || at > l->header.result_bytes ||
        bytes > l->header.result_bytes - at)
        return -EPROTO;
    uint64_t first = at / block, count = (bytes + block - 1) / block;
    int rc = 0;
    pthread_mutex_lock(&l->giving);
    if (memchr(l->busy + first, 1, count)) {
        rc = -EPROTO;
    } else {
        memset(l->busy + first, 1, count);
        l->held[first] = (uint32_t)count;
        rb_store_relaxed(&l->held_bytes, l->held_bytes + count * block);
    }
    pthread_mutex_unlock(&l->giving);
    return rc;
}

int rb_lane_give_back(struct rb_lane_client *l, uint64_t at) {
    const uint64_t block = l->header.result_block_bytes, first = at / block;
    if (at % block || first >= l->header.result_blocks) return -EINVAL;
    int rc = -EINVAL;
    pthread_mutex_lock(&l->giving);
    uint32_t count = l->held[first];
    if (count) {
        /* As many slots as blocks, and each of them is given back once: there is always room, unless the relay's position lies. */
        int64_t slot = rb_ring_claim(&l->giveback_ring);
        if (slot >= 0) {
            rb_store_relaxed(&l->givebacks[slot].at, at);
            rb_ring_publish(&l->giveback_ring); /* W2 */
        }
        memset(l->busy + first, 0, count);
        l->held[first] = 0;
        rb_store_relaxed(&l->held_bytes, l->held_bytes - count * block);
        rc = 0;
    }
    pthread_mutex_unlock(&l->giving);
    /* W3: pairs with W0 in rb_lane_link_want(), as W2 above with W1 in rb_lane_link_waiting(): either we see that the relay wants room,
     * or it sees the room. All seq_cst. Mostly it does not want any, and is not disturbed. */
    if (rc == 0 && rb_load_seq_cst(&l->theirs->wants)) rb_lane_ring_relay(l);
    return rc;
}

size_t rb_lane_held_bytes(const struct rb_lane_client *l) {
    return rb_load_relaxed(&l->held_bytes); /* a figure */
}

/* --- Answers ----------------------------------------------------------------------------------------------------------------- */

/* The slot of this number, from OPEN to nobody else's. 1, or 0: it is not open. */
static int take_slot(struct rb_lane_client *l, uint64_t number) {
    uint32_t slot = rb_lane_slot(number), open = RB_SLOT_OPEN;
    if (slot >= rb_lane_slots(l)) return 0;
    struct rb_lane_slot *s = &l->slots[slot];
    if (!rb_lane_is_open(s, number)) return 0;
    return __atomic_compare_exchange_n(&s->state, &open, RB_SLOT_CLAIMED, 0, __ATOMIC_ACQ_REL,
                                       __ATOMIC_RELAXED);
}

/* A private copy of the bytes of a term. NULL: no memory. */
static const uint8_t *copy_term(struct rb_lane_client *l, const uint8_t *at, size_t size) {
    if (size > l->scratch_bytes) {
        uint8_t *wider = malloc(size);
        if (!wider) return NULL;
        free(l->scratch);
        l->scratch = wider;
        l->scratch_bytes = size;
    }
    memcpy(l->scratch, at, size);
    return l->scratch;
}

/* What a completion says, as the caller is shown it; in a private copy, which `bytes` may point into. NULL or the rule that it breaks.
 * `place`: 1 if it lies in the region, and is held from here on. */
static const char *read_answer(struct rb_lane_client *l, const struct rb_lane_completion *e,
                               struct rb_lane_answer *a, int *place) {
    *place = 0;
    if (e->status < RB_LANE_STATUS_TERM || e->status > RB_LANE_STATUS_DROPPED)
        return "completion_status";
    *a = (struct rb_lane_answer){
        .number = e->request, .kind = (enum rb_lane_answer_kind)e->status, .size = e->bytes};
    if (e->status == RB_LANE_STATUS_DROPPED) {
        a->size = 0;
        return e->bytes ? "completion_bytes" : NULL;
    }
    if (e->flags & RB_LANE_FLAG_INLINE) {
        a->bytes = e->body;
        return e->bytes > RB_LANE_INLINE_BYTES_MAX ? "completion_bytes" : NULL;
    }
    if (rb_lane_take_place(l, e->at, e->bytes) < 0) return "completion_place";
    *place = 1;
    a->at = e->at;
    a->bytes = l->results + e->at;
    a->keepable = e->status == RB_LANE_STATUS_RAW || e->bytes >= RB_LANE_TERM_APART;
    return NULL;
}

/* Shows one answer. Its slot is free after it. */
static const char *show(struct rb_lane_client *l, const struct rb_lane_completion *e,
                        rb_lane_take *take, void *arg) {
    struct rb_lane_answer a;
    int place;
    const char *rule = read_answer(l, e, &a, &place);
    if (rule) return rule;
    if (!take_slot(l, e->request)) {
        if (place) rb_lane_give_back(l, e->at);
        /* Of one that was lost when we closed, the answer may come still. */
        return rb_lane_is_closed(l) ? NULL : "completion_of_no_request";
    }
    int kept = 0;
    if (place && !a.keepable) {
        const uint8_t *copy = copy_term(l, a.bytes, a.size);
        if (copy) {
            a.bytes = copy;
        } else { /* as if the lane had ended before it */
            a = (struct rb_lane_answer){.number = a.number, .kind = RB_LANE_ANSWER_LOST};
        }
    }
    kept = take(arg, &a) == RB_LANE_KEEP && a.keepable;
    if (place && !kept) rb_lane_give_back(l, e->at);
    if (a.kind == RB_LANE_ANSWER_DROPPED)
        rb_store_relaxed(&l->dropped, l->dropped + 1);
    else
        rb_store_relaxed(&l->answered, l->answered + 1);
    rb_lane_free_slot(l, rb_lane_slot(e->request));
    return NULL;
}

static int drain_locked(struct rb_lane_client *l, rb_lane_take *take, void *arg, int max) {
    struct rb_ring_consumer *ring = &l->completion_ring;
    if (rb_load_relaxed(&l->why)) return -EPROTO;
    int64_t count = rb_ring_available(ring);
    if (count < 0) return broke(l, "completion_tail_out_of_range");
    if (count > max) count = max;
    const char *rule = NULL;
    int taken = 0;
    while (taken < count && !rule) {
        struct rb_lane_completion e;
        memcpy(&e, &l->completions[rb_ring_slot(ring, 0)], sizeof e);
        /* Before its request's slot is free: else more could be open than the relay has room to answer. */
        rb_ring_release(ring, 1);
        rb_store_relaxed(&l->drained, ring->head); /* a hint: rb_lane_waiting() */
        rule = show(l, &e, take, arg);
        taken++;
    }
    if (l->scratch_bytes > SCRATCH_KEEP) {
        free(l->scratch);
        l->scratch = NULL;
        l->scratch_bytes = 0;
    }
    if (rule) broke(l, rule);
    return rule && taken == 1 ? -EPROTO : taken - (rule != NULL);
}

int rb_lane_drain(struct rb_lane_client *l, rb_lane_take *take, void *arg, int max) {
    if (pthread_mutex_trylock(&l->drain) != 0) return -EBUSY;
    int rc = drain_locked(l, take, arg, max);
    pthread_mutex_unlock(&l->drain);
    return rc;
}

int rb_lane_waiting(const struct rb_lane_client *l) {
    /* Acquire as R1; what it is compared with may be a moment old, which costs a drain in vain. */
    return rb_load_acquire(&l->theirs->completion_tail) != rb_load_relaxed(&l->drained);
}

int rb_lane_lose(struct rb_lane_client *l, rb_lane_take *take, void *arg) {
    int lost = 0;
    rb_lane_close(l); /* S0: who sends from here on sees it */
    pthread_mutex_lock(&l->drain);
    /* As much as its ring holds, whatever it goes on to say: of a relay that lies there is no end. */
    for (int left = (int)l->header.completion_slots, taken = 1; left > 0 && taken > 0;) {
        taken = drain_locked(l, take, arg, left);
        left -= taken;
    }
    for (uint32_t slot = 0; slot < rb_lane_slots(l); slot++) {
        struct rb_lane_slot *s = &l->slots[slot];
        uint32_t open = RB_SLOT_OPEN;
        if (rb_load_seq_cst(&s->state) != RB_SLOT_OPEN) continue; /* S3 */
        uint64_t number = (uint64_t)rb_load_relaxed(&s->generation) << 32 | slot;
        if (!__atomic_compare_exchange_n(&s->state, &open, RB_SLOT_CLAIMED, 0, __ATOMIC_ACQ_REL,
                                         __ATOMIC_RELAXED))
            continue; /* its sender has taken it back */
        struct rb_lane_answer a = {.number = number, .kind = RB_LANE_ANSWER_LOST};
        take(arg, &a);
        rb_store_relaxed(&l->answered, l->answered + 1);
        rb_lane_free_slot(l, slot);
        lost++;
    }
    pthread_mutex_unlock(&l->drain);
    return lost;
}

/* --- Sleeping ---------------------------------------------------------------------------------------------------------------- */

int rb_lane_park(struct rb_lane_client *l) {
    pthread_mutex_lock(&l->drain);
    rb_gate_announce(&l->waiter, RB_PARK_EVENTFD); /* G4 */
    /* G5: the look after the announcement, at both words for which the relay rings. */
    int there = rb_load_seq_cst(&l->theirs->completion_tail) != l->completion_ring.head ||
                rb_lane_state(l) != RB_LANE_OPEN;
    pthread_mutex_unlock(&l->drain);
    return there;
}

void rb_lane_unpark(struct rb_lane_client *l) {
    pthread_mutex_lock(&l->drain);
    rb_gate_retract(&l->waiter);
    pthread_mutex_unlock(&l->drain);
}

int rb_lane_hush(struct rb_lane_client *l) { return rb_gate_hush(l->fds.bell); }
