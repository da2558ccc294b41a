/* affinity.h: jobs with a key wait for the worker to which their key belongs.
 *
 * A key belongs to a worker by consistent hashing (anchor.h); the job waits in that worker's own queue and is placed when the worker has
 * room. A worker that has nothing to do and nothing waiting takes half of what waits in the longest of these queues. In an ordered
 * role jobs of one key form a row (row.h), of which only the first waits in a queue: so a row goes with any worker, and
 * nothing that moves jobs about can break its order.
 *
 * Which jobs have a key: those that name one (`key:`); by the policy consistent_hash all others too, by their payload; by the policy
 * sticky by their caller. Nothing of this is made before a role's first job with a key. */
#ifndef RB_RELAY_AFFINITY_H
#define RB_RELAY_AFFINITY_H

#include "relay/dispatch/anchor.h"
#include "relay/dispatch/levels.h"
#include "relay/dispatch/queue.h"

struct rb_job;
struct rb_relay;
struct rb_role;
struct rb_worker;

/* Of a role. */
struct rb_affinity {
    struct rb_anchor anchor;
    struct rb_levels lengths; /* workers by what waits in their own queues */
    struct rb_levels ready;   /* those that have something there and room; one level */
    struct rb_levels idle;    /* those that have nothing at all; one level */
    struct rb_heap oldest;    /* those that have something there, by who of it is given up first */
};

/* Of a worker. */
struct rb_affine {
    struct rb_queue own;
    struct rb_anchor_member member;
    struct rb_levelled length, ready, idle;
    struct rb_rank oldest; /* not after where it belongs: jobs age and leave without moving it */
    int has_oldest;        /* it is in that heap */
};

void rb_affine_init(struct rb_affine *a);
/* The role's policy gives jobs without a key one. */
void rb_affinity_key(const struct rb_role *role, struct rb_job *j);
/* The queue in which this job with a key is to wait, and its worker in j->home; NULL: the role's own, while nobody is ready. */
struct rb_queue *rb_affinity_home(struct rb_role *role, struct rb_job *j);
/* So many buckets of the anchor are its own from here on. What waits for it stays. */
void rb_affinity_weigh(struct rb_worker *w, uint32_t buckets);
/* Something of w has changed: its own queue, its room, its jobs in flight. */
void rb_affinity_look(struct rb_worker *w);
/* One that has jobs of its own and room; one that has nothing to do. NULL: none. */
struct rb_worker *rb_affinity_ready(const struct rb_role *role);
struct rb_worker *rb_affinity_idle(const struct rb_role *role);
/* Of all that wait for a worker of theirs, the one to give up when something must (queue.h). NULL: nobody. */
struct rb_job *rb_affinity_oldest(const struct rb_role *role);
/* Half of the longest queue goes to `thief`. How many jobs. */
uint32_t rb_affinity_steal(struct rb_relay *r, struct rb_role *role, struct rb_worker *thief);

#endif
