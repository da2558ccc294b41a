/* term_check.h: is an answer's term fit to be sent to a BEAM?
 *
 * One ill-formed term takes a peer's whole connection down, unbounded atoms take the peer down,
 * so a worker's term is held against these rules on a private copy that no worker can write,
 * before it leaves. */
#ifndef RINGBRIDGE_TERM_CHECK_H
#define RINGBRIDGE_TERM_CHECK_H

#include "ringbridge/term.h"

struct rb_term_rules {
    uint32_t depth_max;           /* nesting of tuples, lists, maps and funs; at most 1000 */
    uint64_t terms_max;           /* terms in all; each byte of a STRING_EXT is one */
    const struct rb_slice *atoms; /* texts that the role declares */
    uint32_t atoms_count;
};

/* Atoms that one worker has brought into the world by itself; bounded for its life. */
struct rb_atom_budget {
    uint32_t left;  /* how many new ones it may still bring */
    uint8_t *known; /* texts already paid for: length u16, bytes, ... ; owned */
    size_t known_bytes;
};
void rb_atom_budget_fini(struct rb_atom_budget *b);

/* Walks `answer` (external term bytes without 131, private memory). `request` is the request's
 * term bytes (trusted memory, well-formed; empty when the request was raw). Returns 0; or
 * -EPROTO, or -ENOMEM, with `*rule` set to a short constant text:
 *
 *   term_cut_short        a term, or a count of terms, runs past the end
 *   term_trailing_bytes   more than one term
 *   term_tag              unknown, local, native record, compressed, FLOAT_EXT (text)
 *   term_depth, term_count  above the rules
 *   term_tuple            over 2^24 - 1 elements
 *   term_float            NaN or infinite
 *   term_bignum           over 524280 bytes
 *   term_bits             a bit binary that is empty, or whose last byte has not 1..7 bits
 *   term_atom_text        over 255 characters, or not UTF-8 where its tag says so
 *   term_atom_new         not in the request, not declared, none that every BEAM has, budget spent
 *   term_identity         a pid, port, reference or fun whose bytes the request did not carry
 *   term_map_key          a key twice, or a key in which a term has not the form that a BEAM
 * writes, or that holds a fun, -0.0 or a map of several pairs: then nobody can tell no_memory
 * (-ENOMEM) for the index of a large answer's names or keys
 *
 * What is accepted, binary_to_term of any OTP from 25 on accepts too, given that the request's own
 * identities are such as the peer takes. Memory: nothing is allocated for small answers; beyond
 * that 8 to 56 bytes for each key of an open map, 16 to 64 for each name of the request (2^21 at
 * most). */
int rb_term_check(struct rb_slice answer, struct rb_slice request,
                  const struct rb_term_rules *rules, struct rb_atom_budget *budget,
                  const char **rule);

/* The same in portions, so that a large term keeps nobody waiting: all that is given to open() stays as
 * it is until close(). NULL: no memory. */
struct rb_term_walk;
struct rb_term_walk *rb_term_walk_open(struct rb_slice answer, struct rb_slice request,
                                       const struct rb_term_rules *rules,
                                       struct rb_atom_budget *budget);
/* As rb_term_check(), or -EAGAIN when `*effort` is spent, which is about one for each term (some
 * 50 to 100 ns) and the last of which may cost as much as an atom or an identity. What is left of it is told. */
int rb_term_walk_on(struct rb_term_walk *walk, uint64_t *effort, const char **rule);
void rb_term_walk_close(struct rb_term_walk *walk);

#endif
