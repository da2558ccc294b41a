/* row.h: jobs of one key run one after the other, in the order in which they came. Pure.
 *
 * A row holds all jobs of one key that are not over yet. Only its first may stand in a queue or be with a worker; the others
 * wait behind it, and the next one comes forward when the first is over: answered and given back by its worker, cancelled in the
 * queue, expired. A first whose worker died before it started stays the first and stands again, so nothing overtakes it. That holds
 * whatever a worker does with the jobs in its ring, and a row may go on with any worker: the last one has done with it.
 *
 * Keys are compared by their 64-bit hash alone: two keys that share one share a row, which costs time and no order. */
#ifndef RB_RELAY_ROW_H
#define RB_RELAY_ROW_H

#include <stdint.h>

struct rb_row;

/* Part of a job. All zero: in no row. */
struct rb_in_row {
    struct rb_row *row;
    struct rb_in_row *next, *prev;
};

struct rb_row {
    uint64_t key;
    struct rb_in_row *first, *last;
    struct rb_row *next; /* in its bucket, or free */
};

struct rb_rows {
    struct rb_row **buckets; /* a power of two of them; NULL before the first row */
    uint32_t bucket_count, count;
    struct rb_row *free;
    struct rb_row **chunks;
    uint32_t chunk_count;
    struct rb_row common; /* of all keys for which there was no memory */
};

/* All zero is a table without rows. */
void rb_rows_fini(struct rb_rows *t);
/* To the end of the row of `key`. 1: it is the first and may go; 0: it waits behind another. */
int rb_row_join(struct rb_rows *t, struct rb_in_row *j, uint64_t key);
/* It is over. The one that may go now, or NULL. */
struct rb_in_row *rb_row_leave(struct rb_rows *t, struct rb_in_row *j);
static inline int rb_row_is_first(const struct rb_in_row *j) { return j->row->first == j; }

#endif
