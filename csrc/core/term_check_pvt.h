/* term_check_pvt.h: what the three parts of the term check share: the walk (term_check.c), the
 * names that an answer may use (term_names.c) and the keys of one map (term_keys.c). */
#ifndef RINGBRIDGE_TERM_CHECK_PVT_H
#define RINGBRIDGE_TERM_CHECK_PVT_H

#include "ringbridge/term_check.h"

enum { RB_EFFORT_BYTES = 64 }; /* to hash so many, or to look for them, counts as one term */

/* --- Names: atoms by their text, pids, ports, references and funs by all of their bytes ------- */

enum rb_name_kind { RB_NAME_UTF8, RB_NAME_LATIN1, RB_NAME_IDENTITY };

struct rb_name {
    const uint8_t *at;
    uint32_t size;
    enum rb_name_kind kind; /* LATIN1 only where a byte is above 127: else the text is UTF-8 too */
};

struct rb_name_entry {
    const uint8_t *at; /* NULL: free */
    uint32_t size;
    uint32_t hash; /* the two low bits: its kind */
};

/* All that one answer may name. Small answers are looked up by walking the request anew for each
 * name; an index is made as soon as that would cost more than a fixed effort. */
struct rb_names {
    struct rb_slice request;
    const struct rb_term_rules *rules;
    struct rb_atom_budget *budget;
    uint64_t effort;             /* bytes walked without an index */
    uint64_t *left;              /* how much of the index may be made just now */
    struct rb_cursor to_index;   /* of the request, while its index is being made */
    const uint8_t *to_index_fun; /* the end of the fun that it is in */
    int indexing;
    struct rb_name_entry *index; /* of the request, and of what was found elsewhere once */
    uint32_t capacity, count;
    uint64_t seed;
};

void rb_names_open(struct rb_names *n, struct rb_slice request, const struct rb_term_rules *rules,
                   struct rb_atom_budget *budget);
void rb_names_close(struct rb_names *n);
/* May the answer use it? 1, 0, -ENOMEM, or -EAGAIN: the index is not whole yet, and `*left` is spent. A new atom is paid for out of the budget. `name` must
 * stay where it is until rb_names_close(). */
int rb_names_allow(struct rb_names *n, const struct rb_name *name);
/* The name of an atom of tag `tag` and text `text` (of any length; not looked at for validity). */
struct rb_name rb_name_of_atom(uint8_t tag, struct rb_slice text);

/* --- Keys ------------------------------------------------------------------------------------- */

struct rb_extent {
    uint32_t begin, end; /* from the answer's begin */
};
/* A comparison that goes on; all zero: none. */
struct rb_keys {
    struct rb_key_slot *slots;
    size_t capacity;
    uint64_t seed;
    uint32_t at;
};
/* Are the keys pairwise different in their bytes? 1, 0, -ENOMEM, or -EAGAIN: the effort is spent, ask again. */
int rb_keys_differ(struct rb_keys *s, const uint8_t *base, const struct rb_extent *keys,
                   uint32_t count, uint64_t *effort);
void rb_keys_close(struct rb_keys *s);

/* --- Hashing under a secret seed: workers choose the keys, so they must not choose the slots -- */

uint64_t rb_hash_seed(void);
uint64_t rb_hash(uint64_t seed, const uint8_t *at, size_t size);

#endif
