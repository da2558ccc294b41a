/* answers.c: an answer becomes a message to whoever asked: {ringbridge_lane, Ref, Kind, Data}.
 *
 *      raw        the result's bytes, a binary
 *      term       the answer's external term, a binary of the BEAM's own: only such is ever decoded
 *      copy, copy_term    the same, still in the region, to be copied by the one it is for, in its own time
 *      down       the reason: the lane ended first, or the relay dropped what somebody waits for
 *
 * Terms are not decoded here: that takes as long as they are large, and this is somebody else's call. */
#include <string.h>

#include "nif/nif_pvt.h"

/* As much of the region may be held by binaries: the rest is for answers to come. */
static int much_is_held(struct lane *lane) {
    return rb_lane_held_bytes(lane->client) > rb_lane_result_bytes(lane->client) / 2;
}

/* The resource, with one keep; NULL: no memory. */
static struct held *hold(struct lane *lane, const struct rb_lane_answer *answer) {
    struct held *held = enif_alloc_resource(held_type, sizeof *held);
    if (!held) return NULL;
    enif_keep_resource(lane);
    rb_add_relaxed(&lane->users, 1); /* whoever drains is inside: it is not the first */
    held->lane = lane;
    held->at = answer->at;
    held->bytes = answer->bytes;
    held->size = answer->size;
    held->given = 0;
    return held;
}

/* Once, whoever comes first. */
static void give(struct held *held) {
    /* Pairs with itself: a copy and the destructor may meet. */
    if (__atomic_exchange_n(&held->given, 1, __ATOMIC_ACQ_REL)) return;
    rb_lane_give_back(held->lane->client, held->at);
    lane_leave(held->lane);
}

/* On any scheduler: giving back takes a mutex, for a moment. */
void held_gone(ErlNifEnv *env, void *object) {
    struct held *held = object;
    (void)env;
    give(held);
    enif_release_resource(held->lane);
}

static ERL_NIF_TERM binary_of(ErlNifEnv *env, const uint8_t *bytes, size_t size, int term) {
    ERL_NIF_TERM binary;
    size_t lead = term ? 1 : 0;
    uint8_t *to = enif_make_new_binary(env, size + lead, &binary);
    if (term) to[0] = 131; /* the version's byte, which a message does not carry */
    memcpy(to + lead, bytes, size);
    return binary;
}

ERL_NIF_TERM held_copy(ErlNifEnv *env, struct held *held, int term) {
    ERL_NIF_TERM binary;
    if (!lane_enter(held->lane)) return enif_make_badarg(env);
    if (rb_load_acquire(&held->given)) {
        binary = enif_make_badarg(env);
    } else {
        binary = binary_of(env, held->bytes, held->size, term);
        give(held);
    }
    lane_leave(held->lane);
    return binary;
}

/* Kind and data of an answer with bytes; whether they stay in the region. */
static int bytes_of(ErlNifEnv *env, struct lane *lane, const struct rb_lane_answer *answer,
                    ERL_NIF_TERM *kind, ERL_NIF_TERM *data) {
    int term = answer->kind == RB_LANE_ANSWER_TERM;
    struct held *held = NULL;
    if (answer->keepable && answer->size >= NIF_KEEP_BYTES) held = hold(lane, answer);
    if (!held) {
        *kind = term ? atoms.term : atoms.raw;
        *data = binary_of(env, answer->bytes, answer->size, term);
        return RB_LANE_TAKEN;
    }
    if (term || much_is_held(lane)) {
        *kind = term ? atoms.copy_term : atoms.copy;
        *data = enif_make_resource(env, held);
    } else {
        *kind = atoms.raw;
        *data = enif_make_resource_binary(env, held, held->bytes, held->size);
    }
    enif_release_resource(held);
    return RB_LANE_KEEP;
}

int answer_take(void *arg, const struct rb_lane_answer *answer) {
    struct drainer *drainer = arg;
    struct lane *lane = drainer->lane;
    uint32_t slot = rb_lane_slot(answer->number);
    struct request *request;
    struct caller *caller;
    int kept = RB_LANE_TAKEN;
    if (slot >= lane->slots) return RB_LANE_TAKEN;
    request = &lane->requests[slot];
    /* The client answers each number once, and only what was sent; a second look costs nothing. */
    if (request->number != answer->number || !(caller = request->caller)) return RB_LANE_TAKEN;
    if (caller_remove(request)) {
        ERL_NIF_TERM kind = atoms.down, data;
        /* Dropped is what nobody waits for. If somebody does, he is told, or he would wait for ever: his cancel, too, takes what was
         * answered for a message that comes. */
        if (answer->kind == RB_LANE_ANSWER_LOST || answer->kind == RB_LANE_ANSWER_DROPPED)
            data = enif_make_copy(request->env, drainer->reason);
        else
            kept = bytes_of(request->env, lane, answer, &kind, &data);
        enif_send(drainer->env, &caller->pid, request->env,
                  enif_make_tuple4(request->env, atoms.lane, request->ref, kind, data));
    }
    enif_clear_env(request->env);
    request->caller = NULL;
    request->number = 0;
    enif_release_resource(caller);
    return kept;
}

int drain_some(ErlNifEnv *env, struct lane *lane, int max) {
    struct drainer drainer = {env, lane, atoms.noconnection};
    if (!rb_lane_waiting(lane->client)) return 0;
    return rb_lane_drain(lane->client, answer_take, &drainer, max);
}
