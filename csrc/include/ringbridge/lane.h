/* lane.h: a lane's end in a BEAM: calls that reach the bridge over shared memory (docs/nif-lane.md).
 *
 * A lane joins one BEAM with one relay: two sealed memfds, each side writing only its own. What it carries are the calls of a node that is
 * connected anyhow: the same requests, answered in the same way, by the same relay. This library knows nothing of erl_nif.h; it holds all the
 * checks of what the relay has written, so that a NIF around it is a thin shell.
 *
 *      rb_lane_dial()    the socket and the token of {:open, ..} -> three descriptors   (blocks: dirty IO)
 *      rb_lane_attach()  descriptors -> a lane, greeted
 *      rb_lane_claim()   a number for a request; what the caller keeps for it is stored under its slot
 *      rb_lane_send()    the request leaves, the relay is woken if it sleeps
 *      rb_lane_drain()   answers, each exactly once
 *      rb_lane_lose()    once the lane has ended: the requests that are still open, each exactly once
 *      rb_lane_detach()
 *
 * Threads. A ring has one producer: ring i (i < rings - 1) belongs to scheduler i, and only its thread claims and sends there, without a
 * lock. The last ring, RB_LANE_SHARED, is everybody's: a mutex is held for the time of the copy. drain, lose, park and unpark take the drain
 * lock; drain tries only. cancel, give_back, waiting, state and the figures may be called by anyone at any time between attach and detach.
 *
 * No function here sleeps, except rb_lane_dial(), and those that say so wait for a mutex that others hold for a bounded copy.
 *
 * Errors are negative errno: -EAGAIN no room now (take another way), -EMSGSIZE never fits, -EPIPE the lane has ended, -EPROTO the relay
 * broke a rule (the lane has ended then), -EBUSY somebody else is at it, -EINVAL called wrongly. */
#ifndef RINGBRIDGE_LANE_H
#define RINGBRIDGE_LANE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define RB_LANE_SHARED UINT32_MAX          /* the ring that anyone may use, under a mutex */
#define RB_LANE_TIMEOUT_DEFAULT UINT32_MAX /* the role's own */

/* A number is a slot and how often it was used: generation << 32 | slot. */
static inline uint32_t rb_lane_slot(uint64_t number) { return (uint32_t)number; }

/* <cffi> */
struct rb_lane_client;

enum { RB_LANE_TOKEN_BYTES = 32, RB_LANE_DIGEST_BYTES = 32 };

/* What to ask for with: {:open, %{os_pid: .., schedulers: .., version: .., digest: ..}}. */
uint32_t rb_lane_version(void);
const uint8_t *rb_lane_digest(void); /* RB_LANE_DIGEST_BYTES */

/* --- Opened and closed --------------------------------------------------------------------------------------------------- */

struct rb_lane_fds {
    int relay_side, beam_side; /* memfds */
    int bell;      /* a socket to the relay: rung both ways, at its end when the bridge is gone */
    int telemetry; /* a memfd of the bridge's, the same for all lanes; -1: none */
};

/* Connects to the socket (`name`: `size` bytes, an abstract one if the first is 0), shows the token, takes the descriptors; close-on-exec.
 * 0; -ECONNREFUSED, -ETIMEDOUT, -EACCES with what the bridge says in `why`. Blocks for up to timeout_ms. */
int rb_lane_dial(const uint8_t *name, size_t size, const uint8_t token[RB_LANE_TOKEN_BYTES],
                 int timeout_ms, struct rb_lane_fds *fds, char *why, size_t why_bytes);

/* The same for a worker's link (docs/remote-workers.md): its descriptors as struct rb_link_fds (link.h) has them. */
int rb_lane_dial_link(const uint8_t *name, size_t size, const uint8_t token[RB_LANE_TOKEN_BYTES],
                      int timeout_ms, int fds[5], char *why, size_t why_bytes);

/* Maps, checks the relay's header against what the descriptors really hold, and greets. On success the descriptors are the lane's, closed
 * by detach; on failure (-EPROTO, -ENOMEM, ..: `why`) still the caller's. */
int rb_lane_attach(struct rb_lane_client **lane, const struct rb_lane_fds *fds, char *why,
                   size_t why_bytes);

/* No more claims and sends (-EPIPE). May be repeated. Does not touch the descriptors. */
void rb_lane_close(struct rb_lane_client *lane);

/* Unmaps, closes the descriptors, frees. Nobody may be inside any function of this lane, and no bytes of it may be held: who keeps
 * answers in the region keeps the lane. */
void rb_lane_detach(struct rb_lane_client *lane);

enum rb_lane_state {
    RB_LANE_OPEN,
    RB_LANE_CLOSED, /* by us */
    RB_LANE_ENDED,  /* by the relay: the connection has gone, the bridge drains, policy */
    RB_LANE_BROKEN  /* the relay broke a rule: rb_lane_why() */
};
enum rb_lane_state rb_lane_state(const struct rb_lane_client *lane); /* one load of shared memory */
const char *rb_lane_why(const struct rb_lane_client *lane);          /* the rule, or "" */

/* How many rings, the shared one, the last, included: at least 2. Slots of all rings. Bytes of one request; of the result region. */
uint32_t rb_lane_rings(const struct rb_lane_client *lane);
uint32_t rb_lane_slots(const struct rb_lane_client *lane);
size_t rb_lane_request_max(const struct rb_lane_client *lane);
size_t rb_lane_result_bytes(const struct rb_lane_client *lane);

/* --- Requests ------------------------------------------------------------------------------------------------------------ */

/* A free slot of this ring; what the caller wants to find again when the answer comes, it stores under rb_lane_slot(number) before it
 * sends. 0, -EAGAIN (as many requests of this ring are open as it has slots), -EPIPE. */
int rb_lane_claim(struct rb_lane_client *lane, uint32_t ring, uint64_t *number);
/* A claim that is not sent. */
void rb_lane_unclaim(struct rb_lane_client *lane, uint32_t ring, uint64_t number);

/* TERM: the parts together are one external term without the leading 131, what a GenServer.call would carry. RAW: {submit, Role,
 * Payload} or {submit, Role, Payload, [{timeout, Ms}]} of a binary: the parts are the payload's bytes. */
enum rb_lane_form { RB_LANE_TERM = 1, RB_LANE_RAW };
struct rb_lane_request {
    enum rb_lane_form form;
    uint32_t caller; /* any hash of the calling process: the relay counts by it how many call */
    const struct iovec *parts;
    int count;
    /* RB_LANE_RAW alone: */
    const uint8_t *role; /* its name */
    uint16_t role_bytes; /* 1 .. 255 */
    uint32_t timeout_ms; /* or RB_LANE_TIMEOUT_DEFAULT */
};
/* Copies the request into the lane and publishes it; wakes the relay if it sleeps (one write). 0; the claim is undone with every error:
 * -EAGAIN (no room for the bytes now), -EMSGSIZE, -EINVAL, -EPIPE. */
int rb_lane_send(struct rb_lane_client *lane, uint32_t ring, uint64_t number,
                 const struct rb_lane_request *request);

/* Nobody waits for this request any more: its job is stopped as if its caller had died. Its answer still comes, once: dropped, or what was
 * faster. A number that was answered already changes nothing. From any thread; at most one write. */
void rb_lane_cancel(struct rb_lane_client *lane, uint64_t number);

/* --- Answers ------------------------------------------------------------------------------------------------------------- */

/* The answer's external term without the 131: {ok, _}, {ok, _, _}, {error, _}, .. A private copy, valid in the callback; but from
 * RB_LANE_TERM_APART bytes on it lies in the result region like a binary (keepable), and whoever decodes it copies it first. */
enum { RB_LANE_TERM_APART = 64 << 10 };
enum rb_lane_answer_kind {
    RB_LANE_ANSWER_TERM = 1,
    RB_LANE_ANSWER_RAW,     /* the answer is {ok, Binary}, and these are the binary's bytes */
    RB_LANE_ANSWER_DROPPED, /* it was cancelled: nobody is to be told */
    RB_LANE_ANSWER_LOST     /* the lane ended first (rb_lane_lose) */
};
struct rb_lane_answer {
    uint64_t number;
    enum rb_lane_answer_kind kind;
    const uint8_t *bytes;
    size_t size;
    int keepable; /* in the result region: may be held past the callback */
    uint64_t at;  /* its name for give_back, if it was kept */
};
/* Called for each answer, in the drainer's thread, with the drain lock held: no function that takes it may be called from here. Its slot
 * is free again when this returns, and not before. RB_LANE_KEEP, for a keepable one: the bytes stay until rb_lane_give_back(), which may
 * be called from anywhere as soon as this was called, even before it returns. */
enum { RB_LANE_TAKEN = 0, RB_LANE_KEEP = 1 };
typedef int rb_lane_take(void *arg, const struct rb_lane_answer *answer);

/* Up to `max` answers. How many; -EBUSY: another thread drains just now (it sees what is there, or is rung); -EPROTO: the relay broke
 * a rule; 0 also when the lane has ended and nothing is left. */
int rb_lane_drain(struct rb_lane_client *lane, rb_lane_take *take, void *arg, int max);
/* 1: there is something to drain. One load. */
int rb_lane_waiting(const struct rb_lane_client *lane);
/* After the lane has ended (state is not RB_LANE_OPEN): what the relay had still answered, then every request that is open, as LOST. How
 * many. Waits for the drain lock. Who sends meanwhile is told here or gets -EPIPE, not both. */
int rb_lane_lose(struct rb_lane_client *lane, rb_lane_take *take, void *arg);
/* 0, or -EINVAL: nothing of that name is held. From any thread; a short mutex. */
int rb_lane_give_back(struct rb_lane_client *lane, uint64_t at);
/* Kept and not given back, in whole blocks. */
size_t rb_lane_held_bytes(const struct rb_lane_client *lane);

/* --- Sleeping ------------------------------------------------------------------------------------------------------------ */

/* One process of the BEAM waits for all (enif_select on this descriptor, for reading):
 *
 *      park -> 1: drain, park again;  0: select, and sleep
 *      woken: hush (-EPIPE: the bridge is gone: close, lose), drain, park again
 *
 * While nobody has parked the relay rings nobody; one parking is rung once at most. Who drains between does no harm: a ring may come for
 * what another has drained. The end of the lane rings too. */
int rb_lane_wake_fd(const struct rb_lane_client *lane);
/* Announces, then looks. 1: there is something, or the lane has ended; 0: the descriptor will tell. Waits for the drain lock. */
int rb_lane_park(struct rb_lane_client *lane);
/* Rings are not needed any more: somebody will look again by himself. Waits for the drain lock. */
void rb_lane_unpark(struct rb_lane_client *lane);
/* Empties the descriptor. 0, or -EPIPE: its other end is closed. */
int rb_lane_hush(struct rb_lane_client *lane);

/* --- Figures ------------------------------------------------------------------------------------------------------------- */

struct rb_lane_figures {
    uint64_t sent, cancelled;   /* requests; cancels asked for */
    uint64_t answered, dropped; /* answers to callers, lost ones too; to nobody */
    uint64_t full;              /* claims and sends that found no room */
    uint64_t wakes;             /* writes spent on waking the relay */
    uint64_t open;              /* requests without an answer */
    uint64_t held_bytes;
};
void rb_lane_read_figures(const struct rb_lane_client *lane, struct rb_lane_figures *figures);

/* What the bridge knows of its workers and roles (lane_telemetry.h): how many bytes a copy has now, and the copy. Bytes; -EAGAIN: it was being written all the while (or its writer has died there); -ENOSPC: it has grown past `room`;
 * -EPIPE: the lane has ended; -ENOENT: it has none; -EPROTO: the bridge broke a rule. */
int64_t rb_lane_telemetry_bytes(const struct rb_lane_client *lane);
int64_t rb_lane_read_telemetry(const struct rb_lane_client *lane, uint8_t *to, size_t room);
/* </cffi> */

#endif
