/* share.h: what one tenant has waiting in one band of one queue, and how much it has had.
 *
 * Start-time fair queueing (Goyal, Vin, Cheng 1996). A share's `tag` grows by 1/weight with each of
 * its jobs that is taken, and the share with the smallest tag is next. One that had nothing waiting
 * starts at the band's clock: it can neither save up its turns nor be punished for what it had when
 * nobody else asked. The clock follows the tags and, unlike the original's, moves on with every job
 * by 1/(sum of the weights that wait): else an endless row of new names, each starting at a clock
 * that stands still, would keep a waiting tenant waiting.
 *
 * Bound: a tenant of weight w has its next turn after at most 2 W/w + 3 W/u turns of others and one,
 * W the sum and u the least of the weights that wait meanwhile. Its tag is at most 1/w past the
 * clock, so after W/w turns whoever begins to wait stands behind it. Those who waited before have
 * their turns up to its tag: W/w up to the clock's place of now, one more each (W/u), and what they
 * are behind the clock. That, weighed and summed, changes by no turn but the last of one that
 * leaves, which adds one job's at most, and only while the one furthest behind is less than 1/u
 * behind: so it stays below W/u, and W/u more for those before the clock.
 *
 * Rows for tenants come from one table (bounded); each band holds the one of jobs without a tenant.
 * A row that is idle keeps its tag until the row is needed elsewhere: a tenant with one job at a
 * time is held to its weight too. No row left: the job waits in the share of jobs without. */
#ifndef RB_RELAY_SHARE_H
#define RB_RELAY_SHARE_H

#include "relay/dispatch/line.h"

/* Tag of one job at weight 1: all weights up to 16 and many above divide it, so that their turns come out even. */
#define RB_SHARE_UNIT 720720ull
/* A band that is empty then begins anew; it has 2^44 jobs' time to be so. */
#define RB_SHARE_CLOCK_FAR (1ull << 60)

struct rb_share {
    struct rb_rank turn; /* key: the tag; tie: when it last began to wait */
    struct rb_line line; /* its jobs, the most urgent first */
    uint32_t count;
    uint32_t weight;       /* as it is counted in the band */
    uint64_t band, owner;  /* numbers of the band and of the tenant; owner 0: jobs without one */
    struct rb_share *next; /* in its bucket, or free */
    struct rb_share *younger, *older; /* among the idle rows */
};

/* The rows of all queues. */
struct rb_shares {
    struct rb_share **buckets, **chunks;
    struct rb_share *free, *oldest_idle, *youngest_idle;
    uint32_t chunk_count, rows_max;
    uint64_t bands; /* numbers given out */
};

int rb_shares_init(struct rb_shares *s, uint32_t rows_max); /* 0, or -ENOMEM */
void rb_shares_fini(struct rb_shares *s);
/* The row of (band, owner), or NULL: none is to be had. A row found idle is the caller's to use: it
 * has left the idle ones, or go back to them by rb_share_idle(). */
struct rb_share *rb_share_of(struct rb_shares *s, uint64_t band, uint64_t owner);
void rb_share_idle(struct rb_shares *s, struct rb_share *row);

#endif
