/* wait.c: the thread, and how it waits between two rounds (relay.c).
 *
 * How it waits is what its speed is made of (DESIGN.md, section 5):
 *   many callers    sleep a fixed short time, by the clock: work gathers meanwhile, nobody is woken for single jobs
 *   few callers     look again for a short while (a wake-up across cores costs more than most jobs), then sleep until something happens
 *   nobody          sleep until something happens
 * "Many" counts the processes that called within the last millisecond. Jobs in flight would not tell: a fast worker has answered
 * each of them before the next caller's frame is read, and then every frame costs a wake-up.
 * Before it sleeps it announces itself at the gate of every lane, and of every worker that a round looks at, so that what they publish
 * rings its eventfds; the other workers with jobs in flight ring in any case (dispatch/poll.c). */
#define _GNU_SOURCE
#include "relay/wait.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>

#include "relay/relay_pvt.h"

enum {
    EVENTS_A_ROUND = 256,
    /* From so many callers on the clock decides; over a lane from twice as many: they cost no socket's wake-up, and 16 of them made
     * three quarters of the calls by the clock. */
    CROWD = 12,
    CROWD_OF_LANE = 2,
    CROWD_HALF_NS = 500000, /* callers are counted over one to two of these */
    IDLE_WAIT_MS = 1000,    /* ticks and deadlines are looked at least so often */
    /* A yield that took longer has given the core to somebody with work of his own, and a time slice with it. The relay then sleeps
     * instead, for so much longer than was lost: who sleeps is preferred when it wakes, who yields is put last. */
    LOST_NS = 100000,
    REST = 64,
    SLOT_WAIT_MS = 1, /* a job waits for a slot that its worker will release without a word */
};

uint64_t rb_clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static int memory_waits(const struct rb_relay *r) {
    if (r->beams && rb_beams_wait(r)) return 1;
    for (struct rb_worker *w = r->polled_workers; w; w = w->next_polled) {
        if (w->held) continue; /* the socket will tell (stream.c) */
        /* W0: the same load as R1 of the ring, without taking anything yet. seq_cst as the gate's second look (G5). */
        const uint64_t *tail = w->link.completion_ring.shared_tail;
        if (w->shadow) tail = rb_shadow_real_tail(w);
        if (rb_load_seq_cst(tail) != w->link.completion_ring.head) return 1;
    }
    return 0;
}

static int wait_ms(const struct rb_relay *r) {
    uint64_t due = rb_next_due(r);
    int64_t ms = IDLE_WAIT_MS;
    int64_t tick = r->config.tick_ms / 4;
    if (tick > 0 && tick < ms) ms = tick;
    uint64_t left = due > r->now ? (due - r->now) / NS_PER_MS + 1 : 0;
    if (left < (uint64_t)ms) ms = (int64_t)left;
    for (uint32_t i = 0; !r->owned[RB_SERVICE_JOBS].held && i < r->roles_count && ms > SLOT_WAIT_MS;
         i++) {
        if (r->roles[i] && r->roles[i]->dirty) ms = SLOT_WAIT_MS;
    }
    return r->waiting_up && ms > 10 ? 10 : (int)ms;
}

/* Sleeps until a descriptor is ready. The gates of the workers with jobs in flight are announced around it. */
static int park(struct rb_relay *r, struct epoll_event *events) {
    for (struct rb_worker *w = r->polled_workers; w; w = w->next_polled)
        rb_gate_announce(&w->link.waiter, RB_PARK_EVENTFD);
    rb_beams_announce(r);
    rb_duct_announce(&r->down);
    int work = memory_waits(r) || rb_duct_peek(&r->down) || r->dirty_conns || r->unread_conns;
    int timeout = work ? 0 : wait_ms(r);
    if (timeout) COUNT(r->stats.parks, 1);
    int n = epoll_wait(r->epoll, events, EVENTS_A_ROUND, timeout);
    for (struct rb_worker *w = r->polled_workers; w; w = w->next_polled)
        rb_gate_retract(&w->link.waiter);
    rb_beams_retract(r);
    rb_duct_retract(&r->down);
    return n;
}

static int look(struct rb_relay *r, struct epoll_event *events) {
    return epoll_wait(r->epoll, events, EVENTS_A_ROUND, 0);
}

/* With few callers: look at rings and sockets for a while before parking. It yields between two looks: the worker, or the caller's BEAM, may be
 * waiting for this very core. The while is adapted: what came in time lengthens it, what did not halves it. */
static int spin(struct rb_relay *r, struct epoll_event *events) {
    const uint64_t most = r->config.spin_us * 1000ull;
    const uint64_t from = rb_clock_ns(), until = from + r->spin_ns;
    uint64_t now = from, before;
    if (from < r->rest_until_ns) return park(r, events);
    do {
        if (memory_waits(r) || rb_duct_peek(&r->down)) return 0;
        int n = look(r, events);
        if (n) {
            r->spin_ns = r->spin_ns + most / 8 < most ? r->spin_ns + most / 8 : most;
            return n;
        }
        before = now;
        sched_yield();
        now = rb_clock_ns();
        if (now - before > LOST_NS) {
            r->rest_until_ns = now + REST * (now - before);
            return look(r, events);
        }
    } while (now < until);
    int n = park(r, events);
    /* A park that ended soon would better have been a longer spin. "Soon" is generous, because a park makes by itself most
     * of the time that it then takes: two wake-ups across cores, the peer's and ours. */
    if (rb_clock_ns() - from < 4 * most)
        r->spin_ns = r->spin_ns + most / 4 < most ? r->spin_ns + most / 4 : most;
    else
        r->spin_ns /= 2;
    return n;
}

static void forget(uint64_t callers[2], int fresh) {
    callers[1] = fresh ? callers[0] : 0;
    callers[0] = 0;
}

static int count(const uint64_t callers[2]) {
    return __builtin_popcountll(callers[0] | callers[1]);
}

static int crowd(struct rb_relay *r) {
    if (r->now - r->callers_since_ns > CROWD_HALF_NS) {
        int fresh = r->now - r->callers_since_ns < 2 * CROWD_HALF_NS;
        forget(r->callers, fresh);
        forget(r->lane_callers, fresh);
        r->callers_since_ns = r->now;
    }
    return count(r->callers) + count(r->lane_callers) / CROWD_OF_LANE;
}

/* An answer over a lane is no write to a socket: half as long gathers enough of them. */
static uint32_t busy_sleep_us(const struct rb_relay *r) {
    return count(r->callers) < CROWD ? r->config.busy_sleep_us / 2 : r->config.busy_sleep_us;
}

static int wait(struct rb_relay *r, struct epoll_event *events, int worked) {
    if (r->dirty_conns || r->unread_conns) return look(r, events);
    if (worked && crowd(r) >= CROWD) {
        if (r->config.busy_sleep_us) {
            struct timespec t = {.tv_nsec = (long)busy_sleep_us(r) * 1000};
            COUNT(r->stats.sleeps, 1);
            nanosleep(&t, NULL);
        }
        return look(r, events);
    }
    if (worked && r->config.spin_us) return spin(r, events);
    return park(r, events);
}

/* --- The thread ---------------------------------------------------------------------------------------------------------- */

static void *run(void *argument) {
    struct rb_relay *r = argument;
    struct epoll_event events[EVENTS_A_ROUND];
    int ready = 0;
    prctl(PR_SET_NAME, "rb-relay");
    prctl(PR_SET_TIMERSLACK, 1); /* else a sleep of 50 us takes 100 */
    rb_cpus_open(r);
    for (;;) {
        rb_cpus_look(r);
        int worked = rb_relay_round(r, rb_clock_ns(), events, ready);
        if (r->stopping) break;
        ready = wait(r, events, worked);
        if (ready < 0) ready = 0; /* EINTR */
    }
    return NULL;
}

int rb_thread_start(struct rb_relay *r) {
    /* Signals are the interpreter's business. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int rc = -pthread_create(&r->thread, NULL, run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}
