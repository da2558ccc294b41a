/* intake.h: bytes of one established connection in, whole signals out. Knows frames, ticks and fragments; no socket, no clock.
 *
 *      length u32 | body        length 0: a tick
 *      112, 131 control [131 message]                          neither header nor fragments negotiated
 *      131, 68, 0, control [message]                           a whole signal
 *      131, 69, seq u64, n u64, 0, control, begin of message   n fragments to come, this one included
 *      131, 70, seq u64, n u64, more bytes                     ... down to n = 1
 *
 * Where the atom cache was negotiated, the 0 of a header is a count of references (cache.h). Whoever gets a signal gets it with
 * whole atoms: what came by reference is expanded as it arrives.
 *
 * A signal that does not lie whole in the buffer is assembled. As soon as its first bytes show what it is, the owner may
 * divert its payload: from then on the payload's bytes go straight to where the owner wants them (one copy, from the socket),
 * or nowhere. While a payload is on its way, no more is read to the buffer than the head of its next fragment needs, so that nearly all of it
 * is copied once. Sequences of several senders may be open at once and interleave with whole signals. */
#ifndef RB_RELAY_INTAKE_H
#define RB_RELAY_INTAKE_H

#include "relay/net/expand.h"
#include "relay/net/signal.h"

enum rb_large {
    RB_LARGE_MORE,   /* the head does not show it yet */
    RB_LARGE_KEEP,   /* assemble it on the heap and give it as a signal */
    RB_LARGE_DROP,   /* has been answered already: let the rest pass by */
    RB_LARGE_DIVERT, /* payload to `dest` */
};

struct rb_diversion {
    size_t head_bytes; /* of the signal, up to the payload's first byte */
    uint8_t *dest;
    size_t dest_bytes;
    void *token; /* given back to end_large() or abort_large() */
};

/* The owner. Functions that return int close the connection by returning a negative errno, having set intake->why. */
struct rb_intake;
struct rb_intake_owner {
    int (*signal)(void *user, const struct rb_signal *s, struct rb_slice message);
    enum rb_large (*begin_large)(void *user, struct rb_slice head, struct rb_diversion *d);
    /* `tail`: what followed the payload. `tail_cut`: it was longer than RB_TAIL_MAX and is not all there. */
    int (*end_large)(void *user, void *token, struct rb_slice tail, int tail_cut);
    void (*abort_large)(void *user, void *token);
    void *user;
};

struct rb_assembly;
struct rb_intake {
    const struct rb_intake_owner *owner;
    uint64_t flags;           /* negotiated */
    uint64_t frame_bytes_max; /* of one frame */
    uint8_t *buffer;
    size_t capacity, begin, end;
    uint64_t frame_left;           /* bytes of the streamed frame that have not come yet */
    struct rb_assembly *streaming; /* takes them */
    struct rb_assembly *open;      /* a list: sequences are few */
    uint32_t open_count;
    struct rb_budget
        heap; /* of all that is kept of signals that are not whole, and of an expanded one */
    struct rb_atom_cache *cache; /* NULL: not negotiated */
    struct rb_atom_list atoms;   /* of the header that was read last */
    uint64_t
        copied_bytes; /* of diverted payloads: came to the buffer first and were copied from there */
    struct rb_bytes expanded; /* a whole signal with its atoms put in */
    const char *why;
};

#define RB_INTAKE_BUFFER_BYTES \
    (256u << 10) /* the longest atom cache header fits, with its frame's head */
#define RB_TAIL_MAX (64u << 10)

/* For begin_large(): moves from behind a control term to its message (the pass-through form has a version byte between). */
int rb_intake_message(const struct rb_intake *in, struct rb_cursor *c, const struct rb_signal *s);

int rb_intake_open(struct rb_intake *in, const struct rb_intake_owner *owner, uint64_t flags,
                   uint64_t frame_bytes_max, uint64_t heap_bytes_max);
void rb_intake_close(struct rb_intake *in); /* aborts what is open */

/* Of a payload that is being diverted: bytes that are missing; and to let the rest pass by: the owner has forgotten the token. */
uint64_t rb_intake_left(const struct rb_intake *in, const void *token);
void rb_intake_drop(struct rb_intake *in, const void *token);

/* Where the next bytes should be read to: [0] a diverted payload's place or empty, [1] the buffer. Returns the number of pieces, 1 or 2;
 * then rb_intake_took() tells how many bytes came in all. */
struct rb_room {
    uint8_t *at;
    size_t size;
};
int rb_intake_room(struct rb_intake *in, struct rb_room room[2]);
/* Takes `size` bytes that were read into the room, and hands on every signal that is whole. 0 or negative: close, in->why says why. */
int rb_intake_took(struct rb_intake *in, size_t size);

#endif
