/* queue.h: jobs that wait, and which of them is next. Pure: no clock, no relay, no allocation.
 *
 *   band      critical, high, normal, low: a job in a higher one goes first. After each `aging_ms`
 *             in its band a job moves one up, so that whoever waits reaches the highest.
 *   tenant    within a band tenants take turns by weight (share.h); jobs that name none are one.
 *   urgency   within a tenant's share the earliest deadline first, but nobody is passed for longer
 *             than `patience_ms`: ordered by min(deadline, accepted + patience).
 *   id        then as they came.
 *
 * A job that comes back unstarted (rb_job_requeue) keeps band, acceptance and deadline: it returns
 * to about where it was by the same rules.
 *
 * No starvation (tests/test_relay_fairness.c): a waiting job is in the highest band after at most
 * 3 * aging_ms, and its urgency is at most accepted + patience_ms. From then on no newcomer of its
 * tenant passes it, and other tenants do so only in their turns, which are counted (share.h). So
 * after max(3 * aging_ms, patience_ms) it waits for no more jobs than its role's queue may hold;
 * beside other tenants, for no more turns of its own than its tenant has jobs before it.
 *
 * Cost: each operation O(log of the jobs that came out of order, and of the tenants), and O(1) for
 * jobs of one timeout without tenants. */
#ifndef RB_RELAY_QUEUE_H
#define RB_RELAY_QUEUE_H

#include "relay/dispatch/share.h"
#include "ringbridge/dispatch.h"

struct rb_job;

enum { RB_BANDS = 4 };
#define RB_QUEUE_NEVER (1ull << 62) /* later than any clock shows; may be added to a time */

/* In each job: where it stands. */
struct rb_queued {
    struct rb_rank urgency; /* in its share; tie: the job's id */
    struct rb_rank age;     /* in its band; key: since when it is there */
    struct rb_share *share;
    uint8_t band; /* now; the one that it asked for is the request's priority */
};

struct rb_band {
    struct rb_heap turns; /* shares that have something waiting, the next one first */
    struct rb_share own;  /* of jobs without a tenant */
    struct rb_line ages;  /* its jobs, the longest here first */
    uint64_t clock;       /* share.h */
    uint64_t weights;     /* sum over `turns` */
    uint64_t number;      /* among all bands, once it has seen a tenant; 0: not yet */
};

struct rb_queue {
    uint64_t aging_ns, patience_ns; /* RB_QUEUE_NEVER: none */
    uint64_t moves_ns;              /* nobody moves up before */
    uint64_t aged_ns;               /* when that was last looked at */
    uint64_t waits;                 /* shares that began to wait: the tie of `turn` */
    uint32_t count;                 /* jobs */
    uint32_t occupied;              /* bit b: band b holds some */
    struct rb_band bands[RB_BANDS];
};

/* Nothing to undo; a queue must be empty before its memory goes. */
void rb_queue_init(struct rb_queue *q, const struct rb_order_config *config);
/* Other numbers, for what waits too: O(count log count). `now`: ns of the relay's clock. */
void rb_queue_configure(struct rb_queue *q, const struct rb_order_config *config, uint64_t now);
void rb_queue_push(struct rb_queue *q, struct rb_job *j, uint64_t now);
/* Who is next, or NULL. Moves up those whose time in their band is over, a thousand at a time. */
struct rb_job *rb_queue_first(struct rb_queue *q, uint64_t now);
/* Out of the queue, whoever it is and wherever it stands: it has been answered, or goes to another
 * queue. */
void rb_queue_remove(struct rb_queue *q, struct rb_job *j);
/* The same for a job that goes to a worker: it counts as its tenant's turn. */
void rb_queue_take(struct rb_queue *q, struct rb_job *j);
/* The one to give up when something must: of the lowest band that holds any, who has been in it for
 * longest. NULL: empty. */
struct rb_job *rb_queue_oldest(const struct rb_queue *q);
/* Of two waiting jobs, of one queue or of two: 1 when `a` goes before `b` by band, urgency and id
 * (tenants' turns apart, which only one queue knows). */
int rb_queue_before(const struct rb_job *a, const struct rb_job *b);
/* The same for giving up: 1 when `a` is of a lower band, or has been in it for longer. */
int rb_queue_older(const struct rb_job *a, const struct rb_job *b);

#endif
