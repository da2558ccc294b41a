/* lane.h: jobs of one key run one after the other, in the order in which they came. Pure.
 *
 * A lane is the row of all jobs of one key that are not over yet. Only its first may stand in a queue or be with a worker; the others
 * wait behind it, and the next one comes forward when the first is over: answered and given back by its worker, cancelled in the
 * queue, expired. A first whose worker died before it started stays the first and stands again, so nothing overtakes it. That holds
 * whatever a worker does with the jobs in its ring, and a lane may go on with any worker: the last one has done with it.
 *
 * Keys are compared by their 64-bit hash alone: two keys that share one share a lane, which costs time and no order. */
#ifndef RB_RELAY_LANE_H
#define RB_RELAY_LANE_H

#include <stdint.h>

struct rb_lane;

/* Part of a job. All zero: in no lane. */
struct rb_laned {
    struct rb_lane *lane;
    struct rb_laned *next, *prev;
};

struct rb_lane {
    uint64_t key;
    struct rb_laned *first, *last;
    struct rb_lane *next; /* in its bucket, or free */
};

struct rb_lanes {
    struct rb_lane **buckets; /* a power of two of them; NULL before the first lane */
    uint32_t bucket_count, count;
    struct rb_lane *free;
    struct rb_lane **chunks;
    uint32_t chunk_count;
    struct rb_lane common; /* of all keys for which there was no memory */
};

/* All zero is a table without lanes. */
void rb_lanes_fini(struct rb_lanes *t);
/* To the end of the row of `key`. 1: it is the first and may go; 0: it waits behind another. */
int rb_lane_join(struct rb_lanes *t, struct rb_laned *j, uint64_t key);
/* It is over. The one that may go now, or NULL. */
struct rb_laned *rb_lane_leave(struct rb_lanes *t, struct rb_laned *j);
static inline int rb_lane_is_first(const struct rb_laned *j) { return j->lane->first == j; }

#endif
