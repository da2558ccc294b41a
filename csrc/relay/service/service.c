/* service.c: whose is a signal? Those to the relay's own services are served here, and their monitors are held; every other one goes
 * upward whole. */
#include <errno.h>

#include "relay/relay_pvt.h"
#include "relay/service/batch.h"
#include "relay/service/stage.h"
#include "relay/service/submit.h"

int rb_service_fail(struct rb_conn *c, const char *why) {
    c->intake.why = why;
    return -EPROTO;
}

/* --- Whose is it? -------------------------------------------------------------------------------------------------------- */

/* Plain messages, by name or pid; op 37 only where it carries one. */
static int is_message(const struct rb_signal *s) {
    switch (s->op) {
    case RB_OP_SEND:
    case RB_OP_SEND_TT:
    case RB_OP_REG_SEND:
    case RB_OP_REG_SEND_TT:
    case RB_OP_SEND_SENDER:
    case RB_OP_SEND_SENDER_TT: return 1;
    case RB_OP_ALTACT_SIG_SEND: return !(s->altact & (RB_ALTACT_EXIT | RB_ALTACT_ALIAS));
    default: return 0;
    }
}

static struct rb_slice node_of(struct rb_slice pid) {
    struct rb_cursor c = {pid.at + 1, pid.at + pid.size};
    struct rb_slice node = {pid.at, 0};
    if (pid.size && pid.at[0] == RB_TAG_NEW_PID) rb_term_atom(&c, &node);
    return node;
}

/* --- Calls --------------------------------------------------------------------------------------------------------------- */

struct rb_caller rb_service_caller(struct rb_conn *c, const struct rb_from *from) {
    struct rb_slice node = node_of(from->pid);
    struct rb_conn *answer =
        rb_slice_equal(node, c->peer_text) ? c : rb_conn_of_node(c->relay, node);
    return (struct rb_caller){
        .conn = answer, .pid = from->pid, .tag = from->tag, .alias = from->alias};
}

void rb_service_hear_of_newcomers(struct rb_conn *c, const struct rb_from *from) {
    if (!rb_slice_equal(node_of(from->pid), c->peer_text)) rb_down_take_early(c->relay);
}

/* 0: no such handle was given out. A job that is not asynchronous has none, whoever guesses well. */
static uint64_t job_of_handle(struct rb_relay *r, struct rb_slice reference) {
    uint64_t sealed;
    if (!rb_reference_is_of(reference, r->node_text, r->config.creation) ||
        rb_reference_number(reference, RB_HANDLE_MARK, &sealed) < 0)
        return 0;
    const struct rb_job *j = rb_job_find(r, rb_unseal(&r->seal, sealed));
    return j && j->kind == RB_CALLER_ASYNC ? j->id : 0;
}

/* What stays the connection's: who is told later is told there, as a process. */
static int refuse_async(const struct rb_caller *to) {
    rb_submit_refuse(to, "submit_async: a job that tells its caller later is asked for over the "
                         "connection, not over a lane");
    return 0;
}

int rb_service_call(struct rb_conn *c, const struct rb_from *from, const struct rb_caller *to,
                    struct rb_cursor *at) {
    struct rb_relay *r = c->relay;
    struct rb_submit s;
    uint64_t id = 0;
    char why[RB_WHY_BYTES];
    int kind = rb_request_kind(at, &s, &id, why);
    switch (kind) {
    case RB_REQUEST_SUBMIT:
        if (s.verb == RB_VERB_ASYNC && to->kind == RB_CALLER_LANE) return refuse_async(to);
        return s.verb == RB_VERB_MANY ? rb_batch_submit(c, from, to, at, &s)
                                      : rb_submit(c, from, to, at, &s);
    case RB_REQUEST_STATS: rb_answer_stats(to, r); return 0;
    case RB_REQUEST_JOBS: rb_answer_jobs(to, r, s.role); return 0;
    case RB_REQUEST_BAD: rb_submit_refuse(to, why); return 0;
    case RB_REQUEST_STATUS:
    case RB_REQUEST_CANCEL: break;
    case RB_REQUEST_STATUS_REF:
    case RB_REQUEST_CANCEL_REF: id = job_of_handle(r, s.ref); break;
    default: return rb_service_fail(c, "bad_payload");
    }
    struct rb_job *j = rb_job_find(r, id);
    if (!j || !rb_job_is_open(j)) {
        rb_answer_unknown_job(to);
    } else if (kind == RB_REQUEST_STATUS || kind == RB_REQUEST_STATUS_REF) {
        rb_answer_status(to, j, r->now);
    } else {
        /* Its caller is still there and is told; whoever asked for it gets ok. */
        struct rb_caller owner = rb_job_caller(j);
        rb_answer_reason(&owner, RB_REASON_CANCELLED);
        rb_job_cancel(r, j, RB_REASON_CANCELLED);
        rb_answer_ok(to);
    }
    return 0;
}

static int on_call(struct rb_conn *c, const struct rb_from *from, struct rb_cursor *at) {
    struct rb_caller to = rb_service_caller(c, from);
    return rb_service_call(c, from, &to, at);
}

static int refuse_call(struct rb_conn *c, const struct rb_from *from) {
    struct rb_caller to = rb_service_caller(c, from);
    rb_submit_refuse(&to,
                     "Ringbridge.Streams takes no calls: a consumer of GenStage subscribes to it, "
                     "with job: {role, payload} among the options");
    return 0;
}

static int pass_up(struct rb_conn *c, const struct rb_signal *s, struct rb_slice message) {
    if (rb_up_signal(c, s->control, message) == 0) return 0;
    return rb_service_fail(c, "interpreter_backlog_limit_reached");
}

static int is_streams(const struct rb_conn *c, const struct rb_owned *o) {
    return o == &c->relay->owned[RB_SERVICE_STREAMS];
}

static int on_message(struct rb_conn *c, const struct rb_owned *o, const struct rb_signal *s,
                      struct rb_slice message) {
    struct rb_cursor at = rb_cursor_of(message);
    struct rb_from from;
    switch (rb_message_kind(&at, &from)) {
    case RB_MESSAGE_CALL:
        rb_service_hear_of_newcomers(c, &from);
        if (!o->up) return 0;
        return is_streams(c, o) ? refuse_call(c, &from) : on_call(c, &from, &at);
    case RB_MESSAGE_OTHER:
        if (o->up && is_streams(c, o)) return rb_stage_message(c, message);
        return 0;
    case RB_MESSAGE_CAST:
        return 0; /* as a GenServer without such a clause would, but without the crash */
    case RB_MESSAGE_SYSTEM: return pass_up(c, s, message);
    default: return rb_service_fail(c, "bad_payload");
    }
}

/* --- Monitors ------------------------------------------------------------------------------------------------------------ */

static const struct rb_slice noproc = {(const uint8_t *)"\x77\x06noproc", 8};

static int on_monitor(struct rb_conn *c, const struct rb_owned *o, const struct rb_signal *s) {
    if (!rb_slice_equal(node_of(s->from), c->peer_text))
        return rb_service_fail(c, "monitor_from_another_node");
    if (c->monitor_count >= c->relay->config.monitors_max)
        return rb_service_fail(c, "too_many_monitors");
    struct rb_monitor *m = rb_monitor_add(c, s);
    if (!m) return rb_service_fail(c, "monitor_too_large");
    if (!o->up) {
        rb_send_down(c, m, noproc);
        rb_monitor_remove(c, m);
    }
    return 0;
}

static int on_demonitor(struct rb_conn *c, const struct rb_signal *s) {
    struct rb_monitor *m = rb_monitor_find(c, s->ref, s->from);
    if (!m) return 0; /* routine: DOWN and DEMONITOR may cross */
    struct rb_job *j = m->job;
    rb_monitor_remove(c, m);
    if (j) rb_job_orphaned(c->relay, j);
    return 0;
}

static int is_down(const struct rb_signal *s) {
    return s->op == RB_OP_MONITOR_P_EXIT || s->op == RB_OP_PAYLOAD_MONITOR_P_EXIT;
}

/* A DOWN goes to the pid that its service had when it asked, which may be another by now: the reference tells that it is the relay's. */
static int is_ours(const struct rb_relay *r, struct rb_slice reference) {
    uint64_t id;
    return rb_reference_number(reference, RB_WATCH_MARK, &id) == 0 &&
           rb_reference_is_of(reference, r->node_text, r->config.creation);
}

/* DOWN of a caller that we watch. Only its own node can tell. */
static int on_down(struct rb_conn *c, const struct rb_signal *s) {
    uint64_t id;
    if (rb_reference_number(s->ref, RB_WATCH_MARK, &id) < 0) return 0;
    struct rb_job *j = rb_job_find(c->relay, id);
    if (j && j->watch == id && j->conn == c) {
        j->watch = 0; /* it is used up: no DEMONITOR */
        rb_job_orphaned(c->relay, j);
    }
    return 0;
}

/* --- The intake's owner -------------------------------------------------------------------------------------------------- */

static int on_signal(void *user, const struct rb_signal *s, struct rb_slice message) {
    struct rb_conn *c = user;
    const struct rb_owned *o = rb_owned_find(c->relay, s->to);
    if (o && is_message(s)) return on_message(c, o, s, message);
    if (o && s->op == RB_OP_MONITOR_P) return on_monitor(c, o, s);
    if (o && s->op == RB_OP_DEMONITOR_P) return on_demonitor(c, s);
    if (is_down(s) && (o || is_ours(c->relay, s->ref))) return on_down(c, s);
    return pass_up(c, s, message);
}

enum rb_large rb_service_call_large(struct rb_conn *c, const struct rb_from *from,
                                    const struct rb_caller *to, struct rb_cursor *at,
                                    struct rb_submit *s, struct rb_diversion *d) {
    uint64_t id;
    char why[RB_WHY_BYTES];
    int rc = rb_request_kind(at, s, &id, why);
    if (rc == -EAGAIN) return RB_LARGE_MORE;
    if (rc == RB_REQUEST_BAD) {
        rb_submit_refuse(to, why);
        return RB_LARGE_DROP;
    }
    if (rc != RB_REQUEST_SUBMIT) return RB_LARGE_KEEP;
    if (s->verb == RB_VERB_ASYNC && to->kind == RB_CALLER_LANE) return RB_LARGE_KEEP;
    return rb_submit_begin_large(c, from, to, at, s, d);
}

static enum rb_large on_begin_large(void *user, struct rb_slice head, struct rb_diversion *d) {
    struct rb_conn *c = user;
    struct rb_relay *r = c->relay;
    struct rb_cursor at = rb_cursor_of(head);
    struct rb_signal signal;
    struct rb_from from;
    struct rb_submit s;

    int rc = rb_signal_parse(&at, &signal);
    if (rc == 0) rc = rb_intake_message(&c->intake, &at, &signal);
    if (rc == -EAGAIN) return RB_LARGE_MORE;
    const struct rb_owned *o = rc < 0 ? NULL : rb_owned_find(r, signal.to);
    if (!o || !is_message(&signal)) return RB_LARGE_KEEP;
    int kind = rb_message_kind(&at, &from);
    if (kind == -EAGAIN) return RB_LARGE_MORE;
    if (is_streams(c, o)) return RB_LARGE_KEEP; /* subscriptions come whole */
    if (kind == RB_MESSAGE_CAST || kind == RB_MESSAGE_OTHER) return RB_LARGE_DROP;
    if (kind == RB_MESSAGE_CALL) rb_service_hear_of_newcomers(c, &from);
    if (kind != RB_MESSAGE_CALL || !o->up) return RB_LARGE_KEEP;
    struct rb_caller to = rb_service_caller(c, &from);
    enum rb_large large = rb_service_call_large(c, &from, &to, &at, &s, d);
    d->head_bytes = (size_t)(at.at - head.at);
    return large;
}

static int on_end_large(void *user, void *token, struct rb_slice tail, int tail_cut) {
    return rb_submit_end_large(user, token, tail, tail_cut);
}

static void on_abort_large(void *user, void *token) {
    rb_submit_abort_large(((struct rb_conn *)user)->relay, token);
}

void rb_service_bind(struct rb_conn *c) {
    c->owner = (struct rb_intake_owner){.signal = on_signal,
                                        .begin_large = on_begin_large,
                                        .end_large = on_end_large,
                                        .abort_large = on_abort_large,
                                        .user = c};
}
