/* ringbridge_worker.h: what a worker written in C needs to serve jobs of a bridge (docs/workers-c.md is the tour).
 *
 * A worker is one process that the bridge starts with a link among its descriptors. Its main() hands a handler to
 * rb_worker_main(), which says hello, calls the handler for each job in order, one at a time on the calling thread, and beats
 * the heart from a thread of its own. Each job gets exactly one answer: rb_complete...(), rb_done(), rb_fail() or
 * rb_cancelled(); a handler that returns without one has failed the job. Before it a job may send parts and tell its progress,
 * where its caller wants them.
 *
 * A crash is not the kit's business: no signal handlers. The bridge sees the death, answers the job, starts the next worker.
 * Calling the kit wrongly (two answers, more bytes than reserved) is a bug of the worker: a line on stderr and abort().
 *
 * All functions belong to the handler's thread, except rb_is_cancelled(), rb_log() and rb_pulse(), which any thread of the handler
 * may call while the handler has not returned, and rb_set_ready(). */
#ifndef RINGBRIDGE_WORKER_H
#define RINGBRIDGE_WORKER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RB_KIT_VERSION (1u << 16 | 3u) /* major << 16 | minor */

struct rb_job;
struct rb_state;
enum rb_state_kind { RB_STATE_FULL, RB_STATE_INCREMENT };
typedef void (*rb_handler)(struct rb_job *job, void *user);

/* An operation that a worker declares, so that a role may be held to it (docs/ops.md). */
#define RB_TAKES_RAW 1
#define RB_TAKES_TERM 2
#define RB_TAKES_PARTS 4 /* it answers in parts */
struct rb_op {
    uint16_t opcode, takes; /* takes 0: anything */
    const char *name;       /* at most 27 bytes of UTF-8 */
};

struct rb_worker_options {
    rb_handler handler;
    void *user; /* handed to each call */
    /* 1: every job takes microseconds. Then answers are published in batches, up to 50 us late, which saves a store and
     * perhaps a wake-up each. 0: each answer leaves at once, so none waits behind the next job, however long that takes. */
    int short_jobs;
    /* State that outlives the process, for roles with [roles.NAME.checkpoint] (docs/channel.md); NULL: none. Both are called
     * by the handler's thread between two jobs. `save` writes it by rb_state_write() and returns what it has written: the whole,
     * or, where an increment was asked for, what is new since the last time; negative: it has none. `restore` takes one part, the
     * whole first and increments behind it; negative: it cannot, and a worker that begins ends (65). Before the hello it is given the
     * latest, if there is one. */
    int (*save)(struct rb_state *state, enum rb_state_kind wanted, void *user);
    int (*restore)(enum rb_state_kind kind, const void *bytes, size_t size, void *user);
    /* What it can do; none: it takes every opcode. At most 64, each opcode and each name once. */
    const struct rb_op *ops;
    unsigned ops_count;
    unsigned unused; /* where programs built for 1.2 have padding: never looked at */
    /* 1: other workers may ask this one too, over links that the bridge grants (docs/links.md). Their requests go through the same
     * handler, between its jobs; they have no parts, and rb_job_id() is the asking job's. */
    int serves_peers;
};

/* Serves until the bridge says drain or stop. Returns main()'s exit status:
 * 0 done; 64 not started by a bridge; 65 options.restore would not take its state; 71 the link cannot be mapped; 78 built for
 * another layout, or a header that breaks a rule (the reason is on stderr; both digests when they differ). A bridge that breaks a
 * rule later ends the process with 76.
 *
 * options_bytes: the options as the caller knows them; what a newer kit has behind that is zero. 78 as well when an older kit is
 * given, behind the end of its own, what is not zero. */
int rb_worker_run(int argc, char **argv, const struct rb_worker_options *options,
                  size_t options_bytes);
/* The same in C, which knows the size. */
static inline int rb_worker_main(int argc, char **argv, const struct rb_worker_options *options) {
    return rb_worker_run(argc, argv, options, sizeof *options);
}

/* --- the job --------------------------------------------------------------------------------------------------------- */

uint64_t rb_job_id(const struct rb_job *job);
uint16_t rb_job_opcode(const struct rb_job *job);
/* The payload where it lies, read-only, valid until the answer is given. Never NULL. */
const void *rb_job_payload(const struct rb_job *job, size_t *size);
/* 1: the payload is external term bytes without the leading 131; 0: raw bytes as the caller sent them. */
int rb_job_payload_is_term(const struct rb_job *job);
/* CLOCK_MONOTONIC; 0: none. */
uint64_t rb_job_deadline_ns(const struct rb_job *job);
/* The caller's trace context (W3C traceparent); a trace id of zeros: none. */
struct rb_trace {
    uint8_t trace_id[16], span_id[8], flags;
};
void rb_job_trace(const struct rb_job *job, struct rb_trace *trace);

/* 1 when nobody wants the answer any more: the caller gave up or died, the deadline passed, or the worker is told to stop.
 * One load, and a look at the clock (25 ns) when the job has a deadline: often is fine. Then call rb_cancelled() and return. */
int rb_is_cancelled(const struct rb_job *job);
/* Sleeps for `ns`, or until the job is cancelled (noticed within 5 ms). Returns rb_is_cancelled(). */
int rb_job_sleep(struct rb_job *job, uint64_t ns);

/* --- its answer ------------------------------------------------------------------------------------------------------ */

/* Room for an answer of `size` bytes, written by the worker, read by the bridge from where it lies: no further copy. Waits
 * while the region is full of answers that the bridge still sends. NULL with errno EMSGSIZE (it would never fit) or ECANCELED
 * (cancelled while waiting); a handler may then simply return: the kit answers for it. A second call replaces the first. */
void *rb_result_reserve(struct rb_job *job, size_t size);
/* Answers with the first `size` bytes of what was reserved. */
void rb_complete(struct rb_job *job, size_t size);
/* The same, as external term bytes without the leading 131. The bridge checks them before they leave. */
void rb_complete_term(struct rb_job *job, size_t size);
/* Reserve, copy, complete in one. 0, or -EMSGSIZE, -ECANCELED as above. */
int rb_complete_bytes(struct rb_job *job, const void *bytes, size_t size);
int rb_complete_term_bytes(struct rb_job *job, const void *bytes, size_t size);
/* Answers with no bytes: the end of a job that has said in parts what it had to say. */
void rb_done(struct rb_job *job);
/* {:error, {:job_failed, code, message}}. Longer messages are cut at RB_MESSAGE_BYTES_MAX. Codes from RB_CODE_KIT on are the
 * kit's. */
void rb_fail(struct rb_job *job, uint16_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* {:error, :cancelled}, or nothing at all where nobody waits. */
void rb_cancelled(struct rb_job *job);

/* --- before its answer ------------------------------------------------------------------------------------------------ */

/* 1: the job belongs to a stream (docs/streams.md): its consumer takes it in parts, and what rb_complete() says besides is not
 * shown to anybody. 0: it wants one answer. */
int rb_job_wants_parts(const struct rb_job *job);
/* Sends one part, which becomes one event of the consumer. Waits until the consumer has asked for it. 0, or
 * -ECANCELED: the consumer left, the deadline passed or the worker is told to stop; a handler may then simply return,
 * -EMSGSIZE: a part is at most 1 MiB (and must fit into the result region),
 * -ENOTSUP: nobody wants parts of this job. What rb_result_reserve() gave before stays. */
int rb_emit(struct rb_job *job, const void *bytes, size_t size);
/* The same, as external term bytes without the leading 131. */
int rb_emit_term(struct rb_job *job, const void *bytes, size_t size);
/* How many parts can be sent now without waiting. */
unsigned rb_demand(const struct rb_job *job);

/* 1: the caller hears of the job's progress ({:submit_async, ...}). */
int rb_job_wants_progress(const struct rb_job *job);
/* Tells the caller how far the job is, at once or not at all: a report is dropped when the next one comes before it could be sent.
 * 0 (also where nobody wants to hear it); -EAGAIN: dropped, as there was no room; -EMSGSIZE: more than 4096 bytes. */
int rb_progress(struct rb_job *job, const void *bytes, size_t size);
int rb_progress_term(struct rb_job *job, const void *bytes, size_t size);

/* The job gets on: for a role with progress_timeout_ms, which ends a worker whose job shows no sign for so long. Parts and reports of
 * progress are signs too. A store in memory: often is fine. Any thread of the handler may call it. */
void rb_pulse(struct rb_job *job);

/* --- the worker ------------------------------------------------------------------------------------------------------- */

/* 0: give me nothing new for now (a model is being loaded, a cache is cold); what it has been given it keeps. 1: ready again.
 * Told at once. Any thread, also before rb_worker_main(): then the worker greets, and gets its first job once it is ready. */
void rb_set_ready(int ready);

/* --- beyond its jobs: the channel (docs/channel.md) -------------------------------------------------------------------- */

/* Where a message goes. What a worker may write to is its role's policy: [roles.NAME.callback] allow. */
struct rb_dest {
    const char *name, *node; /* UTF-8; node NULL: the bridge's own */
    const void *term;  /* in place of a name: a pid, say, as external term bytes out of a payload */
    size_t term_bytes; /* 0: a name */
};
#define RB_NAME(name_) ((struct rb_dest){.name = (name_)})
#define RB_NAME_AT(name_, node_) ((struct rb_dest){.name = (name_), .node = (node_)})
#define RB_DEST(bytes_, size_) ((struct rb_dest){.term = (bytes_), .term_bytes = (size_)})

/* For all of these: `job` is the one in whose course it is said, or NULL outside of any. They give 0, or a negative errno:
 * -ENOTCONN there is no channel; -ESHUTDOWN the bridge has closed it; -ECANCELED the job was cancelled, or the worker told to stop,
 * while it waited. Terms are external term bytes without the leading 131. */

/* Erlang's `!`. Waits while the socket is full. 0 says that it is on its way: nobody hears whether it was allowed or arrived. */
int rb_send(struct rb_job *job, const struct rb_dest *to, const void *term, size_t size);

struct rb_reply {
    const void *term; /* the answer; after an error of the bridge's its reason, otherwise NULL */
    size_t size;
    void *memory; /* the kit's */
    size_t mapped_bytes;
};
/* GenServer.call. Waits for the answer for at most `timeout_ms` (a day at most) and the job's own deadline. Also gives
 * -EACCES not allowed; -ESRCH nobody there; -EHOSTUNREACH its node is not reached; -EPIPE it ended before it answered;
 * -ETIMEDOUT; -EMSGSIZE; -EBUSY too many calls; -EINVAL no term, or no destination. rb_reply_free() in every case. */
int rb_call(struct rb_job *job, const struct rb_dest *to, const void *term, size_t size,
            uint32_t timeout_ms, struct rb_reply *reply);
void rb_reply_free(struct rb_reply *reply);

enum rb_log_level { RB_LOG_DEBUG, RB_LOG_INFO, RB_LOG_WARNING, RB_LOG_ERROR };
/* A line in the bridge's log with worker and job, cut at 4,095 bytes. Never waits: -EAGAIN when the socket is full; the line is
 * counted, and the next that gets through is preceded by the count. Any thread may log while the job's handler has not returned. */
int rb_log(const struct rb_job *job, enum rb_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Saves state out of a handler; returns once it is stored. -ENOTSUP: the role keeps none; -EMSGSIZE: too large; -ESTALE: an
 * increment with nothing to go behind, so save the whole; -EBUSY; -EIO: it could not be stored, and the one before stands. */
int rb_checkpoint(struct rb_job *job, enum rb_state_kind kind, const void *bytes, size_t size);
/* Asks for the latest state and hands its parts to `restore`, the whole first: for a worker that has no options.restore. Gives also
 * what that gave, if not 0. */
int rb_checkpoint_load(struct rb_job *job,
                       int (*restore)(enum rb_state_kind kind, const void *bytes, size_t size,
                                      void *user),
                       void *user);
/* Adds to what options.save saves. 0, or what went wrong: then the checkpoint is not sent. */
int rb_state_write(struct rb_state *state, const void *bytes, size_t size);
/* For a job that needs the state which {:move_state, ..., :post_copy} has promised: waits for it, and has options.restore take it. 0
 * at once when none is promised. */
int rb_await_state(struct rb_job *job);

/* --- other workers (docs/links.md) --------------------------------------------------------------------------------------- */

/* A link to one worker of another role. What a role may open is its policy: [roles.NAME.peers] allow. Like `job` above: NULL outside
 * of any. All belong to the handler's thread. */
struct rb_peer;
#define RB_PEER_BYTES_MAX (64u << 20) /* of a request or an answer */

/* Asks the bridge for a link. Also gives -EACCES not allowed, or it would close a ring of workers that wait for each other; -ESRCH no
 * worker of that role serves others; -EBUSY too many links. */
int rb_peer_open(struct rb_job *job, const char *role, struct rb_peer **peer);
struct rb_peer_answer {
    const void *bytes; /* the answer; of -EREMOTEIO the message */
    size_t size;
    int is_term;   /* well-formed external term bytes without the leading 131 */
    uint16_t code; /* of -EREMOTEIO */
    void *memory;  /* the kit's */
};
/* Has the peer do a job: one at a time on a link. Waits for at most `timeout_ms` and the job's own deadline, which the peer is told,
 * as well as the trace. When the wait ends without an answer the peer is told to stop. Also gives -EREMOTEIO the peer's handler failed;
 * -ECONNABORTED it gave up; -EPIPE the link is over (the peer has ended, or the link was revoked): open another one; -EPROTO the
 * peer broke a rule, so the link is over; -ETIMEDOUT; -EMSGSIZE; -EINVAL no well-formed term. rb_peer_answer_free() in every case. */
int rb_peer_call(struct rb_job *job, struct rb_peer *peer, uint16_t opcode, const void *bytes,
                 size_t size, int is_term, uint32_t timeout_ms, struct rb_peer_answer *answer);
void rb_peer_answer_free(struct rb_peer_answer *answer);
/* Gives the link back; `peer` is gone whatever this gives. */
int rb_peer_close(struct rb_job *job, struct rb_peer *peer);

#define RB_MESSAGE_BYTES_MAX 1024
#define RB_CODE_KIT 65280
#define RB_CODE_ANSWER_TOO_LARGE \
    65280                       /* rb_result_reserve() said EMSGSIZE and the handler returned */
#define RB_CODE_NO_ANSWER 65281 /* the handler returned without an answer */
#define RB_CODE_BAD_FRAME \
    65283 /* a compressed payload that is none, or too large; no handler saw it */

#ifdef __cplusplus
}
#endif
#endif
