/* tape.h: where the relay meets the world, so that a run can be written down and run again.
 *
 * Between two of these crossings the relay is a function of what it knows: its time is r->now, its chance comes from a seed. So a
 * record holds, in the order in which they happened, all that came in (rounds with their time and readiness, notes, bytes of sockets,
 * what workers published, obituaries, output) and all that went out (bytes of sockets, requests in rings, signals, events). Replayed,
 * the relay is given the first and held against the second (replay.c): the first item that differs is the first difference.
 *
 * A tape that records reads a worker's memory into a shadow, and the relay looks at the shadow only: what is on the tape is what it
 * saw, whatever the worker writes meanwhile. A replay fills the shadow from the tape; there is no worker.
 *
 * Without a tape a crossing costs one test of a pointer. */
#ifndef RB_RELAY_TAPE_H
#define RB_RELAY_TAPE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "ringbridge/layout.h"
#include "ringbridge/relay.h"

struct epoll_event;
struct rb_conn;
struct rb_note;
struct rb_relay;
struct rb_tape;
struct rb_tls;
struct rb_vital_signs;
struct rb_wire;
struct rb_worker;

enum rb_item_kind {
    RB_ITEM_ROUND = 1,   /* a: now; what is ready */
    RB_ITEM_NOTE,        /* id: its kind (note_pvt.h) */
    RB_ITEM_READ,        /* id: connection, a: what the read gave, b: RB_WIRE_...; the bytes */
    RB_ITEM_WRITE,       /* the same of a write; the bytes that were taken */
    RB_ITEM_FLUSH,       /* TLS: the same, without bytes */
    RB_ITEM_CLOCK,       /* a: ns */
    RB_ITEM_HELLO,       /* id: worker; its header, and the operations behind it */
    RB_ITEM_LOOK,        /* id: worker; its positions */
    RB_ITEM_COMPLETIONS, /* id: worker, a: position of the first; envelopes */
    RB_ITEM_RESULT,      /* id: worker, a: offset in its region; the bytes */
    RB_ITEM_OBITUARY,    /* id: worker, a: what the read gave; the bytes */
    RB_ITEM_OUTPUT,      /* the same, b: 1 stdout, 2 stderr */
    RB_ITEM_FULL,        /* id: connection: no room upward for its signal */
    RB_ITEM_REQUEST,     /* id: worker; the envelope that was put into its ring */
    RB_ITEM_SIGNAL,      /* id: worker, a: signal */
    RB_ITEM_EVENT,       /* id: connection or worker; struct rb_taped_event */
    RB_ITEM_END,         /* a: enum rb_record_end */
    RB_ITEM_VITALS,      /* id: worker; struct rb_vital_signs */
};
enum { RB_WIRE_DRAINED = 1, RB_WIRE_UNSENT = 2 };

struct rb_item {
    uint32_t kind;
    uint32_t skipped; /* looks that found nothing new, since the item before */
    uint64_t id;
    int64_t a;
    uint64_t b;
    uint64_t size; /* of the data behind, which is padded to 8 bytes */
};

struct
    rb_taped_event { /* upward; of its data the sum, since it was read from something on the tape */
    uint32_t kind, connection;
    uint64_t worker;
    int64_t a, b, c;
    uint64_t size;
    uint32_t crc, reserved;
};

#define RB_TAPE_MAGIC 0x3230455041544252u /* "RBTAPE02" in memory */
struct rb_tape_head {
    uint64_t magic;
    uint32_t head_bytes, config_bytes, role_config_bytes, creation;
    uint8_t digest[32]; /* of the layout */
    uint64_t now, random, ticked_ns, tended_ns;
    uint64_t vitals_due_ns, vitals_step_ns;
    char node[256];
    /* struct rb_relay_config follows, padded to 8 bytes */
};

/* A worker's memory as the relay sees it while there is a tape. */
struct rb_shadow {
    const struct rb_worker_positions *real;
    const struct rb_worker_header *real_hello;
    const struct rb_worker_op *real_ops;
    const struct rb_completion *real_completions;
    const uint8_t *real_results;
    struct rb_worker_positions positions;
    struct rb_worker_header hello;
    struct rb_worker_op ops[RB_OPS_MAX];
    struct rb_completion *completions;
    uint8_t *results;
    size_t results_bytes;
};

struct rb_part {
    const void *at;
    size_t size;
};

/* --- Crossings: with a tape (r->tape, wire->tape) only ------------------------------------------------------------------------ */

void rb_tape_round(struct rb_relay *r, const struct epoll_event *ready, int count);
struct rb_note *rb_tape_note(struct rb_relay *r); /* the next note down, or NULL */
/* The same while a connection is being read: a look that finds nothing counts, since another may follow before the next item. */
struct rb_note *rb_tape_note_early(struct rb_relay *r);
uint64_t rb_tape_clock(struct rb_relay *r);
ssize_t rb_tape_read(struct rb_wire *w, struct iovec *iov, int pieces);
ssize_t rb_tape_write(struct rb_wire *w, struct iovec *iov, int pieces);
int rb_tape_flush(struct rb_wire *w);
void rb_tape_look(struct rb_worker *w); /* its positions, and what is published behind them */
void rb_tape_vitals(struct rb_worker *w, struct rb_vital_signs *seen);
ssize_t rb_tape_obituary(struct rb_worker *w, void *at, size_t size);
ssize_t rb_tape_output(struct rb_worker *w, int which, int fd, void *at, size_t size);
int rb_tape_has_room(struct rb_conn *c, int has_room);
void rb_tape_event(struct rb_relay *r, const struct rb_taped_event *e, struct rb_part data,
                   struct rb_part more);
int rb_tape_is_replayed(const struct rb_tape *t);
/* What leaves, other than bytes of sockets. */
void rb_tape_out(struct rb_relay *r, enum rb_item_kind kind, uint64_t id, int64_t a, const void *at,
                 size_t size);

/* --- Begin and end (record.c) --------------------------------------------------------------------------------------------------- */

void rb_tape_end(struct rb_tape *t,
                 enum rb_record_end why); /* the relay leaves it in its next round */
void rb_tape_begin(struct rb_relay *r, struct rb_tape *t); /* on the relay's thread, in a round */
void rb_tape_stop(struct rb_tape *t);
int rb_tape_is_over(const struct rb_tape *t);
void rb_tape_leave(struct rb_relay *r); /* between two rounds */
void rb_tape_close(struct rb_relay *r); /* on the other thread, of a relay that has stopped */

/* --- A worker's shadow --------------------------------------------------------------------------------------------------------- */

void rb_tape_watch(struct rb_worker *w);   /* from here on; without memory the recording ends */
int rb_shadow_open(struct rb_worker *w);   /* 0 or -ENOMEM */
void rb_shadow_close(struct rb_worker *w); /* the relay looks at its memory itself */
/* Where the worker says how much it has completed, for who only waits for it. */
const uint64_t *rb_shadow_real_tail(const struct rb_worker *w); /* of one that has a shadow */

#endif
