/* fuzz/completion.h: a worker writes what it likes into all that it can write, and others notice nothing.
 *
 * A relay without a thread, one role, a liar and an honest worker. The input is a program: calls of three kinds, and what the liar
 * writes: completions, raw envelopes, positions, its hello, its telemetry, bytes of the result region, its last words. Held at every
 * step and at the end: each plain call is answered once at most, and once at the end unless it was taken back; what the honest worker
 * said arrives as it was said; the books are even (audit.c); and no sanitizer finds anything. */
#ifndef RINGBRIDGE_FUZZ_COMPLETION_H
#define RINGBRIDGE_FUZZ_COMPLETION_H

#include <stddef.h>

#include "../relay_lab.h"
#include "ringbridge/lab.h"
#include "ringbridge/telemetry.h"

enum { LIE_CALLS_MAX = 200, LIE_STEPS_MAX = 400, LIE_SLOTS = 8 };
enum lie_step {
    LIE_CALL,      /* size: a binary; odd: compressed answers are accepted, 3 of 4: it is a frame */
    LIE_CALL_TERM, /* a tuple with a pid and atoms */
    LIE_ASYNC,     /* submit_async */
    LIE_SUBSCRIBE, /* a stream, and its demand */
    LIE_TAKE_BACK, /* which caller */
    LIE_COMPLETE, /* which request, status, flags, size, bytes: as a kit writes it, but for what it says */
    LIE_ENVELOPE,  /* which slot, 64 bytes, published or not, the CRC made right or not */
    LIE_POSITION,  /* which word, by how much */
    LIE_HEADER,    /* where, a byte */
    LIE_TELEMETRY, /* where, a byte */
    LIE_RESULT,    /* where, bytes */
    LIE_START,     /* how many */
    LIE_RELEASE,   /* how many */
    LIE_TIME,      /* how long */
    LIE_HONEST,    /* the other worker does all that it has */
    LIE_DIE,       /* how; another comes */
    LIE_STEPS
};

struct lie {
    struct rb_relay *relay;
    int peer;
    uint64_t now, ids;
    struct rb_lab_worker *liar, *honest;
    const uint8_t *at, *end; /* of the program */
    uint32_t calls, unread;
    uint8_t answers[LIE_CALLS_MAX + 1], back[LIE_CALLS_MAX + 1], by_honest[LIE_CALLS_MAX + 1],
        plain[LIE_CALLS_MAX + 1];
    size_t in_size;
    int expired;         /* so much time has passed that deadlines may have answered */
    uint8_t in[3 << 20]; /* an answer is as large as the result region; last: not cleared */
};

static inline uint8_t lie_byte(struct lie *l) { return l->at < l->end ? *l->at++ : 0; }
static inline uint32_t lie_u32(struct lie *l) {
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) v = v << 8 | lie_byte(l);
    return v;
}
static inline size_t lie_bytes(struct lie *l, uint8_t *to, size_t most) {
    size_t n = (size_t)(l->end - l->at) < most ? (size_t)(l->end - l->at) : most;
    if (n) memcpy(to, l->at, n);
    l->at += n;
    return n;
}

/* --- What callers hear ------------------------------------------------------------------------ */

/* Calls have numbers that are found in an answer's control term, {33, Pid, Ref}. */
static inline void lie_heard(struct lie *l, const uint8_t *frame, size_t size) {
    struct rb_cursor c = {frame, frame + size};
    struct rb_slice control, part;
    if (rb_term_skip(&c, &control) < 0) abort();
    struct rb_cursor in = rb_cursor_of(control);
    uint64_t op = 0;
    if (rb_term_tuple(&in) < 3 || rb_term_unsigned(&in, &op) < 0) abort();
    if (op == RB_OP_MONITOR_P || op == RB_OP_DEMONITOR_P || op == RB_OP_MONITOR_P_EXIT) return;
    struct rb_cursor message = c; /* one term, and nothing behind it */
    if (rb_term_skip(&message, NULL) < 0 || message.at != message.end) abort();
    if (op != RB_OP_ALIAS_SEND) return;
    if (rb_term_skip(&in, &part) < 0 || rb_term_skip(&in, &part) < 0) abort();
    uint32_t n = rb_be32(part.at + part.size - 12);
    if (n == 0 || n > l->calls || !l->plain[n]) return;
    if (l->answers[n]++ || l->back[n] == 2) abort(); /* twice, or after it was taken back */
    char said[32];
    snprintf(said, sizeof said, "honest %u.", n);
    if (l->by_honest[n] && !l->expired && !memmem(c.at, (size_t)(c.end - c.at), said, strlen(said)))
        abort();
}
static inline int lie_listen(struct lie *l) {
    for (int heard = 0;;) {
        ssize_t n = recv(l->peer, l->in + l->in_size, sizeof l->in - l->in_size, MSG_DONTWAIT);
        if (n == 0) abort(); /* whatever a worker does, no connection closes */
        if (n > 0) l->in_size += (size_t)n, heard = 1;
        size_t at = 0;
        while (l->in_size - at >= 4 && l->in_size - at - 4 >= rb_be32(l->in + at)) {
            uint32_t length = rb_be32(l->in + at);
            if (length > 3) lie_heard(l, l->in + at + 7, length - 3);
            at += 4 + length;
        }
        memmove(l->in, l->in + at, l->in_size -= at);
        if (n < 0) return heard;
    }
}
static inline int lie_round(struct lie *l, uint64_t ns) { /* 1 when the peer heard something */
    struct rb_event event;
    char why[256];
    lab_write(l->peer, "\0\0\0\0", 4); /* a tick: it lives, however much time passes */
    rb_lab_round(l->relay, l->now += ns);
    while (rb_relay_take(l->relay, &event)) {
    }
    int heard = lie_listen(l);
    for (uint32_t i = 1; i <= l->calls; i++) l->back[i] += l->back[i] == 1;
    if (rb_relay_audit(l->relay, why, sizeof why) < 0) {
        fprintf(stderr, "%s\n", why);
        abort();
    }
    return heard;
}

static inline void
lie_drain(struct lie *l) { /* an answer larger than the socket's buffer takes several rounds */
    while (lie_round(l, 1000000)) {
    }
}

/* --- What they ask ---------------------------------------------------------------------------- */

static inline void lie_call(struct lie *l, enum lie_step kind) {
    if (l->calls == LIE_CALLS_MAX) return;
    uint32_t n = ++l->calls;
    struct lab_bytes b = {.size = 0};
    l->plain[n] = kind != LIE_ASYNC;
    lab_monitor(l->peer, 1, n, n);
    lab_call_head(&b, n, n);
    uint8_t how = kind == LIE_CALL_TERM ? 0 : lie_byte(l);
    int framed = how % 4 == 3; /* which the liar takes, and the honest one does not */
    lab_verb_head(&b, how & 1 ? 4 : 3, kind == LIE_ASYNC ? "submit_async" : "submit", "echo");
    if (kind == LIE_CALL_TERM) {
        PUT(&b, "\x68\x03");
        lab_put_pid(&b, "peer@host", n);
        lab_put_atom(&b, "known");
        PUT(&b, "\x61\x01");
    } else {
        uint8_t payload[16 + 512] = "\x28\xb5\x2f\xfd\xa0\x10\x00\x00\x00";
        if (!framed) rb_put_be32(payload, n);
        lab_put_binary(&b, payload, 16 + (size_t)how * 2);
    }
    if (how & 1) {
        uint8_t map[5] = {RB_TAG_MAP, 0, 0, 0, (uint8_t)(1 + framed)};
        lab_put(&b, map, sizeof map);
        lab_put_atom(&b, "accept");
        lab_put_atom(&b, "zstd");
    }
    if (framed) {
        lab_put_atom(&b, "encoding");
        lab_put_atom(&b, "zstd");
    }
    lab_frame(l->peer, &b);
}
static inline void lie_say(struct lie *l, uint32_t n, const char *verb, uint8_t arity,
                           struct lab_bytes *b) {
    (void)l;
    PUT(b, "\x68\x04\x61\x06");
    lab_put_pid(b, "peer@host", n);
    lab_put_atom(b, "");
    lab_put_atom(b, "streams");
    PUT(b, "\x68\x03");
    lab_put_atom(b, "$gen_producer");
    PUT(b, "\x68\x02");
    lab_put_pid(b, "peer@host", n);
    lab_put_ref(b, n);
    uint8_t tuple[2] = {RB_TAG_SMALL_TUPLE, arity};
    lab_put(b, tuple, 2);
    lab_put_atom(b, verb);
}
static inline void lie_subscribe(struct lie *l) {
    if (l->calls == LIE_CALLS_MAX) return;
    uint32_t n = ++l->calls;
    struct lab_bytes b = {.size = 0}, ask = {.size = 0};
    lie_say(l, n, "subscribe", 3, &b);
    lab_put_atom(&b, "nil");
    PUT(&b, "\x6c\x00\x00\x00\x01\x68\x02");
    lab_put_atom(&b, "job");
    PUT(&b, "\x68\x02");
    lab_put_atom(&b, "echo");
    lab_put_binary(&b, "go", 2);
    PUT(&b, "\x6a");
    lab_frame(l->peer, &b);
    lie_say(l, n, "ask", 2, &ask);
    uint8_t parts[2] = {RB_TAG_SMALL_INTEGER, lie_byte(l)};
    lab_put(&ask, parts, 2);
    lab_frame(l->peer, &ask);
}
static inline void lie_take_back(struct lie *l) {
    uint32_t n = l->calls ? 1 + lie_byte(l) % l->calls : 0;
    if (!n || !l->plain[n]) return;
    if (!l->back[n]) l->back[n] = 1;
    lab_monitor(l->peer, 0, n, n);
}

/* --- What the liar writes ---------------------------------------------------------------------- */

static inline void lie_complete(struct lie *l) {
    static uint8_t bytes[2048 * 64];
    struct rb_lab_request q = {.job = 0};
    uint8_t which = lie_byte(l), flags = lie_byte(l);
    struct rb_lab_answer a = {.status = lie_byte(l) % 6,
                              .flags = (flags & 2u) | (flags & 32 ? RB_FLAG_ZSTD : 0)};
    rb_lab_request(l->liar, which % LIE_SLOTS, &q);
    a.job = which & 0x80 ? lie_u32(l) : q.job;
    a.code = which;
    a.run_ns = flags & 4 ? UINT64_MAX : flags * 100u;
    a.payload = bytes;
    a.payload_bytes = (uint32_t)lie_bytes(l, bytes, lie_byte(l) * (flags & 8 ? 8u : 1u));
    if (flags & 16 && a.payload_bytes > 5) { /* large: the head once, the rest again and again */
        uint32_t rest = a.payload_bytes - 5;
        for (int i = 1; i < 64; i++) memcpy(bytes + 5 + (size_t)i * rest, bytes + 5, rest);
        a.payload_bytes = 5 + 64 * rest;
    }
    rb_lab_complete(l->liar, &a);
}
static inline void lie_envelope(struct lie *l) {
    struct rb_link_worker *link = rb_lab_link(l->liar);
    struct rb_completion e;
    struct rb_lab_request q;
    uint8_t how = lie_byte(l);
    memset(&e, 0, sizeof e);
    lie_bytes(l, (uint8_t *)&e, how & 1 ? sizeof e : 64);
    if ((how & 2) && rb_lab_request(l->liar, how >> 5, &q) == 0) e.job = q.job;
    if (how & 4) e.payload_at &= link->header.result_bytes - 1;
    if (how & 8) {
        int inlined = !!(e.flags & RB_FLAG_INLINE);
        int within = inlined ? e.payload_bytes <= RB_INLINE_BYTES_MAX
                             : e.payload_at < link->header.result_bytes &&
                                   e.payload_bytes <= link->header.result_bytes - e.payload_at;
        if (within)
            e.crc = rb_completion_crc(&e, inlined ? e.body : link->results + e.payload_at,
                                      link->header.features);
    }
    int64_t slot = rb_ring_claim(&link->completion_ring);
    if (slot < 0) return;
    link->completions[slot] = e;
    rb_ring_publish(&link->completion_ring);
    rb_gate_ring(&link->waker);
}
static inline void lie_position(struct lie *l) {
    struct rb_worker_positions *ours = rb_lab_link(l->liar)->ours;
    uint64_t *words[] = {&ours->request_head, &ours->started, &ours->completion_tail,
                         &ours->giveback_head};
    uint8_t which = lie_byte(l);
    int8_t by = (int8_t)lie_byte(l);
    if (which % 6 < 4)
        rb_store_release(words[which % 6], which & 0x80 ? (uint64_t)lie_u32(l) << 32
                                                        : *words[which % 6] + (uint64_t)by);
    else
        rb_store_release(which % 6 == 4 ? &ours->park : &ours->doorbell, (uint32_t)by);
}
static inline void lie_page(struct lie *l, size_t page) {
    struct rb_link_worker *link = rb_lab_link(l->liar);
    uint8_t *side = (uint8_t *)link->ours - RB_AT_POSITIONS;
    side[page + lie_byte(l)] = lie_byte(l);
}
static inline void lie_result(struct lie *l) {
    struct rb_link_worker *link = rb_lab_link(l->liar);
    uint32_t at = lie_u32(l) % (uint32_t)(link->header.result_bytes - 256);
    lie_bytes(l, link->results + at, lie_byte(l));
}

/* --- The honest one ---------------------------------------------------------------------------- */

static inline void lie_honest(struct lie *l) {
    struct rb_lab_request q;
    while (rb_lab_request(l->honest, 0, &q) == 0) {
        char said[32] = "honest";
        uint32_t n = q.payload_bytes >= 4 && !(q.flags & (RB_FLAG_TERM | RB_FLAG_PARTS))
                         ? rb_be32(q.payload)
                         : 0;
        if (n) snprintf(said, sizeof said, "honest %u.", n);
        if (n > l->calls) abort(); /* nobody can change what it was asked */
        if (q.flags & (RB_FLAG_ZSTD | RB_FLAG_ACCEPTS_ZSTD)) abort(); /* nor ask it for that */
        if (n && l->plain[n] && !q.cancelled) l->by_honest[n] = 1;
        rb_lab_start(l->honest, 1);
        struct rb_lab_answer a = {.job = q.job,
                                  .status = q.cancelled ? RB_STATUS_CANCELLED : RB_STATUS_OK,
                                  .payload = (const uint8_t *)said,
                                  .payload_bytes = (uint32_t)strlen(said)};
        if (rb_lab_complete(l->honest, &a) < 0) abort();
        rb_lab_release(l->honest, 1);
        lie_round(l, 1000);
    }
}
static inline void lie_hire(struct lie *l, struct rb_lab_worker **w) {
    if (rb_lab_hire(l->relay, 0, ++l->ids, LIE_SLOTS, w) < 0) abort();
    if (w == &l->liar) rb_link_take(rb_lab_link(*w), RB_FEATURE_ZSTD);
    rb_lab_greet(*w, "echo");
    lie_round(l, 1000);
}
static inline void lie_die(struct lie *l) {
    uint8_t how = lie_byte(l);
    rb_lab_die(l->liar, how & 1 ? -1 : how, how >> 1, how & 1);
    l->liar = NULL;
    lie_round(l, 1000);
    if (l->ids < 8) lie_hire(l, &l->liar);
}

static inline void lie_step(struct lie *l) {
    enum lie_step step = (enum lie_step)(lie_byte(l) % LIE_STEPS);
    if (step < LIE_COMPLETE && ++l->unread % 8 == 0)
        lie_round(l, 1000); /* a socket holds no more */
    if (!l->liar && step >= LIE_COMPLETE && step <= LIE_RELEASE) return;
    switch (step) {
    case LIE_CALL:
    case LIE_CALL_TERM:
    case LIE_ASYNC: lie_call(l, step); break;
    case LIE_SUBSCRIBE: lie_subscribe(l); break;
    case LIE_TAKE_BACK: lie_take_back(l); break;
    case LIE_COMPLETE: lie_complete(l); break;
    case LIE_ENVELOPE: lie_envelope(l); break;
    case LIE_POSITION: lie_position(l); break;
    case LIE_HEADER: lie_page(l, RB_AT_HEADER); break;
    case LIE_TELEMETRY: lie_page(l, RB_AT_TELEMETRY); break;
    case LIE_RESULT: lie_result(l); break;
    case LIE_START: rb_lab_start(l->liar, lie_byte(l)); break;
    case LIE_RELEASE: rb_lab_release(l->liar, lie_byte(l) % 4); break;
    case LIE_TIME: {
        uint8_t ms = lie_byte(l);
        lie_round(l, (ms & 0x80 ? 500ull : 1ull) * (ms & 0x7f) * 1000000);
        l->expired |= ms & 0x80;
        break;
    }
    case LIE_HONEST: lie_honest(l); break;
    case LIE_DIE:
        if (l->liar) lie_die(l);
        break;
    default: break;
    }
    if (lie_byte(l) & 1) lie_round(l, 1000);
}

static inline void lie_open(struct lie *l) {
    struct rb_relay_config config = lab_config();
    struct rb_role_config role = lab_role_config();
    int pair[2];
    config.seed = 1;
    config.monitors_max = LIE_CALLS_MAX * 2;
    role.admission.depth_max = LIE_CALLS_MAX;
    l->now = UINT64_C(1000000000000);
    l->peer = -1;
    if (rb_lab_open(&l->relay, &config, l->now) < 0) abort();
    if (rb_relay_install_service(l->relay, RB_SERVICE_JOBS, 1, 0, "job_dispatcher\0") < 0 ||
        rb_relay_install_service(l->relay, RB_SERVICE_STREAMS, 2, 0, "streams\0") < 0 ||
        rb_relay_add_role(l->relay, 0, &role) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
        rb_relay_adopt(l->relay, 1, pair[0], "peer@host", LAB_FLAGS, NULL, 0) < 0)
        abort();
    l->peer = pair[1];
    lie_round(l, 1000);
    lie_hire(l, &l->liar);
    lie_hire(l, &l->honest);
}

static inline int fuzz_completion(const uint8_t *data, size_t size) {
    static struct lie all;
    struct lie *l = &all;
    memset(l, 0, offsetof(struct lie, in));
    l->at = data;
    l->end = data + size;
    lie_open(l);
    for (int i = 0; i < LIE_STEPS_MAX && l->at < l->end; i++) lie_step(l);
    if (l->liar) rb_lab_die(l->liar, -1, 9, 0);
    do { /* what the liar has left undone is asked of the other one, which takes its ring by and by */
        lie_round(l, 1000000);
        lie_honest(l);
    } while (rb_lab_requests(l->honest) > 0);
    lie_drain(l);
    lie_round(l, 61000000000); /* past every deadline: streams without demand end by theirs */
    lie_drain(l);
    for (uint32_t i = 1; i <= l->calls; i++)
        if (l->plain[i] && !l->back[i] && l->answers[i] != 1) abort();
    rb_lab_die(l->honest, 0, 0, 0);
    lie_round(l, 1000);
    close(l->peer);
    rb_relay_stop(l->relay);
    rb_relay_close(l->relay);
    return 0;
}

#endif
