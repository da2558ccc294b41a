/* relay_pvt.h: what the relay's parts share. All of it belongs to the relay thread, except where a line says otherwise. */
#ifndef RB_RELAY_PVT_H
#define RB_RELAY_PVT_H

#include <pthread.h>

#include "relay/cpus.h"
#include "relay/dispatch/job.h"
#include "relay/dispatch/place.h"
#include "relay/dispatch/role.h"
#include "relay/dispatch/tenant.h"
#include "relay/dispatch/vitals.h"
#include "relay/dispatch/worker.h"
#include "relay/duct.h"
#include "relay/net/conn.h"
#include "relay/note.h"
#include "relay/random.h"
#include "relay/service/answer.h"
#include "relay/service/beam.h"
#include "relay/service/extra.h"
#include "relay/service/handle.h"
#include "relay/service/monitor.h"
#include "relay/service/owned.h"
#include "relay/service/progress.h"
#include "relay/service/request.h"
#include "relay/service/service.h"
#include "relay/service/shared.h"
#include "relay/tape/tape.h"
#include "ringbridge/relay.h"

enum {
    CONNECTIONS_MAX = 1024,
    ROLES_MAX = 64,
    WORKERS_MAX = 4096,
};
#define NS_PER_MS 1000000ull

/* What epoll hands back: the kind in the low bits of an aligned pointer would be clever; a small record is clear. */
enum rb_source_kind {
    RB_SOURCE_DUCT,
    RB_SOURCE_CONN,
    RB_SOURCE_LINK,
    RB_SOURCE_OBITUARY,
    RB_SOURCE_STDOUT,
    RB_SOURCE_STDERR,
    RB_SOURCE_LANE
};
static inline uint64_t rb_source(enum rb_source_kind kind, uint64_t id) {
    return (uint64_t)kind << 56 | id;
}

struct rb_relay {
    struct rb_relay_config config;
    char node[256];
    struct rb_slice node_text;
    pthread_t thread;
    struct rb_duct up, down;
    struct rb_note *waiting_up,
        **waiting_up_end; /* notes that must not be lost, when `up` is full */
    int epoll;
    int stopping;
    int stopped;             /* the other thread's: the rounds are over */
    int still;               /* no thread: time stands still within a round (lab.c) */
    uint64_t now;            /* CLOCK_MONOTONIC at the begin of the round */
    struct rb_tape *tape;    /* being recorded, or replayed; NULL: neither (tape/) */
    struct rb_random random; /* all chance comes from here, so that a run can be made again */
    struct rb_seal seal;     /* of the handles that it gives out */
    uint64_t sampled_ns;     /* when a timed job of this round was answered; 0: none */

    struct rb_conn
        *conns[CONNECTIONS_MAX]; /* at their id modulo the size, or where there was room */
    struct rb_conn *dirty_conns, *unread_conns;
    struct rb_role *roles[ROLES_MAX]; /* put in by a note (face.c makes them) */
    uint32_t roles_count, roles_leaving;
    struct rb_worker *workers[WORKERS_MAX]; /* the same */
    struct rb_worker *polled_workers;       /* whom each round looks at */
    struct rb_beam *beams;                  /* the lanes */
    struct rb_accounts accounts;
    struct rb_backlogs backlogs;
    uint64_t backlog_due_ns; /* when a rate lets the next one in, if there are any */
    uint64_t health_due_ns;  /* when a breaker changes by time alone */
    struct rb_vitals_watch vitals;

    struct rb_owned owned[RB_SERVICES]; /* the processes that the relay answers for */

    struct rb_job **chunks; /* of 1024 jobs */
    uint32_t chunk_count;
    struct rb_job *free_jobs;
    uint64_t job_sequence;
    struct rb_shares_by_key shared;
    struct rb_extra *free_extras;
    uint32_t extra_count;                           /* ever made */
    struct rb_pipeline *pipelines, *pipelines_last; /* that have something to do (pipeline.h) */
    struct rb_job **heap;                           /* by due_ns */
    uint32_t heap_count, heap_capacity;
    struct rb_tenants tenants;

    /* The other thread's own tables (face.c). */
    struct rb_role *face_roles[ROLES_MAX];
    struct rb_worker *face_workers[WORKERS_MAX];
    struct rb_beam *face_lanes[RB_LANES_MAX];
    struct rb_lane_telemetry
        *telemetry;             /* made before the first lane; its figures are the relay's */
    int told;                   /* a note was handed down */
    struct rb_tape *face_tape;  /* the recording, until its file is whole */
    struct rb_note *event_note; /* lent out by the last take */
    uint64_t linger_ns;         /* how long to look before sleeping, adapted */
    uint64_t lingered_ns;       /* when it last looked in vain; 0: not since it slept */

    /* How many processes call us just now, over connections and over lanes: a bit for each, by hash, over this half millisecond and the one before. */
    uint64_t callers[2], lane_callers[2];
    uint64_t callers_since_ns;

    uint64_t spin_ns;       /* how long to look before parking, adapted */
    uint64_t rest_until_ns; /* no look before parking until then: a yield has cost a time slice */
    uint64_t ticked_ns, tended_ns;
    struct rb_cpus cpus;                   /* of its thread's alone (wait.c) */
    struct rb_flow flows[CONNECTIONS_MAX]; /* the other thread's rows */
    uint64_t put_up,
        heard; /* bytes of signals, of all connections: put by the relay, taken by the other thread */
    int scratch_used;               /* since it was last looked at */
    struct rb_buffer asked;         /* private copy of a lane's request */
    struct rb_buffer stage, packed; /* a signal that the relay writes, and what is packed of one */
    struct rb_packing packing;
    struct rb_gathered gathered;
    struct rb_progress *progress; /* reports that have not left yet */
    uint8_t *scratch;             /* private copy of a term answer */
    size_t scratch_capacity;
    struct rb_relay_stats stats; /* read by the other thread, word by word */
    struct rb_relay_hops hops;
};

/* One writer (the relay), readers that want a recent value: relaxed is enough, nothing is inferred from the order. */
#define COUNT(word, n) rb_store_relaxed(&(word), (word) + (uint64_t)(n))
#define GAUGE(word, v) rb_store_relaxed(&(word), (uint64_t)(v))

/* When something happens by time alone, ns: a deadline, a stage of stopping a job, a breaker, a rate, a
 * look at the workers. UINT64_MAX: nothing will. */
static inline uint64_t rb_next_due(const struct rb_relay *r) {
    uint64_t due = rb_jobs_next_due(r);
    if (!due || r->health_due_ns < due) due = r->health_due_ns;
    if (r->vitals.needed && r->vitals.due_ns < due) due = r->vitals.due_ns;
    return r->backlogs.count && r->backlog_due_ns < due ? r->backlog_due_ns : due;
}

struct epoll_event;

/* One round at `now`, with what epoll says is ready. 1 if there was anything to do. Time is r->now all through it. */
int rb_relay_round(struct rb_relay *r, uint64_t now, const struct epoll_event *ready, int count);
/* All but the thread. */
int rb_relay_make(struct rb_relay **relay, const struct rb_relay_config *config);
void rb_relay_unmake(struct rb_relay *r);

uint64_t rb_clock_ns(void); /* the kernel's, for what decides nothing: figures, and how to wait */

/* For the few decisions within a round for which its begin is too old. */
static inline uint64_t rb_relay_clock(struct rb_relay *r) {
    if (__builtin_expect(r->tape != NULL, 0)) return rb_tape_clock(r);
    return r->still ? r->now : rb_clock_ns();
}

#endif
