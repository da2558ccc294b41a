/* walk.h: over the heads of a signal's terms, one after the other: how long each is, and what it says of that which follows. */
#ifndef RB_RELAY_WALK_H
#define RB_RELAY_WALK_H

#include <stddef.h>
#include <stdint.h>

struct rb_walk {
    uint64_t raw;     /* bytes that pass before the next head */
    uint64_t terms;   /* heads that are still to come of this root */
    uint32_t numbers; /* bytes behind the node that is to come */
    uint8_t node;     /* the next head is the node of a pid, port or reference */
    uint8_t roots;    /* 1: in the control message, 2: in the payload */
};

/* Bytes of the head of a term with this tag; 0: there is no such tag in a signal. */
size_t rb_walk_head_size(uint8_t tag);
/* Notes down what the head at `p` says. 0 or -EPROTO. */
int rb_walk_head(struct rb_walk *w, const uint8_t *p);
/* Between two heads: is another one to come? A third root is none: what follows a payload is nobody's. */
int rb_walk_on(struct rb_walk *w);

#endif
