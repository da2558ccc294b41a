/* look.c: a caller who is alone looks for its answer for a short while.
 *
 * What wakes a process otherwise is the poll thread, the opener, and then the process itself: three changes of thread, which is
 * more than most jobs take. With many callers somebody always submits, and hands out what is there; so only who finds its own request as the
 * ring's last looks. It yields the CPU between two looks, since the relay or the worker may be waiting for this very one, and its
 * scheduler between two calls. Nobody looks longer than NIF_LOOK_NS, and the while is adapted as the relay's is (wait.c): what came in time
 * lengthens it, what did not halves it, and calls that follow each other quickly lengthen it too. What a large payload takes on its way by
 * itself comes on top, since no wake-up could come before. A yield that was answered late has given
 * the CPU to somebody with work of his own: then looking does not pay, and rests for so much longer than was lost. */
#define _GNU_SOURCE
#include <sched.h>
#include <time.h>

#include "nif/nif_pvt.h"

static uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void lengthen(struct caller *caller, uint32_t by) {
    caller->look = caller->look + by < NIF_LOOK_NS ? caller->look + by : NIF_LOOK_NS;
}

int look_begins(struct caller *caller, size_t bytes) {
    uint64_t now = clock_ns();
    caller->way =
        (uint32_t)((bytes < NIF_LOOK_BYTES ? bytes : NIF_LOOK_BYTES) / NIF_LOOK_BYTES_A_NS);
    if (now - caller->asked < 4 * (NIF_LOOK_NS + caller->way)) lengthen(caller, NIF_LOOK_NS / 4);
    caller->asked = now;
    caller->look_until = now + caller->look + caller->way;
    return now >= caller->rest_until && caller->look >= NIF_LOOK_ONCE_NS;
}

enum found { AGAIN, ANSWERED, LATE };

/* A yield; whether to look again. */
static enum found pause(struct caller *caller, uint64_t *now) {
    uint64_t before = *now;
    sched_yield();
    *now = clock_ns();
    /* Who has our payload in hand may need as long for it. */
    if (*now - before > NIF_LOST_NS + caller->way) {
        caller->rest_until = *now + NIF_REST * (*now - before);
        return LATE;
    }
    return *now < caller->look_until ? AGAIN : LATE;
}

/* The opener sleeps again, as far as the relay knows. What came before that was said is handed out here, or else by the opener. */
static void leave_to_opener(ErlNifEnv *env, struct lane *lane) {
    for (int tries = 4; rb_lane_park(lane->client); tries--) {
        drain_some(env, lane, NIF_DRAIN_MAX);
        if (tries > 0) continue;
        enif_send(env, &lane->opener_pid, NULL,
                  enif_make_tuple2(env, atoms.serve, enif_make_resource(env, lane)));
        return;
    }
}

static enum found look(ErlNifEnv *env, struct lane *lane, struct caller *caller, ERL_NIF_TERM ref) {
    uint64_t now = clock_ns(), until = now + NIF_LOOK_ONCE_NS;
    enum found found = AGAIN;
    /* We are awake, so the relay need not ring for the opener. An opener that is awake, or wakes, looks by itself before it sleeps. */
    rb_lane_unpark(lane->client);
    do {
        if (drain_some(env, lane, NIF_DRAIN_MAX) && !caller_waits(caller, ref)) break;
        found = pause(caller, &now);
    } while (found == AGAIN && now < until);
    leave_to_opener(env, lane);
    /* Another thread may have handed it out. */
    return caller_waits(caller, ref) ? found : ANSWERED;
}

/* look(Lane, Ref) -> again: not yet, and others may run now. ok: it is answered, or has been looked for long enough. Within NIF_LOOK_ONCE_NS, but
 * for a yield. */
ERL_NIF_TERM lane_look(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    enum found found = LATE;
    struct caller *caller;
    struct lane *lane;
    ErlNifPid self;
    if (argc != 2 || !enif_get_resource(env, argv[0], lane_type, (void **)&lane) ||
        !enif_is_ref(env, argv[1]) || !enif_self(env, &self))
        return enif_make_badarg(env);
    if (!lane_enter(lane)) return atoms.ok;
    if ((caller = caller_find(lane, &self))) {
        found = look(env, lane, caller, argv[1]);
        if (found == ANSWERED)
            lengthen(caller, NIF_LOOK_NS / 8);
        else if (found == LATE)
            caller->look /= 2;
        enif_release_resource(caller);
    }
    lane_leave(lane);
    return found == AGAIN ? atoms.again : atoms.ok;
}
