/* tenant.c: names to tenants by hash; who is neither configured nor held may have to go. */
#include "relay/dispatch/tenant.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1024, ROWS_EACH = 4 }; /* rows: each tenant in each of the four bands */

int rb_tenants_init(struct rb_tenants *t, uint32_t tenants_max, uint64_t seed) {
    *t = (struct rb_tenants){.tenants_max = tenants_max, .seed = seed};
    t->buckets = calloc(BUCKETS, sizeof *t->buckets);
    if (!t->buckets) return -ENOMEM;
    int rc = rb_shares_init(&t->shares, ROWS_EACH * tenants_max);
    if (rc < 0) free(t->buckets);
    return rc;
}

void rb_tenants_fini(struct rb_tenants *t) {
    for (uint32_t i = 0; t->buckets && i < BUCKETS; i++) {
        for (struct rb_tenant *tenant = t->buckets[i], *next; tenant; tenant = next) {
            next = tenant->next;
            free(tenant);
        }
    }
    free(t->buckets);
    rb_shares_fini(&t->shares);
    *t = (struct rb_tenants){0};
}

static struct rb_tenant **find(struct rb_tenants *t, struct rb_slice name) {
    uint64_t hash = t->seed;
    for (size_t i = 0; i < name.size; i++) {
        hash = (hash ^ name.at[i]) * 0xbf58476d1ce4e5b9ull;
        hash ^= hash >> 27; /* every byte meets every bit of the seed, not only those above it */
    }
    struct rb_tenant **at = &t->buckets[(hash ^ hash >> 32) % BUCKETS];
    while (*at && ((*at)->name_size != name.size || memcmp((*at)->name, name.at, name.size) != 0))
        at = &(*at)->next;
    return at;
}

static struct rb_slice name_of(const struct rb_tenant *tenant) {
    return (struct rb_slice){(const uint8_t *)tenant->name, tenant->name_size};
}

static int is_idle(const struct rb_tenant *tenant) { return !tenant->held && !tenant->configured; }

static void join_idle(struct rb_tenants *t, struct rb_tenant *tenant) {
    tenant->older = t->youngest_idle;
    tenant->younger = NULL;
    *(t->youngest_idle ? &t->youngest_idle->younger : &t->oldest_idle) = tenant;
    t->youngest_idle = tenant;
}

static void leave_idle(struct rb_tenants *t, struct rb_tenant *tenant) {
    *(tenant->older ? &tenant->older->younger : &t->oldest_idle) = tenant->younger;
    *(tenant->younger ? &tenant->younger->older : &t->youngest_idle) = tenant->older;
    tenant->older = tenant->younger = NULL;
}

/* A place in the table: a new one, or that of the tenant that has been idle for longest. */
static struct rb_tenant *room(struct rb_tenants *t, int configured) {
    if (configured || t->count - t->configured < t->tenants_max) {
        struct rb_tenant *tenant = malloc(sizeof *tenant);
        t->count += tenant != NULL;
        return tenant;
    }
    struct rb_tenant *tenant = t->oldest_idle;
    if (!tenant) return NULL;
    leave_idle(t, tenant);
    *find(t, name_of(tenant)) = tenant->next;
    return tenant;
}

/* The tenant of this name, out of the idle ones: the caller makes it held or configured. NULL: no place for it. */
static struct rb_tenant *get(struct rb_tenants *t, struct rb_slice name, int configured) {
    struct rb_tenant *tenant = *find(t, name);
    if (tenant) {
        if (is_idle(tenant)) leave_idle(t, tenant);
        return tenant;
    }
    tenant = room(t, configured);
    if (!tenant) return NULL;
    *tenant = (struct rb_tenant){.number = ++t->numbers,
                                 .table = t,
                                 .weight = RB_WEIGHT_DEFAULT,
                                 .name_size = (uint8_t)name.size};
    memcpy(tenant->name, name.at, name.size);
    return *find(t, name) = tenant;
}

struct rb_tenant *rb_tenant_hold(struct rb_tenants *t, struct rb_slice name) {
    if (name.size == 0 || name.size > RB_TENANT_NAME_MAX) return NULL;
    struct rb_tenant *tenant = get(t, name, 0);
    if (tenant) tenant->held++;
    return tenant;
}

void rb_tenant_release(struct rb_tenant *tenant) {
    tenant->held--;
    if (is_idle(tenant)) join_idle(tenant->table, tenant);
}

static int is_fine(struct rb_slice name, const struct rb_tenant_config *config) {
    return name.size > 0 && name.size <= RB_TENANT_NAME_MAX &&
           (!config || (config->weight > 0 && config->weight <= RB_WEIGHT_MAX));
}

int rb_tenants_configure(struct rb_tenants *t, struct rb_slice name,
                         const struct rb_tenant_config *config) {
    if (!is_fine(name, config)) return -EINVAL;
    struct rb_tenant *known = *find(t, name);
    if (!config && (!known || !known->configured)) return 0;
    if (config && (!known || !known->configured) && t->configured == t->tenants_max) return -ENOSPC;
    struct rb_tenant *tenant = get(t, name, 1);
    if (!tenant) return -ENOMEM;
    t->configured += (config != NULL) - (uint32_t)tenant->configured;
    tenant->configured = config != NULL;
    tenant->weight = config ? config->weight : RB_WEIGHT_DEFAULT;
    if (is_idle(tenant)) join_idle(t, tenant);
    return 0;
}
