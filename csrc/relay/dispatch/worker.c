/* worker.c: a worker's link as the relay sees it: greeting, completions, death.
 *
 * Everything read here was written by a process that may lie (DESIGN.md, section 4): an envelope is copied before it is looked at, every number
 * is held against what the relay itself knows, and a broken rule ends the worker, not the relay. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "relay/relay_pvt.h"
#include "ringbridge/envelope.h"

enum {
    SERVICE_WEIGHT = 8,        /* the moving average takes an eighth of each new value */
    COMPLETIONS_A_ROUND = 256, /* one worker's flood must not starve the others */
    OUTPUT_CHUNK = 4096,
    OUTPUT_CHUNKS_A_ROUND = 4,
    OUTPUT_LATE_NS = 20000000, /* what a job wrote is read within so long of its end */
    OUTPUT_CHUNKS_AT_END =
        32, /* all that a pipe of the usual size holds; a grandchild that is left may write for ever */
};

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

static void set_state(struct rb_worker *w, uint32_t state) {
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
    poll_fd(w, w->obituary_fd, RB_SOURCE_OBITUARY);
    poll_fd(w, w->stdout_fd, RB_SOURCE_STDOUT);
    poll_fd(w, w->stderr_fd, RB_SOURCE_STDERR);
    w->link.waker.pidfd = w->pidfd;
    if (w->relay->tape) rb_tape_watch(w);
    rb_link_handed_over(&w->link); /* it was inherited, before it was handed to us */
    set_state(w, RB_WORKER_GREETING);
    /* Until it has greeted nobody polls its rings, so its gate stays announced: the greeting rings, or was there before. */
    rb_gate_announce(&w->link.waiter, RB_PARK_EVENTFD);
    rb_worker_greeted(w);
}

void rb_worker_signal(struct rb_worker *w, int signal) {
    if (w->shadow) rb_tape_out(w->relay, RB_ITEM_SIGNAL, w->id, signal, NULL, 0);
    if (w->pidfd >= 0) syscall(SYS_pidfd_send_signal, w->pidfd, signal, NULL, 0);
}

/* --- Greeting ------------------------------------------------------------------------------------------------------------ */

void rb_worker_greeted(struct rb_worker *w) {
    struct rb_worker_header hello;
    char why[512];
    if (w->state != RB_WORKER_GREETING) return;
    if (w->shadow) rb_tape_look(w);
    int rc = rb_link_hello(&w->link, &hello, why, sizeof why);
    if (rc == 0) return;
    if (rc < 0) {
        rb_up_event(w->relay, RB_EVENT_WORKER_REFUSED, 0, w->id, 0, 0, 0, why, strlen(why));
        set_state(w, RB_WORKER_FENCED);
        rb_worker_signal(w, SIGKILL);
        return;
    }
    rb_gate_retract(&w->link.waiter);
    w->link.config.features &= hello.features;
    hello.kit[sizeof hello.kit - 1] = hello.role[sizeof hello.role - 1] = 0;
    char text[sizeof hello.kit + sizeof hello.role];
    int n = snprintf(text, sizeof text, "%s", (const char *)hello.kit) + 1;
    n += snprintf(text + n, sizeof text - (size_t)n, "%s", (const char *)hello.role);
    set_state(w, RB_WORKER_READY);
    rb_role_add_ready(w->role, w);
    rb_health_worker_ready(w);
    rb_up_event(w->relay, RB_EVENT_WORKER_READY, 0, w->id, hello.pid, hello.kit_version,
                hello.version, text, (size_t)n);
}

/* --- Completions --------------------------------------------------------------------------------------------------------- */

static void measure(struct rb_worker *w, const struct rb_job *j, uint64_t run_ns) {
    uint64_t most = w->relay->now > j->placed_ns ? w->relay->now - j->placed_ns : 0;
    if (run_ns > most)
        run_ns = most; /* its own clock: it cannot have run longer than it was away */
    uint64_t average = w->service_ns;
    w->service_ns = average == 0 ? run_ns + 1
                                 : average + run_ns / SERVICE_WEIGHT - average / SERVICE_WEIGHT + 1;
    uint64_t credit = (uint64_t)w->role->config.choice.credit_us * 1000 / w->service_ns;
    if (credit < 1) credit = 1;
    if (credit > w->link.config.slots) credit = w->link.config.slots;
    w->credit = (uint32_t)credit;
    GAUGE(w->stats.service_ns, w->service_ns);
    GAUGE(w->stats.credit, credit);
}

struct rb_slice rb_worker_term_request(const struct rb_job *j) {
    if (!j->is_term) return (struct rb_slice){NULL, 0};
    return (struct rb_slice){rb_job_payload(j), j->request.payload_bytes};
}

/* Echoes of the request are known to be good. */
int rb_worker_check_term(struct rb_worker *w, const struct rb_job *j, struct rb_slice copy,
                         const char **rule) {
    struct rb_slice request = rb_worker_term_request(j);
    /* No bytes at all are no term, however much they are like a request that was none. */
    if (j->is_term && rb_slice_equal(copy, request)) return 0;
    return rb_term_check(copy, request, &w->role->rules, &w->atoms, rule);
}

/* The payload's place, checked against the region; NULL breaks a rule. */
static const uint8_t *result_at(struct rb_worker *w, const struct rb_completion *e) {
    if (e->flags & RB_FLAG_INLINE) return e->payload_bytes <= RB_INLINE_BYTES_MAX ? e->body : NULL;
    uint64_t region = w->link.config.result_bytes;
    if (e->payload_at % w->link.config.result_block_bytes || e->payload_at > region) return NULL;
    return e->payload_bytes <= region - e->payload_at ? w->link.results + e->payload_at : NULL;
}

static const char *give_back(struct rb_worker *w, const struct rb_completion *e) {
    if (e->flags & RB_FLAG_INLINE) return NULL;
    uint32_t block = w->link.config.result_block_bytes;
    uint32_t count = (uint32_t)(((uint64_t)e->payload_bytes + block - 1) / block);
    if (count == 0) return NULL;
    int64_t slot = rb_ring_claim(&w->link.giveback_ring);
    if (slot < 0)
        return "giveback_ring_full"; /* as many slots as blocks: only blocks named twice can fill it */
    w->link.givebacks[slot] =
        (struct rb_giveback){.first = (uint32_t)(e->payload_at / block), .count = count};
    return NULL;
}

/* A timed job: its stations were stamped on the way; the last one, the socket, comes with the round's flush (relay.c). */
static void sample(struct rb_relay *r, const struct rb_job *j, uint64_t run_ns) {
    r->sampled_ns = rb_clock_ns();
    COUNT(r->hops.samples, 1);
    COUNT(r->hops.socket_to_queue_ns, j->queued_ns - j->arrived_ns);
    COUNT(r->hops.queue_to_ring_ns, j->ringed_ns - j->queued_ns);
    COUNT(r->hops.ring_to_answer_ns, r->sampled_ns - j->ringed_ns);
    COUNT(r->hops.worker_run_ns, run_ns);
}

/* A completion that is not the job's last. What nobody hears of any more is held to the same rules. */
static const char *before_the_end(struct rb_worker *w, struct rb_job *j,
                                  const struct rb_completion *e, const uint8_t *payload) {
    if (e->status == RB_STATUS_PROGRESS) {
        const char *broken = rb_progress_take(w, j, e, payload);
        return broken ? broken : give_back(w, e);
    }
    if (!(j->request.flags & RB_FLAG_PARTS)) return "part_not_asked";
    if (j->parts_sent == j->parts_granted) return "part_without_demand";
    if (e->payload_bytes > RB_PART_BYTES_MAX) return "part_too_large";
    j->parts_sent++;
    const char *rule = j->subscription ? rb_stream_part(w, j, e, payload) : NULL;
    return rule ? rule : give_back(w, e);
}

/* A term is walked on a private copy, since the worker could change it under our eyes. 1: it goes on, in the next round. */
static int answer_term(struct rb_worker *w, const struct rb_caller *to, const struct rb_job *j,
                       const struct rb_completion *e, const uint8_t *payload, uint64_t *effort,
                       const char **rule) {
    struct rb_slice term;
    int rc = w->answering.walk ? rb_term_answer_on(w, effort, &term, rule)
                               : rb_term_answer_begin(w, j, e, payload, effort, &term, rule);
    if (rc == -EAGAIN) return 1;
    if (rc == 0) rb_answer_term(to, j->detail ? j : NULL, term);
    rb_term_answer_end(w);
    return 0;
}

/* Not an end: what is left of it comes in the next round. */
static const char *const goes_on = "goes_on";

/* One completion, on a private copy. NULL, or the rule that it breaks, or `goes_on`. */
static const char *complete(struct rb_worker *w, struct rb_completion *e, uint64_t *effort) {
    struct rb_relay *r = w->relay;
    struct rb_job *j = rb_job_find(r, e->job);
    if (!j || j->worker != w || (j->state != RB_JOB_PLACED && j->state != RB_JOB_ABANDONED))
        return "completion_of_no_job_here";
    if (e->status > RB_STATUS_PROGRESS) return "completion_status";
    const uint8_t *payload = result_at(w, e);
    if (!payload) return "completion_payload_out_of_range";
    if (!w->answering
             .walk) { /* what is walked was looked at when that began, and is not read again */
        uint64_t cost = rb_completion_effort(e);
        *effort -= cost < *effort ? cost : *effort;
        if (rb_completion_crc(e, payload, w->link.config.features) != e->crc)
            return "completion_crc";
    } else if (j->state != RB_JOB_PLACED) {
        rb_term_answer_end(w); /* nobody hears of it any more */
    }
    if (e->status > RB_STATUS_CANCELLED) return before_the_end(w, j, e, payload);

    const char *rule = NULL;
    enum rb_reason reason = RB_REASON_OK;
    j->run_ns = e->run_ns;
    if (j->state == RB_JOB_PLACED) {
        struct rb_caller to = rb_job_caller(j);
        /* What may not wait on a socket would cost the caller's whole node its connection. A sixteenth is for what waits already. */
        uint64_t most = r->config.outgoing_bytes_max - r->config.outgoing_bytes_max / 16;
        if (e->status == RB_STATUS_FAILED) {
            reason = RB_REASON_JOB_FAILED;
            rb_answer_failed(&to, e->code, payload,
                             e->payload_bytes > 65536 ? 65536 : e->payload_bytes);
        } else if (e->status == RB_STATUS_CANCELLED) {
            /* Nobody cancelled it, so the worker saw its deadline first: the same clock, read after its look, the same answer. */
            reason = rb_relay_clock(r) >= j->request.deadline_ns ? RB_REASON_DEADLINE_EXCEEDED
                                                                 : RB_REASON_CANCELLED;
            rb_answer_reason(&to, reason);
        } else if (e->payload_bytes > most) {
            char why[128];
            int n = snprintf(
                why, sizeof why,
                "an answer of %u bytes does not fit into the %llu that may wait on a socket",
                e->payload_bytes, (unsigned long long)most);
            reason = RB_REASON_JOB_FAILED;
            rb_answer_failed(&to, RB_CODE_ANSWER_TOO_LARGE, (const uint8_t *)why, (size_t)n);
        } else if (e->flags & RB_FLAG_TERM) {
            if (answer_term(w, &to, j, e, payload, effort, &rule)) return goes_on;
            if (rule) return rule;
        } else {
            rb_answer_raw(&to, j->detail ? j : NULL, payload, e->payload_bytes);
        }
    }
    rule = give_back(w, e);
    if (j->request.flags & RB_FLAG_PARTS)
        w->streams--; /* its time was its consumer's, and says nothing of the worker */
    else
        measure(w, j, e->run_ns);
    if (j->state == RB_JOB_PLACED) {
        if (w->role->config.breaker.failure_percent) rb_health_ended(w, j->placed_ns, reason);
        if (w->role->config.admission.adaptive.limit_max && !(j->request.flags & RB_FLAG_PARTS))
            rb_admission_ended(r, j);
    }
    if (j->sampled) sample(r, j, e->run_ns);
    w->placed[j->position & (w->link.config.slots - 1)] = NULL;
    w->in_flight--;
    w->last_job = j->id;
    GAUGE(w->stats.in_flight, w->in_flight);
    COUNT(w->stats.done, 1);
    if (j->state == RB_JOB_PLACED) {
        j->worker = NULL; /* so that answering it frees it */
        rb_job_answered(r, j, reason);
    } else {
        if (e->status == RB_STATUS_CANCELLED && j->stopped_ns) { /* it has looked, and left off */
            COUNT(w->role->stats.noticed, 1);
            COUNT(w->role->stats.noticed_ns, rb_relay_clock(r) - j->stopped_ns);
        }
        rb_job_free(r, j);
    }
    return rule;
}

int rb_worker_poll(struct rb_worker *w) {
    if (w->state == RB_WORKER_FENCED) return 0;
    if (w->shadow) rb_tape_look(w);
    int64_t count = rb_ring_available(&w->link.completion_ring);
    if (count < 0) {
        rb_worker_broke(w, "completion_tail_out_of_range");
        return 0;
    }
    if (count > COMPLETIONS_A_ROUND) count = COMPLETIONS_A_ROUND;
    w->held = 0;
    if (count == 0) return 0;
    const char *rule = NULL;
    int64_t taken = 0;
    int parts = 0, walking = 0;
    uint64_t effort = w->last_words ? RB_EFFORT_AT_END : RB_EFFORT_A_ROUND;
    while (taken < count && !rule && effort > 0) {
        struct rb_completion e;
        memcpy(&e,
               w->answering.walk
                   ? &w->answering.envelope
                   : &w->link.completions[rb_ring_slot(&w->link.completion_ring, (uint64_t)taken)],
               sizeof e);
        if (e.status == RB_STATUS_PART) {
            if ((w->held = rb_stream_must_wait(w, &e))) break;
            parts = 1;
        }
        rule = complete(w, &e, &effort);
        if (rule == goes_on) {
            rule = NULL;
            walking = 1;
            break;
        }
        taken++;
    }
    if (taken == 0) return walking;
    if (parts) rb_stream_flush(w->relay);
    rb_ring_release(&w->link.completion_ring, (uint64_t)taken);
    /* It may be waiting for a block; or for a slot, where parts may fill the ring: no more jobs are out than it has slots. */
    if (rb_ring_publish(&w->link.giveback_ring) > 0 || parts) rb_gate_ring(&w->link.waker);
    rb_place_look(w);
    if (w->role->queued > 0) w->role->dirty = 1;
    rb_worker_stirs(w);
    if (rule) rb_worker_broke(w, rule);
    return (int)taken;
}

void rb_worker_tend(struct rb_worker *w) {
    struct rb_telemetry t;
    rb_worker_look_again(w);
    if (w->state == RB_WORKER_LINKED || rb_link_telemetry(&w->link, &t) < 0) return;
    GAUGE(w->stats.heartbeats, t.heartbeats);
    GAUGE(w->stats.heartbeat_ns, t.heartbeat_ns);
    GAUGE(w->stats.wakes, w->link.waker.wakes);
    rb_store_relaxed(&w->stats.gate, t.gate);
}

/* --- The end ------------------------------------------------------------------------------------------------------------- */

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

/* Jobs past the started position are lost with their worker, but for those that may be run again; the others go back to the queue.
 * `o` NULL: it was fenced, and may run on until the kill arrives. Then only what is certainly lost is told: a job that went to another
 * worker now could have been begun here in the same moment, and run twice. */
static void leave_jobs(struct rb_worker *w, const struct rb_obituary *o) {
    struct rb_relay *r = w->relay;
    uint32_t mask = w->link.config.slots - 1;
    uint64_t tail = w->link.request_ring.claimed;
    /* S0: pairs with the kit's release store before it enters a handler. A lie can only cost the liar's own jobs. */
    if (w->shadow) rb_tape_look(w);
    uint64_t started = rb_load_acquire(&w->link.theirs->started);
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
    set_state(w, RB_WORKER_FENCED);
}

void rb_worker_broke(struct rb_worker *w, const char *rule) {
    if (w->state == RB_WORKER_FENCED) return;
    fence(w);
    w->broke = rule;
    rb_worker_signal(w, SIGKILL);
    rb_up_event(w->relay, RB_EVENT_WORKER_BROKE, 0, w->id, 0, 0, 0, rule, strlen(rule));
    leave_jobs(w, NULL);
}

/* Out of epoll by hand: a descriptor that someone else holds open too (the bridge forks shepherds) would go on reporting. */
static void close_watched(struct rb_worker *w, int *fd) {
    if (*fd < 0) return;
    epoll_ctl(w->relay->epoll, EPOLL_CTL_DEL, *fd, NULL);
    close(*fd);
    *fd = -1;
}

/* A negative errno where read() has -1. */
ssize_t rb_worker_read(int fd, void *at, size_t size) {
    ssize_t n = read(fd, at, size);
    return n < 0 ? -errno : n;
}

/* The job in whose course output was written that is read now: the one under way; else the last one, if that ended a moment ago, as its words
 * were in the pipe before its answer was in the ring. 0: none. It says what a line is about and decides nothing: of several jobs
 * in so short a time it may be the wrong one. */
static uint64_t job_of_output(struct rb_worker *w) {
    if (w->shadow) rb_tape_look(w);
    /* S1: pairs with the kit's release store, as S0. A lie names another job of the liar. */
    uint64_t started = rb_load_acquire(&w->link.theirs->started);
    const struct rb_job *j = w->placed[(started - 1) & (w->link.config.slots - 1)];
    if (j && j->position == started - 1) return j->id;
    return w->relay->now - w->stirred_ns < OUTPUT_LATE_NS ? w->last_job : 0;
}

static void take_output(struct rb_worker *w, int which, int chunks) {
    int *fd = which == 1 ? &w->stdout_fd : &w->stderr_fd;
    char chunk[OUTPUT_CHUNK];
    for (int i = 0; i < chunks && *fd >= 0; i++) {
        ssize_t n = w->shadow ? rb_tape_output(w, which, *fd, chunk, sizeof chunk)
                              : rb_worker_read(*fd, chunk, sizeof chunk);
        if (n == -EAGAIN || n == -EINTR) return;
        if (n < 0) n = 0;
        if (n == 0) {
            close_watched(w, fd);
            return;
        }
        if (which == 2) {
            size_t keep = (size_t)n < STDERR_TAIL ? (size_t)n : STDERR_TAIL;
            if (w->stderr_size + keep > STDERR_TAIL) {
                uint32_t drop = (uint32_t)(w->stderr_size + keep - STDERR_TAIL);
                memmove(w->stderr_tail, w->stderr_tail + drop, w->stderr_size - drop);
                w->stderr_size -= drop;
            }
            memcpy(w->stderr_tail + w->stderr_size, chunk + n - keep, keep);
            w->stderr_size += (uint32_t)keep;
        }
        rb_up_event(w->relay, RB_EVENT_WORKER_OUTPUT, 0, w->id, which, (int64_t)job_of_output(w), 0,
                    chunk, (size_t)n);
    }
}

void rb_worker_output(struct rb_worker *w, int which) {
    take_output(w, which, OUTPUT_CHUNKS_A_ROUND);
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
    w->last_words = 1;
    /* What it published before its end counts. Bounded by its ring: where namespaces are forbidden a liar may outlive its init. */
    for (uint32_t i = 0; i <= w->link.config.slots / COMPLETIONS_A_ROUND && rb_worker_poll(w) > 0;
         i++) {
    }
    take_output(w, 2, OUTPUT_CHUNKS_AT_END);
    take_output(w, 1, OUTPUT_CHUNKS_AT_END);
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
    close_watched(w, &w->obituary_fd);
    if (!w->parting) rb_worker_leave(w);
}

void rb_worker_leave(struct rb_worker *w) {
    struct rb_relay *r = w->relay;
    int64_t status = w->end_status, signal = w->end_signal, flags = w->end_flags;
    uint64_t id = w->id;
    rb_worker_free(w);
    rb_up_event(r, RB_EVENT_WORKER_ENDED, 0, id, status, signal, flags, NULL, 0);
}

void rb_worker_drain(struct rb_worker *w) {
    if (w->state != RB_WORKER_READY) return;
    rb_role_remove_ready(w->role, w);
    rb_health_worker_gone(w, 0);
    set_state(w, RB_WORKER_DRAINING);
    /* T0: pairs with the kit's load of the word as it waits. seq_cst, since its gate waits for it (gate.h, G0): after a release store
     * the look at the park word that follows could be made first, and both sides would miss each other. */
    rb_store_seq_cst(&w->link.ours->control, RB_CONTROL_DRAIN);
    /* The worker may be parked with nothing published since: the doorbell alone makes it look. */
    rb_gate_ring(&w->link.waker);
}

/* Takes the worker out of the relay. Its memory stays until the other thread has heard of the end (note.c): it reads the figures. */
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
    close_watched(w, &w->obituary_fd);
    close_watched(w, &w->stdout_fd);
    close_watched(w, &w->stderr_fd);
    if (w->pidfd >= 0) close(w->pidfd);
    w->pidfd = -1;
    /* Shared descriptors stay in epoll while anyone holds them open; the worker's copy of the eventfd would. */
    epoll_ctl(r->epoll, EPOLL_CTL_DEL, w->link.fds.wake_relay, NULL);
    rb_shadow_close(w);
    rb_link_close(&w->link);
    free(w->placed);
    w->placed = NULL;
    rb_term_answer_end(w);
    rb_atom_budget_fini(&w->atoms);
}
