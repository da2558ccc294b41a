/* monitor.h: what callers hold on our service. */
#ifndef RB_RELAY_MONITOR_H
#define RB_RELAY_MONITOR_H

#include "relay/net/signal.h"
#include <stdint.h>

struct rb_conn;
struct rb_job;

struct rb_monitor { /* a peer's process watches one of our services */
    struct rb_monitor *next;
    uint32_t hash, from_hash;
    uint16_t ref_size, from_size, to_size, capacity;
    struct rb_job *job; /* bound by a call; NULL before it and after its answer */
    uint8_t bytes[];    /* ref, from, to */
};

static inline struct rb_slice rb_monitor_to(const struct rb_monitor *m) {
    return (struct rb_slice){m->bytes + m->ref_size + m->from_size, m->to_size};
}
uint32_t rb_monitor_hash(struct rb_slice pid_or_ref);
struct rb_monitor *rb_monitor_add(struct rb_conn *c, const struct rb_signal *s);
struct rb_monitor *rb_monitor_find(struct rb_conn *c, struct rb_slice ref, struct rb_slice from);
/* The newest of a process, whose hash is known. */
struct rb_monitor *rb_monitor_recent(struct rb_conn *c, struct rb_slice from, uint32_t from_hash);
void rb_monitor_remove(struct rb_conn *c, struct rb_monitor *m);
void rb_monitors_free(struct rb_conn *c);

#endif
