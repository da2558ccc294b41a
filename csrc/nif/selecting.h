/* selecting.h: a descriptor that one process selects while any other may close it: who stops it, once.
 *
 *      NONE      nobody has selected it: whoever closes it has nothing to stop
 *      BEGUN     somebody is about to: he stops it himself, should it be closed meanwhile
 *      DONE      it is, or was: whoever closes it stops it
 *      CLOSED    for good
 *
 * Without BEGUN a close that comes between the look and enif_select() would stop nothing, and the descriptor would be closed while it is
 * selected: erts would take the next one of that number for it. No lock, since none is held across enif_select(). */
#ifndef RINGBRIDGE_NIF_SELECTING_H
#define RINGBRIDGE_NIF_SELECTING_H

#include <errno.h>
#include <stdint.h>

#include "ringbridge/atomics.h"

enum { SELECTING_NONE, SELECTING_BEGUN, SELECTING_DONE, SELECTING_CLOSED };

/* All are acquire and release, each the partner of the others: who closes it, or finds it closed, sees what was done before. */
static inline int selecting_moved(uint32_t *word, uint32_t from, uint32_t to) {
    return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* Before enif_select(): 0; -EPIPE: it is closed; -EBUSY: another process is about to select it. */
static inline int selecting_begin(uint32_t *word) {
    if (selecting_moved(word, SELECTING_NONE, SELECTING_BEGUN) ||
        selecting_moved(word, SELECTING_DONE, SELECTING_BEGUN))
        return 0;
    return rb_load_acquire(word) == SELECTING_CLOSED ? -EPIPE : -EBUSY;
}

/* After it: 0; -EPIPE: it was closed meanwhile, and is the caller's to stop. */
static inline int selecting_end(uint32_t *word) {
    return selecting_moved(word, SELECTING_BEGUN, SELECTING_DONE) ? 0 : -EPIPE;
}

/* Once. 1: the caller stops it; 0: there is nothing to stop; -EBUSY: who is about to select it does. */
static inline int selecting_close(uint32_t *word) {
    uint32_t was = __atomic_exchange_n(word, SELECTING_CLOSED, __ATOMIC_ACQ_REL);
    return was == SELECTING_DONE ? 1 : was == SELECTING_NONE ? 0 : -EBUSY;
}

#endif
