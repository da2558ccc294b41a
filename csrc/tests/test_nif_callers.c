/* The NIF's records of those who call (nif/callers.c), without a BEAM: the ends of a process and of a lane that come between any two steps. */
#include <pthread.h>

#include "check.h"
#include "nif/callers.c"

/* --- A BEAM that does what the test says ------------------------------------------------------------------------------------- */

struct fake_mutex {
    pthread_mutex_t mutex;
};
struct object {
    uint32_t keeps;
    __attribute__((aligned(16))) uint8_t bytes[];
};

enum { MONITORS = 64 };
static uint8_t monitored[MONITORS]; /* by number: 1, it stands */
static unsigned long last_monitor;
static int objects;                                              /* that are not freed */
static void (*as_it_is_monitored)(ErlNifEnv *, struct caller *); /* before its number is known */
static int process_is_dead;

static struct object *object_of(void *memory) {
    return (void *)((uint8_t *)memory - offsetof(struct object, bytes));
}
void *enif_alloc(size_t size) { return malloc(size); }
void enif_free(void *memory) { free(memory); }
void *enif_alloc_resource(ErlNifResourceType *type, size_t size) {
    struct object *o = malloc(sizeof *o + size);
    (void)type;
    if (!o) abort();
    o->keeps = 1;
    __atomic_add_fetch(&objects, 1, __ATOMIC_ACQ_REL);
    return o->bytes;
}
void enif_keep_resource(void *memory) {
    __atomic_add_fetch(&object_of(memory)->keeps, 1, __ATOMIC_ACQ_REL);
}
static struct lane *the_lane;
void enif_release_resource(void *memory) {
    uint32_t left = __atomic_sub_fetch(&object_of(memory)->keeps, 1, __ATOMIC_ACQ_REL);
    if (left > 0 || memory == the_lane) return;
    caller_gone(NULL, memory);
    free(object_of(memory));
    __atomic_sub_fetch(&objects, 1, __ATOMIC_ACQ_REL);
}
ErlNifMutex *enif_mutex_create(const char *name) {
    ErlNifMutex *m = malloc(sizeof *m);
    (void)name;
    if (!m || pthread_mutex_init(&m->mutex, NULL) != 0) abort();
    return m;
}
void enif_mutex_destroy(ErlNifMutex *m) {
    pthread_mutex_destroy(&m->mutex);
    free(m);
}
void enif_mutex_lock(ErlNifMutex *m) { pthread_mutex_lock(&m->mutex); }
void enif_mutex_unlock(ErlNifMutex *m) { pthread_mutex_unlock(&m->mutex); }
int enif_is_identical(ERL_NIF_TERM a, ERL_NIF_TERM b) { return a == b; }

int enif_monitor_process(ErlNifEnv *env, void *object, const ErlNifPid *pid,
                         ErlNifMonitor *monitor) {
    (void)pid;
    if (process_is_dead) return 1;
    if (as_it_is_monitored) as_it_is_monitored(env, object);
    monitored[++last_monitor % MONITORS] = 1;
    monitor->number = last_monitor;
    return 0;
}
int enif_demonitor_process(ErlNifEnv *env, void *object, const ErlNifMonitor *monitor) {
    (void)env, (void)object;
    CHECK(monitor->number != 0); /* one that was never set: OTP would read what is there */
    if (!monitored[monitor->number % MONITORS]) return 1;
    monitored[monitor->number % MONITORS] = 0;
    return 0;
}
static int monitors(void) {
    int count = 0;
    for (int i = 0; i < MONITORS; i++) count += monitored[i];
    return count;
}

/* --- The rest of the NIF ----------------------------------------------------------------------------------------------------- */

ErlNifResourceType *lane_type, *caller_type, *held_type;
static uint64_t cancelled;
int lane_enter(struct lane *lane) { return !rb_load_acquire(&lane->closed); }
void lane_leave(struct lane *lane) { (void)lane; }
void rb_lane_cancel(struct rb_lane_client *client, uint64_t number) {
    (void)client;
    cancelled = number;
}

static struct lane *begin(void) {
    struct lane *lane = enif_alloc_resource(lane_type, sizeof *lane);
    memset(lane, 0, sizeof *lane);
    the_lane = lane;
    if (!callers_init(lane)) abort();
    memset(monitored, 0, sizeof monitored);
    as_it_is_monitored = NULL;
    process_is_dead = 0;
    return lane;
}
static void end(struct lane *lane) {
    if (!rb_load_acquire(&lane->closed)) {
        rb_store_release(&lane->closed, 1);
        callers_close(NULL, lane);
    }
    CHECK_EQUAL(monitors(), 0);
    CHECK_EQUAL(objects, 1); /* the lane: no record is left, and each had it kept */
    CHECK_EQUAL(object_of(lane)->keeps, 1);
    callers_fini(lane);
    free(object_of(lane));
    objects = 0;
}

static const ErlNifPid ada = {0x123};

/* --- Rules ------------------------------------------------------------------------------------------------------------------- */

static void a_process_has_one_record_and_one_monitor(void) {
    struct lane *lane = begin();
    struct caller *first = caller_take(NULL, lane, &ada), *second = caller_take(NULL, lane, &ada);
    CHECK(first && first == second);
    CHECK_EQUAL(monitors(), 1);
    enif_release_resource(first);
    enif_release_resource(second);
    end(lane);
}

static void the_lane_ends(ErlNifEnv *env, struct caller *caller) {
    rb_store_release(&caller->lane->closed, 1);
    callers_close(env, caller->lane);
}
static void a_lane_that_ends_as_a_process_is_monitored_leaves_neither_record_nor_monitor(void) {
    struct lane *lane = begin();
    as_it_is_monitored = the_lane_ends;
    CHECK(!caller_take(NULL, lane, &ada));
    end(lane);
}

static void the_process_ends(ErlNifEnv *env, struct caller *caller) {
    caller_down(env, caller, NULL, NULL);
}
static void a_process_that_ends_as_it_is_monitored_has_no_record(void) {
    struct lane *lane = begin();
    as_it_is_monitored = the_process_ends;
    CHECK(!caller_take(NULL, lane, &ada));
    as_it_is_monitored = NULL;
    process_is_dead = 1;
    CHECK(!caller_take(NULL, lane, &ada));
    end(lane);
}

static void a_process_that_ends_cancels_what_it_asked_for_and_asks_for_no_more(void) {
    struct lane *lane = begin();
    struct request asked = {.ref = 7, .number = 77}, later = {.ref = 8, .number = 88};
    struct caller *caller = caller_take(NULL, lane, &ada);
    asked.caller = later.caller = caller;
    CHECK(caller_add(caller, &asked) && !caller_is_gone(caller));
    CHECK(caller_waits(caller, 7) && !caller_waits(caller, 8));
    monitored[caller->monitor.number % MONITORS] = 0; /* it has fired */
    caller_down(NULL, caller, NULL, NULL);
    CHECK_EQUAL(cancelled, 77);
    CHECK(!caller_remove(&asked) && caller_is_gone(caller));
    CHECK(!caller_add(caller, &later));
    enif_release_resource(caller);
    end(lane);
}

/* Under TSan: who has sent a request looks without a lock whether its process has ended meanwhile. */
static void *look(void *caller) {
    while (!caller_is_gone(caller)) usleep(100);
    return NULL;
}
static void the_end_of_a_process_is_seen_without_a_lock(void) {
    struct lane *lane = begin();
    struct caller *caller = caller_take(NULL, lane, &ada);
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, look, caller), 0);
    usleep(1000);
    monitored[caller->monitor.number % MONITORS] = 0;
    caller_down(NULL, caller, NULL, NULL);
    pthread_join(thread, NULL);
    enif_release_resource(caller);
    end(lane);
}

static void *close_lane(void *lane) {
    rb_store_release(&((struct lane *)lane)->closed, 1);
    callers_close(NULL, lane);
    return NULL;
}
/* Under TSan: the record's monitor is written by who adds it, and read by who ends the lane. */
static void a_lane_may_end_while_processes_come(void) {
    for (unsigned long i = 0; i < 200; i++) {
        struct lane *lane = begin();
        pthread_t thread;
        CHECK_EQUAL(pthread_create(&thread, NULL, close_lane, lane), 0);
        for (unsigned long pid = 1; pid <= 8; pid++) {
            const ErlNifPid comer = {pid << 4};
            struct caller *caller = caller_take(NULL, lane, &comer);
            if (caller) enif_release_resource(caller);
        }
        pthread_join(thread, NULL);
        end(lane);
    }
}

/* As OTP 25 to 29 write a process's number on 64 bits: into both halves of the word, in the upper one times 8. */
static ErlNifPid numbered(unsigned long n) {
    return (ErlNifPid){(ERL_NIF_TERM)(n << 35 | n << 4 | 3)};
}
/* How many of the hash's lowest values so many processes in a row have; chance alone would give 55 of 64 to 128, and 962 of 8,192 to 1,024. */
static int values_of(unsigned long processes, uint32_t most) {
    static uint8_t seen[BUCKETS];
    int count = 0;
    memset(seen, 0, sizeof seen);
    for (unsigned long n = 100; n < 100 + processes; n++) {
        const ErlNifPid pid = numbered(n);
        uint8_t *one = &seen[caller_hash(&pid) & (most - 1)];
        count += !*one;
        *one = 1;
    }
    return count;
}
static void processes_in_a_row_are_told_apart_by_any_bits(void) {
    CHECK(values_of(128, 64) > 45); /* the relay's bits, and the shards */
    CHECK(values_of(1024, BUCKETS) > 900);
}

int main(void) {
    RUN(processes_in_a_row_are_told_apart_by_any_bits);
    RUN(a_process_has_one_record_and_one_monitor);
    RUN(a_lane_that_ends_as_a_process_is_monitored_leaves_neither_record_nor_monitor);
    RUN(a_process_that_ends_as_it_is_monitored_has_no_record);
    RUN(a_process_that_ends_cancels_what_it_asked_for_and_asks_for_no_more);
    RUN(the_end_of_a_process_is_seen_without_a_lock);
    RUN(a_lane_may_end_while_processes_come);
    return check_end();
}
