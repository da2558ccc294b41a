/* beam.h: a lane as the relay sees it (ringbridge/lane_link.h, docs/nif-lane.md).
 *
 * A lane belongs to the connection of the node that asked for it: its jobs are jobs of that connection, and end with it. What differs is the
 * two ends of a call alone. A request comes out of shared memory and not out of a frame; whoever asked is known by the lane and the
 * request's number, and not by a pid and a reference; the answer is a completion. Between the two lies the same way: request.c reads
 * it, submit.c judges it, the same queues hold it.
 *
 * Exactly one completion for each request. Who loses its caller without an answer (cancelled, or its job's caller forgotten for
 * whatever reason) is completed as dropped, so that the BEAM's slot is free again. */
#ifndef RB_RELAY_BEAM_H
#define RB_RELAY_BEAM_H

#include "ringbridge/lane_link.h"
#include "ringbridge/relay.h"
#include "ringbridge/term.h"

struct rb_caller;
struct rb_conn;
struct rb_job;
struct rb_relay;

struct rb_beam_slot {
    struct rb_job *job;  /* whose caller it is; NULL: none, or not any more */
    uint32_t generation; /* of its last request */
    uint32_t open;       /* that request has no completion yet */
    uint32_t replaced;   /* its answer found no room: {job_failed, ..} was told instead */
};

struct rb_beam_kept { /* an answer that waits for room in the region */
    struct rb_beam_kept *next;
    uint64_t request;
    uint32_t status;
    size_t size;
    uint8_t bytes[];
};

/* An answer that lies in the region before it is told: it was summed as it was copied there. */
struct rb_beam_drawn {
    const uint8_t *bytes; /* NULL: none */
    uint64_t place, size;
};

struct rb_beam {
    struct rb_relay *relay;
    uint64_t id;
    struct rb_conn *conn;
    struct rb_beam *next;
    struct rb_lane_link link;
    int greeted;
    const char *broke; /* the rule, or what else ends it, at the end of the round */
    struct rb_beam_slot *slots;
    uint32_t slot_count;
    uint32_t next_ring; /* whose turn is first in the next round */
    uint32_t cancel_at,
        cancel_left; /* the slot whose cancel word is next; how many are still to be looked at */
    struct rb_beam_kept *kept, **kept_end;
    uint64_t kept_bytes;
    struct rb_beam_drawn drawn;
    struct rb_lane_stats stats; /* read by the other thread, word by word */
};

/* What stands in the place of a caller's tag (reply.h), and is kept with its job like one. */
struct rb_asker {
    struct rb_beam *beam;
    uint64_t request;
};

/* Takes over what face.c has made; or tells at once that the lane has ended. */
void rb_beam_open(struct rb_relay *r, struct rb_beam *b, uint32_t connection);
void rb_beam_close(struct rb_relay *r, uint64_t id, const char *reason);
void rb_beams_of_conn_end(struct rb_conn *c);
void rb_beams_end(struct rb_relay *r, const char *reason);
void rb_beam_free(struct rb_beam *b); /* its memory; of one that the relay does not have */
struct rb_beam *rb_beam_find(struct rb_relay *r, uint64_t id);
void rb_beam_rang(struct rb_beam *b); /* or has closed its end of the bell */

/* Requests, cancels, extents given back: of every lane. How much there was. */
int rb_beams_read(struct rb_relay *r);
void rb_beams_flush(struct rb_relay *r); /* publishes; ends those that broke a rule */
void rb_beams_tell(struct rb_relay *r); /* writes the figures that they may read; there is a lane */
int rb_beams_wait(
    const struct rb_relay *r); /* 1: something came: the look after the announcement */
void rb_beams_announce(const struct rb_relay *r); /* the relay will sleep; and is awake */
void rb_beams_retract(const struct rb_relay *r);

/* A job and its caller, which is of the kind RB_CALLER_LANE. */
void rb_beam_bind(struct rb_job *j); /* whose tag was set */
/* What its caller was told, where `reason` is what should have been: for the counts. */
enum rb_reason rb_beam_told(const struct rb_job *j, enum rb_reason reason);
/* How large an answer of its caller's may be; SIZE_MAX: no lane bounds it. */
size_t rb_beam_answer_max(const struct rb_job *j);
int rb_beam_is_asker(const struct rb_beam *b, uint32_t slot, const struct rb_job *j);
void rb_beam_forget(struct rb_job *j); /* it has no caller any more */
/* Copies a large raw answer of this job to where its caller will read it, and sums it: what its worker may still write is read once.
 * Where it lies from here on, until rb_beam_drawn_end(); told by rb_beam_answer() of these bytes. NULL: the caller is of another kind, or there
 * is no room just now. */
const uint8_t *rb_beam_draw(const struct rb_job *j, const uint8_t *bytes, size_t size,
                            uint32_t *crc);
void rb_beam_drawn_end(const struct rb_job *j); /* what was not told is given up */
void rb_beam_answer(const struct rb_caller *to, uint32_t status, const struct rb_slice pieces[3]);

#endif
