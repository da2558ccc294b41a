/* monitor.c: the monitors that peers' processes hold on the relay's service, by reference.
 *
 * Each call brings one (MONITOR_P, the call, later DEMONITOR_P), so adding and removing is part of a job's price. */
#include <errno.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"

enum { COMMON_CAPACITY = 256 };

uint32_t rb_monitor_hash(struct rb_slice s) {
    /* The numbers that differ stand at the end of pids and references; a node's name says nothing. Each call comes here four times:
     * three multiplications over the last 20 bytes, of which only the spread matters. */
    uint8_t last[20] = {0};
    size_t n = s.size < sizeof last ? s.size : sizeof last;
    const uint8_t *p = s.at + s.size - n;
    if (n < sizeof last) {
        if (n) memcpy(last, p, n);
        p = last;
    }
    uint64_t a, b;
    uint32_t c;
    memcpy(&a, p, 8);
    memcpy(&b, p + 8, 8);
    memcpy(&c, p + 16, 4);
    uint64_t h = a * 0x9e3779b97f4a7c15u ^ b * 0xc2b2ae3d27d4eb4fu ^ c * 0x165667b19e3779f9u;
    return (uint32_t)((h ^ h >> 29) * 0xbf58476d1ce4e5b9u >> 32);
}

static struct rb_slice ref_of(const struct rb_monitor *m) {
    return (struct rb_slice){m->bytes, m->ref_size};
}
static struct rb_slice from_of(const struct rb_monitor *m) {
    return (struct rb_slice){m->bytes + m->ref_size, m->from_size};
}

struct rb_monitor *rb_monitor_add(struct rb_conn *c, const struct rb_signal *s) {
    size_t size = s->ref.size + s->from.size + s->to.size;
    if (s->ref.size > 1024 || s->from.size > 1024 || s->to.size > 1100) return NULL;
    struct rb_monitor *m = c->spare;
    if (size <= COMMON_CAPACITY && m) {
        c->spare = m->next;
    } else {
        size_t capacity = size < COMMON_CAPACITY ? COMMON_CAPACITY : size;
        m = malloc(sizeof *m + capacity);
        if (!m) return NULL;
        m->capacity = (uint16_t)capacity;
    }
    m->hash = rb_monitor_hash(s->ref);
    m->ref_size = (uint16_t)s->ref.size;
    m->from_size = (uint16_t)s->from.size;
    m->to_size = (uint16_t)s->to.size;
    m->job = NULL;
    memcpy(m->bytes, s->ref.at, s->ref.size);
    memcpy(m->bytes + s->ref.size, s->from.at, s->from.size);
    memcpy(m->bytes + s->ref.size + s->from.size, s->to.at, s->to.size);
    struct rb_monitor **bucket = &c->monitors[m->hash % MONITOR_BUCKETS];
    m->next = *bucket;
    *bucket = m;
    c->monitor_count++;
    m->from_hash = rb_monitor_hash(s->from);
    c->recent[m->from_hash % RECENT_MONITORS] = m;
    return m;
}

struct rb_monitor *rb_monitor_find(struct rb_conn *c, struct rb_slice ref, struct rb_slice from) {
    uint32_t hash = rb_monitor_hash(ref);
    for (struct rb_monitor *m = c->monitors[hash % MONITOR_BUCKETS]; m; m = m->next) {
        if (m->hash == hash && rb_slice_equal(ref_of(m), ref) && rb_slice_equal(from_of(m), from))
            return m;
    }
    return NULL;
}

struct rb_monitor *rb_monitor_recent(struct rb_conn *c, struct rb_slice from, uint32_t from_hash) {
    struct rb_monitor *m = c->recent[from_hash % RECENT_MONITORS];
    return m && rb_slice_equal(from_of(m), from) ? m : NULL;
}

/* Lets go of one that is in no bucket any more. */
static void release(struct rb_conn *c, struct rb_monitor *m) {
    struct rb_monitor **recent = &c->recent[m->from_hash % RECENT_MONITORS];
    if (*recent == m) *recent = NULL;
    if (m->job) m->job->monitor = NULL;
    c->monitor_count--;
    if (m->capacity == COMMON_CAPACITY) {
        m->next = c->spare;
        c->spare = m;
    } else {
        free(m);
    }
}

void rb_monitor_remove(struct rb_conn *c, struct rb_monitor *m) {
    struct rb_monitor **p = &c->monitors[m->hash % MONITOR_BUCKETS];
    while (*p != m) p = &(*p)->next;
    *p = m->next;
    release(c, m);
}

void rb_monitors_free(struct rb_conn *c) {
    for (uint32_t i = 0; i < MONITOR_BUCKETS; i++) {
        while (c->monitors[i]) {
            struct rb_monitor *m = c->monitors[i];
            c->monitors[i] = m->next;
            release(c, m);
        }
    }
    while (c->spare) {
        struct rb_monitor *m = c->spare;
        c->spare = m->next;
        free(m);
    }
}
