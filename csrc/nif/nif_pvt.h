/* nif_pvt.h: what the files of the NIF share.
 *
 * A crash here takes the BEAM down. So this is a thin shell: what the relay wrote is checked by the lane's client (ringbridge/lane.h), which
 * is tested and fuzzed without a BEAM; here remain terms, processes and who owns what.
 *
 * Who holds whom. The mapping is kept by being open, by each call that is inside it, and by each answer that is still held: counted in
 * `users`, not by terms, since a process that idles may keep the term of a lane for days. Callers' terms and records keep the struct alone.
 *
 * Locks, in the order in which they may be taken: a ring's flag or mutex, or the client's drain lock; then one shard's mutex; then what erl_nif and the
 * client's short mutexes take inside. No lock is held across enif_select, enif_monitor_process and enif_demonitor_process. */
#ifndef RINGBRIDGE_NIF_PVT_H
#define RINGBRIDGE_NIF_PVT_H

#include <erl_nif.h>

#include "nif/selecting.h"
#include "ringbridge/atomics.h"
#include "ringbridge/lane.h"

/* What a call may copy on a normal scheduler: 64 KiB take 5 to 10 us, of the 1,000 that a NIF may take (erl_nif's manual). */
enum { NIF_COPY_BYTES = 64 << 10 };
/* An answer from here on stays in the region, and its binary lies there; below it a copy costs less than the book-keeping. */
enum { NIF_KEEP_BYTES = 32 << 10 };
/* Pages that one call gives back to the system: each takes 1 us. */
enum { NIF_TRIM_BYTES = 256 << 10 };
/* Answers that one call hands out: each is a message, about 0.3 us. */
enum { NIF_DRAIN_MAX = 64 };
/* How long a caller who is alone looks for its answer before it waits for the opener (look.c): as long as the relay itself would, and of it
 * one call of the NIF at most so much. A yield that takes longer than NIF_LOST_NS has given the CPU to somebody with work of his own. */
enum { NIF_LOOK_NS = 64000, NIF_LOOK_ONCE_NS = 8000, NIF_LOST_NS = 100000, NIF_REST = 64 };
/* And for as long, besides, as a payload is copied and summed on its way there and back: 4 bytes a ns, of so many bytes at most. What is
 * larger is on its way for much longer than a wake-up takes. */
enum { NIF_LOOK_BYTES_A_NS = 4, NIF_LOOK_BYTES = 256 << 10 };

/* One process that calls: its monitor, and its requests without an answer. A resource, for a monitor must be one's. */
struct caller {
    struct lane *lane; /* kept until this is freed */
    ErlNifPid pid;
    ErlNifMonitor monitor;
    struct caller *next;   /* of its bucket */
    struct request *first; /* its requests that somebody waits for */
    uint32_t
        gone; /* atomic: it has ended, or the lane is closed: out of the table, or never in it */
    /* The process's own (look.c), in ns of the monotonic clock. */
    uint64_t asked, look_until, rest_until;
    uint32_t look; /* how long it looks: by what the last looks found */
    uint32_t way;  /* and so much longer, for its last request's bytes */
};

/* What is kept for a request, under its slot. Whose it is changes hands with the request itself: the submitter's until it is sent, then the
 * drainer's. `waited` and the links are the shard's. */
struct request {
    ErlNifEnv *env; /* made with the slot's first request, used again for all others */
    ERL_NIF_TERM ref;
    struct caller *caller; /* kept */
    uint64_t number;
    struct request *before, *after;
    int waited; /* 0: cancelled; its answer goes nowhere */
};

enum { BUCKETS = 8192, SHARDS = 64 };

struct ring_flag {
    ERL_NIF_TERM last; /* the process that submitted last */
    uint32_t taken;
    uint8_t line[116]; /* two cache lines, as the rings' own words */
};

struct lane {
    struct rb_lane_client *client;
    uint32_t rings;
    struct ring_flag *flags; /* one a ring; the shared one's has no `taken` */
    ErlNifMutex *
        shared; /* the shared ring's: held from claim to send, so that a slot whose send failed is still ours */
    struct request *requests;
    uint32_t slots;
    struct caller **buckets;
    ErlNifMutex *shards[SHARDS];
    ErlNifMonitor opener;
    ErlNifPid opener_pid;
    uint32_t users;     /* of `client`: the last one detaches it */
    uint32_t closed;    /* set once */
    uint32_t selecting; /* of the bell (selecting.h) */
};

/* An answer whose bytes lie in the region: a resource, so that the last binary on it gives it back. */
struct held {
    struct lane *lane; /* kept */
    uint64_t at;
    const uint8_t *bytes;
    size_t size;
    uint32_t given;
};

struct nif_atoms {
    ERL_NIF_TERM ok, error, full, closed, too_large, answered, more, empty, ended, lane, raw, term,
        copy, copy_term, down, undefined, noconnection, timeout, refused, near, again, serve, torn,
        job, cancelled, parked, drained, over, broke;
};
extern struct nif_atoms atoms;
extern ErlNifResourceType *lane_type, *caller_type, *held_type, *worker_link_type;

/* users.c */
/* 0: the lane has gone. Else its client is there until lane_leave(). */
int lane_enter(struct lane *lane);
void lane_leave(struct lane *lane);

/* callers.c */
int callers_init(struct lane *lane);
void callers_fini(struct lane *lane);
/* The record of the process, kept for the caller of this function; NULL: it has ended, or there is no memory. */
struct caller *caller_take(ErlNifEnv *env, struct lane *lane, const ErlNifPid *pid);
uint32_t caller_hash(const ErlNifPid *pid);
/* Whether it has ended, for who has just sent a request of its. */
int caller_is_gone(const struct caller *caller);
/* Puts the request among its caller's. 0: the caller has ended. */
int caller_add(struct caller *caller, struct request *request);
/* Takes it out; whether somebody waited. */
int caller_remove(struct request *request);
/* The caller's own: nobody waits for the request of that reference any more. Its number, or NUMBER_NONE when no such is open. */
#define NUMBER_NONE UINT64_MAX
/* Kept, or NULL; and whether somebody waits for that request still. */
struct caller *caller_find(struct lane *lane, const ErlNifPid *pid);
int caller_waits(struct caller *caller, ERL_NIF_TERM ref);
uint64_t caller_forget(struct lane *lane, const ErlNifPid *pid, ERL_NIF_TERM ref);
void caller_down(ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor);
void caller_gone(ErlNifEnv *env, void *object);
/* All records leave the table; their monitors too. */
void callers_close(ErlNifEnv *env, struct lane *lane);

/* answers.c */
struct drainer {
    ErlNifEnv *env; /* of the NIF or callback under way: enif_send wants it */
    struct lane *lane;
    ERL_NIF_TERM reason; /* what is lost was lost for */
};
int answer_take(void *arg, const struct rb_lane_answer *answer);
/* What came meanwhile is handed out by whoever is here. How many. */
int drain_some(ErlNifEnv *env, struct lane *lane, int max);
void held_gone(ErlNifEnv *env, void *object);
/* The bytes in memory of the BEAM's own, given back: what a term is decoded from. */
ERL_NIF_TERM held_copy(ErlNifEnv *env, struct held *held, int term);

/* look.c */
/* After a request of a caller who is alone: whether it shall look for its answer. */
int look_begins(struct caller *caller, size_t bytes);

/* lane.c */
int is_dirty(void); /* what is long may be done here */
void lane_close(ErlNifEnv *env, struct lane *lane, ERL_NIF_TERM reason);
void lane_gone(ErlNifEnv *env, void *object);
void lane_stopped(ErlNifEnv *env, void *object, ErlNifEvent fd, int is_direct);
void lane_down(ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor);
ERL_NIF_TERM lane_open(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM lane_submit_raw(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM lane_submit_term(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM lane_cancel(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM lane_drain(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM lane_look(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM lane_park(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM lane_end(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM lane_figures(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM lane_copy(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM lane_telemetry(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* worker_link.c */
void worker_link_gone(ErlNifEnv *env, void *object);
void worker_link_stopped(ErlNifEnv *env, void *object, ErlNifEvent fd, int is_direct);
void worker_link_down(ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor);
ERL_NIF_TERM worker_link_about(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM worker_link_open(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM worker_link_bytes_max(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM worker_link_greet(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM worker_link_next(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM worker_link_watch(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM worker_link_say(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM worker_link_pulse(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM worker_link_beat(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM worker_link_trim(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM worker_link_close(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

#endif
