/* answer.c: what callers are told: {ok, ..} and {error, ..}. How it reaches them is reply.c's. */
#include "relay/service/answer.h"

#include <stdlib.h>

#include "relay/relay_pvt.h"

/* The bytes of an answer that are at least so many are not copied behind their head. */
enum { APART_MIN = 16 << 10 };

const char *rb_reason_name(enum rb_reason reason) {
    static const char *const names[RB_REASONS] = {
        [RB_REASON_OK] = "ok",
        [RB_REASON_OVERLOADED] = "overloaded",
        [RB_REASON_CIRCUIT_OPEN] = "circuit_open",
        [RB_REASON_DEADLINE_EXCEEDED] = "deadline_exceeded",
        [RB_REASON_CANCELLED] = "cancelled",
        [RB_REASON_NO_WORKER] = "no_worker",
        [RB_REASON_DRAINING] = "draining",
        [RB_REASON_TOO_LARGE] = "too_large",
        [RB_REASON_WORKER_CRASHED] = "worker_crashed",
        [RB_REASON_WORKER_BROKE] = "worker_broke",
        [RB_REASON_JOB_FAILED] = "job_failed",
        [RB_REASON_BAD_REQUEST] = "bad_request",
    };
    return names[reason];
}

/* --- Values -------------------------------------------------------------------------------------------------------------- */

struct rb_detail rb_detail_of(const struct rb_job *j) {
    return (struct rb_detail){.job = j->id,
                              .worker = j->worker ? j->worker->id : 0,
                              .queue_us = (j->placed_ns - j->arrived_ns) / 1000,
                              .run_us = j->run_ns / 1000};
}

void rb_detail_write(struct rb_pen *p, const struct rb_detail *d) {
    rb_pen_map(p, 4);
    rb_pen_atom(p, "job");
    rb_pen_unsigned(p, d->job);
    rb_pen_atom(p, "worker");
    rb_pen_unsigned(p, d->worker);
    rb_pen_atom(p, "queue_us");
    rb_pen_unsigned(p, d->queue_us);
    rb_pen_atom(p, "run_us");
    rb_pen_unsigned(p, d->run_us);
}

static void put_detail(struct rb_pen *p, const struct rb_job *j) {
    struct rb_detail d = rb_detail_of(j);
    rb_detail_write(p, &d);
}

/* {ok, Value} or {ok, Value, Detail}, Value as {Encoding, Value} to who accepts several; where the value is `head` bytes already
 * encoded and then `bytes`. */
static void answer_value(const struct rb_caller *to, const struct rb_job *detail, int raw,
                         const uint8_t *bytes, size_t size) {
    struct rb_reply reply;
    struct rb_pen *p = &reply.pen;
    int apart = size >= APART_MIN;
    if (to->kind >= RB_CALLER_STREAM) {
        if (to->kind == RB_CALLER_STREAM) { /* its parts were its answer: this is their end */
            if (!rb_reply_begin(&reply, to, 16)) return;
            rb_pen_atom(p, "normal");
            rb_reply_end(&reply);
            return;
        }
        if (raw && !detail && !to->encoding) { /* the lane's other end puts the {ok, _} on */
            const struct rb_slice pieces[3] = {{bytes, size}, {bytes, 0}, {bytes, 0}};
            rb_beam_answer(to, RB_LANE_STATUS_RAW, pieces);
            return;
        }
    }
    if (!rb_reply_begin(&reply, to, (apart ? 0 : size) + RB_DETAIL_ROOM + 32)) return;
    rb_pen_tuple(p, detail ? 3 : 2);
    rb_pen_atom(p, "ok");
    if (to->encoding) {
        rb_pen_tuple(p, 2);
        rb_pen_atom(p, to->encoding);
    }
    if (raw) rb_pen_binary(p, size);
    if (!apart) {
        rb_pen_bytes(p, bytes, size);
        if (detail) put_detail(p, detail);
        rb_reply_end(&reply);
        return;
    }
    uint8_t tail[RB_DETAIL_ROOM];
    struct rb_pen t = {tail, tail};
    if (detail) put_detail(&t, detail);
    rb_reply_end_with(&reply, (struct rb_slice){bytes, size},
                      (struct rb_slice){tail, rb_pen_size(&t)});
}

void rb_answer_raw(const struct rb_caller *to, const struct rb_job *detail, const uint8_t *bytes,
                   size_t size) {
    answer_value(to, detail, 1, bytes, size);
}

void rb_answer_term(const struct rb_caller *to, const struct rb_job *detail, struct rb_slice term) {
    answer_value(to, detail, 0, term.at, term.size);
}

/* --- Errors -------------------------------------------------------------------------------------------------------------- */

/* `{error, ` of an answer; of a stream's end the reason alone. */
static int error_begin(struct rb_reply *reply, const struct rb_caller *to, size_t room) {
    if (!rb_reply_begin(reply, to, room + 64)) return 0;
    if (to->kind == RB_CALLER_STREAM) return 1;
    rb_pen_tuple(&reply->pen, 2);
    rb_pen_atom(&reply->pen, "error");
    return 1;
}

void rb_answer_reason(const struct rb_caller *to, enum rb_reason reason) {
    struct rb_reply reply;
    struct rb_pen *p = &reply.pen;
    if (!error_begin(&reply, to, 0)) return;
    rb_pen_atom(p, rb_reason_name(reason));
    rb_reply_end(&reply);
}

void rb_answer_retry_after(const struct rb_caller *to, enum rb_reason reason,
                           uint64_t retry_after_ms) {
    struct rb_reply reply;
    struct rb_pen *p = &reply.pen;
    if (!error_begin(&reply, to, 64)) return;
    rb_pen_tuple(p, 2);
    rb_pen_atom(p, rb_reason_name(reason));
    rb_pen_map(p, 1);
    rb_pen_atom(p, "retry_after_ms");
    rb_pen_unsigned(p, retry_after_ms);
    rb_reply_end(&reply);
}

void rb_answer_too_large(const struct rb_caller *to, uint64_t limit) {
    struct rb_reply reply;
    struct rb_pen *p = &reply.pen;
    if (!error_begin(&reply, to, 64)) return;
    rb_pen_tuple(p, 2);
    rb_pen_atom(p, "too_large");
    rb_pen_unsigned(p, limit);
    rb_reply_end(&reply);
}

void rb_answer_text(const struct rb_caller *to, enum rb_reason reason, const char *text) {
    struct rb_reply reply;
    struct rb_pen *p = &reply.pen;
    if (!error_begin(&reply, to, strlen(text) + 64)) return;
    rb_pen_tuple(p, 2);
    rb_pen_atom(p, rb_reason_name(reason));
    if (reason == RB_REASON_WORKER_BROKE)
        rb_pen_atom(p, text); /* a rule's name, from our own table */
    else
        rb_pen_text(p, text);
    rb_reply_end(&reply);
}

void rb_answer_failed(const struct rb_caller *to, uint16_t code, const uint8_t *message,
                      size_t size) {
    struct rb_reply reply;
    struct rb_pen *p = &reply.pen;
    if (!error_begin(&reply, to, size + 64)) return;
    rb_pen_tuple(p, 3);
    rb_pen_atom(p, "job_failed");
    rb_pen_unsigned(p, code);
    rb_pen_binary(p, size);
    rb_pen_bytes(p, message, size);
    rb_reply_end(&reply);
}

static void put_number_or_nil(struct rb_pen *p, int value) {
    if (value < 0)
        rb_pen_atom(p, "nil");
    else
        rb_pen_unsigned(p, (uint64_t)value);
}

void rb_answer_crashed(const struct rb_caller *to, const struct rb_worker *w, uint64_t job,
                       int status, int signal, int oom) {
    struct rb_reply reply;
    struct rb_pen *p = &reply.pen;
    if (!error_begin(&reply, to, w->stderr_size + 256)) return;
    rb_pen_tuple(p, 2);
    rb_pen_atom(p, "worker_crashed");
    rb_pen_map(p, 6);
    rb_pen_atom(p, "worker");
    rb_pen_unsigned(p, w->id);
    rb_pen_atom(p, "job");
    rb_pen_unsigned(p, job);
    rb_pen_atom(p, "signal");
    put_number_or_nil(p, signal > 0 ? signal : -1);
    rb_pen_atom(p, "status");
    put_number_or_nil(p, status);
    rb_pen_atom(p, "oom");
    rb_pen_atom(p, oom ? "true" : "false");
    rb_pen_atom(p, "stderr");
    rb_pen_binary(p, w->stderr_size);
    rb_pen_bytes(p, w->stderr_tail, w->stderr_size);
    rb_reply_end(&reply);
}

void rb_answer_ok(const struct rb_caller *to) {
    struct rb_reply reply;
    struct rb_pen *p = &reply.pen;
    if (!rb_reply_begin(&reply, to, 16)) return;
    rb_pen_atom(p, "ok");
    rb_reply_end(&reply);
}

void rb_answer_handle(const struct rb_caller *to, const struct rb_job *job) {
    struct rb_reply reply;
    struct rb_pen *p = &reply.pen;
    if (!rb_reply_begin(&reply, to, 320)) return;
    rb_pen_tuple(p, 2);
    rb_pen_atom(p, "ok");
    rb_reply_handle(p, to->conn->relay, job->id);
    rb_reply_end(&reply);
}

void rb_answer_unknown_job(const struct rb_caller *to) {
    struct rb_reply reply;
    struct rb_pen *p = &reply.pen;
    if (!error_begin(&reply, to, 32)) return;
    rb_pen_atom(p, "unknown_job");
    rb_reply_end(&reply);
}

/* --- Figures ------------------------------------------------------------------------------------------------------------- */

static void put_counts(struct rb_pen *p, const uint64_t counts[RB_REASONS], int from) {
    rb_pen_map(p, (uint32_t)(RB_REASONS - from));
    for (int i = from; i < RB_REASONS; i++) {
        rb_pen_atom(p, rb_reason_name((enum rb_reason)i));
        rb_pen_unsigned(p, counts[i]);
    }
}

static void put_rules(struct rb_pen *p, const uint64_t counts[RB_RULES]) {
    static const char *const names[RB_RULES] = {
        [RB_RULE_ROLE_DEPTH] = "role_depth",
        [RB_RULE_NODE_DEPTH] = "node_depth",
        [RB_RULE_TENANT_DEPTH] = "tenant_depth",
        [RB_RULE_ADAPTIVE] = "adaptive",
        [RB_RULE_ROLE_RATE] = "role_rate",
        [RB_RULE_NODE_RATE] = "node_rate",
        [RB_RULE_TENANT_RATE] = "tenant_rate",
        [RB_RULE_POOL] = "pool",
        [RB_RULE_JOBS] = "jobs",
        [RB_RULE_DROPPED] = "dropped",
        [RB_RULE_DEFERRED] = "deferred",
    };
    rb_pen_map(p, RB_RULES);
    for (int i = 0; i < RB_RULES; i++) {
        rb_pen_atom(p, names[i]);
        rb_pen_unsigned(p, counts[i]);
    }
}

void rb_answer_stats(const struct rb_caller *to, const struct rb_relay *r) {
    struct rb_reply reply;
    struct rb_pen *p = &reply.pen;
    if (!rb_reply_begin(&reply, to, 2048)) return;
    rb_pen_tuple(p, 2);
    rb_pen_atom(p, "ok");
    rb_pen_map(p, 6);
    rb_pen_atom(p, "accepted");
    rb_pen_unsigned(p, r->stats.accepted);
    rb_pen_atom(p, "in_flight");
    rb_pen_unsigned(p, r->stats.in_flight);
    rb_pen_atom(p, "answered");
    put_counts(p, r->stats.answered, RB_REASON_OK);
    rb_pen_atom(p, "refused");
    put_counts(p, r->stats.refused, RB_REASON_OVERLOADED);
    rb_pen_atom(p, "overloaded_by");
    put_rules(p, r->stats.overloaded_by);
    rb_pen_atom(p, "connections");
    rb_pen_unsigned(p, r->stats.connections);
    rb_reply_end(&reply);
}

/* What one job looks like from outside. */
static size_t meta_of(const struct rb_job *j) { return j->extra ? j->extra->meta_size : 0; }
static size_t room_of(const struct rb_job *j) { return 256 + meta_of(j); }
static void put_job(struct rb_pen *p, const struct rb_job *j, uint64_t now) {
    static const char *const states[] = {"free",   "arriving",  "deferred", "queued",
                                         "placed", "abandoned", "waiting"};
    size_t meta = meta_of(j);
    rb_pen_map(p, meta ? 6 : 5);
    rb_pen_atom(p, "job");
    rb_pen_unsigned(p, j->id);
    rb_pen_atom(p, "role");
    rb_pen_text(p, j->role->name);
    rb_pen_atom(p, "state");
    rb_pen_atom(p, states[j->state]);
    rb_pen_atom(p, "worker");
    if (j->worker)
        rb_pen_unsigned(p, j->worker->id);
    else
        rb_pen_atom(p, "nil");
    rb_pen_atom(p, "age_ms");
    rb_pen_unsigned(p, (now - j->arrived_ns) / NS_PER_MS);
    if (!meta) return;
    rb_pen_atom(p, "meta");
    rb_pen_bytes(p, j->extra->meta, meta);
}

void rb_answer_status(const struct rb_caller *to, const struct rb_job *j, uint64_t now) {
    struct rb_reply reply;
    struct rb_pen *p = &reply.pen;
    if (!rb_reply_begin(&reply, to, room_of(j))) return;
    rb_pen_tuple(p, 2);
    rb_pen_atom(p, "ok");
    put_job(p, j, now);
    rb_reply_end(&reply);
}

enum { JOBS_MAX = 1000 };

struct listing {
    uint32_t count;
    size_t room;
};

/* The open jobs of a role as they came, up to JOBS_MAX of all: counted, and written where there is a pen. */
static void list_role(struct listing *l, const struct rb_role *role, struct rb_pen *p,
                      uint64_t now) {
    for (const struct rb_job *j = role->first_job; j && l->count < JOBS_MAX; j = j->next_of_role) {
        if (!rb_job_is_open(j)) continue;
        l->count++;
        l->room += room_of(j);
        if (p) put_job(p, j, now);
    }
}

static struct listing list_roles(struct rb_relay *r, struct rb_slice name, struct rb_pen *p) {
    struct listing l = {0, 0};
    int all = rb_slice_is(name, "all");
    for (uint32_t i = 0; i < r->roles_count; i++) {
        const struct rb_role *role = r->roles[i];
        if (role && (all || rb_slice_is(name, role->name))) list_role(&l, role, p, r->now);
    }
    return l;
}

void rb_answer_jobs(const struct rb_caller *to, struct rb_relay *r, struct rb_slice role) {
    struct rb_reply reply;
    struct rb_pen *p = &reply.pen;
    struct listing l = list_roles(r, role, NULL);
    if (!rb_reply_begin(&reply, to, 32 + l.room)) return;
    rb_pen_tuple(p, 2);
    rb_pen_atom(p, "ok");
    rb_pen_list(p, l.count);
    list_roles(r, role, p);
    rb_pen_nil(p);
    rb_reply_end(&reply);
}
