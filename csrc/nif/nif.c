/* nif.c: the functions of Ringbridge.Lane.Native, and what is set up when the library is loaded. */
#include <string.h>

#include "nif/nif_pvt.h"

struct nif_atoms atoms;
ErlNifResourceType *lane_type, *caller_type, *held_type;

/* about() -> {Version, Digest}: what the lane is asked for with. */
static ERL_NIF_TERM about(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    ERL_NIF_TERM digest;
    (void)argc, (void)argv;
    memcpy(enif_make_new_binary(env, RB_LANE_DIGEST_BYTES, &digest), rb_lane_digest(),
           RB_LANE_DIGEST_BYTES);
    return enif_make_tuple2(env, enif_make_uint(env, rb_lane_version()), digest);
}

/* Each is short on a normal scheduler, for the reason that stands beside it in lane.c and worker_link.c; open and close wait or may have much to tell. */
static ErlNifFunc functions[] = {
    {"about", 0, about, 0},
    {"open", 3, lane_open, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"submit_raw", 5, lane_submit_raw, 0},
    {"submit_term", 3, lane_submit_term, 0},
    {"cancel", 2, lane_cancel, 0},
    {"copy", 2, lane_copy, 0},
    {"drain", 1, lane_drain, 0},
    {"look", 2, lane_look, 0},
    {"park", 2, lane_park, 0},
    {"close", 2, lane_end, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"figures", 1, lane_figures, 0},
    {"telemetry", 1, lane_telemetry, 0},
    {"worker_about", 0, worker_link_about, 0},
    {"worker_open", 3, worker_link_open, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"worker_bytes_max", 1, worker_link_bytes_max, 0},
    {"worker_greet", 5, worker_link_greet, 0},
    {"worker_next", 2, worker_link_next, 0},
    {"worker_watch", 3, worker_link_watch, 0},
    {"worker_say", 7, worker_link_say, 0},
    {"worker_pulse", 1, worker_link_pulse, 0},
    {"worker_beat", 2, worker_link_beat, 0},
    {"worker_trim", 1, worker_link_trim, 0},
    {"worker_close", 1, worker_link_close, ERL_NIF_DIRTY_JOB_IO_BOUND},
};

static void make_atoms(ErlNifEnv *env) {
#define ATOM(name) atoms.name = enif_make_atom(env, #name)
    ATOM(ok), ATOM(error), ATOM(full), ATOM(closed), ATOM(too_large), ATOM(answered), ATOM(more),
        ATOM(empty);
    ATOM(ended), ATOM(raw), ATOM(term), ATOM(copy), ATOM(copy_term), ATOM(down), ATOM(undefined),
        ATOM(timeout);
    ATOM(refused), ATOM(noconnection), ATOM(near), ATOM(again), ATOM(serve), ATOM(torn);
    ATOM(job), ATOM(cancelled), ATOM(parked), ATOM(drained), ATOM(over), ATOM(broke);
#undef ATOM
    atoms.lane = enif_make_atom(env, "ringbridge_lane");
}

/* Objects of an older library become ours: their names change with what they hold, so that only what we understand is taken over. An older
 * library stays until its last object has gone. */
static int open_types(ErlNifEnv *env) {
    const ErlNifResourceFlags flags = ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER;
    const ErlNifResourceTypeInit lanes = {
        .dtor = lane_gone, .stop = lane_stopped, .down = lane_down};
    const ErlNifResourceTypeInit callers = {.dtor = caller_gone, .down = caller_down};
    const ErlNifResourceTypeInit helds = {.dtor = held_gone};
    const ErlNifResourceTypeInit worker_links = {
        .dtor = worker_link_gone, .stop = worker_link_stopped, .down = worker_link_down};
    return (lane_type = enif_open_resource_type_x(env, "ringbridge_lane_4", &lanes, flags, NULL)) &&
           (caller_type =
                enif_open_resource_type_x(env, "ringbridge_caller_4", &callers, flags, NULL)) &&
           (held_type = enif_open_resource_type_x(env, "ringbridge_held_4", &helds, flags, NULL)) &&
           (worker_link_type = enif_open_resource_type_x(env, "ringbridge_worker_link_1",
                                                         &worker_links, flags, NULL));
}

static int load(ErlNifEnv *env, void **private, ERL_NIF_TERM info) {
    (void)private, (void)info;
    make_atoms(env);
    return open_types(env) ? 0 : 1;
}

static int upgrade(ErlNifEnv *env, void **private, void **old, ERL_NIF_TERM info) {
    (void)old;
    return load(env, private, info);
}

ERL_NIF_INIT(Elixir.Ringbridge.Lane.Native, functions, load, NULL, upgrade, NULL)
