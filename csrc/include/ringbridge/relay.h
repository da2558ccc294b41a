/* relay.h: the relay thread's face towards the interpreter (DESIGN.md, sections 1 and 3).
 *
 * The relay owns every established distribution socket and every link. It never takes the interpreter's lock and never waits for it. One thread
 * (the one that runs trio) calls these functions; each hands a note to the relay and returns at once. What the relay has to say
 * comes back as events, in order, behind one eventfd. Plain C types only: bridge/fabric/build_core.py reads this file's second half. */
#ifndef RINGBRIDGE_RELAY_H
#define RINGBRIDGE_RELAY_H

#include <stddef.h>
#include <stdint.h>

#include "ringbridge/dispatch.h"
#include "ringbridge/lane_link.h"
#include "ringbridge/tls.h"

/* <cffi> */
struct rb_relay;

struct rb_relay_config {
    const char *node; /* full name, "bridge@127.0.0.1" */
    uint32_t creation;
    uint32_t tick_ms;          /* a tick after so long a silence of ours */
    uint32_t silence_ms;       /* a peer that is silent for so long is gone */
    uint64_t frame_bytes_max;  /* one frame */
    uint64_t signal_bytes_max; /* all signals being assembled on one connection */
    uint64_t
        upward_bytes_max; /* of one connection's signals, without the largest, waiting for the interpreter; past it closed */
    uint64_t upward_total_max;   /* of all; past it one that has more than its share is closed */
    uint64_t outgoing_bytes_max; /* waiting on one socket; past it the connection is closed */
    uint64_t outgoing_low_bytes; /* who waits for room on a socket is told when so few wait there */
    uint64_t kept_bytes_max;     /* of answers that dedupe keeps */
    uint32_t monitors_max;       /* on one connection */
    uint32_t arrival_ms;         /* a payload that has not come further for so long is given up */
    uint32_t busy_sleep_us;      /* pause between rounds under load */
    uint32_t spin_us; /* how long the relay looks before it sleeps, with few jobs outstanding */
    uint32_t arrange_cpus; /* where there are two: cpus.h */
    uint64_t seed;         /* of all that is left to chance; 0: one from the kernel */
};

enum rb_service {                     /* processes of the node that the relay answers for */
                  RB_SERVICE_JOBS,    /* Ringbridge.JobDispatcher */
                  RB_SERVICE_STREAMS, /* Ringbridge.Streams */
                  RB_SERVICES
};

enum rb_event_kind {
    RB_EVENT_SIGNAL = 1,      /* connection; control in data[0..a), message in data[a..size) */
    RB_EVENT_CONNECTION_LOST, /* connection; reason text in data */
    RB_EVENT_CONNECTION_ROOM, /* connection; the answer to rb_relay_want_room() */
    RB_EVENT_WORKER_READY, /* worker; a = pid; b kit version; c features taken << 32 | layout version; kit NUL role NUL ops in data */
    RB_EVENT_WORKER_REFUSED, /* worker; why in data */
    RB_EVENT_WORKER_BROKE,   /* worker; rule in data */
    RB_EVENT_WORKER_ENDED,   /* worker; a = status (or -1), b = signal, c = obituary flags */
    RB_EVENT_WORKER_OUTPUT,  /* worker; a = 1 stdout, 2 stderr; b = job, or 0; bytes in data */
    RB_EVENT_ROLE_GONE,      /* a = role: removed, its last job has ended, its number is free */
    RB_EVENT_JOB_LOST, /* worker; a = job, b = enum rb_reason; its meta in data, a bare term, or nothing */
    RB_EVENT_BREAKER,    /* worker, or 0 for its role's own; a = role; its state's name in data */
    RB_EVENT_LANE_READY, /* connection; worker = lane; a = pid of the BEAM, as it says */
    RB_EVENT_LANE_ENDED, /* connection; worker = lane; why in data. Its number is free */
};
struct rb_event {
    uint32_t kind;
    uint32_t connection;
    uint64_t worker;
    int64_t a, b, c;
    const uint8_t *data;
    uint64_t size;
};

enum rb_breaker_force { RB_FORCE_OPEN, RB_FORCE_CLOSED, RB_FORCE_AUTO };
enum rb_role_state { RB_ROLE_RUNNING, RB_ROLE_DRAINING, RB_ROLE_GIVEN_UP };

enum rb_reason {
    RB_REASON_OK,
    RB_REASON_OVERLOADED,
    RB_REASON_CIRCUIT_OPEN,
    RB_REASON_DEADLINE_EXCEEDED,
    RB_REASON_CANCELLED,
    RB_REASON_NO_WORKER,
    RB_REASON_DRAINING,
    RB_REASON_TOO_LARGE,
    RB_REASON_WORKER_CRASHED,
    RB_REASON_WORKER_BROKE,
    RB_REASON_JOB_FAILED,
    RB_REASON_BAD_REQUEST,
    RB_REASONS
};
/* By which rule a job was told {overloaded, ...} (csrc/relay/dispatch/admission.h). */
enum rb_rule {
    RB_RULE_ROLE_DEPTH,
    RB_RULE_NODE_DEPTH,
    RB_RULE_TENANT_DEPTH,
    RB_RULE_ADAPTIVE,
    RB_RULE_ROLE_RATE,
    RB_RULE_NODE_RATE,
    RB_RULE_TENANT_RATE,
    RB_RULE_POOL,     /* no room for its payload */
    RB_RULE_JOBS,     /* nor in the table of jobs */
    RB_RULE_DROPPED,  /* accepted, and given up for a later one */
    RB_RULE_DEFERRED, /* accepted, and kept outside the queue for as long as its role allows */
    RB_RULES
};
struct rb_relay_stats {
    uint64_t accepted, in_flight;
    uint64_t answered[RB_REASONS];    /* of accepted jobs: accepted = sum(answered) + in_flight */
    uint64_t refused[RB_REASONS];     /* never accepted */
    uint64_t overloaded_by[RB_RULES]; /* their sum: refused and answered with overloaded */
    uint64_t streams, events;         /* open subscriptions; parts that left to consumers */
    uint64_t connections, rounds, sleeps, parks, bytes_in, bytes_out;
};
struct rb_role_stats {
    uint64_t queued, placed, workers_ready, accepted;
    uint64_t answered[RB_REASONS]; /* of its accepted jobs */
    uint64_t refused[RB_REASONS];  /* that named it, and were not accepted */
    /* Jobs that were cancelled, or whose deadline passed, before they were placed and after; of the latter: told by the cancel word,
     * by SIGTERM, by SIGKILL, and how many a worker gave back as cancelled, how long after the word in ns together. */
    uint64_t stopped_waiting, stopped_placed, told_word, told_term, told_kill, noticed, noticed_ns;
    uint64_t breaker, breaker_openings; /* its own: enum rb_breaker_state; since it was closed */
    uint64_t stolen;   /* jobs with a key that another worker took than the one they waited for */
    uint64_t retried;  /* runs that began again after a worker's death */
    uint64_t deferred; /* accepted, and not in its queue yet */
    uint64_t adaptive_limit; /* of jobs in flight; 0: none */
    uint64_t overloaded_by[RB_RULES];
};
struct rb_worker_stats {
    uint64_t in_flight, done, lost, service_ns, credit, heartbeats, heartbeat_ns, wakes;
    uint32_t gate, state;
    uint32_t breaker, share; /* enum rb_breaker_state; of what it would be given, in thousandths */
    /* As its kit says: jobs that failed, how long the last one ran, signs of jobs that get on; the code of the last failure, jobs that
     * wait in its ring, 1: it wants none for now. As the relay sees it: how long it has been silent, its jobs without a sign. */
    uint64_t failed, run_ns, pulses, silent_ns, still_ns;
    uint32_t last_code, ring_queued, unready;
    /* Jobs that were put into its ring in its life; those of them that its handler had entered by the relay's last look, as it says. */
    uint64_t placed, begun;
};
/* Of a lane: how many of its requests are open now, what it carried, what waits here for room in its result region, how often its BEAM
 * was woken; blocks of that region that the BEAM holds. */
struct rb_lane_stats {
    uint64_t connection, pid, open, requests, answered, dropped, cancelled, bytes_in, bytes_out;
    uint64_t kept_bytes, wakes, lent_blocks;
};
/* Time between the stations of a job, sampled: sums in ns over `samples` jobs. */
struct rb_relay_hops {
    uint64_t samples, socket_to_queue_ns, queue_to_ring_ns, ring_to_answer_ns, worker_run_ns,
        answer_to_socket_ns;
};

/* Starts the thread. 0, or a negative errno. */
int rb_relay_open(struct rb_relay **relay, const struct rb_relay_config *config);
void rb_relay_stop(
    struct rb_relay *relay); /* ends the thread; figures can still be read. May be repeated */
/* Whether the books of a stopped relay are even: accepted = answered + in flight, and every table as its figures say. 0, or -EPROTO
 * with the rule that is broken: a bug of the relay's. */
int rb_relay_audit(const struct rb_relay *relay, char *why, uint64_t why_bytes);
void rb_relay_close(struct rb_relay *relay); /* stops it, closes every socket and link */

/* Other bounds of connections and other times, from the relay's next round on: ticks and silence, what may wait in either direction, how
 * long a payload may stand still. Those who have gone past a lowered bound are closed when they grow. signal_bytes_max is for connections
 * that come; the rest of the config stays as it was opened. 0, or a negative errno. */
int rb_relay_configure(struct rb_relay *relay, const struct rb_relay_config *config);

/* Events, on the thread that sleeps on event_fd. It sleeps like this: hush, take until there is none, sleep. Only who has hushed is rung. */
int rb_relay_event_fd(const struct rb_relay *relay);
void rb_relay_hush(struct rb_relay *relay); /* clears the eventfd and asks for the next ring */
int rb_relay_waiting(const struct rb_relay *relay); /* 1: there is something to take */
/* Looks whether something comes, for spin_us at most and less when that was in vain lately; 1 if so. For a thread that would sleep
 * otherwise. */
int rb_relay_linger(struct rb_relay *relay);
/* The next signals, copied into room one behind the other: connection, size of the control part, size of the message part of each
 * in heads[3 * i]. Returns how many; it ends before another kind of event, and before a signal for which no room is left. */
int rb_relay_take_signals(struct rb_relay *relay, uint32_t *heads, int max, uint8_t *room,
                          uint64_t size);
int rb_relay_take(
    struct rb_relay *relay,
    struct rb_event *event); /* 1, or 0 when there is none; valid until the next take */

/* All below: 0, or a negative errno (-EAGAIN: the duct to the relay is full). */
int rb_relay_adopt(struct rb_relay *relay, uint32_t connection, int fd, const char *peer,
                   uint64_t flags, const uint8_t *leftover, uint64_t size);
/* The same of a TLS connection that was taken from its pump (tls.h). */
int rb_relay_adopt_tls(struct rb_relay *relay, uint32_t connection, struct rb_tls *tls,
                       const char *peer, uint64_t flags, const uint8_t *leftover, uint64_t size);
int rb_relay_send(struct rb_relay *relay, uint32_t connection, const uint8_t *control,
                  uint64_t control_size, const uint8_t *message,
                  uint64_t message_size); /* message NULL: the op carries none */
/* Bytes handed down for a connection that its socket has not taken yet; 0 for none. */
uint64_t rb_relay_backlog(struct rb_relay *relay, uint32_t connection);
int rb_relay_want_room(struct rb_relay *relay,
                       uint32_t connection); /* RB_EVENT_CONNECTION_ROOM when there is */
int rb_relay_drop(struct rb_relay *relay, uint32_t connection, const char *reason);
int rb_relay_install_service(struct rb_relay *relay, uint32_t service, uint32_t pid_id,
                             uint32_t pid_serial,
                             const char *names); /* names: NUL-separated, empty last */
/* sys:suspend. The JobDispatcher: jobs queue, none is placed; what runs, runs on. Streams: no worker is asked for more parts. */
int rb_relay_hold(struct rb_relay *relay, uint32_t service, int on);
int rb_relay_service_down(struct rb_relay *relay, uint32_t service, const uint8_t *reason,
                          uint64_t size); /* reason: a bare term */

int rb_relay_add_role(struct rb_relay *relay, uint32_t role, const struct rb_role_config *config);
/* The role works by `config` from the relay's next round on; jobs that it has keep the timeouts they were taken in with, and more may wait
 * than a lowered depth_max until they have run. -ENOENT: no such role. -EINVAL: another name or another size of the pool, which
 * a role keeps for life (dispatch.h says why), or a number of admission or breaker out of its range. */
int rb_relay_configure_role(struct rb_relay *relay, uint32_t role,
                            const struct rb_role_config *config);
/* Callers do not find the role from the relay's next round on: it is unknown to them. Jobs that wait are answered :no_worker.
 * RB_EVENT_ROLE_GONE follows when the last one has left, a payload that still arrives among them; then the number may be given again.
 * -ENOENT, or -EBUSY while a worker of it has not ended. */
int rb_relay_remove_role(struct rb_relay *relay, uint32_t role);
/* Holds the breaker of a worker, or with worker 0 of the role as a whole, open or closed, or lets it go: enum rb_breaker_force. -ENOENT:
 * no such role. A worker that the relay does not know, or that is of another role, changes nothing. */
int rb_relay_force_breaker(struct rb_relay *relay, uint32_t role, uint64_t worker, uint32_t how);
/* What the tenant of this name is given, in every role; NULL: nothing of its own any more. -EINVAL for a name or a weight that no
 * tenant may have. */
int rb_relay_configure_tenant(struct rb_relay *relay, const char *name,
                              const struct rb_tenant_config *config);
/* Gives a calling node or a tenant its own bounds, or with `config` NULL takes them away; an empty name: all that have none of their own.
 * -EINVAL: a number out of range, a name of more than 255 bytes. */
int rb_relay_configure_allowance(struct rb_relay *relay, uint32_t kind, const char *name,
                                 const struct rb_allowance_config *config);
int rb_relay_set_role_state(struct rb_relay *relay, uint32_t role, uint32_t state);
int rb_relay_create_link(struct rb_relay *relay, uint32_t role, uint64_t worker, uint32_t slots,
                         uint64_t result_bytes, uint32_t result_block_bytes, uint64_t features,
                         int fds[5]);
int rb_relay_add_worker(struct rb_relay *relay, uint64_t worker, int pidfd, int obituary_fd,
                        int stdout_fd, int stderr_fd);
int rb_relay_drop_link(struct rb_relay *relay, uint64_t worker);
int rb_relay_drain_worker(struct rb_relay *relay, uint64_t worker);
/* Its weight beside the other workers of its role, 1 .. 100 (1 without this), from the relay's next round on. -EINVAL. */
int rb_relay_weigh_worker(struct rb_relay *relay, uint64_t worker, uint32_t weight);

/* It is never taken for hung or stuck, from the relay's next round on: a debugger may hold it (relay/dispatch/vitals.h). */
int rb_relay_spare_worker(struct rb_relay *relay, uint64_t worker);
/* Nobody here can end its process: where another's would hear SIGKILL, for a job that does not heed its cancel, it has broken the rule
 * cancel_ignored. From the relay's next round on. */
int rb_relay_unguarded_worker(struct rb_relay *relay, uint64_t worker);

/* A lane for the node of this connection, whose end it shares (docs/nif-lane.md). The descriptors are the caller's, to hand over and to
 * close: relay side, beam side, bell, telemetry. Once all copies of the bell are closed the lane ends by itself; before,
 * RB_EVENT_LANE_ENDED says why it did. 0; -EINVAL: a size that no lane has; -EEXIST, -EMFILE: its number, or too many; -EBUSY: while a
 * recording is made, which could not be run again. */
enum { RB_LANES_MAX = 256 };
int rb_relay_open_lane(struct rb_relay *relay, uint32_t connection,
                       const struct rb_lane_config *config, int fds[4]);
int rb_relay_close_lane(struct rb_relay *relay, uint64_t lane, const char *reason);

/* What BEAMs with a lane read of the bridge's list of workers (lane_telemetry.h), beside the figures that the relay writes. `place`: any
 * below RB_LISTED_MAX that nobody else has; with RB_LISTED_NONE nobody has it any more. `hidden`: workers for whom there is no place.
 * Errors, the newest first: those before are forgotten. 0, -EINVAL, -ENOMEM, .. */
enum { RB_LISTED_MAX = 1024, RB_LISTED_ERRORS_MAX = 16, RB_LISTED_WHY_BYTES = 496 };
enum rb_listed_state {
    RB_LISTED_NONE,
    RB_LISTED_STARTING,
    RB_LISTED_READY,
    RB_LISTED_DRAINING,
    RB_LISTED_RESTARTING,
    RB_LISTED_DRAINED,
    RB_LISTED_GIVEN_UP,
    RB_LISTED_FINISHED,
    RB_LISTED_STOPPED
};
struct rb_listed_worker {
    uint64_t worker;
    uint32_t state, index, os_pid, restarts;
    char kit[32], role[64]; /* NUL-padded */
};
struct rb_listed_error {
    uint64_t worker;
    char why[RB_LISTED_WHY_BYTES];
};
int rb_relay_list_worker(struct rb_relay *relay, uint32_t place,
                         const struct rb_listed_worker *worker);
int rb_relay_list_hidden(struct rb_relay *relay, uint32_t hidden);
int rb_relay_list_errors(struct rb_relay *relay, const struct rb_listed_error *errors,
                         uint32_t count);

/* Writes down all that comes to the relay and all that leaves it, so that it can be run again (rb_replay, lab.h; docs/replay.md): into
 * `path`, which must not exist and is nobody else's to read, at most file_bytes_max bytes, through buffer_bytes (a power of two) of
 * memory: when the disk is too slow for these the recording ends, not the relay. To be called before anything else: -EBUSY after. */
int rb_relay_record(struct rb_relay *relay, const char *path, uint64_t file_bytes_max,
                    uint64_t buffer_bytes);
int rb_relay_record_stop(
    struct rb_relay *relay); /* the rest of the file is on its way; -ENOENT: there is none */
enum rb_record_end {
    RB_RECORD_STOPPED,
    RB_RECORD_FILE_FULL,
    RB_RECORD_DISK_SLOW,
    RB_RECORD_WRITE_FAILED,
    RB_RECORD_NO_MEMORY
};
struct rb_record_figures {
    uint64_t bytes;
    uint32_t over, done; /* nothing is added; the file is whole and closed */
    uint32_t end;        /* once it is over: enum rb_record_end */
    uint32_t failed;     /* errno of writing it */
};
int rb_relay_record_figures(struct rb_relay *relay,
                            struct rb_record_figures *figures); /* -ENOENT */

void rb_relay_read_stats(struct rb_relay *relay, struct rb_relay_stats *stats);
void rb_relay_read_hops(struct rb_relay *relay, struct rb_relay_hops *hops);
int rb_relay_read_role(struct rb_relay *relay, uint32_t role,
                       struct rb_role_stats *stats); /* -ENOENT */
int rb_relay_read_worker(struct rb_relay *relay, uint64_t worker,
                         struct rb_worker_stats *stats); /* -ENOENT */
int rb_relay_read_lane(struct rb_relay *relay, uint64_t lane,
                       struct rb_lane_stats *stats); /* -ENOENT */
/* </cffi> */

#endif
