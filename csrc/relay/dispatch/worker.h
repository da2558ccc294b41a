/* worker.h: a link as the relay sees it.
 *
 * Tables of workers hold one at its id modulo the size, or where there was room: a long life must not block a number. */
#ifndef RB_RELAY_WORKER_H
#define RB_RELAY_WORKER_H

#include "relay/dispatch/affinity.h"
#include "relay/dispatch/choose.h"
#include "relay/dispatch/health.h"
#include "relay/dispatch/term_answer.h"
#include "relay/dispatch/vitals.h"
#include <sys/types.h>

#include "ringbridge/link.h"
#include "ringbridge/obituary.h"
#include "ringbridge/relay.h"
#include "ringbridge/term_check.h"

struct rb_job;
struct rb_relay;
struct rb_role;
struct rb_shadow;

enum { STDERR_TAIL = 2048 };

enum rb_worker_state {
    RB_WORKER_LINKED,
    RB_WORKER_GREETING,
    RB_WORKER_READY,
    RB_WORKER_DRAINING,
    RB_WORKER_FENCED
};

struct rb_worker {
    struct rb_relay *relay;
    uint64_t id;
    uint32_t state;
    struct rb_role *role;
    struct rb_link link;
    struct rb_shadow *shadow; /* of its memory, while there is a tape (tape/) */
    struct rb_job **placed;   /* by slot of the request ring */
    uint32_t in_flight;
    uint32_t streams; /* of them */
    int held;         /* its next completion waits for room on a socket */
    int last_words;   /* it has ended: what lies in its ring is the last of it */
    uint32_t credit;
    uint64_t service_ns; /* moving average */
    uint32_t ready_at;   /* in its role's table of ready ones */
    struct rb_choice_member choosing;
    struct rb_affine affine;
    int listed; /* among its role's ready ones */
    int parting; /* on its role's list of those that have no keys any more, and still jobs that wait for them */
    struct rb_worker *next_parting;
    int ended; /* it is dead, and told of when nothing waits for it: how it ended, */
    int64_t end_status, end_signal, end_flags;
    uint64_t ramp_from_ns;
    uint32_t ramp, trust; /* shares of RB_CHOICE_WHOLE: by its age, by its breaker */
    int late;             /* on its role's list of those that hold slots too long */
    struct rb_worker *next_late;
    int pidfd, obituary_fd, stdout_fd, stderr_fd;
    int handed_over; /* by the other thread, which alone reads it */
    int filled;      /* on the list of workers whose ring is to be published */
    struct rb_worker *next_filled;
    int polled; /* on the list of workers with jobs in flight that each round looks at; */
    struct rb_worker *next_polled;
    int called_by_bell;  /* or they have been out for long, and its bell will tell */
    uint64_t stirred_ns; /* when it was given a job, or one was taken back, last */
    uint64_t last_job;   /* that was taken back */
    const char *broke;   /* rule, once fenced for it */
    struct rb_atom_budget atoms;
    struct rb_term_answer answering; /* of the first completion in its ring */
    struct rb_health health;
    struct rb_vitals vitals;
    int spared;    /* nobody judges by them */
    int unguarded; /* nobody here can end its process, and the relay alone sees its jobs */
    uint8_t obituary[sizeof(struct rb_obituary)];
    uint32_t obituary_size;
    char stderr_tail[STDERR_TAIL];
    uint32_t stderr_size;
    uint64_t done_before;         /* stats.done at the last look (cpus.c) */
    struct rb_worker_stats stats; /* read by the other thread, word by word */
};

struct rb_worker **rb_worker_slot(struct rb_worker **table, uint64_t id); /* where it is, or NULL */
struct rb_worker **rb_worker_room(struct rb_worker **table,
                                  uint64_t id); /* where it may go, or NULL: full */
struct rb_worker *rb_worker_find(struct rb_relay *r, uint64_t id);
void rb_worker_watch(struct rb_worker *w);     /* joins epoll */
void rb_worker_greeted(struct rb_worker *w);   /* looks for the hello */
int rb_worker_poll(struct rb_worker *w);       /* drains completions; how many */
void rb_worker_poll_last(struct rb_worker *w); /* of one that has ended: all that it has left */
/* The request as term bytes, whose names an answer may use; empty: it was none. */
struct rb_slice rb_worker_term_request(const struct rb_job *j);
/* A term on a private copy. 0, or less with the rule that it breaks. */
int rb_worker_check_term(struct rb_worker *w, const struct rb_job *j, struct rb_slice copy,
                         const char **rule);
void rb_worker_broke(struct rb_worker *w, const char *rule);
void rb_worker_obituary(struct rb_worker *w);
void rb_worker_leave(
    struct rb_worker *w); /* one that has ended, and for whom nothing waits: frees it, and tells */
void rb_worker_output(struct rb_worker *w, int which);
void rb_worker_drain(struct rb_worker *w);
ssize_t rb_worker_read(int fd, void *at, size_t size);
void rb_worker_free(struct rb_worker *w);
void rb_worker_signal(struct rb_worker *w, int signal);

/* --- Whom a round looks at (poll.c) --- */

void rb_worker_stirs(struct rb_worker *w);      /* it was given a job, or gave one back */
void rb_worker_rang(struct rb_worker *w);       /* its end of the bell was rung */
void rb_worker_look_again(struct rb_worker *w); /* at one that is left to its bell, now and then */
/* Drains every worker that each round looks at; those without jobs leave the list, and those from which nothing has come for long are
 * left to their bell. Returns the completions. */
int rb_workers_poll(struct rb_relay *r);

#endif
