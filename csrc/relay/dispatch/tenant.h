/* tenant.h: the tenants that jobs name (`tenant:` of the options), each with its weight.
 *
 * One table for the node. A name that nobody configured gets the default weight and lives as long
 * as something holds it, so that made-up names take no room for good; the table is bounded, and
 * when it is full of names in use a new one is treated as none. */
#ifndef RB_RELAY_TENANT_H
#define RB_RELAY_TENANT_H

#include "relay/dispatch/share.h"
#include "ringbridge/term.h"

enum { RB_TENANT_NAME_MAX = 64, RB_TENANTS_MAX = 4096, RB_WEIGHT_MAX = 1000 };

struct rb_tenant {
    uint64_t number; /* never used again */
    struct rb_tenants *table;
    uint32_t weight;    /* 1 .. RB_WEIGHT_MAX: its share beside the other tenants' */
    uint32_t held;      /* by jobs, and by whoever else keeps it in mind */
    uint8_t configured; /* has a table [tenants.NAME] of its own */
    uint8_t name_size;
    char name[RB_TENANT_NAME_MAX];
    struct rb_tenant *next; /* in its bucket, or free */
};

struct rb_tenants {
    struct rb_tenant **buckets;
    struct rb_tenant *free;
    uint32_t count;          /* in the table */
    uint32_t tenants_max;    /* of them */
    uint32_t default_weight; /* of a name that nobody configured */
    uint64_t numbers;
    struct rb_shares shares;
};

int rb_tenants_init(struct rb_tenants *t, uint32_t tenants_max); /* 0, or -ENOMEM */
void rb_tenants_fini(struct rb_tenants *t);
/* The tenant of this name, held once more: rb_tenant_release() when done. NULL: the table is full of
 * names in use, no memory, or the name is empty or longer than RB_TENANT_NAME_MAX. */
struct rb_tenant *rb_tenant_hold(struct rb_tenants *t, struct rb_slice name);
void rb_tenant_release(struct rb_tenant *tenant);
/* Gives a name its weight, at once and for what waits too; weight 0: back to the default, and
 * forgotten when nothing holds it. 0, -EINVAL, -ENOSPC (full), -ENOMEM. */
int rb_tenants_configure(struct rb_tenants *t, struct rb_slice name, uint32_t weight);
/* Of all names that nobody configured. */
void rb_tenants_default(struct rb_tenants *t, uint32_t weight);

#endif
