/* admission.h: which jobs are taken in, which wait outside the queue until they can be, and which are refused: by which rule.
 *
 * The rules, in this order; the first that a job breaks is the one that is counted:
 *
 *   depth      jobs that wait in the role's queue; of these, from one node; of one tenant. And of a node or tenant in all queues
 *   adaptive   jobs of the role in flight (adaptive.h)
 *   rate       of the role, the node, the tenant (limiter.h): a job takes from all three or from none
 *   pool, jobs room for the payload, and in the table of jobs
 *
 * A job that breaks one is treated as its role says (`on_full`):
 *
 *   reject       told {overloaded, ...} with a time after which it is worth another try
 *   drop_oldest  where the role is full (depth, adaptive): the oldest of the lowest band that waits is told so in its stead, unless it
 *                goes before the new one; rates, nodes and tenants: as reject, since dropping another's job makes no room for this one
 *   defer        accepted, and kept outside the queue: at most defer_max of the role, at most defer_ms each, its deadline running. Who
 *                breaks more than one rule waits for one after the other
 *
 * Jobs that a leaky bucket holds back are deferred whatever the policy is, up to its `burst`, until their deadline: that is what the
 * bucket is. Deferred jobs come forward as they arrived, and nobody overtakes those of his own rule.
 *
 * A large payload is looked at twice: at its head, when role, node and size are known, and at its end with its options. What limits take
 * is taken at the end alone, so there is nothing to give back when a payload never comes. */
#ifndef RB_RELAY_ADMISSION_H
#define RB_RELAY_ADMISSION_H

#include "relay/dispatch/account.h"
#include "relay/dispatch/adaptive.h"
#include "ringbridge/relay.h"

struct rb_caller;
struct rb_conn;
struct rb_job;
struct rb_relay;
struct rb_role;

struct rb_role_admission {
    int bounded; /* by more than its depth */
    struct rb_limiter limiter;
    struct rb_adaptive adaptive;
    struct rb_backlog backlog;
    uint32_t kept;     /* its jobs in backlogs, of whatever account */
    uint32_t deferred; /* of these, those that its policy keeps, and not a leaky bucket */
    /* How fast it drains: looked at when somebody is refused. */
    uint64_t served, served_ns, each_ns;
};

enum rb_outcome { RB_ADMIT, RB_ADMIT_DROPPING, RB_ADMIT_LATER, RB_REFUSE };
struct rb_verdict {
    enum rb_outcome outcome;
    struct rb_conn *from;  /* whose job it is to be */
    enum rb_reason reason; /* RB_REFUSE: OVERLOADED by `rule`, CIRCUIT_OPEN, DRAINING, NO_WORKER */
    enum rb_rule rule;
    uint64_t retry_ms;
    uint64_t wait_ns;          /* a rate's: until it has room; else 0: until a job leaves */
    struct rb_backlog *behind; /* RB_ADMIT_LATER: where it waits */
    int paced;                 /* and that it does so for a leaky bucket */
    int bounded;               /* 0: by depth alone, and there is room: nothing else is set */
};

/* 0, or -EINVAL: a number out of its range. */
int rb_admission_check(const struct rb_admission_config *config);
/* What is to become of a job for this role whose caller is on `c`. `tenant` NULL: its options are not known yet. Takes nothing. */
void rb_admission_judge(struct rb_relay *r, struct rb_role *role, struct rb_conn *c,
                        const struct rb_slice *tenant, uint32_t priority, struct rb_verdict *v);
/* The job, with its request and options in it, is accepted as judged in this moment: queued, or kept for later. */
void rb_admission_enter(struct rb_relay *r, struct rb_job *j, const struct rb_slice *tenant,
                        const struct rb_verdict *v);
/* It is told why, and counted. */
void rb_admission_refuse(struct rb_relay *r, struct rb_role *role, const struct rb_caller *to,
                         const struct rb_verdict *v);
/* No room in the role's pool, or in the table of jobs. */
void rb_admission_refuse_room(struct rb_relay *r, struct rb_role *role, const struct rb_caller *to,
                              enum rb_rule rule);

/* A caller that was accepted is answered OVERLOADED all the same: by which rule. */
void rb_admission_count_rule(struct rb_relay *r, struct rb_role *role, enum rb_rule rule);

/* A deferred job waits no more: it has been answered. */
void rb_admission_forget(struct rb_relay *r, struct rb_job *j);
/* Its time outside the queue is over, its deadline is not: it is told. */
void rb_admission_expire(struct rb_relay *r, struct rb_job *j);
/* Lets in what can be. How many went to a queue. */
int rb_admission_round(struct rb_relay *r);
/* Answers all deferred jobs of the role. */
void rb_admission_give_up(struct rb_relay *r, struct rb_role *role, enum rb_reason reason,
                          uint64_t retry_ms);
/* A job came into a queue of its role (1) or left it (-1). */
void rb_admission_count(const struct rb_job *j, int32_t change);
/* A job that was served has ended. */
void rb_admission_ended(struct rb_relay *r, const struct rb_job *j);
/* The role has its first configuration; or another one, after `before`. */
void rb_admission_init(struct rb_role *role);
void rb_admission_configured(struct rb_relay *r, struct rb_role *role,
                             const struct rb_admission_config *before);

#endif
