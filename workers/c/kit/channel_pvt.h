/* channel_pvt.h: the worker's end of the socket beside its link (docs/channel.md), as the kit's parts use it.
 *
 *      packet.c     one packet out, one packet in, and the wait for either
 *      channel.c    what a handler says: rb_send, rb_call, rb_log
 *      state.c      checkpoints: what a worker saves, and what it is given
 *      chaos.c      trouble on purpose, where the worker's environment allows it
 *
 * One per process. All of it belongs to the handler's thread, but for sending, which any thread may do: a packet is one sendmsg(). */
#ifndef RINGBRIDGE_CHANNEL_PVT_H
#define RINGBRIDGE_CHANNEL_PVT_H

#include <sys/uio.h>

#include "kit_pvt.h"

/* A packet that came. Its body is in memory of its own until rb_packet_drop(). */
struct rb_incoming {
    struct rb_packet head;
    uint8_t *body;
    size_t size;
    int mapped; /* the body is a mapping of a memfd, not from malloc() */
    int has_fd,
        fd; /* it brought one end of a link to another worker; has_fd 0 once that is taken */
};

enum { RB_PUT_BY_MAX = 8 };

struct rb_channel {
    struct rb_worker *worker; /* of this process, once its link is open */
    int fd;                   /* -1: none, or not opened yet */
    int opened, closed;       /* any thread */
    int listens;  /* it has asked for its state, so the bridge may ask it for checkpoints */
    int troubled; /* or it may be sent hooks */
    uint64_t last_id;
    uint64_t looked_ns;    /* when it was last looked at between jobs */
    uint32_t lines_missed; /* log lines that found the socket full; any thread */
    uint8_t *room;         /* RB_PACKET_BYTES_MAX, for what comes */
    /* What came while something else was waited for. */
    struct rb_incoming put_by[RB_PUT_BY_MAX];
    unsigned put_by_count;
    int held;          /* no job is begun before a state has come */
    int coming;        /* a state comes; jobs that need it wait */
    uint64_t leave_id; /* of the checkpoint that is wanted when the worker leaves; 0: none */
    uint64_t leave_kind;
};
extern struct rb_channel rb_channel;

/* Sends one packet whose body is the parts, one after the other; by memfd when it is too large for a packet. Waits for room until
 * `until_ns` (0: for ever), or not at all (RB_AT_ONCE). 0, or
 * -ENOTCONN no channel, -ESHUTDOWN the bridge's end is closed, -EAGAIN, -ETIMEDOUT no room, -ECANCELED,
 * or what making a memfd gave. Nothing was sent then. */
#define RB_AT_ONCE UINT64_MAX
int rb_packet_send(struct rb_job *job, const struct rb_packet *head, const struct iovec *parts,
                   int count, uint64_t until_ns);
/* The same with a body that lies in a memfd, which is sealed here and stays the caller's to close. */
int rb_packet_send_memfd(struct rb_job *job, const struct rb_packet *head, int memfd,
                         uint64_t until_ns);
/* The reply to `id`; what else comes is put by. 0, -ETIMEDOUT, -ECANCELED or -ESHUTDOWN. */
int rb_packet_await_reply(struct rb_job *job, uint64_t id, uint64_t until_ns,
                          struct rb_incoming *reply);
/* The next packet that is there: 1, 0 for none, -ESHUTDOWN. */
int rb_packet_receive(struct rb_incoming *in);
void rb_packet_drop(struct rb_incoming *in);
/* Keeps what is not the reply that is waited for until the next moment between two jobs. */
void rb_packet_put_by(struct rb_incoming *in);
/* Answers a packet of the bridge's with an error; nothing where it wants no answer. */
void rb_packet_refuse(const struct rb_packet *head, uint64_t code, const char *why);
/* Until the channel has one of `events` (poll.h): 1; 0 at `until_ns` (0: never); -ECANCELED: the job is cancelled, or, without
 * one, the worker is told to stop; -EAGAIN: look again. */
int rb_channel_wait(struct rb_job *job, short events, uint64_t until_ns);
/* The same of any descriptor. */
int rb_kit_wait_fd(struct rb_job *job, int fd, short events, uint64_t until_ns);

int rb_channel_fd(void); /* opened at the first call; -1: there is none */
static inline uint64_t rb_channel_next_id(void) { return ++rb_channel.last_id; }
/* A reply's reason in the numbers of errno: 0 for a reply that is no error. */
int rb_reply_errno(const struct rb_incoming *reply);

static inline uint64_t rb_u64_at(const uint8_t *p) {
    uint64_t value;
    __builtin_memcpy(&value, p, sizeof value);
    return value;
}

/* --- state.c, as the loop uses it -------------------------------------------------------------------------------------- */

/* Asks for the latest state and has it restored, before the hello. 0 also where there is none to be had; else what
 * went wrong, or what options.restore gave. */
int rb_state_load(struct rb_worker *w);
/* Between two jobs: takes what has come; with `now` 0 at most once a millisecond. A comparison while the worker does not listen,
 * otherwise a system call. */
void rb_channel_look(struct rb_worker *w, int now);
/* When the last job is done: saves if that was asked for. */
void rb_channel_leave(struct rb_worker *w);

/* --- chaos.c ------------------------------------------------------------------------------------------------------------ */

void rb_chaos_open(void);                                              /* before the hello */
void rb_chaos_take(struct rb_worker *w, const struct rb_incoming *in); /* between two jobs */

#endif
