/* telemetry.c: what the bridge knows of its workers and roles, as a binary of the BEAM's own. Its meaning is Elixir's (Ringbridge.Poller.Memory):
 * here only sizes are looked at, and those the lane's client has checked. */
#include <errno.h>
#include <time.h>

#include "nif/nif_pvt.h"

/* It may grow between the look at its size and the copy; no worker comes so often. */
enum { TRIES = 3 };

static ERL_NIF_TERM said(int64_t error) {
    return error == -EPIPE ? atoms.closed : error == -EAGAIN ? atoms.torn : atoms.error;
}

/* CLOCK_MONOTONIC, whose times stand in it; the VM's own monotonic time begins elsewhere. */
static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Bytes into `copy`, or an error and no `copy`. */
static int64_t read_into(struct lane *lane, int64_t bytes, ErlNifBinary *copy) {
    if (!enif_alloc_binary((size_t)bytes, copy)) return -ENOMEM;
    bytes = rb_lane_read_telemetry(lane->client, copy->data, copy->size);
    if (bytes >= 0 && enif_realloc_binary(copy, (size_t)bytes)) return bytes;
    enif_release_binary(copy);
    return bytes < 0 ? bytes : -ENOMEM;
}

static ERL_NIF_TERM read_now(ErlNifEnv *env, struct lane *lane, int64_t bytes) {
    ErlNifBinary copy;
    for (int tries = TRIES; tries > 0 && bytes >= 0; tries--) {
        int64_t read = read_into(lane, bytes, &copy);
        if (read >= 0)
            return enif_make_tuple3(env, atoms.ok, enif_make_uint64(env, now_ns()),
                                    enif_make_binary(env, &copy));
        bytes = read == -ENOSPC ? rb_lane_telemetry_bytes(lane->client) : read;
    }
    return said(bytes < 0 ? bytes : -EAGAIN);
}

/* telemetry(Lane) -> {ok, NowNs, Binary} | closed | torn: it was being written, or its writer has died | error: there is none, or it breaks
 * a rule. Up to NIF_COPY_BYTES, some 200 workers, on a normal scheduler: a copy, made TRIES times at most of each part. More on dirty IO, as
 * other copies. */
ERL_NIF_TERM lane_telemetry(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct lane *lane;
    ERL_NIF_TERM term;
    if (argc != 1 || !enif_get_resource(env, argv[0], lane_type, (void **)&lane))
        return enif_make_badarg(env);
    if (!lane_enter(lane)) return atoms.closed;
    int64_t bytes = rb_lane_telemetry_bytes(lane->client);
    if (bytes > NIF_COPY_BYTES && !is_dirty())
        term = enif_schedule_nif(env, "telemetry", ERL_NIF_DIRTY_JOB_IO_BOUND, lane_telemetry, argc,
                                 argv);
    else
        term = read_now(env, lane, bytes);
    lane_leave(lane);
    return term;
}
