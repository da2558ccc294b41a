/* relay.c: a round, and what is made and freed around all of them.
 *
 * Each round: hear the other thread, read sockets, place jobs, drain completions, write once per socket. What time it is and which
 * descriptors are ready is given from outside: by the thread (wait.c), or by whoever has a relay without one (lab.c). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>

#include "relay/relay_pvt.h"
#include "relay/service/pipeline.h"
#include "relay/wait.h"

enum {
    TEND_NS = 1000000000,
    SCRATCH_KEEP = 1 << 20, /* of buffers for one signal */
};

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
    struct rb_beam *b;
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
        /* Who hangs up would ring on and on; its end is told by its obituary. */
        if (w->pidfd < 0 && rb_gate_hush(w->link.bell) < 0)
            epoll_ctl(r->epoll, EPOLL_CTL_DEL, w->link.bell, NULL);
        rb_worker_greeted(w);
        rb_worker_rang(w);
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
    case RB_SOURCE_LANE:
        if ((b = rb_beam_find(r, id))) rb_beam_rang(b);
        break;
    }
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
    if (r->beams) rb_beams_flush(r); /* last: what is told to who shares a run comes from above */
}

/* Room that one large signal made is not kept for ever. */
static void shrink(struct rb_relay *r) {
    struct rb_buffer *buffers[] = {&r->stage, &r->packed, &r->gathered.events, &r->asked};
    for (int i = 0; i < 4; i++) {
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
    rb_shared_expire(r);
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        if (r->workers[i]) rb_worker_look_again(r->workers[i]);
    }
}

/* --- A round ------------------------------------------------------------------------------------------------------------- */

/* What a queue gives to workers makes room in it for those that are deferred. */
static void place_jobs(struct rb_relay *r) {
    uint64_t due = rb_jobs_next_due(r);
    if (r->pipelines) rb_pipelines_round(r);
    if (due && due <= r->now) return; /* too many for one round: what has expired does not run */
    do {
        rb_roles_place(r);
    } while (r->backlogs.count && rb_admission_round(r) > 0);
}

int rb_relay_round(struct rb_relay *r, uint64_t now, const struct epoll_event *ready, int count) {
    int worked = count > 0;
    r->now = now;
    if (r->tape && rb_tape_is_over(r->tape))
        rb_tape_leave(r); /* nobody holds anything of it here */
    if (r->tape) rb_tape_round(r, ready, count);
    COUNT(r->stats.rounds, 1);
    worked |= rb_down_take(r) > 0;
    for (int i = 0; i < count; i++) dispatch(r, &ready[i]);
    rb_conns_read(r);
    if (r->beams) worked |= rb_beams_read(r) > 0;
    rb_jobs_due(r); /* first: what has expired in the queue does not run */
    if (now >= r->health_due_ns) rb_health_tick(r);
    if (now >= r->vitals.due_ns) rb_vitals_round(r);
    place_jobs(r);
    worked |= rb_workers_poll(r) > 0;
    place_jobs(r); /* completions have made credit free */
    if (r->progress) rb_progress_flush(r);
    rb_conns_tick(r);
    rb_up_flush(r);
    tend(r);
    flush(r);
    if (r->progress) rb_progress_flush(r); /* what the sockets have made room for */
    rb_roles_leave(r);                     /* last: nobody holds a role now */
    if (r->sampled_ns) {
        COUNT(r->hops.answer_to_socket_ns, rb_clock_ns() - r->sampled_ns);
        r->sampled_ns = 0;
    }
    return worked || r->pipelines;
}

/* --- Opened and closed --------------------------------------------------------------------------------------------------- */

static void shut(struct rb_relay *r) {
    flush(r);
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        if (r->conns[i]) rb_conn_close(r->conns[i], "node_closed");
    }
    rb_beams_end(r, "node_closed");
    /* What waits for a worker goes back to its role's queue at once, and not from one worker to the next. */
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        struct rb_worker *w = r->workers[i];
        if (w && w->state == RB_WORKER_READY) rb_role_remove_ready(w->role, w);
    }
    for (uint32_t i = 0; i < r->roles_count; i++) {
        while (r->roles[i] && rb_role_part(r, r->roles[i])) {
        }
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

static uint64_t kernel_seed(void) {
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed) seed = rb_clock_ns();
    return seed;
}

/* From the seed, so that a run that is made again gives the same handles out, and apart from what chance decides by. */
static void make_seal(struct rb_relay *r) {
    struct rb_random g = {r->random.state ^ RB_HANDLE_MARK};
    uint64_t a = rb_random_next(&g), b = rb_random_next(&g);
    const uint32_t key[4] = {(uint32_t)a, (uint32_t)(a >> 32), (uint32_t)b, (uint32_t)(b >> 32)};
    rb_seal_init(&r->seal, key);
}

int rb_relay_make(struct rb_relay **relay, const struct rb_relay_config *config) {
    size_t node_size = strlen(config->node);
    if (node_size == 0 || node_size > 255) return -EINVAL;
    struct rb_relay *r = calloc(1, sizeof *r);
    if (!r) return -ENOMEM;
    r->config = *config;
    memcpy(r->node, config->node, node_size);
    r->config.node = r->node;
    r->node_text = (struct rb_slice){(const uint8_t *)r->node, node_size};
    r->waiting_up_end = &r->waiting_up;
    r->config.seed = config->seed ? config->seed : kernel_seed(); /* which a record has too */
    r->random.state = r->config.seed;
    make_seal(r);
    /* Not from the run's own seed: who sits in which bucket decides nothing. */
    int rc = rb_tenants_init(&r->tenants, RB_TENANTS_MAX, kernel_seed());
    if (rc < 0) goto no_tenants;
    rc = rb_duct_open(&r->up, 1 << 16, UINT64_MAX);
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

    *relay = r;
    return 0;

no_epoll:
    rb_duct_close(&r->down);
no_down:
    rb_duct_close(&r->up);
no_up:
    rb_tenants_fini(&r->tenants);
no_tenants:
    free(r);
    return rc;
}

int rb_relay_open(struct rb_relay **relay, const struct rb_relay_config *config) {
    struct rb_relay *r = NULL;
    int rc = rb_relay_make(&r, config);
    if (rc < 0) return rc;
    rc = rb_thread_start(r);
    if (rc < 0) {
        rb_relay_unmake(r);
        return rc;
    }
    *relay = r;
    return 0;
}

void rb_relay_unmake(struct rb_relay *r) {
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
    for (uint32_t i = 0; i < RB_LANES_MAX; i++) {
        if (!r->face_lanes[i]) continue;
        rb_beam_free(r->face_lanes[i]); /* once more is no harm */
        free(r->face_lanes[i]);
    }
    rb_face_telemetry_free(r);
    for (uint32_t i = 0; i < ROLES_MAX; i++) {
        struct rb_role *role = r->face_roles[i];
        if (!role) continue;
        rb_role_clear(r, role);
        rb_role_free(role);
    }
    for (uint32_t i = 0; i < r->chunk_count; i++) {
        for (uint32_t k = 0; k < 1024; k++) {
            if (r->chunks[i][k].extra) rb_extra_release(r, r->chunks[i][k].extra);
            if (r->chunks[i][k].caller != r->chunks[i][k].caller_inline)
                free(r->chunks[i][k].caller);
        }
        free(r->chunks[i]);
    }
    free(r->chunks);
    rb_pipelines_fini(r);
    rb_extras_fini(r);
    rb_accounts_fini(&r->accounts);
    rb_shared_fini(r);
    rb_tenants_fini(&r->tenants);
    free(r->heap);
    free(r->scratch);
    free(r->stage.at);
    free(r->packed.at);
    free(r->asked.at);
    free(r->gathered.events.at);
    rb_progress_flush(r); /* of no job any more */
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

void rb_relay_stop(struct rb_relay *r) {
    if (r->stopped) return;
    while (rb_note_stop(r) == -EAGAIN) usleep(1000);
    if (r->still)
        rb_relay_round(r, r->now, NULL, 0);
    else
        pthread_join(r->thread, NULL);
    if (r->tape) rb_tape_leave(r);
    r->stopped = 1;
}

void rb_relay_close(struct rb_relay *r) {
    rb_relay_stop(r);
    rb_tape_close(r);
    rb_relay_unmake(r);
}
