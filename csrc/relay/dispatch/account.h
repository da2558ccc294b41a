/* account.h: what each calling node, and each tenant, has asked of all roles together, and may.
 *
 * One table, by kind and name. An account that nobody holds stays until its place is needed: a bucket that was emptied must not be full
 * again because its owner sent one job at a time. So made-up names take the places of those that were quiet for longest, and no more
 * than RB_ACCOUNTS_MAX are ever kept; where all are held, a new name goes without one. */
#ifndef RB_RELAY_ACCOUNT_H
#define RB_RELAY_ACCOUNT_H

#include "relay/dispatch/limiter.h"
#include "ringbridge/term.h"

struct rb_job;

enum { RB_ACCOUNTS_MAX = 8192, RB_ACCOUNT_ROLES = 64, RB_ACCOUNT_BUCKETS = 4096 };

/* Accepted jobs that are not in a queue yet, in the order in which they came: they wait for what their rule says. */
struct rb_backlog {
    struct rb_job *first, *last;
    uint32_t count;
    int listed; /* on the relay's list of those that hold any */
    struct rb_backlog *next, *prev;
};
struct rb_backlogs { /* that list, looked at in turn */
    struct rb_backlog *first, *last;
    uint32_t count;
};

struct rb_account {
    uint32_t kind;                                  /* enum rb_account_kind */
    uint32_t held;                                  /* by a connection, by jobs */
    uint32_t waiting, waiting_of[RB_ACCOUNT_ROLES]; /* its jobs in queues, in all and by role */
    struct rb_limiter limiter;
    struct rb_backlog backlog;
    int configured; /* has numbers of its own, and stays */
    struct rb_allowance_config config;
    struct rb_account *next;            /* in its bucket */
    struct rb_account *younger, *older; /* among those that nobody holds */
    uint32_t hash;
    uint16_t name_size;
    char name[];
};

struct rb_accounts {
    struct rb_account *buckets[RB_ACCOUNT_BUCKETS];
    struct rb_account *oldest, *youngest; /* that nobody holds */
    uint32_t count, accounts_max;         /* 0: RB_ACCOUNTS_MAX */
    struct rb_allowance_config usual[2];  /* by kind: of names that nobody configured */
    uint32_t limiting[2]; /* of that kind some have a bound: 0, and none is looked for */
};

/* The account of this name, held once more. NULL: no place, no memory. */
struct rb_account *rb_account_hold(struct rb_accounts *t, enum rb_account_kind kind,
                                   struct rb_slice name);
/* The same, if there is one, and not held. */
struct rb_account *rb_account_find(const struct rb_accounts *t, enum rb_account_kind kind,
                                   struct rb_slice name);
void rb_account_release(struct rb_accounts *t, struct rb_account *a);
const struct rb_allowance_config *rb_account_config(const struct rb_accounts *t,
                                                    const struct rb_account *a);
/* Gives a name its own numbers, or with NULL takes them away; an empty name: all that have none of their own. 0, or -ENOMEM. */
int rb_accounts_configure(struct rb_accounts *t, enum rb_account_kind kind, struct rb_slice name,
                          const struct rb_allowance_config *config, uint64_t now);
void rb_accounts_fini(struct rb_accounts *t);

#endif
