/* stream.h: jobs whose results leave in parts, as far as their consumer asks (docs/streams.md).
 *
 *      consumer --ask--> asked --grant--> demand word --> worker --part--> gathered --> events --> consumer
 *
 * What a worker may send is bounded three times: by what was asked; by a window, so that it is not far ahead of the socket; and by the
 * socket itself: a part for which it has no room stays in the worker's ring, and so in the worker's own memory. */
#ifndef RB_RELAY_STREAM_H
#define RB_RELAY_STREAM_H

#include "relay/net/buffer.h"
#include "ringbridge/term.h"

struct rb_completion;
struct rb_conn;
struct rb_job;
struct rb_relay;
struct rb_worker;

enum { SUBSCRIPTION_BUCKETS = 64, ENDED_KEPT = 64 };

/* What a consumer has of us; its pid and its tag are the job's caller. Ends with the job, or before. */
struct rb_subscription {
    struct rb_subscription *next; /* in its bucket */
    struct rb_job *job;
    uint64_t hash;    /* of the tag */
    uint64_t asked;   /* parts, from the beginning on */
    uint64_t largest; /* bytes of its largest part so far */
};

struct rb_subscriptions { /* of the consumers on one connection */
    struct rb_subscription *at[SUBSCRIPTION_BUCKETS];
    uint64_t ended
        [ENDED_KEPT]; /* hashes of tags: their consumers have been told, and may say one thing more */
    uint32_t ended_at;
    int held; /* some wait for room on the socket */
};

/* Events of one stream on their way to one message. */
struct rb_gathered {
    struct rb_job *job; /* NULL: none */
    uint32_t count;
    struct rb_buffer events;
};

/* Makes a subscription of a job that has its caller. 0 or -ENOMEM. */
int rb_stream_open(struct rb_job *j);
struct rb_subscription *rb_stream_find(struct rb_conn *c, struct rb_slice tag);
/* One of this tag was never made, and its consumer has been told. */
void rb_stream_refused(struct rb_conn *c, struct rb_slice tag);
/* 1: one of this tag has ended lately, or was refused. */
int rb_stream_ended(const struct rb_conn *c, struct rb_slice tag);
void rb_stream_ask(struct rb_subscription *s, uint64_t parts);
/* The job has a worker: its demand word is written, before the request is published. */
void rb_stream_placed(struct rb_job *j);
/* One part, checked but for its term. NULL, or the rule that it breaks. */
const char *rb_stream_part(struct rb_worker *w, struct rb_job *j, const struct rb_completion *e,
                           const uint8_t *payload);
/* 1: the socket has no room for this completion, which stays where it is. */
int rb_stream_must_wait(struct rb_worker *w, const struct rb_completion *e);
void rb_stream_flush(struct rb_relay *r);  /* what is gathered leaves */
void rb_stream_forget(struct rb_job *j);   /* nobody hears of the job any more */
void rb_streams_resume(struct rb_conn *c); /* its socket has room, or they are held no more */
void rb_streams_end(struct rb_relay *r);   /* all: the process that they belong to has ended */

#endif
