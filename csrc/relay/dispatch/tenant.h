/* tenant.h: the tenants that jobs name (`tenant:` of the options), each with its weight.
 *
 * One table for the node. A name that nobody configured has the default weight, as jobs without a
 * tenant have together, and is remembered, with what it has had, until a new name needs its place:
 * then the one that has been idle for longest goes. When all are held, a new name is treated as
 * none. */
#ifndef RB_RELAY_TENANT_H
#define RB_RELAY_TENANT_H

#include "relay/dispatch/share.h"
#include "ringbridge/dispatch.h"
#include "ringbridge/term.h"

enum { RB_TENANT_NAME_MAX = 64, RB_TENANTS_MAX = 4096 };

struct rb_tenant {
    uint64_t number; /* never used again */
    struct rb_tenants *table;
    uint32_t weight;    /* 1 .. RB_WEIGHT_MAX: its turns beside those of others */
    uint32_t held;      /* by jobs, and by whoever else keeps it in mind */
    uint8_t configured; /* has a table [tenants.NAME] of its own */
    uint8_t name_size;
    char name[RB_TENANT_NAME_MAX];
    struct rb_tenant *next;            /* in its bucket */
    struct rb_tenant *younger, *older; /* among the idle: neither configured nor held */
};

struct rb_tenants {
    struct rb_tenant **buckets;
    struct rb_tenant *oldest_idle, *youngest_idle;
    uint32_t count;       /* in the table */
    uint32_t configured;  /* of these; at most tenants_max */
    uint32_t tenants_max; /* of the others */
    uint64_t numbers;     /* given out */
    uint64_t seed;
    struct rb_shares shares;
};

/* 0, or -ENOMEM. `seed`: nobody outside knows it, so that nobody can choose names that lie in each other's way. */
int rb_tenants_init(struct rb_tenants *t, uint32_t tenants_max, uint64_t seed);
void rb_tenants_fini(struct rb_tenants *t);
/* The tenant of this name, held once more: rb_tenant_release() when done. NULL: no place for a new
 * name, no memory, or the name is empty or longer than RB_TENANT_NAME_MAX. */
struct rb_tenant *rb_tenant_hold(struct rb_tenants *t, struct rb_slice name);
void rb_tenant_release(struct rb_tenant *tenant);
/* What a name is given, from its next turn on; NULL: it is configured no more. 0, -EINVAL, -ENOSPC
 * (tenants_max are configured), -ENOMEM. */
int rb_tenants_configure(struct rb_tenants *t, struct rb_slice name,
                         const struct rb_tenant_config *config);

#endif
