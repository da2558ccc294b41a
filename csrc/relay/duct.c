#include "relay/duct.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ringbridge/atomics.h"

int rb_duct_open(struct rb_duct *d, uint64_t capacity, uint64_t bytes_max) {
    *d = (struct rb_duct){.capacity = capacity, .bytes_max = bytes_max};
    d->slots = calloc(capacity, sizeof *d->slots);
    if (!d->slots) return -ENOMEM;
    d->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (d->eventfd < 0) {
        int error = errno;
        free(d->slots);
        return -error;
    }
    return 0;
}

void rb_duct_close(struct rb_duct *d) {
    struct rb_note *note;
    while ((note = rb_duct_take(d))) free(note);
    close(d->eventfd);
    free(d->slots);
}

int rb_duct_put(struct rb_duct *d, struct rb_note *note) {
    /* D0: pairs with D2: the consumer has read the slot that we are about to write again. */
    uint64_t head = rb_load_acquire(&d->head);
    uint64_t tail = d->tail;
    if (tail - head == d->capacity) return -EAGAIN;
    /* Relaxed: a count behind the truth only makes us refuse a little early. */
    uint64_t inside = d->put_bytes - rb_load_relaxed(&d->taken_bytes);
    if (tail != head && inside + note->size > d->bytes_max) return -EAGAIN;
    d->put_bytes += note->size;
    d->slots[tail & (d->capacity - 1)] = note;
    /* D1: pairs with D3: who sees the tail sees the pointer and the note behind it. Before D4, hence seq_cst. */
    rb_store_seq_cst(&d->tail, tail + 1);
    return 0;
}

void rb_duct_ring(struct rb_duct *d) {
    uint64_t one = 1;
    /* D4: pairs with D5. Either we see the announcement, or the consumer's look after it (D3) sees our tail; never neither. */
    if (!rb_load_seq_cst(&d->parked)) return;
    /* Nothing is inside: the relay comes here once a round, mostly with nothing for Python, and must not wake it then. Relaxed: whatever
     * head we read was reached, so what lies before it was taken; an older one rings in vain. */
    if (rb_load_relaxed(&d->head) == d->tail) return;
    /* Relaxed: a write follows whatever was announced meanwhile, so the consumer looks again in any case. */
    rb_store_relaxed(&d->parked, 0);
    /* EAGAIN means the count is at its top: the consumer has been rung already. */
    while (write(d->eventfd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

void rb_duct_hush(const struct rb_duct *d) {
    uint64_t count;
    while (read(d->eventfd, &count, sizeof count) < 0 && errno == EINTR) {
    }
}

void rb_duct_announce(struct rb_duct *d) {
    /* D5: pairs with D4 in rb_duct_ring(); before the look that follows (D3), hence seq_cst. */
    rb_store_seq_cst(&d->parked, 1);
}

/* Relaxed: who rings in between rings once too often. */
void rb_duct_retract(struct rb_duct *d) { rb_store_relaxed(&d->parked, 0); }

const struct rb_note *rb_duct_peek(const struct rb_duct *d) {
    /* D3: pairs with D1 in rb_duct_put(); after D5, hence seq_cst. */
    if (rb_load_seq_cst(&d->tail) == d->head) return NULL;
    return d->slots[d->head & (d->capacity - 1)];
}

struct rb_note *rb_duct_take(struct rb_duct *d) {
    if (!rb_duct_peek(d)) return NULL;
    uint64_t head = d->head;
    struct rb_note *note = d->slots[head & (d->capacity - 1)];
    /* Relaxed: read by the producer as a bound only. */
    rb_store_relaxed(&d->taken_bytes, d->taken_bytes + note->size);
    /* D2: pairs with D0: the slot may be written again. */
    rb_store_release(&d->head, head + 1);
    return note;
}
