/* callers.c: the processes that call, and which requests are whose.
 *
 * One monitor a process and lane, set by its first call and kept until it ends: setting one for each job would cost more than the job's
 * whole way. When it fires, the process's requests are cancelled. */
#include <string.h>

#include "nif/nif_pvt.h"

static uint32_t bucket_of(const ErlNifPid *pid) { return caller_hash(pid) & (BUCKETS - 1); }

static ErlNifMutex *shard_of(struct lane *lane, const ErlNifPid *pid) {
    return lane->shards[bucket_of(pid) % SHARDS];
}

/* A local pid is a word, and equal words are equal pids. */
static ERL_NIF_TERM word_of(const ErlNifPid *pid) { return enif_make_pid(NULL, pid); }

/* Each bit of it by each bit of the word: OTP writes a process's number into both halves, and one multiplication lets that be seen: of 128
 * processes the relay knew six apart by their lowest bits, and took them for few. (MurmurHash3's last step, by A. Appleby; public domain) */
uint32_t caller_hash(const ErlNifPid *pid) {
    uint64_t h = word_of(pid);
    h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd);
    h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return (uint32_t)(h ^ h >> 33);
}

int callers_init(struct lane *lane) {
    lane->buckets = enif_alloc(BUCKETS * sizeof *lane->buckets);
    if (!lane->buckets) return 0;
    memset(lane->buckets, 0, BUCKETS * sizeof *lane->buckets);
    for (int i = 0; i < SHARDS; i++)
        if (!(lane->shards[i] = enif_mutex_create("ringbridge_callers"))) return 0;
    return 1;
}

/* Nobody is left: each record keeps the lane. */
void callers_fini(struct lane *lane) {
    for (int i = 0; i < SHARDS; i++)
        if (lane->shards[i]) enif_mutex_destroy(lane->shards[i]);
    if (lane->buckets) enif_free(lane->buckets);
}

static struct caller *find(struct lane *lane, const ErlNifPid *pid) {
    struct caller *caller = lane->buckets[bucket_of(pid)];
    while (caller && word_of(&caller->pid) != word_of(pid)) caller = caller->next;
    return caller;
}

/* Into the table, with a keep for it and one for whom it is taken. 0: the lane is closed, or the process has ended since it was monitored. */
static int enter(struct lane *lane, struct caller *caller) {
    struct caller **bucket = &lane->buckets[bucket_of(&caller->pid)];
    ErlNifMutex *shard = shard_of(lane, &caller->pid);
    int open;
    enif_mutex_lock(shard);
    /* Looked at under the lock: callers_close() takes it after `closed` is set, and leave() sets `gone` under it. */
    if ((open = !rb_load_acquire(&lane->closed) && !rb_load_relaxed(&caller->gone))) {
        enif_keep_resource(caller);
        caller->next = *bucket;
        *bucket = caller;
    }
    enif_mutex_unlock(shard);
    return open;
}

/* Two threads never add the same process: a process calls by itself. Monitored first: who finds it in the table, callers_close(), may take the
 * monitor away at once. */
static struct caller *add(ErlNifEnv *env, struct lane *lane, const ErlNifPid *pid) {
    struct caller *caller = enif_alloc_resource(caller_type, sizeof *caller);
    if (!caller) return NULL;
    memset(caller, 0, sizeof *caller);
    caller->look = NIF_LOOK_NS / 2;
    enif_keep_resource(lane);
    caller->lane = lane;
    caller->pid = *pid;
    /* Not 0: it has ended while its call was on a dirty scheduler. Nobody will tell us of that any more. */
    if (enif_monitor_process(env, caller, pid, &caller->monitor) != 0) {
        enif_release_resource(caller);
        return NULL;
    }
    if (!enter(lane, caller)) {
        enif_demonitor_process(env, caller, &caller->monitor); /* or it has fired: no harm */
        enif_release_resource(caller);
        return NULL;
    }
    return caller;
}

struct caller *caller_find(struct lane *lane, const ErlNifPid *pid) {
    ErlNifMutex *shard = shard_of(lane, pid);
    struct caller *caller;
    enif_mutex_lock(shard);
    if ((caller = find(lane, pid))) enif_keep_resource(caller);
    enif_mutex_unlock(shard);
    return caller;
}

struct caller *caller_take(ErlNifEnv *env, struct lane *lane, const ErlNifPid *pid) {
    struct caller *caller = caller_find(lane, pid);
    return caller ? caller : add(env, lane, pid);
}

int caller_waits(struct caller *caller, ERL_NIF_TERM ref) {
    ErlNifMutex *shard = shard_of(caller->lane, &caller->pid);
    enif_mutex_lock(shard);
    struct request *request = caller->first;
    while (request && !enif_is_identical(request->ref, ref)) request = request->after;
    enif_mutex_unlock(shard);
    return request != NULL;
}

int caller_add(struct caller *caller, struct request *request) {
    ErlNifMutex *shard = shard_of(caller->lane, &caller->pid);
    int added = 0;
    enif_mutex_lock(shard);
    if (!rb_load_relaxed(&caller->gone)) { /* written under this lock */
        request->before = NULL;
        request->after = caller->first;
        if (caller->first) caller->first->before = request;
        caller->first = request;
        request->waited = 1;
        added = 1;
    }
    enif_mutex_unlock(shard);
    return added;
}

/* Under the shard's lock. */
static void unlink_request(struct request *request) {
    if (request->before)
        request->before->after = request->after;
    else
        request->caller->first = request->after;
    if (request->after) request->after->before = request->before;
    request->before = request->after = NULL;
    request->waited = 0;
}

int caller_remove(struct request *request) {
    ErlNifMutex *shard = shard_of(request->caller->lane, &request->caller->pid);
    int waited;
    enif_mutex_lock(shard);
    if ((waited = request->waited)) unlink_request(request);
    enif_mutex_unlock(shard);
    return waited;
}

uint64_t caller_forget(struct lane *lane, const ErlNifPid *pid, ERL_NIF_TERM ref) {
    ErlNifMutex *shard = shard_of(lane, pid);
    struct request *request = NULL;
    struct caller *caller;
    uint64_t number = NUMBER_NONE;
    enif_mutex_lock(shard);
    if ((caller = find(lane, pid))) request = caller->first;
    while (request && !enif_is_identical(request->ref, ref)) request = request->after;
    if (request) {
        number = request->number;
        unlink_request(request);
    }
    enif_mutex_unlock(shard);
    return number;
}

/* Out of the table, by whoever comes first: its end, or the lane's. */
static int leave(struct caller *caller) {
    struct lane *lane = caller->lane;
    struct caller **link = &lane->buckets[bucket_of(&caller->pid)];
    ErlNifMutex *shard = shard_of(lane, &caller->pid);
    int here;
    enif_mutex_lock(shard);
    while (*link && *link != caller) link = &(*link)->next;
    if ((here = *link == caller)) *link = caller->next;
    /* C0: pairs with C1. The mutex orders it for those who take it; C1 does not. */
    rb_store_seq_cst(&caller->gone, 1);
    enif_mutex_unlock(shard);
    return here;
}

int caller_is_gone(const struct caller *caller) {
    /* C1: after S1 in rb_lane_send(), as the look of rb_lane_cancel() at the slot comes after C0: seq_cst, all four, since each side stores its own word and then
     * loads the other's. Either caller_down() sees the request open and cancels it, or who has sent it sees the end and does. */
    return (int)rb_load_seq_cst(&caller->gone);
}

/* One at a time, since the client is asked without our lock: nobody adds any more, the drainer may take some away meanwhile. */
static uint64_t forget_one(struct caller *caller) {
    ErlNifMutex *shard = shard_of(caller->lane, &caller->pid);
    struct request *request;
    uint64_t number = NUMBER_NONE;
    enif_mutex_lock(shard);
    if ((request = caller->first)) {
        number = request->number;
        unlink_request(request);
    }
    enif_mutex_unlock(shard);
    return number;
}

void caller_down(ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor) {
    struct caller *caller = object;
    uint64_t number;
    (void)env, (void)pid, (void)monitor;
    if (!leave(caller)) return;
    if (lane_enter(caller->lane)) {
        while ((number = forget_one(caller)) != NUMBER_NONE)
            rb_lane_cancel(caller->lane->client, number);
        lane_leave(caller->lane);
    }
    enif_release_resource(caller);
}

void caller_gone(ErlNifEnv *env, void *object) {
    struct caller *caller = object;
    (void)env;
    if (caller->lane) enif_release_resource(caller->lane);
}

void callers_close(ErlNifEnv *env, struct lane *lane) {
    for (uint32_t i = 0; i < BUCKETS; i++) {
        ErlNifMutex *shard = lane->shards[i % SHARDS];
        for (;;) {
            struct caller *caller;
            enif_mutex_lock(shard);
            if ((caller = lane->buckets[i])) enif_keep_resource(caller);
            enif_mutex_unlock(shard);
            if (!caller) break;
            enif_demonitor_process(env, caller, &caller->monitor);
            if (leave(caller)) enif_release_resource(caller);
            enif_release_resource(caller);
        }
    }
}
