/* stage.c: what consumers say to the Streams, and what they are told besides events.
 *
 *      {'$gen_producer', {Consumer, Tag}, {subscribe, Current, Options}}     Options: job: {Role, Payload} | {Role, Payload, Opts}
 *      {'$gen_producer', {Consumer, Tag}, {ask, Demand}}
 *      {'$gen_producer', {Consumer, Tag}, {cancel, Reason}}
 *
 * A consumer may speak through another process of its node (GenStage.stream/1 does), so a subscription is known by its tag alone,
 * as GenStage's own producers know it. Anything else is ignored, as theirs do. */
#include "relay/service/stage.h"

#include <errno.h>

#include "relay/relay_pvt.h"
#include "relay/service/submit.h"

/* --- What they are told -------------------------------------------------------------------------------------------------- */

static void tell_cancel(const struct rb_caller *to, struct rb_slice reason) {
    struct rb_reply reply;
    if (!rb_reply_begin(&reply, to, reason.size)) return;
    rb_pen_slice(&reply.pen, reason);
    rb_reply_end(&reply);
}

static void tell_cancel_atom(const struct rb_caller *to, const char *reason) {
    struct rb_reply reply;
    if (!rb_reply_begin(&reply, to, 64)) return;
    rb_pen_atom(&reply.pen, reason);
    rb_reply_end(&reply);
}

/* A word about a subscription that there is not. One that has just ended, or was refused, was told so, and its consumer's word crossed
 * that. */
static void tell_unknown(const struct rb_caller *to) {
    if (to->conn && !rb_stream_ended(to->conn, to->tag))
        tell_cancel_atom(to, "unknown_subscription");
}

/* The registered consumer is told, whoever asked for it. */
static void end(struct rb_subscription *s, struct rb_slice reason) {
    struct rb_job *j = s->job;
    struct rb_caller consumer = rb_job_caller(j);
    tell_cancel(&consumer, reason);
    rb_job_cancel(consumer.conn->relay, j, RB_REASON_CANCELLED);
}

/* --- What they say ------------------------------------------------------------------------------------------------------- */

/* The value of `job` in a keyword list, of a key given twice the first. 0, or -EINVAL with `why`. */
static int find_job(struct rb_cursor *c, struct rb_cursor *job, const char **why) {
    int tail, found = 0;
    struct rb_slice key, value;
    int64_t count = rb_term_list(c, &tail);
    *why = "subscribe: the options are no keyword list";
    for (; count >= 0; count = rb_term_list(c, &tail)) {
        for (int64_t i = 0; i < count; i++) {
            struct rb_cursor pair = *c;
            if (rb_term_skip(c, NULL) < 0) return -EINVAL;
            if (rb_term_tuple(&pair) != 2 || rb_term_atom(&pair, &key) < 0) continue;
            if (found || !rb_slice_is(key, "job") || rb_term_skip(&pair, &value) < 0) continue;
            *job = rb_cursor_of(value);
            found = 1;
        }
        if (!tail) {
            *why = "subscribe: the options have no job: {role, payload} or {role, payload, opts}";
            return found ? 0 : -EINVAL;
        }
    }
    return -EINVAL;
}

static int on_subscribe(struct rb_conn *c, const struct rb_from *from, const struct rb_caller *to,
                        struct rb_cursor *at) {
    struct rb_cursor current = *at, job;
    struct rb_slice tag, reason;
    const char *why;
    if (!to->conn) return 0; /* its node is gone */
    if (rb_stream_find(to->conn, to->tag)) {
        tell_cancel_atom(to, "duplicated_subscription");
        return 0;
    }
    if (rb_term_skip(at, NULL) < 0) return rb_service_fail(c, "bad_payload");
    if (rb_term_tuple(&current) == 2 && rb_term_skip(&current, &tag) == 0 &&
        rb_term_skip(&current, &reason) == 0) {
        struct rb_subscription *s = rb_stream_find(to->conn, tag);
        if (s) end(s, reason);
    }
    if (find_job(at, &job, &why) < 0) {
        rb_submit_refuse(to, why);
        return 0;
    }
    struct rb_submit s = {.verb = RB_VERB_STREAM};
    rb_options_default(&s.options);
    int64_t arity = rb_term_tuple(&job);
    if ((arity != 2 && arity != 3) || rb_term_text(&job, &s.role) < 0) {
        rb_submit_refuse(to, "subscribe: job must be {role, payload} or {role, payload, opts}, "
                             "role an atom or a binary");
        return 0;
    }
    s.arity = (unsigned)arity + 1; /* as of {submit, Role, Payload, Opts} */
    return rb_submit(c, from, to, &job, &s);
}

static void on_ask(const struct rb_caller *to, struct rb_cursor *at) {
    uint64_t parts;
    int rc = rb_term_unsigned(at, &parts);
    if (rc == -ERANGE) {
        /* Below zero: nothing. Else more than can ever be sent. */
        int tag = rb_term_tag(at);
        if (tag == RB_TAG_INTEGER || at->at[tag == RB_TAG_SMALL_BIG ? 2 : 5] != 0) return;
        parts = UINT64_MAX;
    } else if (rc < 0) {
        return;
    }
    struct rb_subscription *s = to->conn ? rb_stream_find(to->conn, to->tag) : NULL;
    if (s)
        rb_stream_ask(s, parts);
    else
        tell_unknown(to);
}

static void on_cancel(const struct rb_caller *to, struct rb_cursor *at) {
    struct rb_slice reason;
    if (rb_term_skip(at, &reason) < 0) return;
    struct rb_subscription *s = to->conn ? rb_stream_find(to->conn, to->tag) : NULL;
    if (s)
        end(s, reason);
    else
        tell_unknown(to);
}

int rb_stage_message(struct rb_conn *c, struct rb_slice message) {
    struct rb_cursor at = rb_cursor_of(message);
    struct rb_from from = {.pid = {NULL, 0}};
    struct rb_slice name;
    if (rb_term_tuple(&at) != 3 || rb_term_atom(&at, &name) < 0 ||
        !rb_slice_is(name, "$gen_producer"))
        return 0;
    if (rb_term_tuple(&at) != 2 || rb_term_tag(&at) != RB_TAG_NEW_PID ||
        rb_term_skip(&at, &from.pid) < 0 || rb_term_skip(&at, &from.tag) < 0)
        return 0;
    int64_t arity = rb_term_tuple(&at);
    if (arity < 2 || rb_term_atom(&at, &name) < 0) return 0;
    rb_service_hear_of_newcomers(c, &from);
    if (!c->relay->owned[RB_SERVICE_STREAMS].up) return 0;
    struct rb_caller to = rb_service_caller(c, &from);
    to.kind = RB_CALLER_STREAM;
    if (arity == 3 && rb_slice_is(name, "subscribe")) {
        int rc = on_subscribe(c, &from, &to, &at);
        /* A consumer asks as soon as it has subscribed: what crosses the refusal is not answered once more. */
        if (to.conn && !rb_stream_find(to.conn, to.tag)) rb_stream_refused(to.conn, to.tag);
        return rc;
    }
    if (arity == 2 && rb_slice_is(name, "ask")) on_ask(&to, &at);
    if (arity == 2 && rb_slice_is(name, "cancel")) on_cancel(&to, &at);
    return 0;
}
