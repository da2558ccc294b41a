/* cache.h: the atom cache of a distribution header, as its receiver (dist-protocol.md, 3.3 and 3.4).
 *
 *      N u8 | N/2 + 1 bytes of flags, a nibble an atom, low one first | N times: slot u8 [length u8 or u16, text]
 *
 * A cache holds the atoms of one connection and direction, in 2048 slots. Each header names up to 255 of them, old or new, and
 * tag 82 in the signal's terms is an index into that list. The list is the signal's own: later headers may give its slots to
 * other atoms while its fragments are still coming. */
#ifndef RB_RELAY_CACHE_H
#define RB_RELAY_CACHE_H

#include <stddef.h>
#include <stdint.h>

enum {
    RB_CACHE_SLOTS = 2048,
    RB_CACHE_REFERENCES_MAX = 255,
    RB_ATOM_BYTES_MAX = 1020, /* 255 characters of 4 bytes */
    RB_TAG_CACHE_REFERENCE = 82,
};
/* The longest header: every atom new and as long as can be. */
#define RB_CACHE_HEADER_MAX \
    (1 + RB_CACHE_REFERENCES_MAX / 2 + 1 + RB_CACHE_REFERENCES_MAX * (3 + RB_ATOM_BYTES_MAX))

/* One atom as it stands in a term, with its tag. Shared by slots and lists; freed with the last of them. */
struct rb_cached_atom {
    uint32_t owners;
    uint16_t size, capacity;
    uint8_t term[];
};

/* Puts an atom into a slot. One that is nobody else's gives its memory: atoms that take turns there cost none. 0 or -ENOMEM. */
int rb_cached_atom_enter(struct rb_cached_atom **slot, const uint8_t *text, size_t size);
void rb_cached_atom_release(struct rb_cached_atom *a);

struct rb_atom_list {
    uint32_t count;
    struct rb_cached_atom *atom[RB_CACHE_REFERENCES_MAX];
};

struct rb_atom_cache {
    struct rb_cached_atom *slot[RB_CACHE_SLOTS];
};

/* Reads a header's references from `p`, of which `have` bytes are here and `length` will come: fills the cache, and `list`,
 * which must be empty. Returns the bytes that it takes; 0 when more must come first (nothing has changed then); -EPROTO or
 * -ENOMEM, and the connection is to be closed. */
int64_t rb_cache_header(struct rb_atom_cache *cache, struct rb_atom_list *list, const uint8_t *p,
                        size_t have, uint64_t length);
void rb_cache_free(struct rb_atom_cache *cache);
void rb_atom_list_clear(struct rb_atom_list *list);
/* A list of its own for a signal that comes in pieces: `list` is empty afterwards. NULL: no memory, and it is as before. */
struct rb_atom_list *rb_atom_list_move(struct rb_atom_list *list);
void rb_atom_list_free(struct rb_atom_list *list);

#endif
