/* service.c: signals to the relay's own service (the JobDispatcher) are served here; every other one goes upward whole.
 *
 * The caller's life is the job's life (DESIGN.md, section 3): a job is bound to the monitor that its caller holds for the call, and the
 * end of that monitor before the answer is the end of the job. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"

static int fail(struct rb_conn *c, const char *why) {
    c->intake.why = why;
    return -EPROTO;
}

/* --- Whose is it? -------------------------------------------------------------------------------------------------------- */

static int is_ours(const struct rb_relay *r, struct rb_slice target) {
    if (target.size == r->service_pid_size && target.at[0] == RB_TAG_NEW_PID)
        return memcmp(target.at, r->service_pid, target.size) == 0;
    struct rb_cursor c = rb_cursor_of(target);
    struct rb_slice name;
    if (rb_term_atom(&c, &name) < 0) return 0;
    for (uint32_t i = 0; i < r->service_names_count; i++) {
        if (rb_slice_equal(name, r->service_names[i])) return 1;
    }
    return 0;
}

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

/* --- Admission ----------------------------------------------------------------------------------------------------------- */

static void refuse(const struct rb_caller *to, enum rb_reason reason) {
    if (to->conn) COUNT(to->conn->relay->stats.refused[reason], 1);
}

static void refuse_text(const struct rb_caller *to, const char *why) {
    refuse(to, RB_REASON_BAD_REQUEST);
    rb_answer_text(to, RB_REASON_BAD_REQUEST, why);
}

static void refuse_unknown_role(struct rb_relay *r, const struct rb_caller *to,
                                struct rb_slice role) {
    char why[RB_WHY_BYTES + 512];
    int n = snprintf(why, sizeof why,
                     "unknown role %.*s; this node has:", (int)(role.size > 64 ? 64 : role.size),
                     (const char *)role.at);
    for (uint32_t i = 0; i < r->roles_count && n < (int)sizeof why - 80; i++) {
        if (r->roles[i]) n += snprintf(why + n, sizeof why - (size_t)n, " %s", r->roles[i]->name);
    }
    refuse_text(to, why);
}

static uint64_t retry_after_ms(const struct rb_role *role) {
    uint64_t service_ns = role->ready ? role->workers[0]->service_ns : 0;
    uint64_t ms = role->ready ? role->queued * service_ns / role->ready / NS_PER_MS : 1000;
    return ms < 1 ? 1 : ms > 10000 ? 10000 : ms;
}

/* RB_REASON_OK: the role takes jobs. */
static enum rb_reason closed_for(const struct rb_role *role) {
    return role->state == RB_ROLE_DRAINING   ? RB_REASON_DRAINING
           : role->state == RB_ROLE_GIVEN_UP ? RB_REASON_NO_WORKER
                                             : RB_REASON_OK;
}

/* A job with room for `size` payload bytes, or NULL: then the caller has been answered. */
static struct rb_job *admit(struct rb_relay *r, const struct rb_caller *to,
                            struct rb_slice role_name, uint64_t size) {
    struct rb_role *role = rb_role_named(r, role_name);
    if (!role) {
        refuse_unknown_role(r, to, role_name);
        return NULL;
    }
    enum rb_reason reason = closed_for(role);
    if (reason != RB_REASON_OK) {
        refuse(to, reason);
        rb_answer_reason(to, reason);
        return NULL;
    }
    if (size > role->config.payload_bytes_max) {
        refuse(to, RB_REASON_TOO_LARGE);
        rb_answer_too_large(to, role->config.payload_bytes_max);
        return NULL;
    }
    struct rb_job *j = role->queued < role->config.depth_max ? rb_job_new(r) : NULL;
    int64_t first = 0;
    if (j) {
        j->role = role;
        if (size > RB_INLINE_BYTES_MAX) {
            first = rb_region_take(&role->pool.region, size);
            if (first < 0) {
                rb_job_free(r, j);
                j = NULL;
            } else {
                j->pool_first = (uint32_t)first;
                j->pool_count = rb_region_blocks_for(&role->pool.region, size);
                j->request.payload_at = (uint64_t)first * role->pool.region.block_bytes;
            }
        }
    }
    if (!j) {
        refuse(to, RB_REASON_OVERLOADED);
        rb_answer_overloaded(to, retry_after_ms(role));
        return NULL;
    }
    j->request.payload_bytes = (uint32_t)size;
    return j;
}

static uint8_t *payload_room(struct rb_job *j) {
    return j->pool_count ? j->role->pool.base + j->request.payload_at : j->request.body;
}

/* Binds a job to its caller's monitor: the one that the tag names; else the one that was this process's previous signal to us (25's
 * multi_call); else we watch the caller ourselves (a GenServer may forward a call). */
static int bind_caller(struct rb_conn *c, struct rb_job *j, struct rb_conn *answer_conn,
                       const struct rb_from *from) {
    if (rb_job_set_caller(j, answer_conn, from) < 0) return -1;
    c->relay->callers[0] |= 1ull << (rb_monitor_hash(from->pid) & 63);
    struct rb_monitor *m = from->monitor.size ? rb_monitor_find(c, from->monitor, from->pid) : NULL;
    if (!m) m = rb_monitor_recent(c, from->pid);
    if (m && !m->job) {
        m->job = j;
        j->monitor = m;
    } else {
        j->watch = j->id;
        rb_send_watch(answer_conn, 1, from->pid, j->watch);
    }
    return 0;
}

static void submit(struct rb_relay *r, struct rb_job *j, const struct rb_submit *s) {
    const struct rb_role_config *config = &j->role->config;
    uint64_t timeout_ms = s->has_timeout ? s->timeout_ms : config->timeout_default_ms;
    if (timeout_ms > config->timeout_max_ms) timeout_ms = config->timeout_max_ms;
    j->detail = (uint8_t)s->detail;
    j->request.opcode = s->opcode;
    j->request.priority = s->priority;
    j->request.flags =
        (uint16_t)((j->pool_count ? 0 : RB_FLAG_INLINE) | (j->is_term ? RB_FLAG_TERM : 0));
    memcpy(j->request.trace_id, s->trace_id, sizeof s->trace_id);
    memcpy(j->request.span_id, s->span_id, sizeof s->span_id);
    j->request.trace_flags = s->trace_flags;
    j->request.deadline_ns = j->arrived_ns + timeout_ms * NS_PER_MS;
    rb_job_due(r, j, j->request.deadline_ns);
    rb_job_accept(r, j);
}

/* --- Calls --------------------------------------------------------------------------------------------------------------- */

static struct rb_caller caller_of(struct rb_conn *c, const struct rb_from *from) {
    struct rb_slice node = node_of(from->pid);
    struct rb_conn *answer = rb_slice_is(node, c->peer) ? c : rb_conn_of_node(c->relay, node);
    return (struct rb_caller){
        .conn = answer, .pid = from->pid, .tag = from->tag, .alias = from->alias};
}

static int on_submit(struct rb_conn *c, const struct rb_from *from, const struct rb_caller *to,
                     struct rb_cursor *at, struct rb_submit *s) {
    struct rb_relay *r = c->relay;
    char why[RB_WHY_BYTES];
    struct rb_slice payload;
    uint32_t size;
    int is_term = rb_term_tag(at) != RB_TAG_BINARY;
    if (rb_term_skip(at, &payload) < 0) return fail(c, "bad_payload");
    if (!is_term) {
        struct rb_cursor binary = rb_cursor_of(payload);
        rb_term_binary_head(&binary, &size);
        payload = (struct rb_slice){binary.at, size};
    }
    int rc = rb_submit_options(at, s, why);
    if (rc == -EINVAL) return refuse_text(to, why), 0;
    if (rc < 0) return fail(c, "bad_payload");
    if (!to->conn) return 0; /* its node is gone: there is nobody to answer */
    struct rb_job *j = admit(r, to, s->role, payload.size);
    if (!j) return 0;
    j->is_term = (uint8_t)is_term;
    memcpy(payload_room(j), payload.at, payload.size);
    if (bind_caller(c, j, to->conn, from) < 0) {
        rb_job_free(r, j);
        return fail(c, "reply_tag_too_large");
    }
    submit(r, j, s);
    return 0;
}

static int on_call(struct rb_conn *c, const struct rb_from *from, struct rb_cursor *at) {
    struct rb_relay *r = c->relay;
    struct rb_caller to = caller_of(c, from);
    struct rb_submit s;
    uint64_t id = 0;
    char why[RB_WHY_BYTES];
    int kind = rb_request_kind(at, &s, &id, why);
    switch (kind) {
    case RB_REQUEST_SUBMIT: return on_submit(c, from, &to, at, &s);
    case RB_REQUEST_STATS: rb_answer_stats(&to, r); return 0;
    case RB_REQUEST_JOBS: rb_answer_jobs(&to, r, s.role); return 0;
    case RB_REQUEST_BAD: refuse_text(&to, why); return 0;
    case RB_REQUEST_STATUS:
    case RB_REQUEST_CANCEL: break;
    default: return fail(c, "bad_payload");
    }
    struct rb_job *j = rb_job_find(r, id);
    if (!j || (j->state != RB_JOB_QUEUED && j->state != RB_JOB_PLACED)) {
        rb_answer_unknown_job(&to);
    } else if (kind == RB_REQUEST_STATUS) {
        rb_answer_status(&to, j, r->now);
    } else {
        /* Its caller is still there and is told; whoever asked for it gets ok. */
        struct rb_caller owner = rb_job_caller(j);
        rb_answer_reason(&owner, RB_REASON_CANCELLED);
        rb_job_cancel(r, j, RB_REASON_CANCELLED);
        rb_answer_ok(&to);
    }
    return 0;
}

static int pass_up(struct rb_conn *c, const struct rb_signal *s, struct rb_slice message) {
    if (rb_up_signal(c, s->control, message) == 0) return 0;
    return fail(c, "interpreter_backlog_limit_reached");
}

static int on_message(struct rb_conn *c, const struct rb_signal *s, struct rb_slice message) {
    struct rb_cursor at = rb_cursor_of(message);
    struct rb_from from;
    switch (rb_message_kind(&at, &from)) {
    case RB_MESSAGE_CALL: return c->relay->service_up ? on_call(c, &from, &at) : 0;
    case RB_MESSAGE_CAST:
    case RB_MESSAGE_OTHER:
        return 0; /* as a GenServer without such a clause would, but without the crash */
    case RB_MESSAGE_SYSTEM: return pass_up(c, s, message);
    default: return fail(c, "bad_payload");
    }
}

/* --- Monitors ------------------------------------------------------------------------------------------------------------ */

static const struct rb_slice noproc = {(const uint8_t *)"\x77\x06noproc", 8};

static int on_monitor(struct rb_conn *c, const struct rb_signal *s) {
    if (!rb_slice_is(node_of(s->from), c->peer)) return fail(c, "monitor_from_another_node");
    if (c->monitor_count >= c->relay->config.monitors_max) return fail(c, "too_many_monitors");
    struct rb_monitor *m = rb_monitor_add(c, s);
    if (!m) return fail(c, "monitor_too_large");
    if (!c->relay->service_up) {
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
    if (j) rb_job_cancel(c->relay, j, RB_REASON_CANCELLED);
    return 0;
}

/* DOWN of a caller that we watch: its reference holds the number of our watch (answer.c, put_reference). Only its own node can tell. */
static int on_down(struct rb_conn *c, const struct rb_signal *s) {
    if (s->ref.size < 16) return 0;
    const uint8_t *words = s->ref.at + s->ref.size - 12;
    uint32_t mark = rb_be32(words + 8) ^ RB_WATCH_MARK;
    if (mark >> 16) return 0;
    uint64_t id = (uint64_t)mark << 50 | (uint64_t)rb_be32(words + 4) << 18 | rb_be32(words);
    struct rb_job *j = rb_job_find(c->relay, id);
    if (j && j->watch == id && j->conn == c) {
        j->watch = 0; /* it is used up: no DEMONITOR */
        rb_job_cancel(c->relay, j, RB_REASON_CANCELLED);
    }
    return 0;
}

void rb_service_down(struct rb_relay *r, struct rb_slice reason) {
    r->service_up = 0;
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct rb_conn *c = r->conns[i];
        for (uint32_t b = 0; c && b < MONITOR_BUCKETS; b++) {
            while (c->monitors[b]) {
                rb_send_down(c, c->monitors[b], reason);
                rb_monitor_remove(c, c->monitors[b]);
            }
        }
    }
}

/* --- The intake's owner -------------------------------------------------------------------------------------------------- */

static int on_signal(void *user, const struct rb_signal *s, struct rb_slice message) {
    struct rb_conn *c = user;
    int ours = s->to.size && is_ours(c->relay, s->to);
    if (ours && is_message(s)) return on_message(c, s, message);
    if (ours && s->op == RB_OP_MONITOR_P) return on_monitor(c, s);
    if (ours && s->op == RB_OP_DEMONITOR_P) return on_demonitor(c, s);
    if (ours && (s->op == RB_OP_MONITOR_P_EXIT || s->op == RB_OP_PAYLOAD_MONITOR_P_EXIT))
        return on_down(c, s);
    return pass_up(c, s, message);
}

static enum rb_large on_begin_large(void *user, struct rb_slice head, struct rb_diversion *d) {
    struct rb_conn *c = user;
    struct rb_relay *r = c->relay;
    struct rb_cursor at = rb_cursor_of(head);
    struct rb_signal signal;
    struct rb_from from;
    struct rb_submit s;
    uint64_t id;
    uint32_t size;
    char why[RB_WHY_BYTES];

    int rc = rb_signal_parse(&at, &signal);
    if (rc == 0) rc = rb_intake_message(&c->intake, &at, &signal);
    if (rc == -EAGAIN) return RB_LARGE_MORE;
    if (rc < 0 || !is_message(&signal) || !is_ours(r, signal.to)) return RB_LARGE_KEEP;
    int kind = rb_message_kind(&at, &from);
    if (kind == -EAGAIN) return RB_LARGE_MORE;
    if (kind == RB_MESSAGE_CAST || kind == RB_MESSAGE_OTHER) return RB_LARGE_DROP;
    if (kind != RB_MESSAGE_CALL || !r->service_up) return RB_LARGE_KEEP;
    struct rb_caller to = caller_of(c, &from);
    rc = rb_request_kind(&at, &s, &id, why);
    if (rc == -EAGAIN) return RB_LARGE_MORE;
    if (rc == RB_REQUEST_BAD) {
        refuse_text(&to, why);
        return RB_LARGE_DROP;
    }
    /* A term's size is not known before its end: it is assembled, within the bound of all assemblies, and then refused or copied. */
    if (rc != RB_REQUEST_SUBMIT || rb_term_tag(&at) != RB_TAG_BINARY) return RB_LARGE_KEEP;
    if (rb_term_binary_head(&at, &size) < 0) return RB_LARGE_MORE;
    if (!to.conn) return RB_LARGE_DROP;
    struct rb_job *j = admit(r, &to, s.role, size);
    if (!j) return RB_LARGE_DROP;
    if (bind_caller(c, j, to.conn, &from) < 0) {
        rb_job_free(r, j);
        return RB_LARGE_KEEP; /* fails when it is whole, by the same rule */
    }
    j->arity = (uint8_t)s.arity;
    rb_job_arrives(r, j, c, size);
    *d = (struct rb_diversion){.head_bytes = (size_t)(at.at - head.at),
                               .dest = payload_room(j),
                               .dest_bytes = size,
                               .token = j};
    return RB_LARGE_DIVERT;
}

static int on_end_large(void *user, void *token, struct rb_slice tail, int tail_cut) {
    struct rb_conn *c = user;
    struct rb_relay *r = c->relay;
    struct rb_job *j = token;
    j->arriving = NULL;
    struct rb_submit s = {.arity = j->arity, .priority = 2};
    struct rb_cursor at = rb_cursor_of(tail);
    char why[RB_WHY_BYTES] = "submit: the options are longer than 64 KiB";
    int rc = tail_cut ? -EINVAL : rb_submit_options(&at, &s, why);
    struct rb_caller to = rb_job_caller(j);
    /* Its role may have closed, or its queue have filled, while the payload came. */
    enum rb_reason reason = closed_for(j->role);
    if (rc == 0 && reason == RB_REASON_OK && j->role->queued < j->role->config.depth_max) {
        submit(r, j, &s);
        return 0;
    }
    if (rc == 0) {
        if (reason == RB_REASON_OK) reason = RB_REASON_OVERLOADED;
        refuse(&to, reason);
        if (reason == RB_REASON_OVERLOADED)
            rb_answer_overloaded(&to, retry_after_ms(j->role));
        else
            rb_answer_reason(&to, reason);
    } else if (rc == -EINVAL) {
        refuse_text(&to, why);
    }
    rb_job_free(r, j);
    return rc == 0 || rc == -EINVAL ? 0 : fail(c, "bad_payload");
}

static void on_abort_large(void *user, void *token) {
    struct rb_conn *c = user;
    struct rb_job *j = token;
    j->arriving = NULL;
    rb_job_free(c->relay, j);
}

void rb_service_bind(struct rb_conn *c) {
    c->owner = (struct rb_intake_owner){.signal = on_signal,
                                        .begin_large = on_begin_large,
                                        .end_large = on_end_large,
                                        .abort_large = on_abort_large,
                                        .user = c};
}
