/* worker.c: a worker's link as the relay sees it, from its hand-over to its end: found by its id, greeted, drained, freed. What it says of
 * its jobs is in completion.c, what it writes in output.c, how it dies in death.c. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "relay/dispatch/worker_pvt.h"
#include "relay/relay_pvt.h"
#include "relay/service/operation.h"

struct rb_worker **rb_worker_slot(struct rb_worker **table, uint64_t id) {
    struct rb_worker **slot = &table[id % WORKERS_MAX];
    if (*slot && (*slot)->id == id) return slot;
    for (slot = table; slot < table + WORKERS_MAX; slot++) {
        if (*slot && (*slot)->id == id) return slot;
    }
    return NULL;
}

struct rb_worker **rb_worker_room(struct rb_worker **table, uint64_t id) {
    struct rb_worker **slot = &table[id % WORKERS_MAX];
    if (!*slot) return slot;
    for (slot = table; slot < table + WORKERS_MAX; slot++) {
        if (!*slot) return slot;
    }
    return NULL;
}

struct rb_worker *rb_worker_find(struct rb_relay *r, uint64_t id) {
    struct rb_worker **slot = rb_worker_slot(r->workers, id);
    return slot ? *slot : NULL;
}

void rb_worker_set_state(struct rb_worker *w, uint32_t state) {
    w->state = state;
    rb_store_relaxed(&w->stats.state, state);
}

static void poll_fd(struct rb_worker *w, int fd, enum rb_source_kind kind) {
    if (fd < 0) return;
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = rb_source(kind, w->id)};
    epoll_ctl(w->relay->epoll, EPOLL_CTL_ADD, fd, &e);
}

void rb_worker_watch(struct rb_worker *w) {
    fcntl(w->obituary_fd, F_SETFL, O_NONBLOCK);
    if (w->stdout_fd >= 0) fcntl(w->stdout_fd, F_SETFL, O_NONBLOCK);
    if (w->stderr_fd >= 0) fcntl(w->stderr_fd, F_SETFL, O_NONBLOCK);
    poll_fd(w, w->link.fds.wake_relay, RB_SOURCE_LINK);
    if (w->pidfd < 0)
        poll_fd(w, w->link.bell, RB_SOURCE_LINK); /* it may ring there: rb_proxy_ring_at_bell() */
    poll_fd(w, w->obituary_fd, RB_SOURCE_OBITUARY);
    poll_fd(w, w->stdout_fd, RB_SOURCE_STDOUT);
    poll_fd(w, w->stderr_fd, RB_SOURCE_STDERR);
    w->link.waker.pidfd = w->pidfd;
    if (w->relay->tape) rb_tape_watch(w);
    rb_link_handed_over(&w->link); /* it was inherited, before it was handed to us */
    rb_worker_set_state(w, RB_WORKER_GREETING);
    /* Until it has greeted nobody polls its rings, so its gate stays announced: the greeting rings, or was there before. */
    rb_gate_announce(&w->link.waiter, RB_PARK_EVENTFD);
    rb_worker_greeted(w);
}

void rb_worker_signal(struct rb_worker *w, int signal) {
    if (w->shadow) rb_tape_out(w->relay, RB_ITEM_SIGNAL, w->id, signal, NULL, 0);
    if (w->pidfd >= 0) syscall(SYS_pidfd_send_signal, w->pidfd, signal, NULL, 0);
}

/* --- Greeting ------------------------------------------------------------------------------------------------------------ */

/* Who it is, for the other thread: kit NUL role NUL, then its operations as they stand in the layout. */
static void tell_ready(struct rb_worker *w, struct rb_worker_header *hello,
                       const struct rb_worker_op *ops, uint32_t count) {
    char text[sizeof hello->kit + sizeof hello->role + RB_OPS_MAX * sizeof *ops];
    hello->kit[sizeof hello->kit - 1] = hello->role[sizeof hello->role - 1] = 0;
    int n = snprintf(text, sizeof text, "%s", (const char *)hello->kit) + 1;
    n += snprintf(text + n, sizeof text - (size_t)n, "%s", (const char *)hello->role) + 1;
    memcpy(text + n, ops, count * sizeof *ops);
    rb_up_event(w->relay, RB_EVENT_WORKER_READY, 0, w->id, hello->pid, hello->kit_version,
                (int64_t)(w->link.config.features << 32 | hello->version), text,
                (size_t)n + count * sizeof *ops);
}

static void refuse(struct rb_worker *w, const char *why) {
    rb_up_event(w->relay, RB_EVENT_WORKER_REFUSED, 0, w->id, 0, 0, 0, why, strlen(why));
    rb_worker_set_state(w, RB_WORKER_FENCED);
    rb_worker_signal(w, SIGKILL);
}

void rb_worker_greeted(struct rb_worker *w) {
    struct rb_worker_header hello;
    struct rb_worker_op ops[RB_OPS_MAX];
    char why[640];
    if (w->state != RB_WORKER_GREETING) return;
    if (w->shadow) rb_tape_look(w);
    int rc = rb_link_hello(&w->link, &hello, why, sizeof why);
    if (rc == 0) return;
    int64_t count = rc < 0 ? rc : rb_link_ops(&w->link, &hello, ops, why, sizeof why);
    if (count < 0 || rb_operation_served(w->role, ops, (uint32_t)count, why, sizeof why) < 0) {
        refuse(w, why);
        return;
    }
    rb_gate_retract(&w->link.waiter);
    w->link.config.features &= hello.features;
    rb_worker_set_state(w, RB_WORKER_READY);
    rb_role_add_ready(w->role, w);
    rb_vitals_begin(w);
    rb_health_worker_ready(w);
    tell_ready(w, &hello, ops, (uint32_t)count);
}

/* --- Its end by request, and its end ------------------------------------------------------------------------------------- */

void rb_worker_drain(struct rb_worker *w) {
    if (w->state != RB_WORKER_READY) return;
    rb_role_remove_ready(w->role, w);
    rb_health_worker_gone(w, 0);
    rb_worker_set_state(w, RB_WORKER_DRAINING);
    /* T0: pairs with the kit's load of the word as it waits. seq_cst, since its gate waits for it (gate.h, G0): after a release store
     * the look at the park word that follows could be made first, and both sides would miss each other. */
    rb_store_seq_cst(&w->link.ours->control, RB_CONTROL_DRAIN);
    /* The worker may be parked with nothing published since: the doorbell alone makes it look. */
    rb_gate_ring(&w->link.waker);
}

/* Takes the worker out of the relay. Its memory stays until the other thread has heard of the end (up.c): it reads the figures. */
void rb_worker_free(struct rb_worker *w) {
    struct rb_relay *r = w->relay;
    if (w->polled) {
        for (struct rb_worker **p = &r->polled_workers; *p; p = &(*p)->next_polled) {
            if (*p == w) {
                *p = w->next_polled;
                break;
            }
        }
        w->polled = 0;
    }
    *rb_worker_slot(r->workers, w->id) = NULL;
    rb_worker_close_watched(w, &w->obituary_fd);
    rb_worker_close_watched(w, &w->stdout_fd);
    rb_worker_close_watched(w, &w->stderr_fd);
    if (w->pidfd >= 0) close(w->pidfd);
    w->pidfd = -1;
    /* Shared descriptors stay in epoll while anyone holds them open; the worker's copy of the eventfd would. */
    epoll_ctl(r->epoll, EPOLL_CTL_DEL, w->link.fds.wake_relay, NULL);
    epoll_ctl(r->epoll, EPOLL_CTL_DEL, w->link.bell, NULL);
    rb_shadow_close(w);
    rb_link_close(&w->link);
    free(w->placed);
    w->placed = NULL;
    rb_term_answer_end(w);
    rb_atom_budget_fini(&w->atoms);
}
