/* lane.c: the lane as a resource: opened, called over, drained, waited for, closed. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nif/nif_pvt.h"

/* --- Opened and closed --------------------------------------------------------------------------------------------------- */

/* No term and no caller's record is left. */
void lane_gone(ErlNifEnv *env, void *object) {
    struct lane *lane = object;
    (void)env;
    if (lane->requests) {
        for (uint32_t i = 0; i < lane->slots; i++)
            if (lane->requests[i].env) enif_free_env(lane->requests[i].env);
        enif_free(lane->requests);
    }
    callers_fini(lane);
    if (lane->flags) enif_free(lane->flags);
    if (lane->shared) enif_mutex_destroy(lane->shared);
    if (lane->client) rb_lane_detach(lane->client); /* it was never opened */
}

static int lane_init(struct lane *lane) {
    size_t requests_bytes, flags_bytes;
    lane->rings = rb_lane_rings(lane->client);
    lane->slots = rb_lane_slots(lane->client);
    requests_bytes = (size_t)lane->slots * sizeof *lane->requests;
    flags_bytes = (size_t)lane->rings * sizeof *lane->flags;
    if (!(lane->requests = enif_alloc(requests_bytes)) || !(lane->flags = enif_alloc(flags_bytes)))
        return 0;
    memset(lane->requests, 0, requests_bytes);
    memset(lane->flags, 0, flags_bytes);
    return (lane->shared = enif_mutex_create("ringbridge_shared")) && callers_init(lane);
}

static ERL_NIF_TERM failed(ErlNifEnv *env, int error, const char *why) {
    ERL_NIF_TERM name = error == -ETIMEDOUT ? atoms.timeout
                        : error == -ECONNREFUSED || error == -EACCES || error == -ENOENT
                            ? atoms.refused
                            : atoms.error;
    ERL_NIF_TERM text;
    size_t size;
    if (!why[0]) why = strerror(-error);
    size = strlen(why);
    memcpy(enif_make_new_binary(env, size, &text), why, size);
    return enif_make_tuple2(env, atoms.error, enif_make_tuple2(env, name, text));
}

static void close_fds(const struct rb_lane_fds *fds) {
    close(fds->relay_side);
    close(fds->beam_side);
    close(fds->bell);
    close(fds->telemetry);
}

/* open(Socket, Token, TimeoutMs) -> {ok, Lane} | {error, {Name, Text}}. Dirty IO: it waits for a socket. */
ERL_NIF_TERM lane_open(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    ErlNifBinary name, token;
    struct rb_lane_fds fds = {-1, -1, -1, -1};
    struct lane *lane;
    ERL_NIF_TERM term;
    ErlNifPid self;
    char why[256] = "";
    int timeout_ms, error;
    if (argc != 3 || !enif_inspect_binary(env, argv[0], &name) ||
        !enif_inspect_binary(env, argv[1], &token) || !enif_get_int(env, argv[2], &timeout_ms) ||
        name.size == 0 || name.size > 107 || token.size != RB_LANE_TOKEN_BYTES || timeout_ms < 0 ||
        !enif_self(env, &self))
        return enif_make_badarg(env);
    if ((error =
             rb_lane_dial(name.data, name.size, token.data, timeout_ms, &fds, why, sizeof why)) < 0)
        return failed(env, error, why);
    if (!(lane = enif_alloc_resource(lane_type, sizeof *lane))) {
        close_fds(&fds);
        return failed(env, -ENOMEM, "");
    }
    memset(lane, 0, sizeof *lane);
    if ((error = rb_lane_attach(&lane->client, &fds, why, sizeof why)) < 0) {
        lane->client = NULL;
        close_fds(&fds);
    } else if (!lane_init(lane)) {
        error = -ENOMEM;
    } else {
        lane->opener_pid = self;
        rb_store_release(&lane->users, 1);
        /* The opener may have ended meanwhile. */
        if (enif_monitor_process(env, lane, &self, &lane->opener) != 0) {
            error = -ESRCH;
            lane_close(env, lane, atoms.undefined);
        }
    }
    term = enif_make_resource(env, lane);
    enif_release_resource(lane);
    return error < 0 ? failed(env, error, why) : enif_make_tuple2(env, atoms.ok, term);
}

static void stop(ErlNifEnv *env, struct lane *lane) {
    enif_select(env, rb_lane_wake_fd(lane->client), ERL_NIF_SELECT_STOP, lane, NULL,
                atoms.undefined);
}

/* May be repeated; whoever is first tells those who wait. */
void lane_close(ErlNifEnv *env, struct lane *lane, ERL_NIF_TERM reason) {
    struct drainer drainer = {env, lane, reason};
    /* Pairs with add() in callers.c: after this no record enters the table. */
    if (__atomic_exchange_n(&lane->closed, 1, __ATOMIC_ACQ_REL)) return;
    /* What is open is a user, until lane_stopped(). */
    rb_lane_close(lane->client);
    rb_lane_lose(lane->client, answer_take, &drainer);
    callers_close(env, lane);
    switch (selecting_close(&lane->selecting)) {
    case 1: stop(env, lane); break;
    case 0: lane_stopped(env, lane, rb_lane_wake_fd(lane->client), 1); break;
    default: break; /* park() does, which is inside */
    }
}

/* Nobody selects the descriptor any more. It may be kept open by what is held; that we have gone the bridge hears now. */
void lane_stopped(ErlNifEnv *env, void *object, ErlNifEvent fd, int is_direct) {
    (void)env, (void)is_direct;
    shutdown(fd, SHUT_RDWR);
    lane_leave(object); /* as what is open */
}

/* The opener has ended: so has the lane, since nobody would drain it. */
void lane_down(ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor) {
    struct lane *lane = object;
    (void)pid, (void)monitor;
    lane_close(env, lane, atoms.noconnection);
}

/* end(Lane, Reason) -> ok. Dirty IO: there may be a message to send for each request. */
ERL_NIF_TERM lane_end(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct lane *lane;
    if (argc != 2 || !enif_get_resource(env, argv[0], lane_type, (void **)&lane))
        return enif_make_badarg(env);
    enif_demonitor_process(env, lane, &lane->opener);
    lane_close(env, lane, argv[1]);
    return atoms.ok;
}

/* --- Requests ------------------------------------------------------------------------------------------------------------ */

int is_dirty(void) { return enif_thread_type() != ERL_NIF_THR_NORMAL_SCHEDULER; }

/* The shared ring. A normal scheduler does not wait for it: others may copy much there. */
static int shared_take(struct lane *lane) {
    if (!is_dirty()) return enif_mutex_trylock(lane->shared) == 0;
    enif_mutex_lock(lane->shared);
    return 1;
}

/* A scheduler prefers one ring, so that it has one to itself. It still takes the ring's flag (5 ns, uncontended): after an upgrade of this
 * library two threads may have the same number, and a ring has one producer. The ring, or -EAGAIN. */
static int64_t ring_take(struct lane *lane) {
    static uint32_t schedulers;
    static __thread uint32_t number;
    uint32_t ring;
    if (!is_dirty()) {
        /* Relaxed: a counter, and nothing else hangs on it. */
        if (number == 0) number = rb_add_relaxed(&schedulers, 1) + 1;
        ring = (number - 1) % (lane->rings - 1);
        /* Pairs with ring_leave(): what the ring's last producer did is seen. */
        if (!__atomic_exchange_n(&lane->flags[ring].taken, 1, __ATOMIC_ACQUIRE)) return ring;
    }
    return shared_take(lane) ? (int64_t)RB_LANE_SHARED : -EAGAIN;
}

static void ring_leave(struct lane *lane, uint32_t ring) {
    if (ring == RB_LANE_SHARED)
        enif_mutex_unlock(lane->shared);
    else
        rb_store_release(&lane->flags[ring].taken, 0);
}

static ERL_NIF_TERM refused(int error) {
    return error == -EAGAIN ? atoms.full : error == -EMSGSIZE ? atoms.too_large : atoms.closed;
}

/* The request is nobody's: out of its caller's, and empty. */
static void take_back(struct request *request) {
    struct caller *caller = request->caller;
    caller_remove(request);
    enif_clear_env(request->env);
    request->caller = NULL;
    request->number = 0;
    enif_release_resource(caller);
}

/* Claimed, filled in and sent, on a ring that is ours meanwhile: after a send that failed nobody else has the slot yet. */
static int send_on(struct lane *lane, uint32_t ring, struct caller *caller, ERL_NIF_TERM ref,
                   const struct rb_lane_request *what, uint64_t *number) {
    struct request *request;
    int error;
    if ((error = rb_lane_claim(lane->client, ring, number)) < 0) return error;
    request = &lane->requests[rb_lane_slot(*number)];
    if (!request->env && !(request->env = enif_alloc_env())) {
        rb_lane_unclaim(lane->client, ring, *number);
        return -EAGAIN;
    }
    request->number = *number;
    request->caller = caller;
    request->ref = enif_make_copy(request->env, ref);
    enif_keep_resource(caller);
    if (!caller_add(caller, request)) {
        take_back(request);
        rb_lane_unclaim(lane->client, ring, *number);
        return -EPIPE;
    }
    if ((error = rb_lane_send(lane->client, ring, *number, what)) < 0) take_back(request);
    return error;
}

/* Whether the ring's last request was the same process's. */
static int is_alone(struct lane *lane, uint32_t ring, const struct caller *caller) {
    struct ring_flag *flag = &lane->flags[ring == RB_LANE_SHARED ? lane->rings - 1 : ring];
    ERL_NIF_TERM self = enif_make_pid(NULL, &caller->pid);
    if (flag->last == self) return 1;
    flag->last = self;
    return 0;
}

static int send_any(struct lane *lane, struct caller *caller, ERL_NIF_TERM ref,
                    const struct rb_lane_request *what, uint64_t *number, int *alone) {
    int64_t ring = ring_take(lane);
    int error;
    if (ring < 0) return (int)ring;
    *alone = is_alone(lane, (uint32_t)ring, caller);
    error = send_on(lane, (uint32_t)ring, caller, ref, what, number);
    ring_leave(lane, (uint32_t)ring);
    if (error != -EAGAIN || ring == RB_LANE_SHARED || !shared_take(lane)) return error;
    /* The shared ring has room of its own. */
    error = send_on(lane, RB_LANE_SHARED, caller, ref, what, number);
    ring_leave(lane, RB_LANE_SHARED);
    return error;
}

static ERL_NIF_TERM submit(ErlNifEnv *env, struct lane *lane, ERL_NIF_TERM ref,
                           struct rb_lane_request *what, size_t bytes) {
    struct caller *caller;
    ErlNifPid self;
    uint64_t number = 0;
    int error, drained, alone = 0;
    if (!enif_self(env, &self)) return enif_make_badarg(env);
    if (!lane_enter(lane)) return atoms.closed;
    if (!(caller = caller_take(env, lane, &self))) {
        lane_leave(lane);
        return atoms.closed;
    }
    what->caller = caller_hash(&self);
    error = send_any(lane, caller, ref, what, &number, &alone);
    /* On a dirty scheduler the process may have ended before the request left: then its cancel came too soon. */
    if (error == 0 && is_dirty() && caller_is_gone(caller)) rb_lane_cancel(lane->client, number);
    alone = error == 0 && alone && look_begins(caller, bytes);
    enif_release_resource(caller);
    /* Not from a dirty scheduler: what is sent there in the name of a process that was killed meanwhile is not sent (enif_send). */
    drained = is_dirty() ? 0 : drain_some(env, lane, NIF_DRAIN_MAX);
    lane_leave(lane);
    /* In percent of a millisecond: a call that does no more than the least counts as any other BIF. */
    if (bytes > 4096 || drained > 8)
        enif_consume_timeslice(env, 1 + (int)(bytes >> 16) + (drained > 0 ? drained / 32 : 0));
    return error < 0 ? refused(error) : alone ? atoms.near : atoms.ok;
}

/* submit_raw(Lane, Ref, Role, TimeoutMs | -1, Payload) -> ok | near | full | too_large | closed. Up to NIF_COPY_BYTES on a normal scheduler: the copy, one write at most when the
 * relay sleeps, and NIF_DRAIN_MAX answers take some 30 us at most. A longer one on dirty IO: of those there are more than of dirty CPU
 * ones, which others hold for long. */
static ERL_NIF_TERM raw(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[], int dirty) {
    struct rb_lane_request what = {.form = RB_LANE_RAW, .count = 1};
    ErlNifBinary role, payload;
    struct iovec part;
    struct lane *lane;
    ErlNifSInt64 timeout_ms;
    if (argc != 5 || !enif_get_resource(env, argv[0], lane_type, (void **)&lane) ||
        !enif_is_ref(env, argv[1]) || !enif_inspect_binary(env, argv[2], &role) || role.size < 1 ||
        role.size > 255 || !enif_get_int64(env, argv[3], &timeout_ms) || timeout_ms < -1 ||
        timeout_ms >= UINT32_MAX || !enif_inspect_binary(env, argv[4], &payload))
        return enif_make_badarg(env);
    if (payload.size > NIF_COPY_BYTES && !dirty)
        return enif_schedule_nif(env, "submit_raw", ERL_NIF_DIRTY_JOB_IO_BOUND, lane_submit_raw,
                                 argc, argv);
    part.iov_base = payload.data;
    part.iov_len = payload.size;
    what.parts = &part;
    what.role = role.data;
    what.role_bytes = (uint16_t)role.size;
    what.timeout_ms = timeout_ms < 0 ? RB_LANE_TIMEOUT_DEFAULT : (uint32_t)timeout_ms;
    return submit(env, lane, argv[1], &what, payload.size);
}

ERL_NIF_TERM lane_submit_raw(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    return raw(env, argc, argv, is_dirty());
}

/* submit_term(Lane, Ref, [Binary]): together an external term without its first byte. At most PARTS_MAX of them. */
enum { PARTS_MAX = 64 };
ERL_NIF_TERM lane_submit_term(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct rb_lane_request what = {.form = RB_LANE_TERM};
    struct iovec parts[PARTS_MAX];
    ERL_NIF_TERM head, tail;
    struct lane *lane;
    size_t bytes = 0;
    if (argc != 3 || !enif_get_resource(env, argv[0], lane_type, (void **)&lane) ||
        !enif_is_ref(env, argv[1]))
        return enif_make_badarg(env);
    for (tail = argv[2]; enif_get_list_cell(env, tail, &head, &tail); what.count++) {
        ErlNifBinary part;
        if (what.count == PARTS_MAX || !enif_inspect_binary(env, head, &part))
            return enif_make_badarg(env);
        parts[what.count].iov_base = part.data;
        parts[what.count].iov_len = part.size;
        bytes += part.size;
    }
    if (!enif_is_empty_list(env, tail) || what.count == 0) return enif_make_badarg(env);
    if (bytes > NIF_COPY_BYTES && !is_dirty())
        return enif_schedule_nif(env, "submit_term", ERL_NIF_DIRTY_JOB_IO_BOUND, lane_submit_term,
                                 argc, argv);
    what.parts = parts;
    return submit(env, lane, argv[1], &what, bytes);
}

/* cancel(Lane, Ref) -> ok: no message will come. answered: it is in the caller's mailbox, or about to be. */
ERL_NIF_TERM lane_cancel(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct lane *lane;
    ErlNifPid self;
    uint64_t number;
    if (argc != 2 || !enif_get_resource(env, argv[0], lane_type, (void **)&lane) ||
        !enif_is_ref(env, argv[1]) || !enif_self(env, &self))
        return enif_make_badarg(env);
    if ((number = caller_forget(lane, &self, argv[1])) == NUMBER_NONE) return atoms.answered;
    if (lane_enter(lane)) {
        rb_lane_cancel(lane->client, number);
        lane_leave(lane);
    }
    return atoms.ok;
}

/* --- The opener's -------------------------------------------------------------------------------------------------------- */

/* drain(Lane) -> more | empty | ended. */
ERL_NIF_TERM lane_drain(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct lane *lane;
    enum rb_lane_state state;
    int drained;
    if (argc != 1 || !enif_get_resource(env, argv[0], lane_type, (void **)&lane))
        return enif_make_badarg(env);
    if (!lane_enter(lane)) return atoms.ended;
    drained = drain_some(env, lane, NIF_DRAIN_MAX);
    state = rb_lane_state(lane->client);
    lane_leave(lane);
    if (drained > 8) enif_consume_timeslice(env, 1 + drained / 32);
    if (state != RB_LANE_OPEN) return atoms.ended;
    return drained > 0 ? atoms.more : atoms.empty;
}

/* Any process may close the lane meanwhile. */
static ERL_NIF_TERM select_bell(ErlNifEnv *env, struct lane *lane, ERL_NIF_TERM wake) {
    int error = selecting_begin(&lane->selecting), failed;
    if (error < 0) return error == -EBUSY ? atoms.more : atoms.ended;
    failed =
        enif_select(env, rb_lane_wake_fd(lane->client), ERL_NIF_SELECT_READ, lane, NULL, wake) < 0;
    if (selecting_end(&lane->selecting) < 0) {
        stop(env, lane);
        return atoms.ended;
    }
    return failed ? atoms.ended : atoms.ok;
}

static ERL_NIF_TERM park(ErlNifEnv *env, struct lane *lane, ERL_NIF_TERM wake) {
    const struct rb_lane_client *client = lane->client;
    if (rb_load_acquire(&lane->closed) || rb_lane_hush(lane->client) < 0 ||
        rb_lane_state(client) != RB_LANE_OPEN)
        return atoms.ended;
    if (rb_lane_park(lane->client))
        return rb_lane_state(client) == RB_LANE_OPEN ? atoms.more : atoms.ended;
    return select_bell(env, lane, wake);
}

/* park(Lane, Wake) -> more: there is something to drain. ok: a message {select, Lane, Wake, ready_input} will come. ended. */
ERL_NIF_TERM lane_park(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct lane *lane;
    ERL_NIF_TERM said;
    if (argc != 2 || !enif_get_resource(env, argv[0], lane_type, (void **)&lane) ||
        !enif_is_ref(env, argv[1]))
        return enif_make_badarg(env);
    if (!lane_enter(lane)) return atoms.ended;
    said = park(env, lane, argv[1]);
    lane_leave(lane);
    return said;
}

/* figures(Lane) -> {Sent, Answered, Dropped, Cancelled, Full, Wakes, Open, HeldBytes}; zeros of a lane that has gone. */
ERL_NIF_TERM lane_figures(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct rb_lane_figures f = {0};
    struct lane *lane;
    if (argc != 1 || !enif_get_resource(env, argv[0], lane_type, (void **)&lane))
        return enif_make_badarg(env);
    if (lane_enter(lane)) {
        rb_lane_read_figures(lane->client, &f);
        lane_leave(lane);
    }
    return enif_make_tuple8(env, enif_make_uint64(env, f.sent), enif_make_uint64(env, f.answered),
                            enif_make_uint64(env, f.dropped), enif_make_uint64(env, f.cancelled),
                            enif_make_uint64(env, f.full), enif_make_uint64(env, f.wakes),
                            enif_make_uint64(env, f.open), enif_make_uint64(env, f.held_bytes));
}

/* copy(Held, Kind) -> Binary. What it is to be is said by the message's kind: copy, or copy_term. */
ERL_NIF_TERM lane_copy(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct held *held;
    if (argc != 2 || !enif_get_resource(env, argv[0], held_type, (void **)&held) ||
        !(enif_is_identical(argv[1], atoms.copy) || enif_is_identical(argv[1], atoms.copy_term)))
        return enif_make_badarg(env);
    if (held->size > NIF_COPY_BYTES && !is_dirty())
        return enif_schedule_nif(env, "copy", ERL_NIF_DIRTY_JOB_IO_BOUND, lane_copy, argc, argv);
    return held_copy(env, held, enif_is_identical(argv[1], atoms.copy_term));
}
