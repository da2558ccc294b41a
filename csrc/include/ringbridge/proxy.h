/* proxy.h: the worker's end of a link, played for a worker that is a process of a BEAM (docs/remote-workers.md).
 *
 * The relay sees a worker like others. Whoever plays this end is the bridge itself, for a worker that shares no memory with it, or the NIF of a
 * BEAM on the same host; one thread at a time. It takes requests out of the ring, says which have been started, answers them in the order
 * of the ring, and beats when the true worker has beaten. */
#ifndef RINGBRIDGE_PROXY_H
#define RINGBRIDGE_PROXY_H

#include <stdint.h>

#include "ringbridge/layout.h"

/* <cffi> */
struct rb_proxy;

/* A request that was taken. `payload` may be read until the job's answer is given. */
struct rb_proxy_request {
    uint64_t job, position, deadline_ns;
    uint32_t opcode, flags, priority, payload_bytes, trace_flags;
    uint8_t trace_id[16], span_id[8];
    const uint8_t *payload;
};

/* Of the oldest job that was taken, or before its end a part or progress of it. */
struct rb_proxy_answer {
    uint64_t job;
    uint64_t run_ns; /* 0: not known, so from its start until now */
    uint32_t status, code;
    uint32_t flags; /* RB_FLAG_TERM or 0 */
    uint32_t payload_bytes;
    const uint8_t *payload;
};

/* Maps the link with these descriptors (rb_relay_create_link), of which it keeps copies of its own. 0, a negative errno, or -EPROTO
 * with `why`. */
int rb_proxy_open(const int fds[5], struct rb_proxy **proxy, char *why, uint64_t why_bytes);
void rb_proxy_close(struct rb_proxy *proxy);
/* The most that one answer or part can have: what the link's result region holds. */
uint64_t rb_proxy_answer_bytes_max(const struct rb_proxy *proxy);
/* Readable once the relay has rung for a parking. */
int rb_proxy_bell(const struct rb_proxy *proxy);
/* From now on it rings the relay at its end of the bell's pair of sockets, and not by the eventfd, whose flags a hostile relay shares: no
 * write of ours can then wait (gate.h). Only for a relay that was told that it has no process of the worker's (rb_relay_add_worker): that one
 * hears both. */
void rb_proxy_ring_at_bell(struct rb_proxy *proxy);
/* `ops`: `op_count` records of struct.worker_op, packed. 0, or -EINVAL with `why`. */
int rb_proxy_greet(struct rb_proxy *proxy, const char *kit, uint32_t kit_version, const char *role,
                   const uint8_t *ops, uint32_t op_count, char *why, uint64_t why_bytes);
/* To be called before the last look and the wait at the bell: what comes after it rings. */
void rb_proxy_park(struct rb_proxy *proxy);
/* 0; -EPIPE: the relay has let go of the link. */
int rb_proxy_unpark(struct rb_proxy *proxy);
/* How large the payload of the next request is; -EAGAIN: there is none; -EPROTO: the link is broken. */
int64_t rb_proxy_next_bytes(struct rb_proxy *proxy);
/* The next request. 1; 0: there is none; -EPROTO: the link is broken. */
int rb_proxy_take(struct rb_proxy *proxy, struct rb_proxy_request *request);
/* As that; -E2BIG: its payload is larger than `most`, whatever was seen of it before, and nothing was taken. */
int rb_proxy_take_up_to(struct rb_proxy *proxy, uint32_t most, struct rb_proxy_request *request);
/* How many requests lie in the ring that were not taken. */
int64_t rb_proxy_waiting(struct rb_proxy *proxy);
/* The next of those that were taken is begun. 1; 0: the relay has let go of the link, and the job may be another worker's: it must not be
 * begun. Then its payload, too, may have become another job's while it was read: who cannot be killed reads it before this, and begins
 * with what was whole. */
int rb_proxy_start(struct rb_proxy *proxy);
/* Is the job at `position` to stop? */
int rb_proxy_cancelled(const struct rb_proxy *proxy, uint64_t position, uint64_t job);
/* How many parts the job at `position` may send beyond `sent`. */
uint32_t rb_proxy_demand(const struct rb_proxy *proxy, uint64_t position, uint32_t sent);
uint32_t rb_proxy_control(const struct rb_proxy *proxy); /* RB_CONTROL_... */
/* 0; -ENOSPC: no room in the result region or the ring for now; -EMSGSIZE: never. A final one releases the request's slot. */
int rb_proxy_answer(struct rb_proxy *proxy, const struct rb_proxy_answer *answer);
void rb_proxy_pulse(struct rb_proxy *proxy);
/* The worker has beaten. A change of `unready` is told at once. A few microseconds. */
void rb_proxy_beat(struct rb_proxy *proxy, uint32_t unready);
/* Gives pages of large answers back to the system while no job is open, `most_bytes` of them or one block's: about 1 us for each page. To be
 * called with every beat. 1: there are more; 0: there are none for now. */
int rb_proxy_trim(struct rb_proxy *proxy, uint64_t most_bytes);
uint32_t rb_proxy_trim_bytes_min(const struct rb_proxy *proxy);
/* </cffi> */

#endif
