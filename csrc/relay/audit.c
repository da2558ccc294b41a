/* audit.c: are the relay's books even? Counts over every table what the figures say, and holds both together.
 *
 *      accepted = answered + in flight                  of the relay and of each role
 *      in flight = deferred + queued + placed + waiting jobs of the table that count, by state
 *      deferred = the jobs of all backlogs; what accounts count = the jobs that name them
 *      told overloaded = the sum over the rules
 *      a worker's jobs = the slots of its ring that hold one; who would be chosen has room
 *      waiting jobs = those in the role's queue, in its workers' own, and behind others in their rows
 *      blocks taken of a role's pool = those of its jobs; records taken of the extras <= jobs that have one
 *      each list and heap names those that name it
 *      a lane's jobs = the slots that name one, and those jobs name their slot; its open requests = the slots that are open
 *      a pipeline's open jobs = those that are its own; what a connection is charged with = what its batches and pipelines keep
 *
 * For a relay that stands still: stopped, or without a thread between two rounds. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "relay/relay_pvt.h"
#include "relay/service/batch.h"
#include "relay/service/extra.h"
#include "relay/service/pipeline.h"

enum { JOBS_A_CHUNK = 1024 };

struct audit {
    char *why;
    uint64_t size;
    int broken;
};

/* The first rule that is broken is told. */
__attribute__((format(printf, 3, 4))) static void hold(struct audit *a, int holds,
                                                       const char *format, ...) {
    if (holds || a->broken) return;
    a->broken = 1;
    va_list words;
    va_start(words, format);
    vsnprintf(a->why, (size_t)a->size, format, words);
    va_end(words);
}

#define HOLD_EQUAL(a, x, y, what)                                                            \
    hold(a, (x) == (y), "%s: %s is %llu, %s is %llu", what, #x, (unsigned long long)(x), #y, \
         (unsigned long long)(y))

struct tally { /* of a role's jobs */
    uint64_t deferred, paced, queued, behind, placed, open, blocks, jobs;
};

/* One pass over the table, whatever its size. */
static void count_jobs(struct audit *a, const struct rb_relay *r, struct tally tally[ROLES_MAX]) {
    for (uint64_t i = 0; i < (uint64_t)r->chunk_count * JOBS_A_CHUNK; i++) {
        const struct rb_job *j = &r->chunks[i / JOBS_A_CHUNK][i % JOBS_A_CHUNK];
        if (j->state == RB_JOB_FREE || !j->role) continue;
        struct tally *t = &tally[j->role->id];
        t->deferred += j->state == RB_JOB_DEFERRED;
        t->paced += j->state == RB_JOB_DEFERRED && j->paced;
        t->queued += j->state == RB_JOB_QUEUED;
        t->behind += j->state == RB_JOB_QUEUED && rb_job_is_behind(j);
        t->placed += j->state == RB_JOB_PLACED;
        hold(a, j->state == RB_JOB_QUEUED || !rb_job_is_behind(j),
             "a job is out before the one in front of it in its row is over");
        hold(a,
             !j->home || (j->state == RB_JOB_QUEUED && j->home->role == j->role &&
                          (j->home->listed || j->home->parting)),
             "a job waits for a worker that takes none");
        hold(a, !j->apart || (j->state == RB_JOB_QUEUED && !j->home),
             "a job stands apart that does not wait, or has a home");
        t->open += !j->uncounted && rb_job_is_open(j);
        t->blocks += j->pool_count;
        t->jobs++;
        hold(a, (j->state == RB_JOB_DEFERRED) == (j->backlog != NULL),
             "a job stands in a backlog that is not deferred, or the other way round");
        hold(a, j->state != RB_JOB_PLACED || j->worker, "a placed job is at no worker");
        hold(a, (j->state == RB_JOB_QUEUED && !rb_job_is_behind(j)) == (j->queued.share != NULL),
             "a job stands in a queue that does not wait, or the other way round");
    }
}

static void audit_role(struct audit *a, const struct rb_role *role, const struct tally *t) {
    uint64_t open = role->stats.accepted, listed = 0;
    for (int i = 0; i < RB_REASONS; i++) open -= role->stats.answered[i];
    for (const struct rb_job *j = role->first_job; j; j = j->next_of_role) listed++;
    HOLD_EQUAL(a, open, t->open, role->name);
    HOLD_EQUAL(a, (uint64_t)role->queued, t->queued, role->name);
    uint64_t standing = role->queue.count + role->apart.count, zstd = 0;
    for (uint32_t i = 0; i < role->ready; i++) {
        standing += role->workers[i]->affine.own.count;
        zstd += (role->workers[i]->link.config.features & RB_FEATURE_ZSTD) != 0;
        hold(a, role->workers[i]->listed && role->workers[i]->ready_at == i,
             "%s: its table of ready workers is out of order", role->name);
    }
    for (const struct rb_worker *w = role->parting; w; w = w->next_parting) {
        if (!w->listed) standing += w->affine.own.count;
        hold(a, w->parting, "%s: its list of workers that part is out of order", role->name);
    }
    HOLD_EQUAL(a, (uint64_t)role->zstd_ready, zstd, role->name);
    HOLD_EQUAL(a, standing + t->behind, t->queued, role->name);
    HOLD_EQUAL(a, (uint64_t)role->admission.kept, t->deferred, role->name);
    HOLD_EQUAL(a, (uint64_t)role->admission.deferred, t->deferred - t->paced, role->name);
    HOLD_EQUAL(a, (uint64_t)role->pool.region.taken, t->blocks, role->name);
    HOLD_EQUAL(a, (uint64_t)role->jobs, t->jobs, role->name);
    HOLD_EQUAL(a, (uint64_t)role->jobs, listed, role->name);
    HOLD_EQUAL(a, (uint64_t)role->open, t->deferred + t->queued + t->placed, role->name);
}

static void audit_worker(struct audit *a, const struct rb_worker *w) {
    uint64_t held = 0, streams = 0;
    char name[32];
    snprintf(name, sizeof name, "worker %llu", (unsigned long long)w->id);
    for (uint32_t i = 0; i < w->link.config.slots; i++) {
        const struct rb_job *j = w->placed[i];
        if (!j) continue;
        held++;
        streams += (j->request.flags & RB_FLAG_PARTS) != 0;
        hold(a,
             j->worker == w && (j->state == RB_JOB_PLACED || j->state == RB_JOB_ABANDONED) &&
                 (j->position & (w->link.config.slots - 1)) == i,
             "%s: slot %u holds a job that is not there", name, i);
    }
    HOLD_EQUAL(a, (uint64_t)w->in_flight, held, name);
    HOLD_EQUAL(a, w->listed, w->state == RB_WORKER_READY, name);
    hold(a,
         !rb_choice_is_open(&w->choosing) ||
             (w->listed && w->in_flight < rb_health_credit(&w->health, w->credit)),
         "%s: it would be chosen, without room", name);
    HOLD_EQUAL(a, (uint64_t)w->streams, streams, name);
}

/* Returns the streams of its consumers. */
static uint64_t audit_conn(struct audit *a, const struct rb_conn *c) {
    uint64_t monitors = 0, streams = 0;
    for (const struct rb_job *j = c->jobs; j; j = j->next_of_conn)
        hold(a, j->conn == c && j->state != RB_JOB_FREE && j->state != RB_JOB_ABANDONED,
             "connection %u: its list has a job of nobody's", c->id);
    for (uint32_t i = 0; i < MONITOR_BUCKETS; i++) {
        for (const struct rb_monitor *m = c->monitors[i]; m; m = m->next) {
            monitors++;
            hold(a, !m->job || m->job->monitor == m,
                 "connection %u: a monitor names a job that does not name it", c->id);
        }
    }
    HOLD_EQUAL(a, (uint64_t)c->monitor_count, monitors, c->peer);
    for (uint32_t i = 0; i < SUBSCRIPTION_BUCKETS; i++) {
        for (const struct rb_subscription *s = c->streams.at[i]; s; s = s->next) {
            streams++;
            hold(a, s->job->subscription == s && s->job->conn == c,
                 "connection %u: a subscription names a job that does not name it", c->id);
        }
    }
    return streams;
}

static void audit_beam(struct audit *a, const struct rb_beam *b) {
    uint64_t open = 0;
    char name[32];
    snprintf(name, sizeof name, "lane %llu", (unsigned long long)b->id);
    for (uint32_t i = 0; i < b->slot_count; i++) {
        const struct rb_beam_slot *s = &b->slots[i];
        open += s->open;
        hold(a, !s->job || rb_beam_is_asker(b, i, s->job),
             "%s: slot %u names a job that does not name it", name, i);
        hold(a, !s->open || s->job, "%s: slot %u is open for nobody", name, i);
    }
    HOLD_EQUAL(a, b->stats.open, open, name);
}

static void audit_heap(struct audit *a, const struct rb_relay *r) {
    for (uint32_t i = 0; i < r->heap_count; i++) {
        hold(a, r->heap[i]->heap_at == (int32_t)i, "the deadline heap: %u is out of place", i);
        hold(a, i == 0 || r->heap[(i - 1) / 2]->due_ns <= r->heap[i]->due_ns,
             "the deadline heap: %u is due before its parent", i);
    }
}

/* Over all accounts: who holds them, and how many of the jobs that do wait in queues. */
static void audit_accounts(struct audit *a, const struct rb_relay *r) {
    uint64_t holders = 0, waiting = 0, held = 0, counted = 0, count = 0;
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) holders += r->conns[i] && r->conns[i]->account;
    for (uint64_t i = 0; i < (uint64_t)r->chunk_count * JOBS_A_CHUNK; i++) {
        const struct rb_job *j = &r->chunks[i / JOBS_A_CHUNK][i % JOBS_A_CHUNK];
        if (j->state == RB_JOB_FREE) continue;
        uint64_t named = (j->node != NULL) + (j->purse != NULL);
        holders += named;
        if (j->state == RB_JOB_QUEUED) waiting += named;
    }
    for (uint32_t b = 0; b < RB_ACCOUNT_BUCKETS; b++) {
        for (const struct rb_account *at = r->accounts.buckets[b]; at; at = at->next) {
            uint64_t of_roles = 0;
            for (uint32_t i = 0; i < ROLES_MAX; i++) of_roles += at->waiting_of[i];
            HOLD_EQUAL(a, (uint64_t)at->waiting, of_roles, "an account");
            held += at->held;
            counted += at->waiting;
            count++;
        }
    }
    HOLD_EQUAL(a, held, holders, "the accounts");
    HOLD_EQUAL(a, counted, waiting, "the accounts");
    HOLD_EQUAL(a, (uint64_t)r->accounts.count, count, "the accounts");
}

static void audit_backlogs(struct audit *a, const struct rb_relay *r, uint64_t deferred) {
    uint64_t jobs = 0, lists = 0;
    for (const struct rb_backlog *b = r->backlogs.first; b; b = b->next, lists++) {
        uint64_t here = 0;
        for (const struct rb_job *j = b->first; j; j = j->later, here++)
            hold(a, j->backlog == b, "a backlog has a job that stands elsewhere");
        HOLD_EQUAL(a, (uint64_t)b->count, here, "a backlog");
        hold(a, b->listed && here > 0, "an empty backlog is listed");
        hold(a, b->next ? b->next->prev == b : r->backlogs.last == b,
             "the backlogs' list is out of order");
        jobs += here;
    }
    HOLD_EQUAL(a, (uint64_t)r->backlogs.count, lists, "the backlogs");
    HOLD_EQUAL(a, deferred, jobs, "the backlogs");
    uint64_t overloaded = 0;
    for (int i = 0; i < RB_RULES; i++) overloaded += r->stats.overloaded_by[i];
    uint64_t told =
        r->stats.refused[RB_REASON_OVERLOADED] + r->stats.answered[RB_REASON_OVERLOADED];
    HOLD_EQUAL(a, told, overloaded, "the rules");
}

/* A record is shared by the jobs of a batch or pipeline, so there are at most as many as jobs that hold one. */
static void audit_extras(struct audit *a, const struct rb_relay *r) {
    uint64_t holders = 0, taken = r->extra_count;
    for (uint64_t i = 0; i < (uint64_t)r->chunk_count * JOBS_A_CHUNK; i++) {
        const struct rb_job *j = &r->chunks[i / JOBS_A_CHUNK][i % JOBS_A_CHUNK];
        holders += j->state != RB_JOB_FREE && j->extra;
    }
    for (const struct rb_extra *e = r->free_extras; e; e = e->next) taken--;
    hold(a, taken <= holders, "%llu extra records are taken, %llu jobs have one",
         (unsigned long long)taken, (unsigned long long)holders);
}

/* Callers that wait for other jobs, and those that are waited for. */
static void audit_waiting(struct audit *a, const struct rb_relay *r) {
    uint64_t stages = 0, named = 0, gathered = 0, charged = 0;
    for (uint64_t i = 0; i < (uint64_t)r->chunk_count * JOBS_A_CHUNK; i++) {
        const struct rb_job *j = &r->chunks[i / JOBS_A_CHUNK][i % JOBS_A_CHUNK];
        if (j->state == RB_JOB_FREE || !j->extra) continue;
        stages += j->kind == RB_CALLER_STAGE && rb_job_is_open(j);
        if (j->state != RB_JOB_WAITING) continue;
        if (j->extra->batch) charged += rb_batch_gathered(j->extra->batch);
        const char *broken = j->extra->pipeline ? rb_pipeline_audit(r, j, &named, &charged) : NULL;
        hold(a, !broken, "job %llu: %s", (unsigned long long)j->id, broken ? broken : "");
    }
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++)
        gathered += r->conns[i] ? r->conns[i]->gathered : 0;
    HOLD_EQUAL(a, stages, named, "the pipelines");
    HOLD_EQUAL(a, gathered, charged, "the connections");
}

int rb_relay_audit(const struct rb_relay *r, char *why, uint64_t why_bytes) {
    struct audit a = {.why = why, .size = why_bytes};
    struct tally tally[ROLES_MAX] = {{0}};
    uint64_t answered = 0, open = 0, deferred = 0, streams = 0;
    for (int i = 0; i < RB_REASONS; i++) answered += r->stats.answered[i];
    HOLD_EQUAL(&a, r->stats.accepted, answered + r->stats.in_flight, "the relay");
    count_jobs(&a, r, tally);
    for (uint32_t i = 0; i < r->roles_count; i++) {
        open += tally[i].open;
        deferred += tally[i].deferred;
        if (r->roles[i]) audit_role(&a, r->roles[i], &tally[i]);
    }
    HOLD_EQUAL(&a, r->stats.in_flight, open, "the relay");
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        if (r->workers[i]) audit_worker(&a, r->workers[i]);
    }
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        if (r->conns[i]) streams += audit_conn(&a, r->conns[i]);
        for (const struct rb_beam *b = r->beams; b; b = b->next) audit_beam(&a, b);
    }
    HOLD_EQUAL(&a, r->stats.streams, streams, "the relay");
    audit_heap(&a, r);
    audit_accounts(&a, r);
    audit_backlogs(&a, r, deferred);
    audit_extras(&a, r);
    audit_waiting(&a, r);
    return a.broken ? -EPROTO : 0;
}
