/* term_check.h: is an answer's term fit to be sent to a BEAM? (DESIGN.md, section 3)
 *
 * One ill-formed term takes a peer's whole connection down, unbounded atoms take the peer down, so a worker's term is held against these
 * rules on a private copy that no worker can write, before it leaves. */
#ifndef RINGBRIDGE_TERM_CHECK_H
#define RINGBRIDGE_TERM_CHECK_H

#include "ringbridge/term.h"

struct rb_term_rules {
    uint32_t depth_max;          /* nesting of tuples, lists, maps and funs; at most 1000 */
    uint64_t terms_max;          /* terms in all */
    const struct rb_slice *atoms; /* texts that the role declares */
    uint32_t atoms_count;
};

/* Atoms that one worker has brought into the world by itself; bounded for its life. */
struct rb_atom_budget {
    uint32_t left;    /* how many new ones it may still bring */
    uint8_t *known;   /* texts already paid for: length u16, bytes, ... ; owned */
    size_t known_bytes;
};
void rb_atom_budget_fini(struct rb_atom_budget *b);

/* Walks `answer` (external term bytes without 131, private memory). `request` is the request's term bytes (trusted memory, well-formed; empty when the request
 * was raw). Returns 0, or -EPROTO with `*rule` set to a short constant text such as "term_depth". Rules:
 *   term_cut_short, term_trailing_bytes, term_tag (unknown, local, native record, compressed), term_depth, term_count,
 *   term_atom_text (over 255 characters, not UTF-8), term_atom_new (not in the request, not declared, budget spent),
 *   term_identity (a pid, port, reference or fun that the request did not carry), term_float (NaN or infinite), term_bignum (over 524280 bytes),
 *   term_bits (bit binary: bits 1..7 and not empty), term_map_key (duplicate, or a key too complex to tell),  term_tuple (over 2^24-1) */
int rb_term_check(struct rb_slice answer, struct rb_slice request, const struct rb_term_rules *rules,
                  struct rb_atom_budget *budget, const char **rule);

#endif
