/* conn.h: connections. */
#ifndef RB_RELAY_CONN_H
#define RB_RELAY_CONN_H

#include "relay/net/buffer.h"
#include "relay/net/flow.h"
#include "relay/net/intake.h"
#include "relay/net/outgoing.h"
#include "relay/net/wire.h"
#include "relay/service/stream.h"

struct rb_job;
struct rb_monitor;
struct rb_relay;
struct iovec;

enum { MONITOR_BUCKETS = 1024, RECENT_MONITORS = 64 };

struct rb_conn {
    struct rb_relay *relay;
    uint32_t id;
    struct rb_wire wire;
    char peer[256];
    struct rb_slice peer_text; /* the same */
    uint64_t flags;
    struct rb_intake intake;
    struct rb_intake_owner owner;
    struct rb_buffer out; /* whole frames, the first maybe begun */
    struct rb_outgoing outgoing;
    struct rb_flow *flow;
    int wants_room;          /* the other thread waits for room in `out` */
    uint64_t put_up;         /* bytes of signals that went up, since the beginning */
    uint64_t put_up_largest; /* the largest of those since none waited */
    int wants_out;           /* in epoll for EPOLLOUT */
    int dirty;               /* on the relay's flush list */
    struct rb_conn *next_dirty;
    int unread; /* TLS: on the relay's list of those that hold bytes unread */
    struct rb_conn *next_unread;
    uint64_t sent_ns, received_ns;
    uint64_t gathered;          /* bytes that batches and pipelines keep (batch.h, pipeline.h) */
    const char *failed;         /* set: to be closed at the end of the round, with this reason */
    void *farewell;             /* the note in which the reason lies; NULL: it lies elsewhere */
    struct rb_account *account; /* of its node; NULL: not counted so far */
    struct rb_job *jobs;        /* of callers on this node */
    struct rb_job *untold,
        *untold_last; /* of these, by `later`, those whose answer others share (shared.h) */
    struct rb_monitor *monitors[MONITOR_BUCKETS];
    struct rb_subscriptions streams;
    uint32_t monitor_count;
    struct rb_monitor *spare; /* freed ones of the common size */
    /* The last monitor of a process, for tags that do not name it (OTP 25's multi_call); by hash of the pid. */
    struct rb_monitor *recent[RECENT_MONITORS];
};

int rb_conn_open(struct rb_relay *r, uint32_t id, struct rb_flow *flow, int fd, struct rb_tls *tls,
                 const char *peer, uint64_t flags, const uint8_t *leftover, size_t size);
void rb_conn_close(struct rb_conn *c, const char *reason);
void rb_conn_read(struct rb_conn *c);
void rb_conns_read(struct rb_relay *r); /* those whose bytes epoll does not see */
void rb_conn_flush(struct rb_conn *c);
void rb_conn_dirty(struct rb_conn *c); /* has something to flush */
void rb_conn_fail(struct rb_conn *c, const char *reason);
int rb_conn_write_through(struct rb_conn *c, const uint8_t *bytes,
                          size_t size); /* after what waits; copied only if the socket is full */
void rb_conns_tick(struct rb_relay *r);
/* Sends what waits in `out`, then the pieces; how much of the pieces left, or -1 when the connection has failed. */
ssize_t rb_conn_transmit(struct rb_conn *c, const struct iovec *more, int pieces);
static inline uint64_t rb_conn_waiting_bytes(const struct rb_conn *c) {
    return c->out.end - c->out.begin + c->outgoing.bytes;
}
static inline int rb_conn_with_header(const struct rb_conn *c) {
    return (c->flags & (RB_DFLAG_FRAGMENTS | RB_DFLAG_DIST_HDR_ATOM_CACHE)) != 0;
}
struct rb_conn *rb_conn_find(struct rb_relay *r, uint32_t id);
struct rb_conn *rb_conn_of_node(struct rb_relay *r, struct rb_slice node);

#endif
