/* shared.h: callers with the same dedupe key share one run and its answer.
 *
 * A key is a role's, within a tenant. The job that runs, the run, has no caller of its own; each caller is held by a job record
 * that waits for it (RB_JOB_WAITING) and is counted, watched, cancelled and timed like any other. Who joins brings its own deadline and
 * its own wish for details; what the run was given (opcode, priority, deadline, tenant) came with the first. When the last caller
 * leaves, the run is cancelled.
 *
 * What the handler said, {ok, ..} or {job_failed, ..}, is kept for `ttl` after it: an answer that got lost on its way can be asked
 * for again. Other ends say nothing about the work, and who comes after one begins anew. Kept answers are bounded in bytes; the
 * soonest to expire makes room. */
#ifndef RB_RELAY_SHARED_H
#define RB_RELAY_SHARED_H

#include "relay/dispatch/heap.h"
#include "relay/service/submit.h"

struct rb_shared;

enum {
    RB_SHARED_BUCKETS = 1024,
    RB_SHARED_MAX = 1 << 16,      /* keys at once, running or kept */
    RB_SHARED_CALLERS_MAX = 1024, /* of one run */
};

struct rb_shares_by_key { /* all zero: none */
    struct rb_shared *buckets[RB_SHARED_BUCKETS];
    struct rb_heap kept; /* by the time at which they expire */
    uint32_t count;
    uint64_t kept_bytes;
};

/* What is known by the key that the options name; NULL: nothing. */
struct rb_shared *rb_shared_find(struct rb_relay *r, const struct rb_role *role,
                                 const struct rb_options *o);
/* 0, or -EEXIST: the key stands for other work. */
int rb_shared_agrees(const struct rb_shared *known, struct rb_relay *r, const struct rb_options *o,
                     const struct rb_payload *payload);
/* The caller of `j`, which is bound, has its part in what is known, or is the first: then `j` holds the payload, and gives it away.
 * It runs as judged. Whatever happens, `j` is taken care of. */
void rb_shared_join(struct rb_relay *r, struct rb_job *j, const struct rb_submit *s,
                    struct rb_shared *known, const struct rb_payload *payload,
                    const struct rb_verdict *v);

/* The answer of a run, in up to three pieces: without details. NULL relay: nobody waits for it. */
struct rb_relay *rb_shared_relay(const struct rb_shared *sh);
void rb_shared_put(struct rb_shared *sh, const struct rb_slice pieces[3]);
/* A run is over: its callers are to be told, and the answer is kept or not. */
void rb_shared_over(struct rb_relay *r, struct rb_job *run, enum rb_reason reason);
/* Those on this connection whose runs are over, as far as it has room: a thousand may share one large answer. */
void rb_shared_tell(struct rb_conn *c);
/* 1: the caller waits for its socket alone. */
int rb_shared_is_over(const struct rb_shared *sh);
uint32_t rb_shared_callers(const struct rb_shared *sh); /* that wait for the run */
/* A caller leaves before. */
void rb_shared_leave(struct rb_relay *r, struct rb_job *caller, enum rb_reason reason);
void rb_shared_expire(
    struct rb_relay *r); /* now and then: gives back what nobody may have any more */
void rb_shared_fini(struct rb_relay *r);

#endif
