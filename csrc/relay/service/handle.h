/* handle.h: what the references say that the relay makes: a mark and a number.
 *
 *      word 0   18 bits of the number (a BEAM's are below 2^18)
 *      word 1   32 bits
 *      word 2   16 bits of mark, two of nothing, 14 bits
 *
 * The mark sets them apart from each other and from those that Python makes. The number of a monitor of ours is the id of what it watches
 * for. The number of a handle, which is what submit_async gives out, is the job's id enciphered: whoever holds it may cancel the
 * job, so nobody can make one up, and yet nothing is kept for it. */
#ifndef RB_RELAY_HANDLE_H
#define RB_RELAY_HANDLE_H

#include "ringbridge/term.h"

#define RB_WATCH_MARK 0x52420000u
#define RB_HANDLE_MARK 0x52430000u

void rb_reference_words(uint32_t mark, uint64_t number, uint32_t words[3]);
/* 0, or -EINVAL: it is of another mark, or of another shape. */
int rb_reference_number(struct rb_slice reference, uint32_t mark, uint64_t *number);
/* Is it a reference of this node in this life? */
int rb_reference_is_of(struct rb_slice reference, struct rb_slice node, uint32_t creation);

/* Speck64/128 (Beaulieu et al., "The SIMON and SPECK Families", 2013): a permutation of 64-bit numbers that nobody follows without its
 * key. */
struct rb_seal {
    uint32_t round[27];
};
void rb_seal_init(struct rb_seal *seal, const uint32_t key[4]);
uint64_t rb_seal(const struct rb_seal *seal, uint64_t number);
uint64_t rb_unseal(const struct rb_seal *seal, uint64_t sealed);

#endif
