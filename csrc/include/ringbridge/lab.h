/* lab.h: a relay without a thread, and workers that are played through their links: for tests, models and replay.
 *
 * A round is made when it is asked for, and time is what the caller says. Everything else is the relay's own: its sockets (a test
 * writes and reads the other end of a socket pair), its notes and events (relay.h, all on the caller's thread), its links. */
#ifndef RINGBRIDGE_LAB_H
#define RINGBRIDGE_LAB_H

#include "ringbridge/link.h"
#include "ringbridge/relay.h"

/* <cffi> */
/* As rb_relay_open(), without a thread; `now` (ns) is what the time is. rb_relay_close() closes it. */
int rb_lab_open(struct rb_relay **relay, const struct rb_relay_config *config, uint64_t now);
/* One round at `now`, which never runs backwards, with what is ready. 1 if there was anything to do, 0 if not. */
int rb_lab_round(struct rb_relay *relay, uint64_t now);
/* When something happens by time alone, ns: a deadline, a stage of stopping a job, a breaker, a rate; 0: nothing will. */
uint64_t rb_lab_due(const struct rb_relay *relay);

/* Runs a record of rb_relay_record() again, without sockets, threads and workers, until its end or the first difference of what the
 * relay does now. 0 with `result`; or a negative errno, -EPROTO with words: the file is no record of this version. */
struct rb_replay {
    uint64_t items, rounds, bytes;
    uint32_t end;     /* how the record ended: enum rb_record_end */
    uint32_t differs; /* 1: words say where and in what */
    char words[512];
    struct rb_relay_stats stats; /* as they were at its end */
};
int rb_replay(const char *path, struct rb_replay *result);

/* A worker, played: its own mapping of the link, and the write end of its obituary. */
struct rb_lab_worker;
struct rb_lab_request {
    uint64_t job, deadline_ns, position;
    uint32_t opcode, flags, priority, payload_bytes;
    uint32_t cancelled; /* its cancel word names it */
    uint32_t demand;    /* parts that its demand word allows, from the job's beginning on */
    const uint8_t *payload;
};
/* Makes the link and hands the worker over; it has not greeted. 0, or a negative errno. */
int rb_lab_hire(struct rb_relay *relay, uint32_t role, uint64_t id, uint32_t slots,
                struct rb_lab_worker **worker);
void rb_lab_greet(struct rb_lab_worker *worker, const char *role);
/* How many requests lie in its ring unreleased, or -EPROTO; the i-th of them, the oldest first. */
int64_t rb_lab_requests(struct rb_lab_worker *worker);
int rb_lab_request(struct rb_lab_worker *worker, uint64_t i, struct rb_lab_request *request);
void rb_lab_start(struct rb_lab_worker *worker,
                  uint64_t count); /* so many of those have been entered */
/* Publishes a completion of a job, with up to RB_INLINE_BYTES_MAX bytes in it, else through the region. 0, or -ENOSPC without room
 * there, -EAGAIN without a slot. The request stays where it is: rb_lab_release() gives the oldest slots back. */
struct rb_lab_answer {
    uint64_t job, run_ns;
    uint32_t status, code;
    uint32_t flags; /* RB_FLAG_TERM or 0 */
    uint32_t payload_bytes;
    const uint8_t *payload;
    int silent; /* 1: it does not ring, as a kit with a fault */
};
int rb_lab_complete(struct rb_lab_worker *worker, const struct rb_lab_answer *answer);
void rb_lab_ring(struct rb_lab_worker *worker); /* for nothing */
void rb_lab_beat(struct rb_lab_worker *worker,
                 int unready);                   /* one heartbeat more; 1: it wants no jobs */
void rb_lab_pulse(struct rb_lab_worker *worker); /* its job gets on */
void rb_lab_release(struct rb_lab_worker *worker, uint64_t count);
int rb_lab_draining(const struct rb_lab_worker *worker); /* 1: it has been asked to end */
/* Its init's last words, and the end of the pipe: the relay hears of it in its next round. Frees the worker. */
void rb_lab_die(struct rb_lab_worker *worker, int status, int signal, int oom);
/* </cffi> */
/* Its own mapping of the link, for what no honest worker does. */
struct rb_link_worker *rb_lab_link(struct rb_lab_worker *worker);

#endif
