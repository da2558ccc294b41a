/* relay.c: the thread. Each round: hear the other thread, read sockets, place jobs, drain completions, write once per socket, wait.
 *
 * How it waits is what its speed is made of (DESIGN.md, section 5):
 *   many callers    sleep a fixed short time, by the clock: work gathers meanwhile, nobody is woken for single jobs
 *   few callers     look again for a short while (a wake-up across cores costs more than most jobs), then sleep until something happens
 *   nobody          sleep until something happens
 * "Many" counts the processes that called within the last millisecond. Jobs in flight would not tell: a fast worker has answered
 * each of them before the next caller's frame is read, and then every frame costs a wake-up.
 * Before it sleeps it announces itself at the gate of every worker that has jobs, so that their completions ring its eventfd. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "relay/note.h"
#include "relay/relay_pvt.h"

enum {
    EVENTS_A_ROUND = 256,
    CROWD = 12,             /* from so many callers on the clock decides */
    CROWD_HALF_NS = 500000, /* callers are counted over one to two of these */
    IDLE_WAIT_MS = 1000,    /* ticks and deadlines are looked at least so often */
    SLOT_WAIT_MS = 1,       /* a job waits for a slot that its worker will release without a word */
    TEND_NS = 1000000000,
    SCRATCH_KEEP = 1 << 20, /* of buffers for one signal */
};

uint64_t rb_clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* RWF_NOWAIT and not O_NONBLOCK: a worker shares the description, so it can clear the flag and take the count before we do, and a
 * plain read() would then wait for it for ever. */
static void clear_eventfd(int fd) {
    uint64_t count;
    struct iovec into = {.iov_base = &count, .iov_len = sizeof count};
    while (preadv2(fd, &into, 1, -1, RWF_NOWAIT) < 0 && errno == EINTR) {
    }
}

/* --- What happened ------------------------------------------------------------------------------------------------------- */

static void dispatch(struct rb_relay *r, const struct epoll_event *e) {
    uint64_t id = e->data.u64 & ((1ull << 56) - 1);
    struct rb_worker *w;
    struct rb_conn *c;
    switch ((enum rb_source_kind)(e->data.u64 >> 56)) {
    case RB_SOURCE_DUCT: rb_duct_hush(&r->down); break;
    case RB_SOURCE_CONN:
        if (!(c = rb_conn_find(r, (uint32_t)id))) break;
        if (e->events & EPOLLOUT) rb_conn_dirty(c);
        if (e->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) rb_conn_read(c);
        break;
    case RB_SOURCE_LINK:
        if (!(w = rb_worker_find(r, id))) break;
        clear_eventfd(w->link.fds.wake_relay);
        rb_worker_greeted(w);
        rb_worker_poll(w);
        break;
    case RB_SOURCE_OBITUARY:
        if ((w = rb_worker_find(r, id))) rb_worker_obituary(w);
        break;
    case RB_SOURCE_STDOUT:
        if ((w = rb_worker_find(r, id))) rb_worker_output(w, 1);
        break;
    case RB_SOURCE_STDERR:
        if ((w = rb_worker_find(r, id))) rb_worker_output(w, 2);
        break;
    }
}

/* Drains every worker with jobs in flight; those without any leave the list. Returns the completions. */
static int poll_workers(struct rb_relay *r) {
    int count = 0;
    for (struct rb_worker **p = &r->polled_workers; *p;) {
        struct rb_worker *w = *p;
        count += rb_worker_poll(w);
        if (w->in_flight == 0) {
            w->polled = 0;
            *p = w->next_polled;
        } else {
            p = &w->next_polled;
        }
    }
    return count;
}

static void flush(struct rb_relay *r) {
    struct rb_conn *c = r->dirty_conns;
    r->dirty_conns = NULL;
    while (c) {
        struct rb_conn *next = c->next_dirty;
        c->dirty = 0;
        if (c->failed)
            rb_conn_close(c, c->failed);
        else
            rb_conn_flush(c); /* one that fails here is on the new list: the next round closes it */
        c = next;
    }
}

/* Room that one large signal made is not kept for ever. */
static void shrink(struct rb_relay *r) {
    struct rb_buffer *buffers[] = {&r->stage, &r->packed};
    for (int i = 0; i < 2; i++) {
        if (buffers[i]->capacity <= SCRATCH_KEEP) continue;
        free(buffers[i]->at);
        *buffers[i] = (struct rb_buffer){.at = NULL};
    }
    if (r->scratch_capacity > SCRATCH_KEEP && !r->scratch_used) {
        free(r->scratch);
        r->scratch = NULL;
        r->scratch_capacity = 0;
    }
    r->scratch_used = 0;
}

/* Once a second: what is no hurry. */
static void tend(struct rb_relay *r) {
    if (r->now - r->tended_ns < TEND_NS) return;
    r->tended_ns = r->now;
    shrink(r);
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        if (r->workers[i]) rb_worker_tend(r->workers[i]);
    }
}

/* --- Waiting ------------------------------------------------------------------------------------------------------------- */

static int completions_wait(const struct rb_relay *r) {
    for (struct rb_worker *w = r->polled_workers; w; w = w->next_polled) {
        /* W0: the same load as R1 of the ring, without taking anything yet. seq_cst as the gate's second look (G5). */
        if (rb_load_seq_cst(w->link.completion_ring.shared_tail) != w->link.completion_ring.head)
            return 1;
    }
    return 0;
}

static int wait_ms(const struct rb_relay *r) {
    uint64_t due = rb_jobs_next_due(r);
    int64_t ms = IDLE_WAIT_MS;
    int64_t tick = r->config.tick_ms / 4;
    if (tick > 0 && tick < ms) ms = tick;
    if (due) {
        int64_t left = due > r->now ? (int64_t)((due - r->now + NS_PER_MS - 1) / NS_PER_MS) : 0;
        if (left < ms) ms = left;
    }
    for (uint32_t i = 0; !r->held && i < r->roles_count && ms > SLOT_WAIT_MS; i++) {
        if (r->roles[i] && r->roles[i]->dirty) ms = SLOT_WAIT_MS;
    }
    return r->waiting_up && ms > 10 ? 10 : (int)ms;
}

/* Sleeps until a descriptor is ready. The gates of the workers with jobs in flight are announced around it. */
static int park(struct rb_relay *r, struct epoll_event *events) {
    for (struct rb_worker *w = r->polled_workers; w; w = w->next_polled)
        rb_gate_announce(&w->link.waiter, RB_PARK_EVENTFD);
    rb_duct_announce(&r->down);
    int work = completions_wait(r) || rb_duct_peek(&r->down) || r->dirty_conns || r->unread_conns;
    int timeout = work ? 0 : wait_ms(r);
    if (timeout) COUNT(r->stats.parks, 1);
    int n = epoll_wait(r->epoll, events, EVENTS_A_ROUND, timeout);
    for (struct rb_worker *w = r->polled_workers; w; w = w->next_polled)
        rb_gate_retract(&w->link.waiter);
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
    do {
        if (completions_wait(r) || rb_duct_peek(&r->down)) return 0;
        int n = look(r, events);
        if (n) {
            r->spin_ns = r->spin_ns + most / 8 < most ? r->spin_ns + most / 8 : most;
            return n;
        }
        sched_yield();
    } while (rb_clock_ns() < until);
    int n = park(r, events);
    /* A park that ended soon would better have been a longer spin. "Soon" is generous, because a park makes by itself most
     * of the time that it then takes: two wake-ups across cores, the peer's and ours. */
    if (rb_clock_ns() - from < 4 * most)
        r->spin_ns = r->spin_ns + most / 4 < most ? r->spin_ns + most / 4 : most;
    else
        r->spin_ns /= 2;
    return n;
}

static int crowd(struct rb_relay *r) {
    if (r->now - r->callers_since_ns > CROWD_HALF_NS) {
        int fresh = r->now - r->callers_since_ns < 2 * CROWD_HALF_NS;
        r->callers[1] = fresh ? r->callers[0] : 0;
        r->callers[0] = 0;
        r->callers_since_ns = r->now;
    }
    return __builtin_popcountll(r->callers[0] | r->callers[1]);
}

static int wait(struct rb_relay *r, struct epoll_event *events, int worked) {
    if (r->dirty_conns || r->unread_conns) return look(r, events);
    if (worked && crowd(r) >= CROWD) {
        if (r->config.busy_sleep_us) {
            struct timespec t = {.tv_nsec = (long)r->config.busy_sleep_us * 1000};
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
    while (!r->stopping) {
        r->now = rb_clock_ns();
        COUNT(r->stats.rounds, 1);
        int worked = ready > 0;
        worked |= rb_down_take(r) > 0;
        for (int i = 0; i < ready; i++) dispatch(r, &events[i]);
        rb_conns_read(r);
        rb_jobs_due(r); /* first: what has expired in the queue does not run */
        rb_roles_place(r);
        worked |= poll_workers(r) > 0;
        rb_roles_place(r); /* completions have made credit free */
        rb_conns_tick(r);
        rb_up_flush(r);
        tend(r);
        flush(r);
        if (r->sampled_ns) {
            COUNT(r->hops.answer_to_socket_ns, rb_clock_ns() - r->sampled_ns);
            r->sampled_ns = 0;
        }
        if (r->stopping) break;
        ready = wait(r, events, worked);
        if (ready < 0) ready = 0; /* EINTR */
    }
    return NULL;
}

static void shut(struct rb_relay *r) {
    flush(r);
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        if (r->conns[i]) rb_conn_close(r->conns[i], "node_closed");
    }
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        struct rb_worker *w = r->workers[i];
        if (!w) continue;
        for (uint32_t k = 0; k < w->link.config.slots; k++) {
            if (w->placed[k]) rb_job_free(r, w->placed[k]);
        }
        rb_worker_free(w); /* closes the obituary: the init ends the tree */
    }
}

int rb_relay_open(struct rb_relay **relay, const struct rb_relay_config *config) {
    size_t node_size = strlen(config->node);
    if (node_size == 0 || node_size > 255) return -EINVAL;
    struct rb_relay *r = calloc(1, sizeof *r);
    if (!r) return -ENOMEM;
    r->config = *config;
    memcpy(r->node, config->node, node_size);
    r->config.node = r->node;
    r->node_text = (struct rb_slice){(const uint8_t *)r->node, node_size};
    r->waiting_up_end = &r->waiting_up;
    int rc = rb_duct_open(&r->up, 1 << 16, UINT64_MAX);
    if (rc < 0) goto no_up;
    rc = rb_duct_open(&r->down, 1 << 16, UINT64_MAX);
    if (rc < 0) goto no_down;
    r->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (r->epoll < 0) {
        rc = -errno;
        goto no_epoll;
    }
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = rb_source(RB_SOURCE_DUCT, 0)};
    epoll_ctl(r->epoll, EPOLL_CTL_ADD, r->down.eventfd, &e);

    /* Signals are the interpreter's business. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    rc = -pthread_create(&r->thread, NULL, run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0) {
        *relay = r;
        return 0;
    }
    close(r->epoll);
no_epoll:
    rb_duct_close(&r->down);
no_down:
    rb_duct_close(&r->up);
no_up:
    free(r);
    return rc;
}

void rb_relay_close(struct rb_relay *r) {
    while (rb_note_stop(r) == -EAGAIN) usleep(1000);
    pthread_join(r->thread, NULL);
    shut(r);
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        struct rb_worker *w = r->face_workers[i];
        if (!w) continue;
        if (w->placed) { /* never handed over */
            rb_link_close(&w->link);
            free(w->placed);
        }
        free(w);
    }
    for (uint32_t i = 0; i < ROLES_MAX; i++) {
        struct rb_role *role = r->face_roles[i];
        if (!role) continue;
        struct rb_job *j;
        for (int band = 0; band < 4; band++) {
            while ((j = role->bands[band].first)) {
                rb_role_unlink(role, j);
                rb_job_free(r, j);
            }
        }
        rb_pool_close(&role->pool);
        free(role->workers);
        free(role);
    }
    for (uint32_t i = 0; i < r->chunk_count; i++) {
        for (uint32_t k = 0; k < 1024; k++) {
            if (r->chunks[i][k].caller != r->chunks[i][k].caller_inline)
                free(r->chunks[i][k].caller);
        }
        free(r->chunks[i]);
    }
    free(r->chunks);
    free(r->heap);
    free(r->scratch);
    free(r->stage.at);
    free(r->packed.at);
    free(r->event_note);
    while (r->waiting_up) {
        struct rb_note *n = r->waiting_up;
        r->waiting_up = rb_note_next(n);
        free(n);
    }
    close(r->epoll);
    rb_duct_close(&r->up);
    rb_duct_close(&r->down);
    free(r);
}
