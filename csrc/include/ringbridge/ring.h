/* ring.h: a single-producer single-consumer ring of fixed slots between two processes.
 *
 * Positions are free-running 64-bit counts: `tail` counts slots published, `head` slots released; a
 * position is masked only at use. Each side writes its own position, in its own memory, and maps
 * the other's read-only. Each side keeps its truth in private memory (`tail`, `head` below) and
 * never reads back the shared word that it wrote: the other side could not change it, but a stray
 * write of our own could, and a position must never run backwards.
 *
 *      producer                                   consumer
 *      slots[tail & mask] = ...                   t = load(tail)                  R1
 *      store(tail, tail + n)            R0        ... read slots[head & mask] ...
 *      h = load_acquire(head)           R3        store_release(head, head + n)   R2
 *
 * R0/R1: who sees the new tail sees the slots. R2/R3: who sees the new head may write the slots
 * again. R0 and R1 are sequentially consistent because they are also two of the four accesses of
 * the gate's handshake (gate.h, G0 and G5). R2 and R3 are not: no gate waits for room in a ring
 * (room comes back with an answer, which is a publication).
 *
 * The other side is hostile input: a position that runs backwards or too far is -EPROTO, and the
 * ring is then not used again. Death: a producer that dies before R0 has published nothing; a
 * consumer that dies before R2 leaves its slots in place, and its `started` position says which of
 * them a handler had seen (link.h). */
#ifndef RINGBRIDGE_RING_H
#define RINGBRIDGE_RING_H

#include <errno.h>
#include <stdint.h>

#include "ringbridge/atomics.h"

struct rb_ring_producer {
    uint64_t tail;               /* published */
    uint64_t claimed;            /* >= tail: slots handed out by claim, not yet published */
    uint64_t head;               /* the consumer's position as last seen */
    uint64_t *shared_tail;       /* ours */
    const uint64_t *shared_head; /* theirs */
    uint64_t slots;              /* a power of two */
};

struct rb_ring_consumer {
    uint64_t head;               /* released */
    uint64_t tail;               /* the producer's position as last seen */
    uint64_t *shared_head;       /* ours */
    const uint64_t *shared_tail; /* theirs */
    uint64_t slots;
};

/* Looks at the consumer's position (R3). Returns the number of free slots, or -EPROTO when the
 * position ran backwards or past what was published. */
static inline int64_t rb_ring_free(struct rb_ring_producer *p) {
    /* R3: pairs with R2 in rb_ring_release(). Without it a slot could be overwritten while the
     * consumer still reads it. */
    uint64_t head = rb_load_acquire(p->shared_head);
    if (head - p->head > p->tail - p->head) return -EPROTO;
    p->head = head;
    return (int64_t)(p->slots - (p->claimed - head));
}

/* Claims the next slot. Returns its index (0 .. slots-1), -EAGAIN when the ring is full, -EPROTO as
 * rb_ring_free(). */
static inline int64_t rb_ring_claim(struct rb_ring_producer *p) {
    if (p->claimed - p->head == p->slots) {
        int64_t room = rb_ring_free(p);
        if (room < 0) return room;
        if (room == 0) return -EAGAIN;
    }
    return (int64_t)(p->claimed++ & (p->slots - 1));
}

/* Publishes all claimed slots with one store. Returns how many. All of them must be written: who may
 * publish while he waits for something else (room for a result) claims only after that wait. */
static inline uint64_t rb_ring_publish(struct rb_ring_producer *p) {
    uint64_t count = p->claimed - p->tail;
    if (count == 0) return 0;
    p->tail = p->claimed;
    /* R0: pairs with R1 in rb_ring_available(). Also G0 of the gate, hence seq_cst. */
    rb_store_seq_cst(p->shared_tail, p->tail);
    return count;
}

/* Looks at the producer's position (R1). Returns the number of slots that can be read, or -EPROTO
 * when the position ran backwards or more than a ring ahead. */
static inline int64_t rb_ring_available(struct rb_ring_consumer *c) {
    /* R1: pairs with R0 in rb_ring_publish(). Without it a slot could be read before its bytes are
     * there. seq_cst because it is also the gate's second look (G5): an acquire load may be
     * performed before an earlier store is visible. */
    uint64_t tail = rb_load_seq_cst(c->shared_tail);
    if (tail - c->head > c->slots || tail - c->head < c->tail - c->head) return -EPROTO;
    c->tail = tail;
    return (int64_t)(tail - c->head);
}

/* Index of the i-th readable slot, i < rb_ring_available(). */
static inline uint64_t rb_ring_slot(const struct rb_ring_consumer *c, uint64_t i) {
    return (c->head + i) & (c->slots - 1);
}

/* Gives `count` slots back to the producer. */
static inline void rb_ring_release(struct rb_ring_consumer *c, uint64_t count) {
    c->head += count;
    /* R2: pairs with R3 in rb_ring_free(): our reads of the slots are done before the producer sees
     * them free. */
    rb_store_release(c->shared_head, c->head);
}

#endif
