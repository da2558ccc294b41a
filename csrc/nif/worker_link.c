/* worker_link.c: a worker's end of a link, as a resource of the one process that serves it (docs/remote-workers.md).
 *
 * To the relay it is a worker like others; ringbridge/proxy.h plays the worker's end, and is tested without a BEAM. That has one user at a time,
 * which is the process that opened the link: all others are refused, and a process is in one NIF at a time. The mapping is kept by being open
 * and by each call that is inside (`users`), since the owner may end while a call of its own still copies on a dirty scheduler.
 *
 * What runs on a normal scheduler copies NIF_COPY_BYTES at most; all that waits is enif_select's. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "nif/nif_pvt.h"
#include "ringbridge/envelope.h"
#include "ringbridge/layout.h"
#include "ringbridge/proxy.h"

enum { MESSAGE_BYTES_MAX = 1024, COPIES = 5 };
enum { EXTERNAL = 131, COMPRESSED = 80 };
static const uint64_t NS_PER_MS = 1000000;

struct worker_link {
    struct rb_proxy *proxy;
    ErlNifPid owner;
    ErlNifMonitor monitor;
    uint32_t users;    /* of `proxy`: the last one closes it */
    uint32_t closed;   /* set once */
    uint32_t selected; /* enif_select was called */
    /* The owner's own. */
    int parked;
    int open; /* it has a job: */
    struct rb_proxy_request job;
};

ErlNifResourceType *worker_link_type;

/* --- Opened and closed --------------------------------------------------------------------------------------------------- */

/* 0: it is closed. */
static int enter(struct worker_link *link) {
    uint32_t users = rb_load_relaxed(&link->users);
    /* Its memory may stay for a while, until the bell is nobody's: but for its owner, who is the one that closes it, it is over. */
    if (rb_load_acquire(&link->closed)) return 0;
    /* Acquire: pairs with the open's store; from 0 it never rises again. */
    while (users && !__atomic_compare_exchange_n(&link->users, &users, users + 1, 1,
                                                 __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
    }
    return users != 0;
}

static void leave(struct worker_link *link) {
    /* Pairs with itself: the last one sees all that the others have done. */
    if (__atomic_sub_fetch(&link->users, 1, __ATOMIC_ACQ_REL) == 0) {
        rb_proxy_close(link->proxy);
        link->proxy = NULL;
    }
}

void worker_link_gone(ErlNifEnv *env, void *object) {
    struct worker_link *link = object;
    (void)env;
    if (link->proxy) rb_proxy_close(link->proxy); /* it was never opened */
}

/* Nobody selects the bell any more. */
void worker_link_stopped(ErlNifEnv *env, void *object, ErlNifEvent fd, int is_direct) {
    (void)env, (void)fd, (void)is_direct;
    leave(object); /* as what is open */
}

/* May be repeated. */
static void close_link(ErlNifEnv *env, struct worker_link *link) {
    /* Pairs with itself: one of those that close it does. */
    if (__atomic_exchange_n(&link->closed, 1, __ATOMIC_ACQ_REL)) return;
    if (rb_load_acquire(&link->selected))
        enif_select(env, rb_proxy_bell(link->proxy), ERL_NIF_SELECT_STOP, link, NULL,
                    atoms.undefined);
    else
        leave(link);
}

void worker_link_down(ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor) {
    (void)pid, (void)monitor;
    close_link(env, object);
}

static ERL_NIF_TERM failed(ErlNifEnv *env, int error, const char *why) {
    ERL_NIF_TERM text;
    if (!why[0]) why = strerror(-error);
    size_t size = strlen(why);
    memcpy(enif_make_new_binary(env, size, &text), why, size);
    return enif_make_tuple2(env, atoms.error, text);
}

/* worker_about() -> {Version, Digest} of the layout of links. */
ERL_NIF_TERM worker_link_about(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    ERL_NIF_TERM digest;
    (void)argc, (void)argv;
    memcpy(enif_make_new_binary(env, RB_LAYOUT_DIGEST_SIZE, &digest), RB_LAYOUT_DIGEST_BYTES,
           RB_LAYOUT_DIGEST_SIZE);
    return enif_make_tuple2(env, enif_make_uint(env, RB_LAYOUT_VERSION), digest);
}

/* worker_open(Socket, Token, TimeoutMs) -> {ok, Link} | {error, Text}. Dirty IO: it waits for a socket. */
ERL_NIF_TERM worker_link_open(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    ErlNifBinary name, token;
    struct worker_link *link;
    ERL_NIF_TERM term;
    ErlNifPid self;
    char why[640] = "";
    int timeout_ms, error, fds[COPIES];
    if (argc != 3 || !enif_inspect_binary(env, argv[0], &name) ||
        !enif_inspect_binary(env, argv[1], &token) || !enif_get_int(env, argv[2], &timeout_ms) ||
        name.size == 0 || name.size > 107 || token.size != RB_LANE_TOKEN_BYTES || timeout_ms < 0 ||
        !enif_self(env, &self))
        return enif_make_badarg(env);
    if ((error = rb_lane_dial_link(name.data, name.size, token.data, timeout_ms, fds, why,
                                   sizeof why)) < 0)
        return failed(env, error, why);
    if (!(link = enif_alloc_resource(worker_link_type, sizeof *link))) {
        error = -ENOMEM;
    } else {
        memset(link, 0, sizeof *link);
        link->owner = self;
        error = rb_proxy_open(fds, &link->proxy, why, sizeof why);
        if (error < 0)
            link->proxy = NULL;
        else
            rb_proxy_ring_at_bell(link->proxy); /* no scheduler waits for the relay */
    }
    for (int i = 0; i < COPIES; i++) close(fds[i]); /* it has copies of its own */
    if (!link) return failed(env, error, "");
    if (error == 0) {
        rb_store_release(&link->users, 1);
        /* The owner may have ended meanwhile. */
        if (enif_monitor_process(env, link, &self, &link->monitor) != 0) {
            error = -ESRCH;
            close_link(env, link);
        }
    }
    term = enif_make_resource(env, link);
    enif_release_resource(link);
    return error < 0 ? failed(env, error, why) : enif_make_tuple2(env, atoms.ok, term);
}

/* The link of an argument, which is the caller's; NULL: called wrongly. */
static struct worker_link *ours(ErlNifEnv *env, ERL_NIF_TERM term) {
    struct worker_link *link;
    ErlNifPid self;
    if (!enif_get_resource(env, term, worker_link_type, (void **)&link) || !enif_self(env, &self) ||
        enif_compare_pids(&self, &link->owner) != 0)
        return NULL;
    return link;
}

/* worker_close(Link) -> ok. Dirty IO: it unmaps. */
ERL_NIF_TERM worker_link_close(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct worker_link *link;
    if (argc != 1 || !(link = ours(env, argv[0]))) return enif_make_badarg(env);
    enif_demonitor_process(env, link, &link->monitor);
    close_link(env, link);
    return atoms.ok;
}

/* worker_bytes_max(Link) -> the most that an answer or a part can have | over. */
ERL_NIF_TERM worker_link_bytes_max(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct worker_link *link;
    if (argc != 1 || !(link = ours(env, argv[0]))) return enif_make_badarg(env);
    if (!enter(link)) return atoms.over;
    ERL_NIF_TERM bytes = enif_make_uint64(env, rb_proxy_answer_bytes_max(link->proxy));
    leave(link);
    return bytes;
}

static int get_text(ErlNifEnv *env, ERL_NIF_TERM term, char *text, size_t room) {
    ErlNifBinary bytes;
    if (!enif_inspect_binary(env, term, &bytes) || bytes.size >= room) return 0;
    memcpy(text, bytes.data, bytes.size);
    text[bytes.size] = 0;
    return 1;
}

/* worker_greet(Link, Kit, Version, Role, Ops) -> ok | {error, Text} | over. `Ops`: records of struct.worker_op. */
ERL_NIF_TERM worker_link_greet(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct worker_link *link;
    char kit[32], role[256], why[256] = "";
    ErlNifBinary ops;
    unsigned version;
    if (argc != 5 || !(link = ours(env, argv[0])) || !get_text(env, argv[1], kit, sizeof kit) ||
        !enif_get_uint(env, argv[2], &version) || !get_text(env, argv[3], role, sizeof role) ||
        !enif_inspect_binary(env, argv[4], &ops) || ops.size % sizeof(struct rb_worker_op) != 0)
        return enif_make_badarg(env);
    if (!enter(link)) return atoms.over;
    int rc = rb_proxy_greet(link->proxy, kit, version, role, ops.data,
                            (uint32_t)(ops.size / sizeof(struct rb_worker_op)), why, sizeof why);
    leave(link);
    return rc < 0 ? failed(env, rc, why) : atoms.ok;
}

/* --- Jobs ---------------------------------------------------------------------------------------------------------------- */

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Milliseconds until the deadline, rounded up; -1: there is none. */
static int64_t left_ms(const struct rb_proxy_request *job) {
    uint64_t now = now_ns();
    if (job->deadline_ns == 0) return -1;
    return job->deadline_ns > now ? (int64_t)((job->deadline_ns - now - 1) / NS_PER_MS + 1) : 0;
}

/* As W3C Trace Context writes it, version 00; undefined: the caller gave none. */
static ERL_NIF_TERM traceparent(ErlNifEnv *env, const struct rb_proxy_request *job) {
    static const uint8_t none[sizeof job->trace_id];
    char text[56];
    ERL_NIF_TERM term;
    int at;
    if (memcmp(job->trace_id, none, sizeof none) == 0) return atoms.undefined;
    at = snprintf(text, sizeof text, "00-");
    for (size_t i = 0; i < sizeof job->trace_id; i++)
        at += snprintf(text + at, 3, "%02x", job->trace_id[i]);
    text[at++] = '-';
    for (size_t i = 0; i < sizeof job->span_id; i++)
        at += snprintf(text + at, 3, "%02x", job->span_id[i]);
    at += snprintf(text + at, 4, "-%02x", job->trace_flags & 0xff);
    memcpy(enif_make_new_binary(env, (size_t)at, &term), text, (size_t)at);
    return term;
}

/* In memory of the BEAM's own: what it decodes must be nobody else's, and the role's pool gives the place to other jobs after this one. */
static ERL_NIF_TERM payload(ErlNifEnv *env, const struct rb_proxy_request *job) {
    int term = (job->flags & RB_FLAG_TERM) != 0;
    ERL_NIF_TERM bytes;
    uint8_t *to = enif_make_new_binary(env, (size_t)job->payload_bytes + (size_t)term, &bytes);
    if (term) *to++ = EXTERNAL;
    if (job->payload_bytes) memcpy(to, job->payload, job->payload_bytes);
    return enif_make_tuple2(env, term ? atoms.term : atoms.raw, bytes);
}

static ERL_NIF_TERM described(ErlNifEnv *env, struct worker_link *link) {
    const struct rb_proxy_request *job = &link->job;
    int64_t parts =
        job->flags & RB_FLAG_PARTS ? (int64_t)rb_proxy_demand(link->proxy, job->position, 0) : -1;
    const ERL_NIF_TERM all[] = {
        atoms.job,
        enif_make_uint64(env, job->job),
        enif_make_uint(env, job->opcode),
        enif_make_int64(env, left_ms(job)),
        enif_make_uint(env, job->priority),
        traceparent(env, job),
        enif_make_int64(env, parts),
        enif_make_uint(env, (job->flags & RB_FLAG_PROGRESS) != 0),
        payload(env, job),
    };
    return enif_make_tuple_from_array(env, all, sizeof all / sizeof *all);
}

/* 0: the relay has let go of it. */
static int awake(struct worker_link *link) {
    if (!link->parked) return 1;
    link->parked = 0;
    return rb_proxy_unpark(link->proxy) == 0;
}

static int select_bell(ErlNifEnv *env, struct worker_link *link, ERL_NIF_TERM wake) {
    rb_store_release(&link->selected, 1);
    return enif_select(env, rb_proxy_bell(link->proxy), ERL_NIF_SELECT_READ, link, NULL, wake);
}

/* Nothing to do: wait at the bell, unless something has come before it was known that we do. Not on a dirty scheduler: there the owner may
 * end meanwhile, and the bell be closed. */
static ERL_NIF_TERM rest(ErlNifEnv *env, struct worker_link *link, ERL_NIF_TERM wake) {
    uint32_t control =
        rb_proxy_control(link->proxy); /* before the ring: what lies there then is all */
    if (rb_proxy_waiting(link->proxy) > 0) return atoms.more;
    if (control != RB_CONTROL_RUN) return control == RB_CONTROL_DRAIN ? atoms.drained : atoms.over;
    if (is_dirty()) return atoms.more;
    rb_proxy_park(link->proxy);
    link->parked = 1;
    if (rb_proxy_waiting(link->proxy) > 0 || rb_proxy_control(link->proxy) != RB_CONTROL_RUN)
        return atoms.more;
    return select_bell(env, link, wake) < 0 ? atoms.over : atoms.parked;
}

static ERL_NIF_TERM next(ErlNifEnv *env, struct worker_link *link, ERL_NIF_TERM wake) {
    ERL_NIF_TERM said;
    if (!awake(link) || rb_proxy_control(link->proxy) == RB_CONTROL_STOP) return atoms.over;
    /* Its size was looked at before; what the relay has written since may be another. */
    int rc = rb_proxy_take_up_to(link->proxy, is_dirty() ? UINT32_MAX : NIF_COPY_BYTES, &link->job);
    if (rc == 0) return rest(env, link, wake);
    if (rc == -E2BIG) return atoms.more;
    /* What the relay has let go of may be another job's already: then its sum is wrong, and no rule is broken. */
    if (rc < 0) return rb_proxy_control(link->proxy) == RB_CONTROL_STOP ? atoms.over : atoms.broke;
    if (rb_proxy_cancelled(link->proxy, link->job.position, link->job.job) ||
        left_ms(&link->job) == 0) {
        said = enif_make_tuple2(env, atoms.cancelled, enif_make_uint64(env, link->job.job));
    } else {
        if (link->job.payload_bytes > 4096)
            enif_consume_timeslice(env, 1 + (int)(link->job.payload_bytes >> 16));
        said = described(env, link);
    }
    /* Copied first: a relay that lets go of the link says so before it gives the payload's place to others, so what is begun here, and
     * nowhere else, was read whole. */
    if (!rb_proxy_start(link->proxy)) return atoms.over;
    link->open = 1;
    return said;
}

/* worker_next(Link, Wake) -> {job, Id, Opcode, LeftMs | -1, Priority, Trace | undefined, Parts | -1, Progress, {raw | term, Binary}}: begun;
 * {cancelled, Id}: nobody waits for it, answer so; parked: {select, Link, Wake, ready_input} will come; more: ask again; drained: it was all;
 * over: the relay has let go of the link; broke: it broke a rule of links. On a normal scheduler; a payload above NIF_COPY_BYTES on dirty IO. */
ERL_NIF_TERM worker_link_next(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct worker_link *link;
    ERL_NIF_TERM said;
    if (argc != 2 || !(link = ours(env, argv[0])) || !enif_is_ref(env, argv[1]) || link->open)
        return enif_make_badarg(env);
    if (!enter(link)) return atoms.over;
    if (!is_dirty() && rb_proxy_next_bytes(link->proxy) > NIF_COPY_BYTES)
        said = enif_schedule_nif(env, "worker_next", ERL_NIF_DIRTY_JOB_IO_BOUND, worker_link_next,
                                 argc, argv);
    else
        said = next(env, link, argv[1]);
    leave(link);
    return said;
}

/* worker_watch(Link, Wake, Sent) -> {Cancelled, Parts}: whether nobody waits for the job under way, and how many parts it may send beyond
 * `Sent`; what changes then wakes. over. */
ERL_NIF_TERM worker_link_watch(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct worker_link *link;
    ERL_NIF_TERM said = atoms.over;
    unsigned sent;
    if (argc != 3 || !(link = ours(env, argv[0])) || !enif_is_ref(env, argv[1]) ||
        !enif_get_uint(env, argv[2], &sent) || !link->open)
        return enif_make_badarg(env);
    if (!enter(link)) return atoms.over;
    if (awake(link)) {
        rb_proxy_park(link->proxy);
        link->parked = 1;
        uint32_t parts = link->job.flags & RB_FLAG_PARTS
                             ? rb_proxy_demand(link->proxy, link->job.position, sent)
                             : 0;
        int cancelled = rb_proxy_cancelled(link->proxy, link->job.position, link->job.job);
        if (rb_proxy_control(link->proxy) != RB_CONTROL_STOP &&
            select_bell(env, link, argv[1]) >= 0)
            said = enif_make_tuple2(env, enif_make_uint(env, (unsigned)cancelled),
                                    enif_make_uint(env, parts));
    }
    leave(link);
    return said;
}

/* Whether the answer is one that a worker may give, of what it says it is; `bytes` without a term's first. */
static int read_answer(ErlNifEnv *env, const ERL_NIF_TERM argv[], struct rb_proxy_answer *a) {
    ErlNifBinary bytes;
    ErlNifUInt64 job, run_us;
    unsigned term;
    if (!enif_get_uint64(env, argv[1], &job) || !enif_get_uint(env, argv[2], &a->status) ||
        a->status > RB_STATUS_PROGRESS || !enif_get_uint(env, argv[3], &a->code) ||
        a->code > UINT16_MAX || !enif_get_uint64(env, argv[4], &run_us) ||
        run_us > UINT64_MAX / 1000 || !enif_get_uint(env, argv[5], &term) || term > 1 ||
        !enif_inspect_binary(env, argv[6], &bytes) || bytes.size > UINT32_MAX)
        return 0;
    if (term && (bytes.size < 2 || bytes.data[0] != EXTERNAL || bytes.data[1] == COMPRESSED))
        return 0;
    a->job = job;
    a->run_ns = run_us * 1000;
    a->flags = term ? RB_FLAG_TERM : 0;
    a->payload = bytes.data + term;
    a->payload_bytes = (uint32_t)(bytes.size - term);
    switch (a->status) {
    case RB_STATUS_FAILED: return !term && a->payload_bytes <= MESSAGE_BYTES_MAX;
    case RB_STATUS_CANCELLED: return !term && a->payload_bytes == 0;
    case RB_STATUS_PART: return a->payload_bytes <= RB_PART_BYTES_MAX;
    case RB_STATUS_PROGRESS: return a->payload_bytes <= RB_PROGRESS_BYTES_MAX;
    default: return 1;
    }
}

/* worker_say(Link, Id, Status, Code, RunUs, IsTerm, Bytes) -> ok | full | too_large | over | broke: an answer of the job under way, which ends it, a
 * part or progress. full: try again a little later; nobody tells when. On a normal scheduler; above NIF_COPY_BYTES on dirty IO. */
ERL_NIF_TERM worker_link_say(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct rb_proxy_answer answer = {0};
    struct worker_link *link;
    if (argc != 7 || !(link = ours(env, argv[0])) || !read_answer(env, argv, &answer) ||
        !link->open || answer.job != link->job.job)
        return enif_make_badarg(env);
    if (answer.payload_bytes > NIF_COPY_BYTES && !is_dirty())
        return enif_schedule_nif(env, "worker_say", ERL_NIF_DIRTY_JOB_IO_BOUND, worker_link_say,
                                 argc, argv);
    if (!enter(link)) return atoms.over;
    int rc = rb_proxy_answer(link->proxy, &answer);
    if (rc == 0 && answer.status <= RB_STATUS_CANCELLED) link->open = 0;
    /* A job that says something gets on; progress is never said again, also where it found no room. */
    if (answer.status == RB_STATUS_PROGRESS || (rc == 0 && answer.status == RB_STATUS_PART))
        rb_proxy_pulse(link->proxy);
    leave(link);
    if (answer.payload_bytes > 4096)
        enif_consume_timeslice(env, 1 + (int)(answer.payload_bytes >> 16));
    return rc == 0           ? atoms.ok
           : rc == -ENOSPC   ? atoms.full
           : rc == -EMSGSIZE ? atoms.too_large
                             : atoms.broke;
}

/* --- Signs of life ------------------------------------------------------------------------------------------------------- */

/* worker_pulse(Link) -> ok | over. */
ERL_NIF_TERM worker_link_pulse(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct worker_link *link;
    if (argc != 1 || !(link = ours(env, argv[0]))) return enif_make_badarg(env);
    if (!enter(link)) return atoms.over;
    rb_proxy_pulse(link->proxy);
    leave(link);
    return atoms.ok;
}

/* worker_beat(Link, Ready) -> ok | over. On a normal scheduler, where it waits for nobody: dirty IO threads may all be held by others for
 * longer than the bridge waits for a beat. It stores 128 bytes and rings at most: 1 to 6 us (median; 30 at most in a hundred), of the 100
 * that docs/decisions/0043 allows. */
ERL_NIF_TERM worker_link_beat(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct worker_link *link;
    unsigned ready;
    if (argc != 2 || !(link = ours(env, argv[0])) || !enif_get_uint(env, argv[1], &ready))
        return enif_make_badarg(env);
    if (!enter(link)) return atoms.over;
    rb_proxy_beat(link->proxy, !ready);
    ERL_NIF_TERM said = rb_proxy_control(link->proxy) == RB_CONTROL_STOP ? atoms.over : atoms.ok;
    leave(link);
    return said;
}

/* worker_trim(Link) -> more | ok | over: gives pages of large answers back to the system, with every beat. On a normal scheduler, for the
 * same reason, a bite at a time: 64 pages take 64 us. Only where the bridge has made blocks larger than that, on dirty IO. */
ERL_NIF_TERM worker_link_trim(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct worker_link *link;
    ERL_NIF_TERM said;
    if (argc != 1 || !(link = ours(env, argv[0]))) return enif_make_badarg(env);
    if (!enter(link)) return atoms.over;
    if (rb_proxy_trim_bytes_min(link->proxy) > NIF_TRIM_BYTES && !is_dirty())
        said = enif_schedule_nif(env, "worker_trim", ERL_NIF_DIRTY_JOB_IO_BOUND, worker_link_trim,
                                 argc, argv);
    else
        said = rb_proxy_trim(link->proxy, NIF_TRIM_BYTES) ? atoms.more : atoms.ok;
    leave(link);
    if (!is_dirty() && said == atoms.more) enif_consume_timeslice(env, 6);
    return said;
}
