/* lane_send.c: requests on their way to the relay. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "lane_client.h"

enum { ARENA_ALIGN = 64 }; /* two requests share no cache line */

/* --- Slots ------------------------------------------------------------------------------------------------------------------- */

void rb_lane_free_slot(struct rb_lane_client *l, uint32_t slot) {
    struct rb_lane_ring *ring = &l->rings[slot / l->header.slots];
    struct rb_lane_slot *s = &l->slots[slot];
    /* F0: relaxed: the push below publishes it. */
    rb_store_relaxed(&s->state, RB_SLOT_FREE);
    uint32_t top = rb_load_relaxed(&ring->free);
    do {
        rb_store_relaxed(&s->next, top);
        /* F1: release, pairs with F2 in pop(): who pops the slot sees it free, and all that its last request's answer was used for. */
    } while (!__atomic_compare_exchange_n(&ring->free, &top, slot + 1, 1, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
}

/* The ring's producer alone. Its index + 1, or 0. */
static uint32_t pop(struct rb_lane_client *l, struct rb_lane_ring *ring) {
    uint32_t top = rb_load_acquire(&ring->free); /* F2: pairs with F1, as does the exchange */
    while (top &&
           !__atomic_compare_exchange_n(&ring->free, &top, rb_load_relaxed(&l->slots[top - 1].next),
                                        1, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE)) {
    }
    return top;
}

static int lock_ring(struct rb_lane_client *l, uint32_t *ring) {
    uint32_t shared = l->header.rings - 1;
    if (*ring == RB_LANE_SHARED) *ring = shared;
    if (*ring > shared) return -EINVAL;
    if (*ring == shared) pthread_mutex_lock(&l->shared);
    return 0;
}

static void unlock_ring(struct rb_lane_client *l, uint32_t ring) {
    if (ring == l->header.rings - 1) pthread_mutex_unlock(&l->shared);
}

static int no_room(struct rb_lane_ring *ring) {
    rb_store_relaxed(&ring->full, ring->full + 1);
    return -EAGAIN;
}

int rb_lane_claim(struct rb_lane_client *l, uint32_t at, uint64_t *number) {
    if (rb_lane_state(l) != RB_LANE_OPEN) return -EPIPE;
    if (lock_ring(l, &at) < 0) return -EINVAL;
    struct rb_lane_ring *ring = &l->rings[at];
    uint32_t top = pop(l, ring);
    int rc = top ? 0 : no_room(ring);
    if (top) {
        struct rb_lane_slot *s = &l->slots[top - 1];
        rb_store_relaxed(&s->state, RB_SLOT_CLAIMED);
        *number = (uint64_t)(rb_load_relaxed(&s->generation) + 1) << 32 | (top - 1);
    }
    unlock_ring(l, at);
    return rc;
}

/* 0: a claim of this ring, in this generation. */
static int check_claim(const struct rb_lane_client *l, uint32_t ring, uint64_t number) {
    uint32_t slot = rb_lane_slot(number);
    if (slot / l->header.slots != ring) return -EINVAL;
    const struct rb_lane_slot *s = &l->slots[slot];
    if (rb_load_relaxed(&s->state) != RB_SLOT_CLAIMED) return -EINVAL;
    return (uint32_t)(number >> 32) == rb_load_relaxed(&s->generation) + 1 ? 0 : -EINVAL;
}

void rb_lane_unclaim(struct rb_lane_client *l, uint32_t at, uint64_t number) {
    if (lock_ring(l, &at) < 0) return;
    if (check_claim(l, at, number) == 0) rb_lane_free_slot(l, rb_lane_slot(number));
    unlock_ring(l, at);
}

/* --- Bytes ------------------------------------------------------------------------------------------------------------------- */

/* Room for `size` bytes in one piece; the ring's free slots were looked at just before. 0 or -EAGAIN. */
static int arena_room(struct rb_lane_client *l, struct rb_lane_ring *r, size_t size, uint64_t *at) {
    const uint64_t bytes = l->header.arena_bytes;
    uint64_t need = (size + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    /* By the slot that was released last: not written again while the ring has room, which it has here. */
    uint64_t *released = &r->arena_ends[(r->producer.head - 1) & (r->producer.slots - 1)];
    if (r->producer.head == r->producer.claimed)
        r->arena_tail = *released = 0; /* all was taken: begin where the caches are warm */
    r->arena_head = *released;
    uint64_t from = r->arena_tail % bytes, skip = from + need > bytes ? bytes - from : 0;
    if (r->arena_tail + skip + need - r->arena_head > bytes) return -EAGAIN;
    *at = skip ? 0 : from;
    r->arena_tail += skip + need;
    return 0;
}

static void copy_parts(uint8_t *to, const struct rb_lane_request *q) {
    if (q->form == RB_LANE_RAW) {
        memcpy(to, q->role, q->role_bytes);
        to += q->role_bytes;
    }
    for (int i = 0; i < q->count; i++) {
        if (q->parts[i].iov_len) memcpy(to, q->parts[i].iov_base, q->parts[i].iov_len);
        to += q->parts[i].iov_len;
    }
}

static int size_of(const struct rb_lane_client *l, const struct rb_lane_request *q, size_t *size) {
    size_t n = 0, most = rb_lane_request_max(l);
    if (q->form == RB_LANE_RAW) {
        if (q->role_bytes == 0 || q->role_bytes > 255) return -EINVAL;
        n = q->role_bytes;
    } else if (q->form != RB_LANE_TERM) {
        return -EINVAL;
    }
    for (int i = 0; i < q->count; i++) {
        if (q->parts[i].iov_len > most - n) return -EMSGSIZE;
        n += q->parts[i].iov_len;
    }
    *size = n;
    return n <= UINT32_MAX ? 0 : -EMSGSIZE;
}

/* --- Sent -------------------------------------------------------------------------------------------------------------------- */

/* Into the ring, not published yet. */
static int put(struct rb_lane_client *l, struct rb_lane_ring *ring, uint64_t number,
               const struct rb_lane_request *q, size_t size) {
    uint64_t at = 0;
    /* Fresh for the arena, and the check of what the relay says; the load is the ring's R3. */
    int64_t room = rb_ring_free(&ring->producer);
    if (room < 0) {
        rb_store_release(&l->why, "submission_head_out_of_range");
        rb_lane_close(l);
        return -EPROTO;
    }
    if (room == 0) return no_room(ring);
    if (size > RB_LANE_INLINE_BYTES_MAX && arena_room(l, ring, size, &at) < 0) return no_room(ring);
    int64_t slot = rb_ring_claim(&ring->producer);
    struct rb_lane_submission *s = &ring->submissions[slot];
    ring->arena_ends[slot] = ring->arena_tail;
    s->request = number;
    s->form = (uint16_t)q->form;
    s->flags = size > RB_LANE_INLINE_BYTES_MAX ? 0 : RB_LANE_FLAG_INLINE;
    s->caller = q->caller;
    s->at = at;
    s->bytes = (uint32_t)size;
    s->timeout_ms = q->timeout_ms;
    s->role_bytes = q->form == RB_LANE_RAW ? q->role_bytes : 0;
    copy_parts(s->flags ? s->body : ring->arena + at, q);
    return 0;
}

/* Generations come round (after 2^32 uses of a slot, some hours of a busy one): a word that has stood since the last round, or that was
 * never written, would name this request. No cancel of it can be under way: it is not open yet. */
static void clear_old_cancel(struct rb_lane_client *l, uint64_t number) {
    uint64_t *word = &l->cancels[rb_lane_slot(number)].request;
    /* Relaxed: what is published next goes with it. */
    if (rb_load_relaxed(word) == number) rb_store_relaxed(word, number - (UINT64_C(1) << 32));
}

static int send_locked(struct rb_lane_client *l, uint32_t at, uint64_t number,
                       const struct rb_lane_request *q) {
    struct rb_lane_ring *ring = &l->rings[at];
    struct rb_lane_slot *s = &l->slots[rb_lane_slot(number)];
    size_t size;
    if (check_claim(l, at, number) < 0) return -EINVAL;
    int rc = rb_lane_state(l) == RB_LANE_OPEN ? size_of(l, q, &size) : -EPIPE;
    if (rc == 0) rc = put(l, ring, number, q, size);
    if (rc < 0) {
        rb_lane_free_slot(l, rb_lane_slot(number));
        return rc;
    }
    clear_old_cancel(l, number);
    rb_store_relaxed(&s->generation, (uint32_t)(number >> 32));
    rb_store_relaxed(&ring->sent, ring->sent + 1);
    /* S1: seq_cst with S2 below, against S0 and S3 (rb_lane_close(), rb_lane_lose()). The generation goes with it. */
    rb_store_seq_cst(&s->state, RB_SLOT_OPEN);
    /* S2: closed under our hands: then either who loses what is open has told of it, or it is ours again. Before it is published: who
     * hears -EPIPE asks by another way, and the relay must not have run it by then. What is left in the ring nobody publishes any more. */
    if (rb_load_seq_cst(&l->closed)) {
        uint32_t open = RB_SLOT_OPEN;
        if (!__atomic_compare_exchange_n(&s->state, &open, RB_SLOT_CLAIMED, 0, __ATOMIC_ACQ_REL,
                                         __ATOMIC_RELAXED))
            return 0;
        rb_store_relaxed(&ring->sent, ring->sent - 1);
        rb_lane_free_slot(l, rb_lane_slot(number));
        return -EPIPE;
    }
    rb_ring_publish(&ring->producer);
    rb_gate_ring(&ring->waker);
    return 0;
}

int rb_lane_send(struct rb_lane_client *l, uint32_t at, uint64_t number,
                 const struct rb_lane_request *request) {
    if (lock_ring(l, &at) < 0) return -EINVAL;
    int rc = send_locked(l, at, number, request);
    unlock_ring(l, at);
    return rc;
}

void rb_lane_ring_relay(struct rb_lane_client *l) {
    pthread_mutex_lock(&l->waking);
    rb_gate_ring(&l->waker);
    pthread_mutex_unlock(&l->waking);
}

void rb_lane_cancel(struct rb_lane_client *l, uint64_t number) {
    uint32_t slot = rb_lane_slot(number);
    if (slot >= rb_lane_slots(l)) return;
    /* The mutex orders the words of a slot: one of an older request, that is answered by now, must not hide a newer one's. */
    pthread_mutex_lock(&l->waking);
    /* Seq_cst with S1: a caller of ours who stored that nobody waits, and finds the request not open here, is seen by who sends it. */
    if (rb_load_seq_cst(&l->slots[slot].state) == RB_SLOT_OPEN &&
        rb_lane_is_open(&l->slots[slot], number)) {
        /* K0: the word first, then the count that makes the relay look (K1). A submission that the relay takes after this word was
         * stored is found cancelled as it is taken (K2); one that was taken before, by its slot, when the count has changed. */
        rb_store_seq_cst(&l->cancels[slot].request, number);
        rb_store_relaxed(&l->cancelled, l->cancelled + 1);
        /* K1: pairs with L1 in rb_lane_link_waiting(), and with the relay's look in its rounds. seq_cst as a gate's G0. */
        rb_store_seq_cst(&l->ours->cancels, l->cancelled);
        rb_gate_ring(&l->waker);
    }
    pthread_mutex_unlock(&l->waking);
}
