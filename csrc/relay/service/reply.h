/* reply.h: how an answer reaches who asked for it.
 *
 * What is said (answer.c) and how it gets there are two things. An answer is written with the pen of a reply, whatever the caller is:
 *
 *      struct rb_reply reply;
 *      if (!rb_reply_begin(&reply, to, room)) return;   nobody is there to be told
 *      rb_pen_...(&reply.pen, ...);                     one term: {ok, ..} or {error, ..}
 *      rb_reply_end(&reply);
 *
 * and the caller's kind says what stands around it. */
#ifndef RB_RELAY_REPLY_H
#define RB_RELAY_REPLY_H

#include "relay/service/pen.h"
#include "ringbridge/relay.h"

struct rb_conn;
struct rb_extra;
struct rb_monitor;
struct rb_relay;

enum rb_caller_kind {
    RB_CALLER_CALL, /* a process in gen:call: {Tag, Answer}, to the alias that the tag names, else to the pid */
    RB_CALLER_ELEMENT, /* an element of a batch: kept until the others are answered too (batch.h) */
    RB_CALLER_SHARED,  /* all who share a run: told when it is over (shared.h) */
    RB_CALLER_STAGE,   /* a stage of a job: kept, for the next one or for the caller (pipeline.h) */
    RB_CALLER_ASYNC,   /* a process that has its handle: {ringbridge, Ref, Answer}, to the pid */
    RB_CALLER_STREAM, /* a consumer of GenStage: {'$gen_consumer', {Streams, Tag}, {cancel, Reason}}, to the pid */
    RB_CALLER_LANE, /* a process behind shared memory: the answer, as its request's completion; the tag is struct rb_asker (beam.h) */
};

/* Who is answered, whether for a job or for a refused request. */
struct rb_caller {
    struct rb_conn *conn; /* NULL: nobody any more */
    struct rb_slice pid, tag, alias;
    enum rb_caller_kind kind;
    const char *encoding; /* of a result, which is told beside it; NULL: it need not be told */
    uint64_t job;         /* RB_CALLER_ASYNC: whose handle it holds */
    uint32_t index; /* RB_CALLER_ELEMENT, RB_CALLER_STAGE: which, and of which batch or step */
    struct rb_extra *extra;
};

struct rb_reply { /* being written, on the relay's stage: one at a time */
    struct rb_pen pen;
    struct rb_conn *conn;
    size_t control;               /* bytes of the control message, once it is written */
    struct rb_slice with;         /* the process that the signal goes to */
    int whole;                    /* never in fragments */
    const struct rb_caller *keep; /* nothing leaves: this one keeps it */
};

/* Room is taken once, generously: `room` is what the answer will need. 0: there is nobody to tell. */
int rb_reply_begin(struct rb_reply *reply, const struct rb_caller *to, size_t room);
/* Events of a stream instead: {'$gen_consumer', {Streams, Tag}, and a list follows. */
int rb_reply_begin_events(struct rb_reply *reply, const struct rb_caller *to, size_t room);
void rb_reply_end(struct rb_reply *reply);
/* What is written leaves, and behind it `body` and `tail`, which lie elsewhere and are lent. */
void rb_reply_end_with(struct rb_reply *reply, struct rb_slice body, struct rb_slice tail);

/* The reference by which the process that submitted a job asynchronously knows it. */
void rb_reply_handle(struct rb_pen *p, const struct rb_relay *r, uint64_t job);

/* --- Signals of the relay's own that answer no call --- */

/* `owner`: the block in which both lie, which may be kept (outgoing.h). */
int rb_send_signal(struct rb_conn *c, struct rb_slice control, const struct rb_slice *message,
                   void **owner);
void rb_send_down(struct rb_conn *c, const struct rb_monitor *m, struct rb_slice reason);
/* Our own monitor on a process, or its end. The reference holds the number. */
void rb_send_watch(struct rb_conn *c, enum rb_service service, int on, struct rb_slice pid,
                   uint64_t watch);

#endif
