/* death.c: how a worker ends: it broke a rule, or its obituary has come; and what becomes of its jobs. */
#include <errno.h>
#include <signal.h>

#include "relay/dispatch/worker_pvt.h"
#include "relay/relay_pvt.h"

/* Its worker did not survive it, and it may not begin again. */
static void lose(struct rb_worker *w, struct rb_job *j, const struct rb_obituary *o) {
    struct rb_caller to = rb_job_caller(j);
    if (w->broke)
        rb_answer_text(&to, RB_REASON_WORKER_BROKE, w->broke);
    else
        rb_answer_crashed(&to, w, j->id, o->status, (int)o->signal,
                          (o->flags & RB_OBITUARY_OOM) != 0);
    COUNT(w->stats.lost, 1);
    const struct rb_extra *e = j->extra;
    rb_up_event(w->relay, RB_EVENT_JOB_LOST, 0, w->id, (int64_t)j->id,
                w->broke ? RB_REASON_WORKER_BROKE : RB_REASON_WORKER_CRASHED, 0, e ? e->meta : NULL,
                e ? e->meta_size : 0);
    rb_health_ended(w, j->placed_ns, w->broke ? RB_REASON_WORKER_BROKE : RB_REASON_WORKER_CRASHED);
    rb_job_answered(w->relay, j, w->broke ? RB_REASON_WORKER_BROKE : RB_REASON_WORKER_CRASHED);
}

/* Nobody here can end the process behind it: it may live on, and begin what goes to others now. */
static void stop_beginning(struct rb_worker *w) {
    /* K2: pairs with K1 in rb_proxy_start() (core/proxy.c). seq_cst with S0: it sees this word, or we see what it began. */
    rb_store_seq_cst(&w->link.ours->control, RB_CONTROL_STOP);
    rb_gate_ring(&w->link.waker);
}

/* Jobs past the started position are lost with their worker, but for those that may be run again; the others go back to the queue.
 * `o` NULL: it was fenced, and may run on until the kill arrives. Then only what is certainly lost is told: a job that went to another
 * worker now could have been begun here in the same moment, and run twice. */
static void leave_jobs(struct rb_worker *w, const struct rb_obituary *o) {
    struct rb_relay *r = w->relay;
    uint32_t mask = w->link.config.slots - 1;
    uint64_t tail = w->link.request_ring.claimed;
    if (w->pidfd < 0) stop_beginning(w);
    /* S0: pairs with K0, the kit's store before it enters a handler; seq_cst as that one, for who is told to stop only. A lie can only cost
     * the liar's own jobs. */
    if (w->shadow) rb_tape_look(w);
    uint64_t started = rb_load_seq_cst(&w->link.theirs->started);
    uint64_t oldest = tail > w->link.config.slots ? tail - w->link.config.slots : 0;
    for (uint64_t p = tail; p-- > oldest;) {
        struct rb_job *j = w->placed[p & mask];
        if (!j || j->position != p) continue;
        /* Whose parts have left has begun, whatever the worker says; and they cannot be taken back. */
        int lost = (p < started || j->parts_sent > 0) && j->state == RB_JOB_PLACED;
        int again = lost && j->retry > 0 && j->role->config.idempotent &&
                    !(j->request.flags & RB_FLAG_PARTS);
        if (!o) {
            if (lost && !again) lose(w, j, NULL);
            continue;
        }
        w->placed[p & mask] = NULL;
        if (lost && !again) {
            j->worker = NULL; /* so that answering it frees it */
            lose(w, j, o);
            continue;
        }
        if (again) {
            rb_health_ended(w, j->placed_ns, RB_REASON_WORKER_CRASHED);
            j->retry--;
            COUNT(j->role->stats.retried, 1);
        }
        rb_job_requeue(r, j);
    }
    if (!o) return;
    w->in_flight = w->streams = 0;
    GAUGE(w->stats.in_flight, 0);
}

static void fence(struct rb_worker *w) {
    if (w->state == RB_WORKER_READY) rb_role_remove_ready(w->role, w);
    rb_term_answer_end(w);
    rb_worker_set_state(w, RB_WORKER_FENCED);
}

void rb_worker_broke(struct rb_worker *w, const char *rule) {
    if (w->state == RB_WORKER_FENCED) return;
    fence(w);
    w->broke = rule;
    rb_worker_signal(w, SIGKILL);
    rb_up_event(w->relay, RB_EVENT_WORKER_BROKE, 0, w->id, 0, 0, 0, rule, strlen(rule));
    leave_jobs(w, NULL);
}

void rb_worker_obituary(struct rb_worker *w) {
    struct rb_relay *r = w->relay;
    uint8_t *at = w->obituary + w->obituary_size;
    size_t room = sizeof w->obituary - w->obituary_size;
    ssize_t n =
        w->shadow ? rb_tape_obituary(w, at, room) : rb_worker_read(w->obituary_fd, at, room);
    if (n == -EAGAIN || n == -EINTR) return;
    if (n > 0) w->obituary_size += (uint32_t)n;
    if (n > 0 && w->obituary_size < sizeof w->obituary) return;

    struct rb_obituary o = {
        .magic = RB_OBITUARY_MAGIC, .status = -1, .signal = SIGKILL, .flags = 0};
    if (w->obituary_size == sizeof o) memcpy(&o, w->obituary, sizeof o);
    rb_worker_poll_last(w); /* what it published before its end counts */
    rb_worker_last_output(w);
    int drained = w->state == RB_WORKER_DRAINING, served = w->state == RB_WORKER_READY;
    uint64_t lost = w->stats.lost;
    fence(w);
    leave_jobs(w, &o);
    if (served && w->stats.lost == lost && (o.signal || o.status)) /* idle, but a crash */
        rb_health_ended(w, r->now, RB_REASON_WORKER_CRASHED);
    rb_health_worker_gone(w, !drained);
    w->ended = 1;
    w->end_status = o.status;
    w->end_signal = o.signal;
    w->end_flags = o.flags;
    rb_worker_close_watched(w, &w->obituary_fd);
    if (!w->parting) rb_worker_leave(w);
}

void rb_worker_leave(struct rb_worker *w) {
    struct rb_relay *r = w->relay;
    int64_t status = w->end_status, signal = w->end_signal, flags = w->end_flags;
    uint64_t id = w->id;
    rb_worker_free(w);
    rb_up_event(r, RB_EVENT_WORKER_ENDED, 0, id, status, signal, flags, NULL, 0);
}
