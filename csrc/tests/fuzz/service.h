/* fuzz/service.h: whole calls, in all the ways of asking and with any options, into a relay without a thread.
 *
 * The input is a program: which verb, what payloads, which options with what values, and between them rounds, answers of the worker,
 * demonitors, time, and calls made of raw bytes. Held: the books are even after every round (audit.c); who called and did not take it
 * back has one reply in the end, whatever it asked; and no sanitizer finds anything. */
#ifndef RINGBRIDGE_FUZZ_SERVICE_H
#define RINGBRIDGE_FUZZ_SERVICE_H

#include <stddef.h>

#include "../relay_lab.h"
#include "ringbridge/lab.h"

enum { ASK_MAX = 120, ASK_STEPS_MAX = 300, ASK_SLOTS = 8 };

struct ask {
    struct rb_relay *relay;
    int peer;
    uint64_t now;
    struct rb_lab_worker *worker;
    const uint8_t *at, *end;
    uint32_t calls, unread;
    int closed; /* by bytes that are no term, which is its right */
    uint8_t replies[ASK_MAX + 1], back[ASK_MAX + 1], monitored[ASK_MAX + 1];
    size_t in_size;
    uint8_t in[1 << 20];
};

static inline uint8_t ask_byte(struct ask *a) { return a->at < a->end ? *a->at++ : 0; }

static inline void ask_heard(struct ask *a, const uint8_t *frame, size_t size) {
    struct rb_cursor c = {frame, frame + size};
    struct rb_slice control, part;
    uint64_t op = 0;
    if (rb_term_skip(&c, &control) < 0) abort();
    struct rb_cursor in = rb_cursor_of(control);
    if (rb_term_tuple(&in) < 3 || rb_term_unsigned(&in, &op) < 0) abort();
    if (op == RB_OP_MONITOR_P || op == RB_OP_DEMONITOR_P || op == RB_OP_MONITOR_P_EXIT) return;
    if (rb_term_skip(&c, NULL) < 0 || c.at != c.end) abort();
    if (op != RB_OP_ALIAS_SEND) return;
    if (rb_term_skip(&in, &part) < 0 || rb_term_skip(&in, &part) < 0) abort();
    uint32_t n = rb_be32(part.at + part.size - 12);
    if (n == 0 || n > a->calls || a->replies[n]++ || a->back[n] == 2) abort();
}
static inline void ask_round(struct ask *a, uint64_t ns) {
    struct rb_event event;
    char why[256];
    if (!a->closed) lab_write(a->peer, "\0\0\0\0", 4);
    rb_lab_round(a->relay, a->now += ns);
    while (rb_relay_take(a->relay, &event)) a->closed |= event.kind == RB_EVENT_CONNECTION_LOST;
    for (ssize_t n = 1; n > 0;) {
        n = recv(a->peer, a->in + a->in_size, sizeof a->in - a->in_size, MSG_DONTWAIT);
        if (n > 0) a->in_size += (size_t)n;
        size_t at = 0;
        while (a->in_size - at >= 4 && a->in_size - at - 4 >= rb_be32(a->in + at)) {
            uint32_t length = rb_be32(a->in + at);
            if (length > 3) ask_heard(a, a->in + at + 7, length - 3);
            at += 4 + length;
        }
        memmove(a->in, a->in + at, a->in_size -= at);
    }
    for (uint32_t i = 1; i <= a->calls; i++) a->back[i] += a->back[i] == 1;
    if (rb_relay_audit(a->relay, why, sizeof why) < 0) {
        fprintf(stderr, "%s\n", why);
        abort();
    }
}

/* --- What is asked ------------------------------------------------------------------------------ */

static inline void ask_value(struct ask *a, struct lab_bytes *b, int depth) {
    uint8_t kind = ask_byte(a), small[2] = {RB_TAG_SMALL_INTEGER, ask_byte(a)};
    static const char *const words[] = {"infinity", "true", "false", "finish", "cancel",
                                        "nil",      "low",  "high",  "echo",   "critical"};
    switch (kind % 8) {
    case 0: lab_put(b, small, 2); break;
    case 1:
        PUT(b, "\x62");
        lab_put_u32(b, (uint32_t)small[1] * 0x1010101u);
        break;
    case 2: lab_put_atom(b, words[small[1] % 10]); break;
    case 3: lab_put_binary(b, "abcdefghijklmnopqrstuvwxyz", small[1] % 27); break;
    case 4: PUT(b, "\x6e\x08\x00\xff\xff\xff\xff\xff\xff\xff\x7f"); break;
    case 5: lab_put_ref(b, small[1]); break;
    case 6:
        if (depth > 2) {
            PUT(b, "\x6a");
            break;
        }
        PUT(b, "\x74\x00\x00\x00\x01");
        ask_value(a, b, depth + 1);
        ask_value(a, b, depth + 1);
        break;
    default: PUT(b, "\x6a"); break;
    }
}
static inline void ask_list(struct ask *a, struct lab_bytes *b, uint32_t count, int depth);
/* A role or a step of some kind (step.h), mostly such as there are. */
static inline void ask_step(struct ask *a, struct lab_bytes *b, int depth) {
    uint8_t kind = ask_byte(a), opcode[2] = {RB_TAG_SMALL_INTEGER, kind >> 3};
    switch (depth > 2 ? 0 : kind % 8) {
    case 1:
        PUT(b, "\x68\2");
        lab_put_atom(b, "echo");
        lab_put(b, opcode, 2);
        break;
    case 2:
    case 3:
        PUT(b, "\x68\2");
        lab_put_atom(b, "map");
        ask_step(a, b, depth + 2);
        break;
    case 4:
    case 5: ask_list(a, b, kind >> 5, depth + 3); break;
    case 6: ask_value(a, b, 2); break;
    default: lab_put_atom(b, kind < 0xf0 ? "echo" : "other"); break;
    }
}
static inline void ask_list(struct ask *a, struct lab_bytes *b, uint32_t count, int depth) {
    PUT(b, "\x6c");
    lab_put_u32(b, count);
    while (count--) ask_step(a, b, depth);
    PUT(b, "\x6a");
}
static inline void ask_options(struct ask *a, struct lab_bytes *b) {
    static const char *const keys[] = {"timeout", "priority", "opcode",  "key",   "tenant",
                                       "retry",   "dedupe",   "ttl",     "meta",  "orphan",
                                       "detail",  "trace",    "no_such", "stages"};
    uint8_t count = ask_byte(a) % 6, shape = ask_byte(a);
    if (shape & 1) { /* a keyword list, else a map */
        PUT(b, "\x6c");
        lab_put_u32(b, count);
    } else {
        PUT(b, "\x74");
        lab_put_u32(b, count);
    }
    for (uint8_t i = 0; i < count; i++) {
        if (shape & 1) PUT(b, "\x68\x02");
        uint8_t key = ask_byte(a) % 14;
        lab_put_atom(b, keys[key]);
        if (key == 13)
            ask_list(a, b, ask_byte(a) % 5, 0);
        else
            ask_value(a, b, 0);
    }
    if (shape & 1) PUT(b, "\x6a");
}
static inline void ask_call(struct ask *a) {
    static const char *const verbs[] = {"submit", "submit_many", "submit_async", "cancel",
                                        "status", "jobs",        "stats"};
    if (a->calls == ASK_MAX || a->closed) return;
    uint32_t n = ++a->calls;
    struct lab_bytes b = {.size = 0};
    uint8_t how = ask_byte(a), verb = how % 8;
    if (++a->unread % 8 == 0) ask_round(a, 1000);
    a->monitored[n] = !(how & 0x80);
    if (a->monitored[n]) lab_monitor(a->peer, 1, n, n);
    lab_call_head(&b, n, n);
    if (verb < 3) {
        uint8_t arity[2] = {RB_TAG_SMALL_TUPLE, how & 0x40 ? 3 : 4};
        lab_put(&b, arity, 2);
        lab_put_atom(&b, verbs[verb]);
        if (how & 0x20)
            ask_step(a, &b, 0);
        else
            lab_put_atom(&b, "echo");
        uint8_t size = ask_byte(a);
        uint8_t payload[256] = {n & 255};
        if (verb == 1 || size & 1) {
            PUT(&b, "\x6c");
            uint8_t count = verb == 1 ? size % 9 : size % 100;
            lab_put_u32(&b, count);
            for (int i = 0; i < count; i++)
                lab_put_binary(&b, payload, verb == 1 ? size : (size_t)size % 8);
            PUT(&b, "\x6a");
        } else if (how & 0x10) {
            ask_value(a, &b, 0);
        } else {
            lab_put_binary(&b, payload, size);
        }
        if (!(how & 0x40)) ask_options(a, &b);
    } else if (verb < 6) {
        PUT(&b, "\x68\x02");
        lab_put_atom(&b, verbs[verb]);
        ask_value(a, &b, 0);
    } else if (verb == 6) {
        lab_put_atom(&b, verbs[verb]);
    } else { /* raw */
        size_t most = ask_byte(a), left = (size_t)(a->end - a->at);
        if (most > left) most = left;
        lab_put(&b, a->at, most);
        a->at += most;
    }
    lab_frame(a->peer, &b);
}
static inline void ask_work(struct ask *a) {
    struct rb_lab_request q;
    if (rb_lab_request(a->worker, 0, &q) < 0) return;
    uint8_t how = ask_byte(a);
    rb_lab_start(a->worker, 1);
    struct rb_lab_answer answer = {.job = q.job,
                                   .status = q.cancelled ? RB_STATUS_CANCELLED : how & 1,
                                   .code = how,
                                   .payload = q.payload,
                                   .payload_bytes = q.payload_bytes,
                                   .flags = q.flags & RB_FLAG_TERM};
    if (answer.status == RB_STATUS_FAILED) answer.flags = 0;
    if (rb_lab_complete(a->worker, &answer) < 0) abort();
    rb_lab_release(a->worker, 1);
}

static inline void ask_open(struct ask *a, uint32_t on_full) {
    struct rb_relay_config config = lab_config();
    struct rb_role_config role = lab_role_config();
    int pair[2];
    config.seed = 1;
    config.monitors_max = 4 * ASK_MAX;
    role.admission.depth_max = 8;
    role.admission.on_full = on_full;
    role.admission.defer_max = 4;
    role.admission.defer_ms = 5;
    role.idempotent = 1;
    a->now = UINT64_C(1000000000000);
    if (rb_lab_open(&a->relay, &config, a->now) < 0 ||
        rb_relay_install_service(a->relay, RB_SERVICE_JOBS, 1, 0, "job_dispatcher\0") < 0 ||
        rb_relay_add_role(a->relay, 0, &role) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
        rb_relay_adopt(a->relay, 1, pair[0], "peer@host", LAB_FLAGS, NULL, 0) < 0 ||
        rb_lab_hire(a->relay, 0, 1, ASK_SLOTS, &a->worker) < 0)
        abort();
    a->peer = pair[1];
    rb_lab_greet(a->worker, "echo");
    ask_round(a, 1000);
}

static inline int fuzz_service(const uint8_t *data, size_t size) {
    static struct ask all;
    struct ask *a = &all;
    memset(a, 0, offsetof(struct ask, in));
    a->at = data;
    a->end = data + size;
    ask_open(a, size % 3);
    for (int i = 0; i < ASK_STEPS_MAX && a->at < a->end; i++) {
        uint8_t step = ask_byte(a);
        switch (step % 8) {
        case 4: ask_work(a); break;
        case 5: ask_round(a, (uint64_t)ask_byte(a) * 1000000); break;
        case 6: {
            uint32_t n = a->calls ? 1 + ask_byte(a) % a->calls : 0;
            if (!n || a->closed) break;
            if (!a->back[n] && a->monitored[n]) a->back[n] = 1; /* else it says nothing */
            lab_monitor(a->peer, 0, n, n);
            break;
        }
        case 7: ask_round(a, 1000); break;
        default: ask_call(a); break;
        }
    }
    do {
        ask_round(a, 1000000);
        while (rb_lab_requests(a->worker) > 0) {
            ask_work(a);
            ask_round(a, 1000);
        }
    } while (rb_lab_requests(a->worker) > 0);
    ask_round(a, 61000000000);
    ask_round(a, 1000);
    for (uint32_t i = 1; i <= a->calls && !a->closed; i++)
        if (!a->back[i] && a->replies[i] != 1) abort();
    rb_lab_die(a->worker, 0, 0, 0);
    ask_round(a, 1000);
    close(a->peer);
    rb_relay_stop(a->relay);
    rb_relay_close(a->relay);
    return 0;
}

#endif
