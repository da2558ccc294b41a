/* anchor.h: consistent hashing: which worker a key belongs to, so that few keys move when workers come and go. Pure.
 *
 * AnchorHash (Mendelson, Vargaftik, Barabash, Lorenz, Keslassy, Orda: "AnchorHash: A Scalable Consistent Hash", IEEE/ACM Transactions on
 * Networking, 2021). Keys fall on a fixed anchor of buckets; those that work have an owner, and a key that falls on one that does
 * not is hashed again among the buckets that worked when that one was taken away, until it meets one that works. From this follows:
 *   a bucket that goes    moves its own keys alone, evenly over those that are left
 *   a bucket that comes   draws an even share from each of the others and moves no other key; it takes the place that was left last,
 *                         so that the keys of a worker that died come back to the one that was started in its stead
 *   a look                costs 1 + ln(buckets / working) hashes at most, in the mean; coming and going cost a few stores
 * A ring of points would move as little only with hundreds of points a worker, each to be sorted in when one comes.
 *
 * A member with a weight holds so many buckets. */
#ifndef RB_RELAY_ANCHOR_H
#define RB_RELAY_ANCHOR_H

#include <stdint.h>

enum { RB_ANCHOR_BUCKETS = 4096 };

/* Part of whoever owns keys. */
struct rb_anchor_member {
    uint16_t count; /* of its buckets */
    uint16_t first; /* the one it got last; the others by next[] */
};

struct rb_anchor {
    uint32_t working, spare;             /* together: all buckets */
    uint16_t reserve[RB_ANCHOR_BUCKETS]; /* those that do not work; the next to work is last */
    uint16_t left[RB_ANCHOR_BUCKETS];  /* A: 0: it works; else how many worked after it had gone */
    uint16_t at[RB_ANCHOR_BUCKETS];    /* W: the working ones, in order; */
    uint16_t place[RB_ANCHOR_BUCKETS]; /* L: where in that order each is, or was */
    uint16_t heir[RB_ANCHOR_BUCKETS];  /* K: who took its place in that order */
    uint16_t next[RB_ANCHOR_BUCKETS];  /* of the same owner */
    struct rb_anchor_member *owner[RB_ANCHOR_BUCKETS];
};

void rb_anchor_init(struct rb_anchor *a);
/* The member holds `count` buckets from here on, more or fewer than before; fewer than asked for where none is left. */
void rb_anchor_set(struct rb_anchor *a, struct rb_anchor_member *m, uint32_t count);
/* Whose key this is. NULL: nobody holds a bucket. `key`: a hash already, evenly spread. */
struct rb_anchor_member *rb_anchor_owner(const struct rb_anchor *a, uint64_t key);

#endif
