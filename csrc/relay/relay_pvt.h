/* relay_pvt.h: what the relay's parts share. All of it belongs to the relay thread, except where a line says otherwise. */
#ifndef RB_RELAY_PVT_H
#define RB_RELAY_PVT_H

#include <pthread.h>

#include "buffer.h"
#include "duct.h"
#include "flow.h"
#include "intake.h"
#include "outgoing.h"
#include "request.h"
#include "ringbridge/link.h"
#include "ringbridge/obituary.h"
#include "ringbridge/relay.h"
#include "ringbridge/term_check.h"
#include "wire.h"

enum {
    CONNECTIONS_MAX = 1024,
    ROLES_MAX = 64,
    WORKERS_MAX = 4096,
    SERVICE_NAMES_MAX = 8,
    JOB_INDEX_BITS = 20,
    STDERR_TAIL = 2048,
    MONITOR_BUCKETS = 1024,
    RECENT_MONITORS = 64,
};
#define NS_PER_MS 1000000ull
#define RB_WATCH_MARK 0x52420000u /* in the last word of the references that the relay makes */

/* --- Connections --------------------------------------------------------------------------------------------------------- */

struct rb_monitor { /* a peer's process watches one of our services */
    struct rb_monitor *next;
    uint32_t hash;
    uint16_t ref_size, from_size, to_size, capacity;
    struct rb_job *job; /* bound by a call; NULL before it and after its answer */
    uint8_t bytes[];    /* ref, from, to */
};

struct rb_conn {
    struct rb_relay *relay;
    uint32_t id;
    struct rb_wire wire;
    char peer[256];
    uint64_t flags;
    struct rb_intake intake;
    struct rb_intake_owner owner;
    struct rb_buffer out; /* whole frames, the first maybe begun */
    struct rb_outgoing outgoing;
    struct rb_flow *flow;
    int wants_room;          /* the other thread waits for room in `out` */
    uint64_t put_up;         /* bytes of signals that went up, since the beginning */
    uint64_t put_up_largest; /* the largest of those since none waited */
    int wants_out;           /* in epoll for EPOLLOUT */
    int dirty;               /* on the relay's flush list */
    struct rb_conn *next_dirty;
    int unread; /* TLS: on the relay's list of those that hold bytes unread */
    struct rb_conn *next_unread;
    uint64_t sent_ns, received_ns;
    const char *failed;  /* set: to be closed at the end of the round, with this reason */
    struct rb_job *jobs; /* of callers on this node */
    struct rb_monitor *monitors[MONITOR_BUCKETS];
    uint32_t monitor_count;
    struct rb_monitor *spare; /* freed ones of the common size */
    /* The last monitor of a process, for tags that do not name it (OTP 25's multi_call); by hash of the pid. */
    struct rb_monitor *recent[RECENT_MONITORS];
};

/* --- Jobs ---------------------------------------------------------------------------------------------------------------- */

enum rb_job_state {
    RB_JOB_FREE,
    RB_JOB_ARRIVING, /* its payload is still coming in: not accepted yet */
    RB_JOB_QUEUED,
    RB_JOB_PLACED,    /* in a worker's ring; its caller waits */
    RB_JOB_ABANDONED, /* in a worker's ring; nobody waits */
};

struct rb_job {
    uint64_t id; /* sequence << 20 | index */
    uint8_t state;
    uint8_t detail;
    uint8_t is_term;
    uint8_t arity;   /* of the submit tuple, while the payload arrives */
    uint8_t sampled; /* its hops are timed */
    uint8_t
        signals; /* stages of stopping it that were taken: 1 cancel word, 2 SIGTERM, 3 SIGKILL */
    int32_t heap_at;                           /* -1: not in the deadline heap */
    uint64_t due_ns;                           /* deadline, or the next stage of stopping it */
    uint64_t arrived_ns, queued_ns, placed_ns; /* queued_ns: of sampled jobs */
    uint64_t run_ns;                           /* as its worker says */
    struct rb_role *role;
    struct rb_worker *worker;
    uint64_t position;          /* in the worker's request ring */
    struct rb_job *next, *prev; /* queue of the role; free list */
    struct rb_conn *arriving;   /* from which its payload comes, while it does */
    uint64_t arriving_left;     /* bytes of it that were missing when it was last looked at */
    struct rb_conn *conn;       /* where the answer goes; NULL: nowhere any more */
    struct rb_job *next_of_conn, *prev_of_conn;
    struct rb_monitor *monitor;      /* the caller's own, or NULL */
    uint64_t watch;                  /* ours on the caller; 0: none */
    uint32_t pool_first, pool_count; /* payload blocks; count 0: inline */
    struct rb_request request;
    uint16_t pid_size, tag_size, alias_at,
        alias_size; /* of caller[]: pid, tag; the alias inside the tag */
    uint16_t caller_capacity;
    uint8_t *caller; /* caller_inline or the heap */
    uint8_t caller_inline[160];
};

struct rb_caller { /* who is answered, whether a job or a refused request */
    struct rb_conn *conn;
    struct rb_slice pid, tag, alias;
};

/* --- Roles and workers --------------------------------------------------------------------------------------------------- */

struct rb_band {
    struct rb_job *first, *last;
};

struct rb_role {
    uint32_t id;
    char name[64];
    struct rb_role_config config;
    struct rb_pool pool;
    uint32_t state;
    struct rb_band bands[4];
    uint32_t queued;
    struct rb_worker **workers; /* ready ones */
    uint32_t ready, capacity, turn;
    int dirty;                  /* has something to place */
    struct rb_role_stats stats; /* read by the other thread, word by word */
};

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
    struct rb_job **placed; /* by slot of the request ring */
    uint32_t in_flight;
    uint32_t credit;
    uint64_t service_ns; /* moving average */
    int pidfd, obituary_fd, stdout_fd, stderr_fd;
    int handed_over; /* by the other thread, which alone reads it */
    int filled;      /* on the list of workers whose ring is to be published */
    struct rb_worker *next_filled;
    int polled; /* on the list of workers with jobs in flight */
    struct rb_worker *next_polled;
    const char *broke; /* rule, once fenced for it */
    struct rb_atom_budget atoms;
    uint8_t obituary[sizeof(struct rb_obituary)];
    uint32_t obituary_size;
    char stderr_tail[STDERR_TAIL];
    uint32_t stderr_size;
    struct rb_worker_stats stats; /* read by the other thread, word by word */
};

/* What epoll hands back: the kind in the low bits of an aligned pointer would be clever; a small record is clear. */
enum rb_source_kind {
    RB_SOURCE_DUCT,
    RB_SOURCE_CONN,
    RB_SOURCE_LINK,
    RB_SOURCE_OBITUARY,
    RB_SOURCE_STDOUT,
    RB_SOURCE_STDERR
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
    uint64_t now;        /* CLOCK_MONOTONIC at the begin of the round */
    uint64_t sampled_ns; /* when a timed job of this round was answered; 0: none */

    struct rb_conn
        *conns[CONNECTIONS_MAX]; /* at their id modulo the size, or where there was room */
    struct rb_conn *dirty_conns, *unread_conns;
    struct rb_role *roles[ROLES_MAX]; /* put in by a note (face.c makes them) */
    uint32_t roles_count;
    struct rb_worker *workers[WORKERS_MAX]; /* the same */
    struct rb_worker *polled_workers;

    /* The service that the relay owns. */
    uint8_t service_pid[300];
    size_t service_pid_size;
    struct rb_slice service_names[SERVICE_NAMES_MAX];
    uint32_t service_names_count;
    char service_text[512];
    int service_up;
    int held; /* suspended: jobs queue, none is placed */

    struct rb_job **chunks; /* of 1024 jobs */
    uint32_t chunk_count;
    struct rb_job *free_jobs;
    uint64_t job_sequence;
    struct rb_job **heap; /* by due_ns */
    uint32_t heap_count, heap_capacity;

    /* The other thread's own tables (face.c). */
    struct rb_role *face_roles[ROLES_MAX];
    struct rb_worker *face_workers[WORKERS_MAX];
    struct rb_note *event_note; /* lent out by the last take */
    uint64_t linger_ns;         /* how long to look before sleeping, adapted */
    uint64_t lingered_ns;       /* when it last looked in vain; 0: not since it slept */

    /* How many processes call us just now: a bit for each, by hash, over this half millisecond and the one before. */
    uint64_t callers[2];
    uint64_t callers_since_ns;

    uint64_t spin_ns; /* how long to look before parking, adapted */
    uint64_t ticked_ns, tended_ns;
    struct rb_flow flows[CONNECTIONS_MAX]; /* the other thread's rows */
    uint64_t put_up,
        heard; /* bytes of signals, of all connections: put by the relay, taken by the other thread */
    int scratch_used;               /* since it was last looked at */
    struct rb_buffer stage, packed; /* a signal that the relay writes, and what is packed of one */
    struct rb_packing packing;
    uint8_t *scratch; /* private copy of a term answer */
    size_t scratch_capacity;
    struct rb_relay_stats stats; /* read by the other thread, word by word */
    struct rb_relay_hops hops;
};

/* One writer (the relay), readers that want a recent value: relaxed is enough, nothing is inferred from the order. */
#define COUNT(word, n) rb_store_relaxed(&(word), (word) + (uint64_t)(n))
#define GAUGE(word, v) rb_store_relaxed(&(word), (uint64_t)(v))

uint64_t rb_clock_ns(void);

/* conn.c: sockets */
int rb_conn_open(struct rb_relay *r, uint32_t id, struct rb_flow *flow, int fd, struct rb_tls *tls,
                 const char *peer, uint64_t flags, const uint8_t *leftover, size_t size);
void rb_conn_close(struct rb_conn *c, const char *reason);
void rb_conn_read(struct rb_conn *c);
void rb_conns_read(struct rb_relay *r); /* those whose bytes epoll does not see */
void rb_conn_flush(struct rb_conn *c);
void rb_conn_dirty(struct rb_conn *c); /* has something to flush */
void rb_conn_fail(struct rb_conn *c, const char *reason);
int rb_conn_write_through(struct rb_conn *c, const uint8_t *bytes,
                          size_t size); /* after what waits; copied only if the socket is full */
void rb_conns_tick(struct rb_relay *r);
struct iovec;
/* Sends what waits in `out`, then the pieces; how much of the pieces left, or -1 when the connection has failed. */
ssize_t rb_conn_transmit(struct rb_conn *c, const struct iovec *more, int pieces);
static inline uint64_t rb_conn_waiting_bytes(const struct rb_conn *c) {
    return c->out.end - c->out.begin + c->outgoing.bytes;
}
static inline int rb_conn_with_header(const struct rb_conn *c) {
    return (c->flags & (RB_DFLAG_FRAGMENTS | RB_DFLAG_DIST_HDR_ATOM_CACHE)) != 0;
}
struct rb_conn *rb_conn_find(struct rb_relay *r, uint32_t id);
struct rb_conn *rb_conn_of_node(struct rb_relay *r, struct rb_slice node);

/* answer.c: frames that the relay makes */
/* `owner`: the block in which both lie, which may be kept (outgoing.h). */
int rb_send_signal(struct rb_conn *c, struct rb_slice control, const struct rb_slice *message,
                   void **owner);
void rb_answer_raw(const struct rb_caller *to, const struct rb_job *detail, const uint8_t *bytes,
                   size_t size);
void rb_answer_term(const struct rb_caller *to, const struct rb_job *detail, struct rb_slice term);
void rb_answer_reason(const struct rb_caller *to, enum rb_reason reason); /* the plain atoms */
void rb_answer_overloaded(const struct rb_caller *to, uint64_t retry_after_ms);
void rb_answer_too_large(const struct rb_caller *to, uint64_t limit);
void rb_answer_text(const struct rb_caller *to, enum rb_reason reason,
                    const char *text); /* bad_request, worker_broke */
void rb_answer_failed(const struct rb_caller *to, uint16_t code, const uint8_t *message,
                      size_t size);
void rb_answer_crashed(const struct rb_caller *to, const struct rb_worker *w, uint64_t job,
                       int status, int signal, int oom);
void rb_answer_ok(const struct rb_caller *to); /* the bare atom ok */
void rb_answer_unknown_job(const struct rb_caller *to);
void rb_answer_stats(const struct rb_caller *to, const struct rb_relay *r);
void rb_answer_status(const struct rb_caller *to, const struct rb_job *job, uint64_t now);
void rb_answer_jobs(const struct rb_caller *to, struct rb_relay *r, struct rb_slice role);
void rb_send_down(struct rb_conn *c, const struct rb_monitor *m, struct rb_slice reason);
void rb_send_watch(struct rb_conn *c, int on, struct rb_slice pid, uint64_t watch);
const char *rb_reason_name(enum rb_reason reason);

/* monitor.c: what callers hold on our service */
uint32_t rb_monitor_hash(struct rb_slice pid_or_ref);
struct rb_monitor *rb_monitor_add(struct rb_conn *c, const struct rb_signal *s);
struct rb_monitor *rb_monitor_find(struct rb_conn *c, struct rb_slice ref, struct rb_slice from);
struct rb_monitor *rb_monitor_recent(struct rb_conn *c, struct rb_slice from);
void rb_monitor_remove(struct rb_conn *c, struct rb_monitor *m);
void rb_monitors_free(struct rb_conn *c);

/* service.c: signals to the relay's own service, and everything else upward */
void rb_service_bind(struct rb_conn *c); /* sets the owner of the connection's intake */
void rb_service_down(struct rb_relay *r, struct rb_slice reason);

/* job.c: the table, the deadline heap, the life of a job */
struct rb_job *rb_job_new(struct rb_relay *r);
void rb_job_free(struct rb_relay *r, struct rb_job *j);
struct rb_job *rb_job_find(struct rb_relay *r, uint64_t id);
struct rb_job *rb_job_next(struct rb_relay *r,
                           uint64_t *index); /* over all that wait or run; NULL at the end */
int rb_job_set_caller(struct rb_job *j, struct rb_conn *c, const struct rb_from *from);
struct rb_caller rb_job_caller(const struct rb_job *j);
void rb_job_due(struct rb_relay *r, struct rb_job *j, uint64_t due_ns); /* 0: never */
void rb_job_accept(struct rb_relay *r, struct rb_job *j);               /* counted, queued */
void rb_job_requeue(struct rb_relay *r, struct rb_job *j); /* back to the front, unstarted */
void rb_job_answered(struct rb_relay *r, struct rb_job *j,
                     enum rb_reason reason); /* forgets the caller; frees unless placed */
void rb_job_cancel(struct rb_relay *r, struct rb_job *j,
                   enum rb_reason reason); /* nobody waits, or the deadline passed */
void rb_job_arrives(struct rb_relay *r, struct rb_job *j, struct rb_conn *from,
                    uint64_t bytes);                 /* its payload will, by and by */
void rb_jobs_due(struct rb_relay *r);                /* deadlines and stages that have come */
uint64_t rb_jobs_next_due(const struct rb_relay *r); /* 0: none */

/* role.c: queues and placing */
void rb_role_push(struct rb_role *role, struct rb_job *j, int front);
void rb_role_unlink(struct rb_role *role, struct rb_job *j);
void rb_role_add_ready(struct rb_role *role, struct rb_worker *w);
void rb_role_remove_ready(struct rb_role *role, struct rb_worker *w);
void rb_roles_place(struct rb_relay *r);
void rb_role_give_up(struct rb_relay *r, struct rb_role *role,
                     enum rb_reason reason); /* answers all that is queued */
struct rb_role *rb_role_named(struct rb_relay *r, struct rb_slice name);

/* worker.c: links. Tables of workers hold one at its id modulo the size, or where there was room: a long life must not block a number. */
struct rb_worker **rb_worker_slot(struct rb_worker **table, uint64_t id); /* where it is, or NULL */
struct rb_worker **rb_worker_room(struct rb_worker **table,
                                  uint64_t id); /* where it may go, or NULL: full */
struct rb_worker *rb_worker_find(struct rb_relay *r, uint64_t id);
void rb_worker_watch(struct rb_worker *w);   /* joins epoll */
void rb_worker_greeted(struct rb_worker *w); /* looks for the hello */
int rb_worker_poll(struct rb_worker *w);     /* drains completions; how many */
void rb_worker_broke(struct rb_worker *w, const char *rule);
void rb_worker_obituary(struct rb_worker *w);
void rb_worker_output(struct rb_worker *w, int which);
void rb_worker_drain(struct rb_worker *w);
void rb_worker_free(struct rb_worker *w);
void rb_worker_signal(struct rb_worker *w, int signal);
void rb_worker_tend(struct rb_worker *w); /* now and then: figures from its telemetry */

/* note.c: both ways to the other thread */
void rb_up_event(struct rb_relay *r, uint32_t kind, uint32_t connection, uint64_t worker, int64_t a,
                 int64_t b, int64_t c, const void *data, size_t size); /* never lost */
int rb_up_signal(struct rb_conn *c, struct rb_slice control,
                 struct rb_slice message); /* -EAGAIN: bound reached */
void rb_up_flush(struct rb_relay *r);
int rb_down_take(struct rb_relay *r); /* carries out what the other thread asked; how many */

#endif
