/* The seqlock: a copy is of one moment, whatever the writer does meanwhile. */
#include <pthread.h>
#include <sched.h>

#include "check.h"
#include "ringbridge/telemetry.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { READS = 20000, WRITES = 1000 };
#else
enum { READS = 300000, WRITES = 10000 };
#endif

/* All fields of the n-th write tell n. */
static struct rb_telemetry values_of(uint64_t n) {
    struct rb_telemetry v = {
        .gate = (uint32_t)n, .heartbeats = n, .heartbeat_ns = n, .jobs = n, .failed = n};
    v.run_ns = n;
    v.queued = v.last_code = (uint32_t)n;
    return v;
}

static int is_of_one_moment(const struct rb_telemetry *v) {
    uint64_t n = v->jobs;
    uint32_t low = (uint32_t)n;
    return v->heartbeats == n && v->heartbeat_ns == n && v->failed == n && v->run_ns == n &&
           v->gate == low && v->queued == low && v->last_code == low && v->sequence == 2 * low;
}

static void what_was_written_is_read(void) {
    struct rb_telemetry shared = {0}, copy, v = values_of(1);
    rb_telemetry_store(&shared, &v);
    CHECK_EQUAL(rb_telemetry_load(&shared, &copy), 0);
    CHECK(is_of_one_moment(&copy));
}

static void a_writer_that_died_inside_is_reported_and_its_successor_mends_it(void) {
    struct rb_telemetry shared = {.sequence = 7}, copy = {.jobs = 5}, v = values_of(4);
    CHECK_EQUAL(rb_telemetry_load(&shared, &copy), -EAGAIN);
    CHECK_EQUAL(copy.jobs, 5);
    rb_telemetry_store(&shared, &v);
    CHECK_EQUAL(shared.sequence, 8);
    CHECK_EQUAL(rb_telemetry_load(&shared, &copy), 0);
}

static struct rb_telemetry shared;
static int enough;

static void *write_on(void *arg) {
    (void)arg;
    for (uint64_t n = 1; !rb_load_relaxed(&enough); n++) {
        struct rb_telemetry v = values_of(n);
        rb_telemetry_store(&shared, &v);
        for (int wait = (int)(n % 32); wait; wait--) rb_pause();
    }
    return NULL;
}

static void a_copy_under_a_writer_is_of_one_moment_and_never_older(void) {
    pthread_t thread;
    struct rb_telemetry copy;
    uint64_t before = 0;
    int whole = 0;
    pthread_create(&thread, NULL, write_on, NULL);
    while (whole < READS || before < WRITES) { /* the writer's thread may start late */
        if (rb_telemetry_load(&shared, &copy) < 0) {
            sched_yield();
            continue;
        }
        whole++;
        CHECK(is_of_one_moment(&copy));
        CHECK(copy.jobs >= before);
        before = copy.jobs;
    }
    rb_store_relaxed(&enough, 1);
    pthread_join(thread, NULL);
}

int main(void) {
    RUN(what_was_written_is_read);
    RUN(a_writer_that_died_inside_is_reported_and_its_successor_mends_it);
    RUN(a_copy_under_a_writer_is_of_one_moment_and_never_older);
    return check_end();
}
