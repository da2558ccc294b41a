/* duct.h: variable-length notes from one thread to another: a bounded ring of pointers and an eventfd.
 *
 * The relay and the trio thread talk through two of these, one each way. Neither ever waits for the other: a full duct is an
 * answer (-EAGAIN) that its caller must have a rule for. Bytes in flight are counted, so that a stalled interpreter costs a
 * stated amount of memory and no more. */
#ifndef RB_RELAY_DUCT_H
#define RB_RELAY_DUCT_H

#include <stddef.h>
#include <stdint.h>

/* The head of every note; whoever takes it frees it with free(). `size` counts the whole allocation. */
struct rb_note {
    uint32_t kind;
    uint32_t size;
};

struct rb_duct {
    struct rb_note **slots;
    uint64_t capacity; /* a power of two */
    int eventfd;
    uint64_t bytes_max;
    __attribute__((aligned(128))) uint64_t tail;
    uint64_t put_bytes; /* by the producer, since the beginning */
    __attribute__((aligned(128))) uint64_t head;
    uint64_t taken_bytes; /* by the consumer */
    __attribute__((
        aligned(128))) uint32_t parked; /* 1: ring me. The consumer sets it, either clears it */
};

int rb_duct_open(struct rb_duct *d, uint64_t capacity, uint64_t bytes_max);
void rb_duct_close(struct rb_duct *d); /* frees the notes left inside */

/* Producer. Takes the note over on success. -EAGAIN: no slot, or its bytes would pass bytes_max (unless nothing is inside). */
int rb_duct_put(struct rb_duct *d, struct rb_note *note);
/* Producer: wakes the consumer, if it has announced that it sleeps, once for all that was put. */
void rb_duct_ring(struct rb_duct *d);
/* Consumer: the next note or NULL. */
struct rb_note *rb_duct_take(struct rb_duct *d);
/* Consumer: the same, without taking it. */
const struct rb_note *rb_duct_peek(const struct rb_duct *d);
/* Consumer: announces that it will sleep. To be done before it looks for the last time, so that what is put after that look rings. */
void rb_duct_announce(struct rb_duct *d);
void rb_duct_retract(struct rb_duct *d); /* awake: no rings any more */
/* Consumer: clears the eventfd. To be done before the last look too. */
void rb_duct_hush(const struct rb_duct *d);

#endif
