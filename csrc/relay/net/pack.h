/* pack.h: the atom cache as its sender: whole atoms of a signal become references, and a header that names them.
 *
 * What is packed must leave on its connection in the order in which it was packed: the header changes the peer's cache. */
#ifndef RB_RELAY_PACK_H
#define RB_RELAY_PACK_H

#include "relay/net/cache.h"

enum {
    /* A BEAM keeps 2039 slots and closes on a higher one (external.h, ERTS_ATOM_CACHE_SIZE). */
    RB_PACK_SLOTS = 2039,
    RB_PACK_ATOM_BYTES_MAX =
        255, /* longer ones go whole: all lengths of a header fit into a byte */
};

/* What one connection has taught its peer. */
struct rb_taught {
    struct {
        struct rb_cached_atom *atom;
        uint32_t signal; /* the last that referred to it, */
        uint8_t index;   /* by this */
    } slot[RB_PACK_SLOTS];
    uint32_t signals;
};
void rb_taught_free(struct rb_taught *t);

/* One signal's header while it is made; shared by all connections. */
struct rb_packing {
    uint32_t count;
    size_t size; /* of the header from its count on */
    uint8_t header[1 + 128 + RB_CACHE_REFERENCES_MAX * (2 + RB_PACK_ATOM_BYTES_MAX)];
    uint8_t how[RB_CACHE_REFERENCES_MAX]; /* nibbles */
    size_t refs_size;
    uint8_t refs[RB_CACHE_REFERENCES_MAX * (2 + RB_PACK_ATOM_BYTES_MAX)];
};

/* Writes the `n` bytes of a signal to `out` with references in the place of atoms: at most `n` bytes. The first `walk` of them
 * are looked at, the others, and what is no term, are copied. Returns the bytes written; the header lies in `k`. */
size_t rb_pack(struct rb_taught *t, struct rb_packing *k, const uint8_t *p, size_t n, size_t walk,
               uint8_t *out);

#endif
