/* answer.c: the signals that the relay makes by itself: answers to callers, DOWN, and its own monitors.
 *
 * An answer to a call is {Tag, Reply}, sent to the alias that the tag names, else to the caller's pid (gen.erl). */
#include <stdlib.h>

#include "relay/relay_pvt.h"

/* The bytes of an answer that are at least so many are not copied behind their head. */
enum { APART_MIN = 16 << 10 };

const char *rb_reason_name(enum rb_reason reason) {
    static const char *const names[RB_REASONS] = {
        [RB_REASON_OK] = "ok",
        [RB_REASON_OVERLOADED] = "overloaded",
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

/* --- Terms --------------------------------------------------------------------------------------------------------------- */

/* A signal being written, on the relay's stage. Room is taken once, generously; `at` then only moves. */
struct pen {
    struct rb_conn *conn;
    uint8_t *begin, *at;
    size_t control;       /* bytes of the control message, once it is written */
    struct rb_slice with; /* the process that the signal goes to */
    int whole;
};

static void put(struct pen *p, const void *bytes, size_t size) {
    memcpy(p->at, bytes, size);
    p->at += size;
}
static void put_slice(struct pen *p, struct rb_slice s) { put(p, s.at, s.size); }
static void put_byte(struct pen *p, uint8_t b) { *p->at++ = b; }
static void put_tuple(struct pen *p, uint8_t arity) {
    put_byte(p, RB_TAG_SMALL_TUPLE);
    put_byte(p, arity);
}
static void put_map(struct pen *p, uint32_t pairs) {
    put_byte(p, RB_TAG_MAP);
    rb_put_be32(p->at, pairs);
    p->at += 4;
}
static void put_atom(struct pen *p, const char *text) {
    size_t size = strlen(text);
    put_byte(p, RB_TAG_SMALL_ATOM_UTF8);
    put_byte(p, (uint8_t)size);
    put(p, text, size);
}
static void put_binary_head(struct pen *p, size_t size) {
    put_byte(p, RB_TAG_BINARY);
    rb_put_be32(p->at, (uint32_t)size);
    p->at += 4;
}
static void put_text(struct pen *p, const char *text) {
    put_binary_head(p, strlen(text));
    put(p, text, strlen(text));
}
static void put_unsigned(struct pen *p, uint64_t v) {
    if (v < 256) {
        put_byte(p, RB_TAG_SMALL_INTEGER);
        put_byte(p, (uint8_t)v);
    } else if (v < 1ull << 31) {
        put_byte(p, RB_TAG_INTEGER);
        rb_put_be32(p->at, (uint32_t)v);
        p->at += 4;
    } else {
        uint8_t *size = p->at + 1;
        put_byte(p, RB_TAG_SMALL_BIG);
        p->at += 2;
        size[1] = 0;
        uint8_t n = 0;
        for (; v; v >>= 8, n++) put_byte(p, (uint8_t)v);
        *size = n;
    }
}
static void put_reference(struct pen *p, uint64_t number) {
    struct rb_relay *r = p->conn->relay;
    put_byte(p, RB_TAG_NEWER_REFERENCE);
    put_byte(p, 0);
    put_byte(p, 3);
    put_byte(p, RB_TAG_SMALL_ATOM_UTF8);
    put_byte(p, (uint8_t)r->node_text.size);
    put_slice(p, r->node_text);
    rb_put_be32(p->at, r->config.creation);
    /* Word 0 below 2^18, as a BEAM makes them. The top of the last word sets the relay's apart from those that Python makes. */
    rb_put_be32(p->at + 4, (uint32_t)(number & 0x3ffff));
    rb_put_be32(p->at + 8, (uint32_t)(number >> 18));
    rb_put_be32(p->at + 12, RB_WATCH_MARK | (uint32_t)(number >> 50));
    p->at += 16;
}

/* --- Signals ------------------------------------------------------------------------------------------------------------- */

static int signal_begin(struct pen *p, struct rb_conn *c, struct rb_slice with, size_t room) {
    if (!c || c->failed) return 0;
    struct rb_buffer *stage = &c->relay->stage;
    stage->begin = stage->end = 0;
    *p = (struct pen){.conn = c, .with = with};
    p->begin = p->at = rb_buffer_room(stage, room + 64);
    if (!p->begin) rb_conn_fail(c, "no_memory");
    return p->begin != NULL;
}

static void message_begin(struct pen *p) {
    p->control = (size_t)(p->at - p->begin);
    if (!rb_conn_with_header(p->conn)) put_byte(p, RB_TAG_VERSION);
}

/* What is written leaves, and behind it `body` and `tail`, which lie elsewhere. */
static void signal_end_with(struct pen *p, struct rb_slice body, struct rb_slice tail) {
    size_t written = (size_t)(p->at - p->begin);
    struct rb_leaving s = {.head = {p->begin, written},
                           .body = body,
                           .tail = tail,
                           .control = p->control ? p->control : written,
                           .with = p->with,
                           .whole = p->whole};
    rb_leave(p->conn, &s);
}

static void signal_end(struct pen *p) {
    static const struct rb_slice none = {NULL, 0};
    signal_end_with(p, none, none);
}

/* Answers in fragments to an alias that is gone leak memory on OTP 25 and may crash 26.0 and 26.1 (dist-protocol.md, 3.5). A peer
 * that has ALTACT_SIG is of OTP 28 or later; all others get such an answer in one frame. */
static int aliases_take_fragments(const struct rb_conn *c) {
    return (c->flags & RB_DFLAG_ALTACT_SIG) != 0;
}

int rb_send_signal(struct rb_conn *c, struct rb_slice control, const struct rb_slice *message,
                   void **owner) {
    if (!c || c->failed) return -1;
    struct rb_cursor at = rb_cursor_of(control);
    uint64_t op;
    struct rb_leaving s = {.head = control, .control = control.size, .owner = owner};
    s.whole = !aliases_take_fragments(c) && rb_term_tuple(&at) > 0 &&
              rb_term_unsigned(&at, &op) == 0 && op == RB_OP_ALIAS_SEND;
    if (message && !rb_conn_with_header(c)) {
        struct pen p;
        struct rb_slice none = {NULL, 0};
        if (!signal_begin(&p, c, none, control.size)) return -1;
        put_slice(&p, control);
        message_begin(&p);
        signal_end_with(&p, *message, none);
        return 0;
    }
    if (message && message->at == control.at + control.size) /* as notes have it */
        s.head.size += message->size;
    else if (message)
        s.body = *message;
    return rb_leave(c, &s);
}

static struct rb_slice service_pid(const struct rb_relay *r) {
    return (struct rb_slice){r->service_pid, r->service_pid_size};
}

/* Control term and `{Tag, ` of an answer. */
static int answer_begin(struct pen *p, const struct rb_caller *to, size_t room) {
    const struct rb_relay *r = to->conn ? to->conn->relay : NULL;
    if (!r || !signal_begin(p, to->conn, to->pid,
                            room + r->service_pid_size + to->pid.size + to->tag.size +
                                to->alias.size + 64))
        return 0;
    p->whole = to->alias.size && !aliases_take_fragments(to->conn);
    if (to->alias.size && (to->conn->flags & RB_DFLAG_ALTACT_SIG)) {
        put_tuple(p, 4);
        put_unsigned(p, RB_OP_ALTACT_SIG_SEND);
        put_unsigned(p, RB_ALTACT_ALIAS);
        put_slice(p, service_pid(r));
        put_slice(p, to->alias);
    } else if (to->alias.size) {
        put_tuple(p, 3);
        put_unsigned(p, RB_OP_ALIAS_SEND);
        put_slice(p, service_pid(r));
        put_slice(p, to->alias);
    } else if (to->conn->flags & RB_DFLAG_SEND_SENDER) {
        put_tuple(p, 3);
        put_unsigned(p, RB_OP_SEND_SENDER);
        put_slice(p, service_pid(r));
        put_slice(p, to->pid);
    } else {
        put_tuple(p, 3);
        put_unsigned(p, RB_OP_SEND);
        put_atom(p, "");
        put_slice(p, to->pid);
    }
    message_begin(p);
    put_tuple(p, 2);
    put_slice(p, to->tag);
    return 1;
}

enum { DETAIL_ROOM = 160 };
static void put_detail(struct pen *p, const struct rb_job *j) {
    put_map(p, 4);
    put_atom(p, "job");
    put_unsigned(p, j->id);
    put_atom(p, "worker");
    put_unsigned(p, j->worker ? j->worker->id : 0);
    put_atom(p, "queue_us");
    put_unsigned(p, (j->placed_ns - j->arrived_ns) / 1000);
    put_atom(p, "run_us");
    put_unsigned(p, j->run_ns / 1000);
}

/* {ok, Value} or {ok, Value, Detail}, where the value is `head` bytes already encoded and then `bytes`. */
static void answer_value(const struct rb_caller *to, const struct rb_job *detail, int raw,
                         const uint8_t *bytes, size_t size) {
    struct pen p;
    int apart = size >= APART_MIN;
    if (!answer_begin(&p, to, (apart ? 0 : size) + DETAIL_ROOM + 16)) return;
    put_tuple(&p, detail ? 3 : 2);
    put_atom(&p, "ok");
    if (raw) put_binary_head(&p, size);
    if (!apart) {
        put(&p, bytes, size);
        if (detail) put_detail(&p, detail);
        signal_end(&p);
        return;
    }
    uint8_t tail[DETAIL_ROOM];
    struct pen t = {.conn = to->conn, .begin = tail, .at = tail};
    if (detail) put_detail(&t, detail);
    signal_end_with(&p, (struct rb_slice){bytes, size},
                    (struct rb_slice){tail, (size_t)(t.at - tail)});
}

void rb_answer_raw(const struct rb_caller *to, const struct rb_job *detail, const uint8_t *bytes,
                   size_t size) {
    answer_value(to, detail, 1, bytes, size);
}

void rb_answer_term(const struct rb_caller *to, const struct rb_job *detail, struct rb_slice term) {
    answer_value(to, detail, 0, term.at, term.size);
}

/* --- Errors -------------------------------------------------------------------------------------------------------------- */

/* `{error, ` of an answer. */
static int error_begin(struct pen *p, const struct rb_caller *to, size_t room) {
    if (!answer_begin(p, to, room + 64)) return 0;
    put_tuple(p, 2);
    put_atom(p, "error");
    return 1;
}

void rb_answer_reason(const struct rb_caller *to, enum rb_reason reason) {
    struct pen p;
    if (!error_begin(&p, to, 0)) return;
    put_atom(&p, rb_reason_name(reason));
    signal_end(&p);
}

void rb_answer_overloaded(const struct rb_caller *to, uint64_t retry_after_ms) {
    struct pen p;
    if (!error_begin(&p, to, 64)) return;
    put_tuple(&p, 2);
    put_atom(&p, "overloaded");
    put_map(&p, 1);
    put_atom(&p, "retry_after_ms");
    put_unsigned(&p, retry_after_ms);
    signal_end(&p);
}

void rb_answer_too_large(const struct rb_caller *to, uint64_t limit) {
    struct pen p;
    if (!error_begin(&p, to, 64)) return;
    put_tuple(&p, 2);
    put_atom(&p, "too_large");
    put_unsigned(&p, limit);
    signal_end(&p);
}

void rb_answer_text(const struct rb_caller *to, enum rb_reason reason, const char *text) {
    struct pen p;
    if (!error_begin(&p, to, strlen(text) + 64)) return;
    put_tuple(&p, 2);
    put_atom(&p, rb_reason_name(reason));
    if (reason == RB_REASON_WORKER_BROKE)
        put_atom(&p, text); /* a rule's name, from our own table */
    else
        put_text(&p, text);
    signal_end(&p);
}

void rb_answer_failed(const struct rb_caller *to, uint16_t code, const uint8_t *message,
                      size_t size) {
    struct pen p;
    if (!error_begin(&p, to, size + 64)) return;
    put_tuple(&p, 3);
    put_atom(&p, "job_failed");
    put_unsigned(&p, code);
    put_binary_head(&p, size);
    put(&p, message, size);
    signal_end(&p);
}

static void put_number_or_nil(struct pen *p, int value) {
    if (value < 0)
        put_atom(p, "nil");
    else
        put_unsigned(p, (uint64_t)value);
}

void rb_answer_crashed(const struct rb_caller *to, const struct rb_worker *w, uint64_t job,
                       int status, int signal, int oom) {
    struct pen p;
    if (!error_begin(&p, to, w->stderr_size + 256)) return;
    put_tuple(&p, 2);
    put_atom(&p, "worker_crashed");
    put_map(&p, 6);
    put_atom(&p, "worker");
    put_unsigned(&p, w->id);
    put_atom(&p, "job");
    put_unsigned(&p, job);
    put_atom(&p, "signal");
    put_number_or_nil(&p, signal > 0 ? signal : -1);
    put_atom(&p, "status");
    put_number_or_nil(&p, status);
    put_atom(&p, "oom");
    put_atom(&p, oom ? "true" : "false");
    put_atom(&p, "stderr");
    put_binary_head(&p, w->stderr_size);
    put(&p, w->stderr_tail, w->stderr_size);
    signal_end(&p);
}

void rb_answer_ok(const struct rb_caller *to) {
    struct pen p;
    if (!answer_begin(&p, to, 16)) return;
    put_atom(&p, "ok");
    signal_end(&p);
}

void rb_answer_unknown_job(const struct rb_caller *to) {
    struct pen p;
    if (!error_begin(&p, to, 32)) return;
    put_atom(&p, "unknown_job");
    signal_end(&p);
}

/* --- Figures ------------------------------------------------------------------------------------------------------------- */

static void put_counts(struct pen *p, const uint64_t counts[RB_REASONS], int from) {
    put_map(p, (uint32_t)(RB_REASONS - from));
    for (int i = from; i < RB_REASONS; i++) {
        put_atom(p, rb_reason_name((enum rb_reason)i));
        put_unsigned(p, counts[i]);
    }
}

void rb_answer_stats(const struct rb_caller *to, const struct rb_relay *r) {
    struct pen p;
    if (!answer_begin(&p, to, 2048)) return;
    put_tuple(&p, 2);
    put_atom(&p, "ok");
    put_map(&p, 5);
    put_atom(&p, "accepted");
    put_unsigned(&p, r->stats.accepted);
    put_atom(&p, "in_flight");
    put_unsigned(&p, r->stats.in_flight);
    put_atom(&p, "answered");
    put_counts(&p, r->stats.answered, RB_REASON_OK);
    put_atom(&p, "refused");
    put_counts(&p, r->stats.refused, RB_REASON_OVERLOADED);
    put_atom(&p, "connections");
    put_unsigned(&p, r->stats.connections);
    signal_end(&p);
}

/* What one job looks like from outside. */
enum { JOB_ROOM = 256 };
static void put_job(struct pen *p, const struct rb_job *j, uint64_t now) {
    static const char *const states[] = {"free", "arriving", "queued", "placed", "abandoned"};
    put_map(p, 5);
    put_atom(p, "job");
    put_unsigned(p, j->id);
    put_atom(p, "role");
    put_text(p, j->role->name);
    put_atom(p, "state");
    put_atom(p, states[j->state]);
    put_atom(p, "worker");
    if (j->worker)
        put_unsigned(p, j->worker->id);
    else
        put_atom(p, "nil");
    put_atom(p, "age_ms");
    put_unsigned(p, (now - j->arrived_ns) / NS_PER_MS);
}

void rb_answer_status(const struct rb_caller *to, const struct rb_job *j, uint64_t now) {
    struct pen p;
    if (!answer_begin(&p, to, JOB_ROOM)) return;
    put_tuple(&p, 2);
    put_atom(&p, "ok");
    put_job(&p, j, now);
    signal_end(&p);
}

void rb_answer_jobs(const struct rb_caller *to, struct rb_relay *r, struct rb_slice role) {
    enum { JOBS_MAX = 1000 };
    struct pen p;
    struct rb_job *j;
    uint32_t count = 0;
    if (!answer_begin(&p, to, JOBS_MAX * JOB_ROOM)) return;
    put_tuple(&p, 2);
    put_atom(&p, "ok");
    uint8_t *head = p.at;
    p.at += 5;
    for (uint64_t index = 0; count < JOBS_MAX && (j = rb_job_next(r, &index));) {
        if (!rb_slice_is(role, "all") && !rb_slice_is(role, j->role->name)) continue;
        put_job(&p, j, r->now);
        count++;
    }
    head[0] = RB_TAG_LIST;
    rb_put_be32(head + 1, count);
    put_byte(&p, RB_TAG_NIL); /* a list of no element and the tail [] is [] */
    signal_end(&p);
}

/* --- Monitors ------------------------------------------------------------------------------------------------------------ */

void rb_send_down(struct rb_conn *c, const struct rb_monitor *m, struct rb_slice reason) {
    struct pen p;
    struct rb_slice ref = {m->bytes, m->ref_size}, from = {ref.at + ref.size, m->from_size},
                    to = {from.at + from.size, m->to_size};
    int payload = (c->flags & RB_DFLAG_EXIT_PAYLOAD) != 0;
    if (!signal_begin(&p, c, from, ref.size + from.size + to.size + reason.size + 32)) return;
    put_tuple(&p, payload ? 4 : 5);
    put_unsigned(&p, payload ? RB_OP_PAYLOAD_MONITOR_P_EXIT : RB_OP_MONITOR_P_EXIT);
    put_slice(&p, to); /* as it was given: a name stays a name */
    put_slice(&p, from);
    put_slice(&p, ref);
    if (payload) message_begin(&p);
    put_slice(&p, reason);
    signal_end(&p);
}

void rb_send_watch(struct rb_conn *c, int on, struct rb_slice pid, uint64_t watch) {
    struct pen p;
    if (!signal_begin(&p, c, pid,
                      c->relay->service_pid_size + pid.size + c->relay->node_text.size + 64))
        return;
    put_tuple(&p, 4);
    put_unsigned(&p, on ? RB_OP_MONITOR_P : RB_OP_DEMONITOR_P);
    put_slice(&p, service_pid(c->relay));
    put_slice(&p, pid);
    put_reference(&p, watch);
    signal_end(&p);
}
