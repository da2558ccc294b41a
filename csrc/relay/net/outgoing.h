/* outgoing.h: signals leave a connection: whole frames, or fragments of several large signals in turn with small ones between.
 *
 *      rb_leave() --small--------------------------------> out (whole frames) --> socket
 *                 --large--> first fragment to out, the rest a stream --in turn--^
 *                 --behind a stream of the same sender--> waiting --when it ends--^
 *
 * Order holds for each sender: what a process says after a large signal leaves after its last fragment. Other senders' signals
 * pass by. */
#ifndef RB_RELAY_OUTGOING_H
#define RB_RELAY_OUTGOING_H

#include "relay/net/pack.h"
#include "ringbridge/term.h"

enum {
    RB_FRAGMENT_BYTES = 64 << 10, /* as ERTS cuts (dist-protocol.md, 3.5) */
    RB_STREAMS_MAX = 16,          /* at once on a connection; more wait */
    RB_WAITING_BUCKETS = 64,
};

struct rb_conn;

/* A signal: bare terms, or in pass-through form with a version byte before each. */
struct rb_leaving {
    struct rb_slice head; /* the control message, and what of the payload was written with it */
    struct rb_slice body; /* more of the payload */
    struct rb_slice tail; /* its end */
    size_t control;       /* bytes of the control message */
    struct rb_slice
        with; /* pid of the caller that the relay's service speaks to; empty: the control message names its sender */
    int whole; /* never in fragments */
    void **
        owner; /* the block (of malloc) in which all of it lies, and which may be kept; NULL: it is only lent */
};

struct rb_stream { /* a large signal that has begun to leave */
    struct rb_stream *next;
    uint64_t sequence, key;
    uint64_t left; /* fragments */
    uint32_t turn; /* fragments of its turn that have left */
    struct rb_slice part[2];
    void *own;
};
struct rb_waiting { /* a signal behind a stream of its sender */
    struct rb_waiting *next;
    uint64_t key;
    struct rb_leaving signal;
    void *own;
};

struct rb_outgoing {
    struct rb_stream *streams, **streams_end; /* the first is the next to send */
    uint32_t stream_count;
    uint64_t sequence;
    struct rb_waiting *waiting, **waiting_end;
    uint32_t waiting_by_key[RB_WAITING_BUCKETS], waiting_for_all; /* how many */
    uint64_t bytes;           /* of streams and those that wait */
    struct rb_taught *taught; /* NULL: atoms go whole */
};

int rb_outgoing_open(struct rb_conn *c);
void rb_outgoing_free(struct rb_conn *c);
/* 0, or -1: the connection has failed or is none. */
int rb_leave(struct rb_conn *c, struct rb_leaving *s);
/* Sends fragments in turn while the socket takes them, up to a bound. To be called when `out` is empty. */
void rb_outgoing_pump(struct rb_conn *c);

#endif
