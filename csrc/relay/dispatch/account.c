/* account.c: the table of calling nodes and tenants. */
#include "relay/dispatch/account.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t hash_of(enum rb_account_kind kind, struct rb_slice name) {
    uint32_t h = 2166136261u ^ (uint32_t)kind; /* FNV-1a */
    for (size_t i = 0; i < name.size; i++) h = (h ^ name.at[i]) * 16777619u;
    return h;
}

static struct rb_account *find(const struct rb_accounts *t, enum rb_account_kind kind,
                               struct rb_slice name, uint32_t hash) {
    struct rb_account *a = t->buckets[hash % RB_ACCOUNT_BUCKETS];
    while (a && (a->hash != hash || a->kind != (uint32_t)kind || a->name_size != name.size ||
                 memcmp(a->name, name.at, name.size) != 0))
        a = a->next;
    return a;
}

struct rb_account *rb_account_find(const struct rb_accounts *t, enum rb_account_kind kind,
                                   struct rb_slice name) {
    return find(t, kind, name, hash_of(kind, name));
}

/* --- Those that nobody holds ----------------------------------------------------------------------------------------------- */

static void leave_idle(struct rb_accounts *t, struct rb_account *a) {
    *(a->older ? &a->older->younger : &t->oldest) = a->younger;
    *(a->younger ? &a->younger->older : &t->youngest) = a->older;
    a->younger = a->older = NULL;
}

static void join_idle(struct rb_accounts *t, struct rb_account *a) {
    a->older = t->youngest;
    *(t->youngest ? &t->youngest->younger : &t->oldest) = a;
    t->youngest = a;
}

/* Idle is: held by nobody, without numbers of its own. */
static int is_idle(const struct rb_account *a) { return a->held == 0 && !a->configured; }

static void forget(struct rb_accounts *t, struct rb_account *a) {
    struct rb_account **p = &t->buckets[a->hash % RB_ACCOUNT_BUCKETS];
    while (*p != a) p = &(*p)->next;
    *p = a->next;
    leave_idle(t, a);
    t->count--;
    free(a);
}

static struct rb_account *make(struct rb_accounts *t, enum rb_account_kind kind,
                               struct rb_slice name, uint32_t hash) {
    uint32_t most = t->accounts_max ? t->accounts_max : RB_ACCOUNTS_MAX;
    if (t->count >= most && t->oldest) forget(t, t->oldest);
    if (t->count >= most) return NULL;
    struct rb_account *a = calloc(1, sizeof *a + name.size);
    if (!a) return NULL;
    a->kind = (uint32_t)kind;
    a->hash = hash;
    a->name_size = (uint16_t)name.size;
    memcpy(a->name, name.at, name.size);
    a->next = t->buckets[hash % RB_ACCOUNT_BUCKETS];
    t->buckets[hash % RB_ACCOUNT_BUCKETS] = a;
    t->count++;
    join_idle(t, a);
    return a;
}

/* --- Held and let go --------------------------------------------------------------------------------------------------------- */

struct rb_account *rb_account_hold(struct rb_accounts *t, enum rb_account_kind kind,
                                   struct rb_slice name) {
    uint32_t hash = hash_of(kind, name);
    struct rb_account *a = find(t, kind, name, hash);
    if (!a && !(a = make(t, kind, name, hash))) return NULL;
    if (is_idle(a)) leave_idle(t, a);
    a->held++;
    return a;
}

void rb_account_release(struct rb_accounts *t, struct rb_account *a) {
    a->held--;
    if (is_idle(a)) join_idle(t, a);
}

/* --- Numbers ------------------------------------------------------------------------------------------------------------------ */

const struct rb_allowance_config *rb_account_config(const struct rb_accounts *t,
                                                    const struct rb_account *a) {
    return a->configured ? &a->config : &t->usual[a->kind];
}

static int is_bound(const struct rb_allowance_config *config) {
    return config->depth_max || config->rate.kind != RB_RATE_NONE;
}

static void count_limiting(struct rb_accounts *t, enum rb_account_kind kind) {
    uint32_t n = is_bound(&t->usual[kind]) != 0;
    for (uint32_t b = 0; b < RB_ACCOUNT_BUCKETS; b++)
        for (const struct rb_account *a = t->buckets[b]; a; a = a->next)
            n += a->kind == (uint32_t)kind && a->configured && is_bound(&a->config);
    t->limiting[kind] = n;
}

static void change_usual(struct rb_accounts *t, enum rb_account_kind kind,
                         const struct rb_allowance_config *config, uint64_t now) {
    for (uint32_t b = 0; b < RB_ACCOUNT_BUCKETS; b++)
        for (struct rb_account *a = t->buckets[b]; a; a = a->next)
            if (a->kind == (uint32_t)kind && !a->configured)
                rb_limiter_change(&a->limiter, &t->usual[kind].rate, &config->rate, now);
    t->usual[kind] = *config;
}

int rb_accounts_configure(struct rb_accounts *t, enum rb_account_kind kind, struct rb_slice name,
                          const struct rb_allowance_config *config, uint64_t now) {
    static const struct rb_allowance_config none;
    if (name.size == 0) {
        change_usual(t, kind, config ? config : &none, now);
    } else {
        struct rb_account *a = rb_account_hold(t, kind, name);
        if (!a) return -ENOMEM;
        const struct rb_allowance_config *after = config ? config : &t->usual[kind];
        rb_limiter_change(&a->limiter, &rb_account_config(t, a)->rate, &after->rate, now);
        a->configured = config != NULL;
        if (config) a->config = *config;
        rb_account_release(t, a);
    }
    count_limiting(t, kind);
    return 0;
}

void rb_accounts_fini(struct rb_accounts *t) {
    for (uint32_t b = 0; b < RB_ACCOUNT_BUCKETS; b++) {
        for (struct rb_account *a = t->buckets[b], *next; a; a = next) {
            next = a->next;
            free(a);
        }
        t->buckets[b] = NULL;
    }
    t->oldest = t->youngest = NULL;
    t->count = 0;
}
