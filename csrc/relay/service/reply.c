/* reply.c: what stands around an answer on its way to its caller, and the signals that the relay makes besides: DOWN, and its own
 * monitors.
 *
 * An answer to a call is {Tag, Reply}, sent to the alias that the tag names, else to the caller's pid (gen.erl). */
#include "relay/service/reply.h"

#include "relay/relay_pvt.h"
#include "relay/service/batch.h"
#include "relay/service/pipeline.h"
#include "relay/service/shared.h"

static const struct rb_slice none = {NULL, 0};

/* --- Signals ------------------------------------------------------------------------------------------------------------- */

static int signal_begin(struct rb_reply *s, struct rb_conn *c, struct rb_slice with, size_t room) {
    if (!c || c->failed) return 0;
    struct rb_buffer *stage = &c->relay->stage;
    stage->begin = stage->end = 0;
    *s = (struct rb_reply){.conn = c, .with = with};
    s->pen.begin = s->pen.at = rb_buffer_room(stage, room + 64);
    if (!s->pen.begin) rb_conn_fail(c, "no_memory");
    return s->pen.begin != NULL;
}

static void message_begin(struct rb_reply *s) {
    s->control = rb_pen_size(&s->pen);
    if (!rb_conn_with_header(s->conn)) rb_pen_byte(&s->pen, RB_TAG_VERSION);
}

static void signal_end_with(struct rb_reply *s, struct rb_slice body, struct rb_slice tail) {
    struct rb_slice head = rb_pen_written(&s->pen);
    struct rb_leaving leaving = {.head = head,
                                 .body = body,
                                 .tail = tail,
                                 .control = s->control ? s->control : head.size,
                                 .with = s->with,
                                 .whole = s->whole};
    rb_leave(s->conn, &leaving);
}

/* Answers in fragments to an alias that is gone leak memory on OTP 25 and may crash 26.0 and 26.1 (dist-protocol.md, 3.5). A peer
 * that has ALTACT_SIG is of OTP 28 or later; all others get such an answer in one frame. */
static int aliases_take_fragments(const struct rb_conn *c) {
    return (c->flags & RB_DFLAG_ALTACT_SIG) != 0;
}

/* Who speaks. */
static struct rb_slice own_pid(const struct rb_relay *r, enum rb_service service) {
    return rb_owned_pid(&r->owned[service]);
}

/* --- Replies ------------------------------------------------------------------------------------------------------------- */

static void to_pid(struct rb_pen *p, const struct rb_conn *c, struct rb_slice own,
                   struct rb_slice pid) {
    rb_pen_tuple(p, 3);
    if (c->flags & RB_DFLAG_SEND_SENDER) {
        rb_pen_unsigned(p, RB_OP_SEND_SENDER);
        rb_pen_slice(p, own);
    } else {
        rb_pen_unsigned(p, RB_OP_SEND);
        rb_pen_atom(p, "");
    }
    rb_pen_slice(p, pid);
}

/* The control term, to the alias of a call or to the pid. */
static int message_to(struct rb_reply *s, const struct rb_caller *to, size_t room) {
    if (!to->conn) return 0;
    struct rb_slice own = own_pid(to->conn->relay, RB_SERVICE_JOBS);
    if (!signal_begin(s, to->conn, to->pid,
                      room + own.size + to->pid.size + to->tag.size + to->alias.size + 64))
        return 0;
    struct rb_pen *p = &s->pen;
    const int alias = to->alias.size && to->kind == RB_CALLER_CALL;
    s->whole = alias && !aliases_take_fragments(to->conn);
    if (alias && (to->conn->flags & RB_DFLAG_ALTACT_SIG)) {
        rb_pen_tuple(p, 4);
        rb_pen_unsigned(p, RB_OP_ALTACT_SIG_SEND);
        rb_pen_unsigned(p, RB_ALTACT_ALIAS);
        rb_pen_slice(p, own);
        rb_pen_slice(p, to->alias);
    } else if (alias) {
        rb_pen_tuple(p, 3);
        rb_pen_unsigned(p, RB_OP_ALIAS_SEND);
        rb_pen_slice(p, own);
        rb_pen_slice(p, to->alias);
    } else {
        to_pid(p, to->conn, own, to->pid);
    }
    message_begin(s);
    return 1;
}

int rb_reply_begin_events(struct rb_reply *s, const struct rb_caller *to, size_t room) {
    if (!to->conn) return 0;
    struct rb_slice own = own_pid(to->conn->relay, RB_SERVICE_STREAMS);
    if (!signal_begin(s, to->conn, to->pid, room + 2 * own.size + to->pid.size + to->tag.size + 64))
        return 0;
    struct rb_pen *p = &s->pen;
    to_pid(p, to->conn, own, to->pid);
    message_begin(s);
    rb_pen_tuple(p, 3);
    rb_pen_atom(p, "$gen_consumer");
    rb_pen_tuple(p, 2);
    rb_pen_slice(p, own);
    rb_pen_slice(p, to->tag);
    return 1;
}

/* The events that were there before come first. */
static int cancel_begin(struct rb_reply *s, const struct rb_caller *to, size_t room) {
    if (to->conn) rb_stream_flush(to->conn->relay);
    if (!rb_reply_begin_events(s, to, room + 16)) return 0;
    rb_pen_tuple(&s->pen, 2);
    rb_pen_atom(&s->pen, "cancel");
    return 1;
}

/* Nothing stands around an answer that is kept. */
static int kept_begin(struct rb_reply *s, const struct rb_caller *to, size_t room) {
    struct rb_relay *r = to->kind == RB_CALLER_ELEMENT ? rb_batch_relay(to->extra->batch)
                         : to->kind == RB_CALLER_STAGE ? rb_pipeline_relay(to->extra->pipeline)
                         : to->kind == RB_CALLER_LANE  ? to->conn ? to->conn->relay : NULL
                                                       : rb_shared_relay(to->extra->shared);
    if (!r) return 0;
    r->stage.begin = r->stage.end = 0;
    *s = (struct rb_reply){.keep = to};
    s->pen.begin = s->pen.at = rb_buffer_room(&r->stage, room + 64);
    return s->pen.begin != NULL;
}

int rb_reply_begin(struct rb_reply *reply, const struct rb_caller *to, size_t room) {
    if (to->kind == RB_CALLER_ELEMENT || to->kind == RB_CALLER_SHARED ||
        to->kind == RB_CALLER_STAGE || to->kind == RB_CALLER_LANE)
        return kept_begin(reply, to, room);
    if (to->kind == RB_CALLER_STREAM) return cancel_begin(reply, to, room);
    if (!message_to(reply, to, room)) return 0;
    if (to->kind == RB_CALLER_ASYNC) {
        rb_pen_tuple(&reply->pen, 3);
        rb_pen_atom(&reply->pen, "ringbridge");
        rb_reply_handle(&reply->pen, to->conn->relay, to->job);
    } else {
        rb_pen_tuple(&reply->pen, 2);
        rb_pen_slice(&reply->pen, to->tag);
    }
    return 1;
}

void rb_reply_handle(struct rb_pen *p, const struct rb_relay *r, uint64_t job) {
    uint32_t words[3];
    rb_reference_words(RB_HANDLE_MARK, rb_seal(&r->seal, job), words);
    rb_pen_reference(p, r->node_text, r->config.creation, words);
}

void rb_reply_end_with(struct rb_reply *reply, struct rb_slice body, struct rb_slice tail) {
    if (!reply->keep) {
        signal_end_with(reply, body, tail);
        return;
    }
    const struct rb_slice pieces[3] = {rb_pen_written(&reply->pen), body, tail};
    if (reply->keep->kind == RB_CALLER_ELEMENT)
        rb_batch_put(reply->keep->extra->batch, reply->keep->index, pieces);
    else if (reply->keep->kind == RB_CALLER_STAGE)
        rb_pipeline_put(reply->keep->extra->pipeline, reply->keep->index, pieces);
    else if (reply->keep->kind == RB_CALLER_LANE)
        rb_beam_answer(reply->keep, RB_LANE_STATUS_TERM, pieces);
    else
        rb_shared_put(reply->keep->extra->shared, pieces);
}

void rb_reply_end(struct rb_reply *reply) { rb_reply_end_with(reply, none, none); }

/* --- Other signals ------------------------------------------------------------------------------------------------------- */

int rb_send_signal(struct rb_conn *c, struct rb_slice control, const struct rb_slice *message,
                   void **owner) {
    if (!c || c->failed) return -1;
    struct rb_cursor at = rb_cursor_of(control);
    uint64_t op;
    struct rb_leaving leaving = {.head = control, .control = control.size, .owner = owner};
    leaving.whole = !aliases_take_fragments(c) && rb_term_tuple(&at) > 0 &&
                    rb_term_unsigned(&at, &op) == 0 && op == RB_OP_ALIAS_SEND;
    if (message && !rb_conn_with_header(c)) {
        struct rb_reply s;
        if (!signal_begin(&s, c, none, control.size)) return -1;
        rb_pen_slice(&s.pen, control);
        message_begin(&s);
        signal_end_with(&s, *message, none);
        return 0;
    }
    if (message && message->at == control.at + control.size) /* as notes have it */
        leaving.head.size += message->size;
    else if (message)
        leaving.body = *message;
    return rb_leave(c, &leaving);
}

void rb_send_down(struct rb_conn *c, const struct rb_monitor *m, struct rb_slice reason) {
    struct rb_reply s;
    struct rb_pen *p = &s.pen;
    struct rb_slice ref = {m->bytes, m->ref_size}, from = {ref.at + ref.size, m->from_size},
                    to = {from.at + from.size, m->to_size};
    int payload = (c->flags & RB_DFLAG_EXIT_PAYLOAD) != 0;
    if (!signal_begin(&s, c, from, ref.size + from.size + to.size + reason.size + 32)) return;
    rb_pen_tuple(p, payload ? 4 : 5);
    rb_pen_unsigned(p, payload ? RB_OP_PAYLOAD_MONITOR_P_EXIT : RB_OP_MONITOR_P_EXIT);
    rb_pen_slice(p, to); /* as it was given: a name stays a name */
    rb_pen_slice(p, from);
    rb_pen_slice(p, ref);
    if (payload) message_begin(&s);
    rb_pen_slice(p, reason);
    signal_end_with(&s, none, none);
}

void rb_send_watch(struct rb_conn *c, enum rb_service service, int on, struct rb_slice pid,
                   uint64_t watch) {
    struct rb_reply s;
    struct rb_pen *p = &s.pen;
    struct rb_slice own = own_pid(c->relay, service);
    if (!signal_begin(&s, c, pid, own.size + pid.size + c->relay->node_text.size + 64)) return;
    rb_pen_tuple(p, 4);
    rb_pen_unsigned(p, on ? RB_OP_MONITOR_P : RB_OP_DEMONITOR_P);
    rb_pen_slice(p, own);
    rb_pen_slice(p, pid);
    uint32_t words[3];
    rb_reference_words(RB_WATCH_MARK, watch, words);
    rb_pen_reference(p, c->relay->node_text, c->relay->config.creation, words);
    signal_end_with(&s, none, none);
}
