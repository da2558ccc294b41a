/* heartbeat.c: a thread that writes the telemetry block every 500 ms, so that a handler which runs for minutes is told apart from
 * a worker that hangs in the kit or is stopped. It is the block's only writer while it runs. */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "kit_pvt.h"
#include "ringbridge/telemetry.h"

/* Of the process, as it may be set before there is a worker. seq_cst with `beating`: whoever of rb_set_ready() and
 * rb_heartbeat_start() comes second sees the other's store, so that no change goes untold. */
static uint32_t unready;
static struct rb_worker *beating;

enum { STACK_BYTES = 128 << 10 };

static void beat(struct rb_worker *w) {
    const struct rb_kit_counters *c = &w->counters;
    uint64_t started = rb_load_relaxed(&c->started);
    /* Relaxed: a count to show, nothing is read on the strength of it. */
    uint64_t tail = rb_load_relaxed(&w->link.theirs->request_tail);
    struct rb_telemetry now = {
        .gate = rb_load_relaxed(&c->gate),
        .heartbeats = ++w->heartbeat.beats,
        .heartbeat_ns = rb_now_ns(),
        .jobs = rb_load_relaxed(&c->jobs),
        .failed = rb_load_relaxed(&c->failed),
        .run_ns = rb_load_relaxed(&c->run_ns),
        .queued = tail > started ? (uint32_t)(tail - started) : 0,
        .last_code = rb_load_relaxed(&c->last_code),
        .unready = rb_load_seq_cst(&unready),
    };
    rb_telemetry_store(w->link.telemetry, &now);
}

static void *beat_until_ending(void *arg) {
    struct rb_worker *w = arg;
    struct rb_heartbeat *h = &w->heartbeat;
    pthread_mutex_lock(&h->lock);
    while (!h->ending) {
        struct timespec next;
        clock_gettime(CLOCK_MONOTONIC, &next);
        next.tv_nsec += RB_HEARTBEAT_MS * 1000000;
        next.tv_sec += next.tv_nsec / 1000000000;
        next.tv_nsec %= 1000000000;
        while (!h->ending && !h->now &&
               pthread_cond_timedwait(&h->wake, &h->lock, &next) != ETIMEDOUT) {
        }
        if (h->ending) break;
        beat(w);
        if (h->now) rb_link_knock(&w->link);
        h->now = 0;
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

/* Signals are the handler's thread's: one that is meant to end or to wake the worker must not be taken here. */
static int start_without_signals(struct rb_worker *w) {
    sigset_t all, before;
    pthread_attr_t attributes;
    int failed;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&w->heartbeat.thread, &attributes, beat_until_ending, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -failed;
}

int rb_heartbeat_start(struct rb_worker *w) {
    struct rb_heartbeat *h = &w->heartbeat;
    pthread_condattr_t monotonic;
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&h->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    rb_store_seq_cst(&beating, w);
    beat(w);
    return start_without_signals(w);
}

void rb_set_ready(int ready) {
    rb_store_seq_cst(&unready, (uint32_t)(ready == 0));
    struct rb_worker *w = rb_load_seq_cst(&beating);
    if (w == NULL) return; /* its first beat will tell */
    pthread_mutex_lock(&w->heartbeat.lock);
    w->heartbeat.now = 1;
    pthread_cond_signal(&w->heartbeat.wake);
    pthread_mutex_unlock(&w->heartbeat.lock);
}

void rb_heartbeat_stop(struct rb_worker *w) {
    struct rb_heartbeat *h = &w->heartbeat;
    pthread_mutex_lock(&h->lock);
    h->ending = 1;
    pthread_cond_signal(&h->wake);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->thread, NULL);
    rb_store_seq_cst(&beating, NULL);
    beat(w); /* the last one, with all jobs counted; the thread may have ended before its first */
}
