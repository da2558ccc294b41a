/* job.c: the table of jobs, their deadlines, and the few steps of a job's life.
 *
 *      ARRIVING --accept--> DEFERRED --let in--> QUEUED --place--> PLACED --completion--> answered, free
 *                             |                  |  ^--requeue (its worker died)--'
 *                             '------------------+--cancel or deadline--> answered, free
 *                           PLACED --cancel or deadline--> ABANDONED --completion--> free
 *      ARRIVING --wait for other jobs--> WAITING --they are over, cancel or deadline--> answered, free
 *
 * A job that nothing holds back is DEFERRED for no longer than a call (admission.h).
 * Every accepted job is answered exactly once: rb_job_answered() is the only place that counts it, and it forgets the caller. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"

enum {
    CHUNK = 1024,
    SAMPLE_EVERY = 64,
    DUE_A_ROUND =
        2048, /* deadlines that have come, and stages: the rest in the next rounds, at once */
};
#define INDEX_MASK ((1ull << JOB_INDEX_BITS) - 1)

static int grow(struct rb_relay *r) {
    if ((uint64_t)r->chunk_count * CHUNK >= INDEX_MASK + 1) return -ENOMEM;
    struct rb_job **chunks = realloc(r->chunks, (r->chunk_count + 1) * sizeof *chunks);
    if (!chunks) return -ENOMEM;
    r->chunks = chunks;
    struct rb_job *chunk = calloc(CHUNK, sizeof *chunk);
    if (!chunk) return -ENOMEM;
    for (uint32_t i = CHUNK; i-- > 0;) {
        chunk[i].id = (uint64_t)r->chunk_count * CHUNK + i;
        chunk[i].caller = chunk[i].caller_inline;
        chunk[i].caller_capacity = sizeof chunk[i].caller_inline;
        chunk[i].heap_at = -1;
        chunk[i].next = r->free_jobs;
        r->free_jobs = &chunk[i];
    }
    r->chunks[r->chunk_count++] = chunk;
    return 0;
}

struct rb_job *rb_job_new(struct rb_relay *r) {
    if (!r->free_jobs && grow(r) < 0) return NULL;
    struct rb_job *j = r->free_jobs;
    r->free_jobs = j->next;
    j->id = ++r->job_sequence << JOB_INDEX_BITS | (j->id & INDEX_MASK);
    j->state = RB_JOB_ARRIVING;
    j->detail = j->is_term = j->signals = j->kind = j->finish = j->uncounted = 0;
    j->keyed = j->retry = j->accepts = j->apart = j->summed = 0;
    j->home = NULL;
    j->stopped_ns = 0;
    j->extra = NULL;
    j->sampled = r->job_sequence % SAMPLE_EVERY == 0;
    j->role = NULL;
    j->worker = NULL;
    j->next = NULL;
    j->tenant = NULL;
    j->node = j->purse = NULL;
    j->backlog = NULL;
    j->conn = NULL;
    j->arriving = NULL;
    j->monitor = NULL;
    j->subscription = NULL;
    j->progress = NULL;
    j->parts_granted = j->parts_sent = 0;
    j->watch = 0;
    j->pool_count = 0;
    j->arrived_ns = r->now;
    memset(&j->request, 0, sizeof j->request);
    j->request.job = j->id;
    return j;
}

uint8_t *rb_job_payload(const struct rb_job *j) {
    return j->pool_count ? j->role->pool.base + j->request.payload_at : (uint8_t *)j->request.body;
}

static void unwatch(struct rb_job *j) {
    if (j->kind == RB_CALLER_LANE)
        rb_beam_forget(j);
    else if (!j->conn->failed)
        rb_send_watch(j->conn, j->subscription ? RB_SERVICE_STREAMS : RB_SERVICE_JOBS, 0,
                      (struct rb_slice){j->caller, j->pid_size}, j->watch);
}

static void forget_caller(struct rb_job *j) {
    if (j->monitor) {
        j->monitor->job = NULL;
        j->monitor = NULL;
    }
    if (j->conn) {
        if (j->watch) unwatch(j);
        if (j->subscription) rb_stream_forget(j);
        if (j->progress) rb_progress_forget(j);
        if (j->next_of_conn) j->next_of_conn->prev_of_conn = j->prev_of_conn;
        if (j->prev_of_conn)
            j->prev_of_conn->next_of_conn = j->next_of_conn;
        else
            j->conn->jobs = j->next_of_conn;
        j->conn = NULL;
    }
    j->watch = 0;
}

void rb_job_join(struct rb_job *j, struct rb_role *role) {
    j->role = role;
    j->next_of_role = NULL;
    j->prev_of_role = role->last_job;
    if (role->last_job)
        role->last_job->next_of_role = j;
    else
        role->first_job = j;
    role->last_job = j;
    role->jobs++;
}

static void leave_role(struct rb_job *j) {
    struct rb_role *role = j->role;
    if (j->next_of_role)
        j->next_of_role->prev_of_role = j->prev_of_role;
    else
        role->last_job = j->prev_of_role;
    if (j->prev_of_role)
        j->prev_of_role->next_of_role = j->next_of_role;
    else
        role->first_job = j->next_of_role;
    role->jobs--;
    j->role = NULL;
}

void rb_job_free(struct rb_relay *r, struct rb_job *j) {
    if (j->extra) rb_extra_release(r, j->extra);
    j->extra = NULL;
    forget_caller(j);
    rb_job_due(r, j, 0);
    if (j->pool_count) rb_region_give(&j->role->pool.region, j->pool_first, j->pool_count);
    j->pool_count = 0;
    if (j->in_row.row) rb_role_over(r, j->role, j);
    if (j->tenant) rb_tenant_release(j->tenant);
    j->tenant = NULL;
    if (j->node) rb_account_release(&r->accounts, j->node);
    if (j->purse) rb_account_release(&r->accounts, j->purse);
    j->node = j->purse = NULL;
    if (j->role) leave_role(j);
    j->state = RB_JOB_FREE;
    j->next = r->free_jobs;
    r->free_jobs = j;
}

struct rb_job *rb_job_find(const struct rb_relay *r, uint64_t id) {
    uint64_t index = id & INDEX_MASK;
    if (index >= (uint64_t)r->chunk_count * CHUNK) return NULL;
    struct rb_job *j = &r->chunks[index / CHUNK][index % CHUNK];
    return j->id == id && j->state != RB_JOB_FREE ? j : NULL;
}

int rb_job_set_caller(struct rb_job *j, struct rb_conn *c, const struct rb_from *from) {
    size_t size = from->pid.size + from->tag.size;
    if (size > 4096) return -EMSGSIZE;
    if (size > j->caller_capacity) {
        uint8_t *caller = malloc(size);
        if (!caller) return -ENOMEM;
        if (j->caller != j->caller_inline) free(j->caller);
        j->caller = caller;
        j->caller_capacity = (uint16_t)size;
    }
    memcpy(j->caller, from->pid.at, from->pid.size);
    memcpy(j->caller + from->pid.size, from->tag.at, from->tag.size);
    j->pid_size = (uint16_t)from->pid.size;
    j->tag_size = (uint16_t)from->tag.size;
    j->alias_size = (uint16_t)from->alias.size;
    j->alias_at = from->alias.size ? (uint16_t)(from->alias.at - from->tag.at) : 0;
    j->conn = c;
    j->prev_of_conn = NULL;
    j->next_of_conn = c->jobs;
    if (c->jobs) c->jobs->prev_of_conn = j;
    c->jobs = j;
    return 0;
}

struct rb_caller rb_job_caller(const struct rb_job *j) {
    const uint8_t *tag = j->caller + j->pid_size;
    return (struct rb_caller){.conn = j->conn,
                              .pid = {j->caller, j->pid_size},
                              .tag = {tag, j->tag_size},
                              .alias = {tag + j->alias_at, j->alias_size},
                              .kind = j->kind,
                              .encoding = j->accepts ? "identity" : NULL,
                              .job = j->id,
                              .index = j->index,
                              .extra = j->extra};
}

/* --- The heap of what is due, soonest first ------------------------------------------------------------------------------ */

static void heap_set(struct rb_relay *r, uint32_t at, struct rb_job *j) {
    r->heap[at] = j;
    j->heap_at = (int32_t)at;
}

static void heap_up(struct rb_relay *r, uint32_t at, struct rb_job *j) {
    while (at > 0 && r->heap[(at - 1) / 2]->due_ns > j->due_ns) {
        heap_set(r, at, r->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_set(r, at, j);
}

static void heap_down(struct rb_relay *r, uint32_t at, struct rb_job *j) {
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= r->heap_count) break;
        if (child + 1 < r->heap_count && r->heap[child + 1]->due_ns < r->heap[child]->due_ns)
            child++;
        if (r->heap[child]->due_ns >= j->due_ns) break;
        heap_set(r, at, r->heap[child]);
        at = child;
    }
    heap_set(r, at, j);
}

void rb_job_due(struct rb_relay *r, struct rb_job *j, uint64_t due_ns) {
    if (j->heap_at >= 0) {
        uint32_t at = (uint32_t)j->heap_at;
        j->heap_at = -1;
        struct rb_job *last = r->heap[--r->heap_count];
        if (last != j) {
            if (at > 0 && r->heap[(at - 1) / 2]->due_ns > last->due_ns)
                heap_up(r, at, last);
            else
                heap_down(r, at, last);
        }
    }
    j->due_ns = due_ns;
    if (due_ns == 0) return;
    if (r->heap_count == r->heap_capacity) {
        uint32_t capacity = r->heap_capacity ? 2 * r->heap_capacity : 1024;
        struct rb_job **heap = realloc(r->heap, capacity * sizeof *heap);
        if (!heap) return; /* without memory the deadline is not kept; the answer still comes */
        r->heap = heap;
        r->heap_capacity = capacity;
    }
    heap_up(r, r->heap_count++, j);
}

uint64_t rb_jobs_next_due(const struct rb_relay *r) {
    return r->heap_count ? r->heap[0]->due_ns : 0;
}

/* --- Steps --------------------------------------------------------------------------------------------------------------- */

static void count_accepted(struct rb_relay *r, struct rb_job *j) {
    if (j->uncounted) return;
    COUNT(r->stats.accepted, 1);
    COUNT(r->stats.in_flight, 1);
    COUNT(j->role->stats.accepted, 1);
}

void rb_job_wait(struct rb_relay *r, struct rb_job *j) {
    count_accepted(r, j);
    j->state = RB_JOB_WAITING;
}

void rb_job_accept(struct rb_relay *r, struct rb_job *j) {
    count_accepted(r, j);
    j->role->open++;
    j->state = RB_JOB_DEFERRED;
    j->accepted_ns = r->now;
}

void rb_job_queue(struct rb_relay *r, struct rb_job *j) {
    j->state = RB_JOB_QUEUED;
    j->entered_ns = r->now;
    if (j->sampled) j->queued_ns = rb_clock_ns();
    rb_role_push(r, j->role, j);
}

void rb_job_requeue(struct rb_relay *r, struct rb_job *j) {
    j->worker = NULL;
    if (j->state == RB_JOB_ABANDONED) {
        rb_job_free(r, j);
        return;
    }
    j->state = RB_JOB_QUEUED;
    rb_role_push(r, j->role, j);
}

void rb_job_answered(struct rb_relay *r, struct rb_job *j, enum rb_reason reason) {
    if (j->extra) reason = rb_extra_answered(r, j, reason);
    reason = rb_beam_told(j, reason);
    if (!j->uncounted) {
        COUNT(r->stats.answered[reason], 1);
        COUNT(r->stats.in_flight, -1);
        COUNT(j->role->stats.answered[reason], 1);
    }
    j->role->open -= j->state != RB_JOB_WAITING;
    if (j->state == RB_JOB_PLACED && j->worker) {
        forget_caller(j);
        rb_job_due(r, j, 0);
        j->state = RB_JOB_ABANDONED;
        return;
    }
    if (j->state == RB_JOB_QUEUED) rb_role_unlink(j->role, j);
    if (j->state == RB_JOB_DEFERRED) rb_admission_forget(r, j);
    rb_job_free(r, j);
}

/* Has its worker entered the handler, as it says itself? */
static int has_begun(const struct rb_job *j) {
    if (j->worker->shadow) rb_tape_look(j->worker);
    return rb_load_acquire(&j->worker->link.theirs->started) > j->position;
}

/* The next stage of stopping a job that runs for nobody: cancel word, SIGTERM, SIGKILL, with the role's budgets between them. */
static void stop_running(struct rb_relay *r, struct rb_job *j) {
    struct rb_worker *w = j->worker;
    const struct rb_role_config *budget = &j->role->config;
    if (j->signals == 0) {
        /* C0: pairs with C1 in the kit's rb_is_cancelled(). The word holds the job's id, so a slot used again is not mistaken. seq_cst,
         * since a worker may wait for it at its gate (gate.h, G0). */
        rb_store_seq_cst(&w->link.cancels[j->position & (w->link.config.slots - 1)], j->id);
        rb_gate_ring(&w->link.waker); /* a handler that sleeps on the gate looks at once */
        COUNT(j->role->stats.told_word, 1);
        j->stopped_ns = rb_relay_clock(r);
        j->signals = 1;
        rb_job_due(r, j, r->now + (uint64_t)budget->cancel_term_ms * NS_PER_MS + 1);
        return;
    }
    /* A signal ends the whole worker: only for a job that its handler has really entered. */
    if (!has_begun(j)) {
        rb_job_due(r, j, r->now + (uint64_t)budget->cancel_term_ms * NS_PER_MS + 1);
        return;
    }
    /* Nor for one that has ended meanwhile: its completion may lie in the ring since before this round. */
    uint64_t id = j->id;
    rb_worker_poll(w);
    if (!rb_job_find(r, id)) return;
    if (j->signals == 1)
        COUNT(j->role->stats.told_term, 1);
    else
        COUNT(j->role->stats.told_kill, 1);
    if (j->signals == 2 && w->unguarded) {
        j->signals++;
        rb_job_due(r, j, 0);
        rb_worker_broke(w, "cancel_ignored");
        return;
    }
    rb_worker_signal(w, j->signals == 1 ? SIGTERM : SIGKILL);
    j->signals++;
    rb_job_due(r, j,
               j->signals == 2 ? r->now + (uint64_t)budget->cancel_kill_ms * NS_PER_MS + 1 : 0);
}

/* What still comes of its payload passes by. */
static void forget_arriving(struct rb_relay *r, struct rb_job *j) {
    if (j->arriving) rb_intake_drop(&j->arriving->intake, j);
    j->arriving = NULL;
    rb_job_free(r, j);
}

void rb_job_arrives(struct rb_relay *r, struct rb_job *j, struct rb_conn *from, uint64_t bytes) {
    j->arriving = from;
    j->arriving_left = bytes;
    rb_job_due(r, j, r->now + (uint64_t)r->config.arrival_ms * NS_PER_MS);
}

/* A payload may take as long as it likes, but not stop: its room in the pool is the others' too. */
static void look_at_arriving(struct rb_relay *r, struct rb_job *j) {
    uint64_t left = rb_intake_left(&j->arriving->intake, j);
    if (left != j->arriving_left) {
        rb_job_arrives(r, j, j->arriving, left);
        return;
    }
    struct rb_caller caller = rb_job_caller(j);
    COUNT(r->stats.refused[RB_REASON_DEADLINE_EXCEEDED], 1);
    COUNT(j->role->stats.refused[RB_REASON_DEADLINE_EXCEEDED], 1);
    rb_answer_reason(&caller, RB_REASON_DEADLINE_EXCEEDED);
    forget_arriving(r, j);
}

void rb_job_cancel(struct rb_relay *r, struct rb_job *j, enum rb_reason reason) {
    if (j->state == RB_JOB_ARRIVING) {
        forget_arriving(r, j);
        return;
    }
    if (j->state == RB_JOB_WAITING) {
        rb_extra_cancel(r, j, reason);
        return;
    }
    int placed = j->state == RB_JOB_PLACED;
    /* It has a role; the analyser lets a freed job stand in the heap of deadlines. */
    if (placed)
        COUNT(j->role->stats.stopped_placed, 1);
    else /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
        COUNT(j->role->stats.stopped_waiting, 1);
    if (placed && reason == RB_REASON_DEADLINE_EXCEEDED && has_begun(j))
        rb_health_ended(j->worker, j->placed_ns, reason);
    rb_job_answered(r, j, reason);
    if (j->state == RB_JOB_ABANDONED) stop_running(r, j);
}

void rb_job_orphaned(struct rb_relay *r, struct rb_job *j) {
    if (!j->finish || j->state == RB_JOB_ARRIVING || rb_extra_is_over(j)) {
        rb_job_cancel(r, j, RB_REASON_CANCELLED);
        return;
    }
    if (j->extra) rb_extra_orphaned(j);
    forget_caller(j); /* it runs on, and its answer goes nowhere */
}

void rb_jobs_due(struct rb_relay *r) {
    for (int n = 0; n < DUE_A_ROUND && r->heap_count && r->heap[0]->due_ns <= r->now; n++) {
        struct rb_job *j = r->heap[0];
        if (j->state == RB_JOB_ARRIVING) {
            look_at_arriving(r, j);
        } else if (j->state == RB_JOB_ABANDONED) {
            stop_running(r, j);
        } else if (j->state == RB_JOB_DEFERRED && r->now < j->request.deadline_ns) {
            rb_admission_expire(r, j);
        } else if (j->state == RB_JOB_WAITING && rb_extra_due(r, j)) {
            continue;
        } else {
            struct rb_caller caller = rb_job_caller(j);
            rb_answer_reason(&caller, RB_REASON_DEADLINE_EXCEEDED);
            rb_job_cancel(r, j, RB_REASON_DEADLINE_EXCEEDED);
        }
    }
}
