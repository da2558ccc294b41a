#include "relay/net/flow.h"

#include "relay/relay_pvt.h"

static struct rb_flow *find(struct rb_relay *r, uint32_t connection, uint32_t wanted) {
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct rb_flow *f = &r->flows[(connection + i) % CONNECTIONS_MAX];
        if (f->connection == wanted) return f;
    }
    return NULL;
}

struct rb_flow *rb_flow_open(struct rb_relay *r, uint32_t connection) {
    struct rb_flow *f = find(r, connection, 0);
    if (!f) return NULL;
    f->connection = connection;
    f->handed = 0;
    /* Relaxed: the relay hears of the row by a note, and whoever had it before has been heard to be lost. */
    rb_store_relaxed(&f->taken, 0);
    rb_store_relaxed(&f->queued, 0);
    rb_store_relaxed(&f->heard, 0);
    return f;
}

struct rb_flow *rb_flow_find(struct rb_relay *r, uint32_t connection) {
    return connection ? find(r, connection, connection) : NULL;
}

void rb_flow_close(struct rb_flow *f) {
    if (f) f->connection = 0;
}

uint64_t rb_relay_backlog(struct rb_relay *r, uint32_t connection) {
    const struct rb_flow *f = rb_flow_find(r, connection);
    if (!f) return 0;
    /* Relaxed: a figure to decide by; who waits is told by an event. */
    return f->handed - rb_load_relaxed(&f->taken) + rb_load_relaxed(&f->queued);
}
