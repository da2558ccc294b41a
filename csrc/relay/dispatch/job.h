/* job.h: the table, the deadline heap, the life of a job. */
#ifndef RB_RELAY_JOB_H
#define RB_RELAY_JOB_H

#include "relay/dispatch/queue.h"
#include "relay/dispatch/row.h"
#include "relay/service/answer.h"
#include "relay/service/request.h"
#include "ringbridge/layout.h"

struct rb_account;
struct rb_backlog;
struct rb_conn;
struct rb_extra;
struct rb_monitor;
struct rb_progress;
struct rb_relay;
struct rb_role;
struct rb_subscription;
struct rb_tenant;
struct rb_worker;

enum { JOB_INDEX_BITS = 20 };

/* No watch of a process: those are jobs' ids, which are larger. */
enum { RB_WATCH_LANE = 1 };

enum rb_keyed { RB_KEYED_NOT, RB_KEYED, RB_KEYED_BY_POLICY };

enum rb_job_state {
    RB_JOB_FREE,
    RB_JOB_ARRIVING, /* its payload is still coming in: not accepted yet */
    RB_JOB_DEFERRED, /* accepted, and not in a queue yet (admission.h) */
    RB_JOB_QUEUED,
    RB_JOB_PLACED,    /* in a worker's ring; its caller waits */
    RB_JOB_ABANDONED, /* in a worker's ring; nobody waits */
    RB_JOB_WAITING,   /* for no worker, but for other jobs: its extra knows them */
};

struct rb_job {
    uint64_t id; /* sequence << 20 | index */
    uint8_t state;
    uint8_t detail;
    uint8_t is_term;
    uint8_t keyed;          /* enum rb_keyed */
    uint8_t retry;          /* how often it may yet begin again after its worker's death */
    uint8_t arity;          /* of the submit tuple, while the payload arrives */
    uint8_t verb;           /* of it: enum rb_verb, the same */
    uint8_t kind;           /* enum rb_caller_kind: how its caller is told */
    uint8_t finish;         /* its caller's end does not end it */
    uint8_t uncounted;      /* holds a caller, and is no request: those accepted are others */
    uint8_t paced;          /* deferred by a leaky bucket, not by a policy */
    uint8_t sampled;        /* its hops are timed */
    uint8_t accepts;        /* its answer may come compressed */
    uint8_t apart;          /* it waits apart from its role's queue (role.h) */
    uint8_t summed;         /* payload_crc is known */
    uint64_t stopped_ns;    /* when its cancel word was written; 0: it was not */
    uint32_t index;         /* of an element in its batch */
    struct rb_extra *extra; /* what it has beyond a plain call; NULL: nothing */
    uint8_t
        signals; /* stages of stopping it that were taken: 1 cancel word, 2 SIGTERM, 3 SIGKILL */
    int32_t heap_at; /* -1: not in the deadline heap */
    uint64_t due_ns; /* deadline, or the next stage of stopping it */
    uint64_t arrived_ns, placed_ns;
    uint64_t accepted_ns;          /* since when it waits */
    uint64_t queued_ns, ringed_ns; /* of sampled jobs, by the clock */
    uint64_t run_ns;               /* as its worker says */
    struct rb_role *role;
    struct rb_worker *worker;
    uint64_t position;                    /* in the worker's request ring */
    struct rb_progress *progress;         /* of an asynchronous job, once it has told of any */
    struct rb_subscription *subscription; /* NULL: no stream, or nobody hears of it any more */
    uint64_t parts_granted, parts_sent;   /* by the relay to its worker; by that one */
    struct rb_job *next;                  /* free list; among the callers of a run */
    struct rb_queued queued;              /* where it waits in a queue */
    uint64_t key;                    /* hash of the key that it named, or that its policy gave it */
    struct rb_worker *home;          /* in whose own queue it waits; NULL: in the role's */
    struct rb_in_row in_row;         /* among the jobs of its key, in an ordered role */
    struct rb_tenant *tenant;        /* held; NULL: it named none */
    struct rb_account *node, *purse; /* its calling node's and its tenant's; NULL: not counted */
    struct rb_backlog *backlog;      /* in which it is, while deferred; */
    struct rb_job *earlier,
        *later;          /* its neighbours there; or among those that are to be told (shared.h) */
    uint64_t entered_ns; /* when it was let into its queue */
    struct rb_conn *arriving; /* from which its payload comes, while it does */
    uint64_t arriving_left;   /* bytes of it that were missing when it was last looked at */
    struct rb_conn *conn;     /* where the answer goes; NULL: nowhere any more */
    struct rb_job *next_of_conn, *prev_of_conn;
    struct rb_job *next_of_role, *prev_of_role;
    struct rb_monitor *monitor; /* the caller's own, or NULL */
    uint64_t watch; /* ours on the caller, or RB_WATCH_LANE: its lane is told; 0: none */
    uint32_t pool_first, pool_count; /* payload blocks; count 0: inline */
    uint32_t payload_crc;            /* of the payload alone, if it was summed as it was copied */
    struct rb_request request;
    uint16_t pid_size, tag_size, alias_at,
        alias_size; /* of caller[]: pid, tag; the alias inside the tag */
    uint16_t caller_capacity;
    uint8_t *caller; /* caller_inline or the heap */
    uint8_t caller_inline[160];
};

/* Behind another one of its key: it is queued, but stands in no queue. */
static inline int rb_job_is_behind(const struct rb_job *j) {
    return j->in_row.row && !rb_row_is_first(&j->in_row);
}
uint8_t *rb_job_payload(const struct rb_job *j); /* in the pool, or in its envelope */
/* Accepted, and not answered yet. */
static inline int rb_job_is_open(const struct rb_job *j) {
    return j->state == RB_JOB_DEFERRED || j->state == RB_JOB_QUEUED || j->state == RB_JOB_PLACED ||
           (j->state == RB_JOB_WAITING && j->role); /* the head of a batch is no job of its own */
}

struct rb_job *rb_job_new(struct rb_relay *r);
void rb_job_join(struct rb_job *j, struct rb_role *role); /* what it is a job of, to its end */
void rb_job_free(struct rb_relay *r, struct rb_job *j);
struct rb_job *rb_job_find(const struct rb_relay *r, uint64_t id);
int rb_job_set_caller(struct rb_job *j, struct rb_conn *c, const struct rb_from *from);
struct rb_caller rb_job_caller(const struct rb_job *j);
void rb_job_due(struct rb_relay *r, struct rb_job *j, uint64_t due_ns); /* 0: never */
void rb_job_accept(struct rb_relay *r, struct rb_job *j); /* counted; deferred until */
void rb_job_queue(struct rb_relay *r, struct rb_job *j);  /* it goes to its role's queue */
void rb_job_wait(struct rb_relay *r, struct rb_job *j);   /* counted, for other jobs */
void rb_job_requeue(struct rb_relay *r,
                    struct rb_job *j); /* back to about where it was, unstarted */
void rb_job_answered(struct rb_relay *r, struct rb_job *j,
                     enum rb_reason reason); /* forgets the caller; frees unless placed */
void rb_job_cancel(struct rb_relay *r, struct rb_job *j,
                   enum rb_reason reason); /* nobody waits, or the deadline passed */
void rb_job_arrives(struct rb_relay *r, struct rb_job *j, struct rb_conn *from,
                    uint64_t bytes);                        /* its payload will, by and by */
void rb_job_orphaned(struct rb_relay *r, struct rb_job *j); /* its caller has gone */
void rb_jobs_due(
    struct rb_relay *r); /* deadlines and stages that have come, some thousand at a time */
uint64_t rb_jobs_next_due(const struct rb_relay *r); /* 0: none */

#endif
