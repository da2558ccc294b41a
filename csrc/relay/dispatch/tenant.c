/* tenant.c: names to tenants by hash; who is neither configured nor held is free. */
#include "relay/dispatch/tenant.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1024, ROWS_EACH = 4 }; /* rows: each tenant in each of the four bands */

int rb_tenants_init(struct rb_tenants *t, uint32_t tenants_max) {
    *t = (struct rb_tenants){.tenants_max = tenants_max, .default_weight = 1};
    t->buckets = calloc(BUCKETS, sizeof *t->buckets);
    if (!t->buckets) return -ENOMEM;
    int rc = rb_shares_init(&t->shares, ROWS_EACH * tenants_max);
    if (rc < 0) free(t->buckets);
    return rc;
}

void rb_tenants_fini(struct rb_tenants *t) {
    struct rb_tenant *next;
    for (uint32_t i = 0; t->buckets && i < BUCKETS; i++) {
        for (struct rb_tenant *tenant = t->buckets[i]; tenant; tenant = next) {
            next = tenant->next;
            free(tenant);
        }
    }
    for (struct rb_tenant *tenant = t->free; tenant; tenant = next) {
        next = tenant->next;
        free(tenant);
    }
    free(t->buckets);
    rb_shares_fini(&t->shares);
    *t = (struct rb_tenants){0};
}

static struct rb_tenant **find(struct rb_tenants *t, struct rb_slice name) {
    uint64_t hash = 0xcbf29ce484222325ull; /* FNV-1a */
    for (size_t i = 0; i < name.size; i++) hash = (hash ^ name.at[i]) * 0x100000001b3ull;
    struct rb_tenant **at = &t->buckets[(hash ^ hash >> 32) % BUCKETS];
    while (*at && ((*at)->name_size != name.size || memcmp((*at)->name, name.at, name.size) != 0))
        at = &(*at)->next;
    return at;
}

static struct rb_tenant *add(struct rb_tenants *t, struct rb_tenant **at, struct rb_slice name) {
    if (t->count == t->tenants_max) return NULL;
    struct rb_tenant *tenant = t->free;
    if (tenant)
        t->free = tenant->next;
    else
        tenant = malloc(sizeof *tenant);
    if (!tenant) return NULL;
    t->count++;
    *tenant = (struct rb_tenant){.number = ++t->numbers,
                                 .table = t,
                                 .weight = t->default_weight,
                                 .name_size = (uint8_t)name.size};
    memcpy(tenant->name, name.at, name.size);
    return *at = tenant;
}

/* Found at `at`: out of the table if nobody needs it. */
static void drop_unneeded(struct rb_tenants *t, struct rb_tenant **at) {
    struct rb_tenant *tenant = *at;
    if (tenant->held || tenant->configured) return;
    *at = tenant->next;
    tenant->next = t->free;
    t->free = tenant;
    t->count--;
}

static struct rb_slice name_of(const struct rb_tenant *tenant) {
    return (struct rb_slice){(const uint8_t *)tenant->name, tenant->name_size};
}

struct rb_tenant *rb_tenant_hold(struct rb_tenants *t, struct rb_slice name) {
    if (name.size == 0 || name.size > RB_TENANT_NAME_MAX) return NULL;
    struct rb_tenant **at = find(t, name);
    struct rb_tenant *tenant = *at ? *at : add(t, at, name);
    if (tenant) tenant->held++;
    return tenant;
}

void rb_tenant_release(struct rb_tenant *tenant) {
    if (--tenant->held == 0 && !tenant->configured)
        drop_unneeded(tenant->table, find(tenant->table, name_of(tenant)));
}

int rb_tenants_configure(struct rb_tenants *t, struct rb_slice name, uint32_t weight) {
    if (name.size == 0 || name.size > RB_TENANT_NAME_MAX || weight > RB_WEIGHT_MAX) return -EINVAL;
    struct rb_tenant **at = find(t, name);
    if (!*at && weight == 0) return 0;
    if (!*at && t->count == t->tenants_max) return -ENOSPC;
    if (!*at && !add(t, at, name)) return -ENOMEM;
    (*at)->configured = weight != 0;
    (*at)->weight = weight ? weight : t->default_weight;
    drop_unneeded(t, at);
    return 0;
}

void rb_tenants_default(struct rb_tenants *t, uint32_t weight) {
    t->default_weight = weight;
    for (uint32_t i = 0; i < BUCKETS; i++) {
        for (struct rb_tenant *tenant = t->buckets[i]; tenant; tenant = tenant->next) {
            if (!tenant->configured) tenant->weight = weight;
        }
    }
}
