/* intake_owner.h: an owner for an intake under test, who writes down what it is given.
 *
 * The name that a message is sent to says what is to become of it when it is large: `job` and
 * `slow` are diverted (slow only once more than 600 bytes of it are there), `gone` is dropped,
 * all else is kept. However the bytes were split, the same signals leave the same log: a job
 * that came whole and one that was diverted are written down alike. */
#ifndef RINGBRIDGE_TESTS_INTAKE_OWNER_H
#define RINGBRIDGE_TESTS_INTAKE_OWNER_H

#include "relay/net/intake.h"
#include "terms.h"

/* Under ASan the part of the buffer that no bytes have come to yet is not to be looked at. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(WITH_ASAN)
#include <sanitizer/asan_interface.h>
#define FORBID(at, n) ASAN_POISON_MEMORY_REGION(at, n)
#define ALLOW(at, n) ASAN_UNPOISON_MEMORY_REGION(at, n)
#else
#define FORBID(at, n) ((void)(at), (void)(n))
#define ALLOW(at, n) ((void)(at), (void)(n))
#endif

enum { SLOW_BYTES = 600, DEST_BYTES_MAX = 1 << 20 };

struct diverted {
    uint8_t *dest; /* of its size exactly: ASan sees what is written past it */
    uint32_t size;
    char to[8];
};

struct owner {
    struct rb_intake_owner face;
    struct rb_intake *in;
    struct bytes log;
    unsigned signals, diverted, dropped, kept, ended, aborted, more;
    size_t given; /* bytes in all; a signal is no longer */
    int refuse;   /* signal() and end_large() close the connection */
};

static inline uint32_t hash_of(const uint8_t *p, size_t n) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 16777619u;
    return h;
}

/* op and addressee; size and hash of the payload; size and hash of what follows it. */
static inline void write_down(struct owner *o, unsigned op, const char *to, struct rb_slice payload,
                              struct rb_slice tail, int tail_cut) {
    char line[160];
    int n = snprintf(line, sizeof line, "%u to %s: %zu %08x", op, to, payload.size,
                     hash_of(payload.at, payload.size));
    if (tail_cut)
        n += snprintf(line + n, sizeof line - (size_t)n, ", more\n");
    else
        n += snprintf(line + n, sizeof line - (size_t)n, ", %zu %08x\n", tail.size,
                      hash_of(tail.at, tail.size));
    put(&o->log, line, (size_t)n);
}

static inline void name_of(struct rb_slice to, char name[8]) {
    struct rb_cursor c = rb_cursor_of(to);
    struct rb_slice text;
    memset(name, 0, 8);
    if (to.size && rb_term_atom(&c, &text) == 0)
        memcpy(name, text.at, text.size < 7 ? text.size : 7);
}

static inline int is_job(const char *name) { return !strcmp(name, "job") || !strcmp(name, "slow"); }

/* {X, Payload, ...}: moves to the payload's first byte. */
static inline int to_payload(struct rb_cursor *c, uint32_t *size) {
    int64_t arity = rb_term_tuple(c);
    if (arity < 2) return arity < 0 ? (int)arity : -EPROTO;
    int rc = rb_term_skip(c, NULL);
    return rc < 0 ? rc : rb_term_binary_head(c, size);
}

static inline int owner_signal(void *user, const struct rb_signal *s, struct rb_slice message) {
    struct owner *o = user;
    struct rb_cursor c = rb_cursor_of(message);
    char to[8];
    uint32_t size;
    name_of(s->to, to);
    o->signals++;
    if (s->control.size + message.size > o->given) abort(); /* more than was ever sent */
    if (o->refuse) {
        o->in->why = "refused";
        return -EPROTO;
    }
    if (!strcmp(to, "gone")) return 0;
    if (is_job(to) && to_payload(&c, &size) == 0 && size <= DEST_BYTES_MAX &&
        rb_cursor_left(&c) >= size) {
        struct rb_slice tail = {c.at + size, rb_cursor_left(&c) - size};
        write_down(o, 0, to, (struct rb_slice){c.at, size}, tail, tail.size > RB_TAIL_MAX);
    } else {
        write_down(o, s->op, to, message, s->control, 0);
    }
    return 0;
}

static inline enum rb_large owner_begin_large(void *user, struct rb_slice head,
                                              struct rb_diversion *d) {
    struct owner *o = user;
    struct rb_cursor c = rb_cursor_of(head);
    struct rb_signal s;
    uint32_t size;
    char to[8];
    int rc = rb_signal_parse(&c, &s);
    if (rc == 0) rc = rb_intake_message(o->in, &c, &s);
    if (rc == -EAGAIN) return o->more++, RB_LARGE_MORE;
    if (rc < 0) return o->kept++, RB_LARGE_KEEP;
    name_of(s.to, to);
    if (!strcmp(to, "gone")) return o->dropped++, RB_LARGE_DROP;
    if (!is_job(to)) return o->kept++, RB_LARGE_KEEP;
    rc = to_payload(&c, &size);
    if (rc == -EAGAIN || (!strcmp(to, "slow") && head.size < SLOW_BYTES))
        return o->more++, RB_LARGE_MORE;
    if (rc < 0 || size > DEST_BYTES_MAX) return o->kept++, RB_LARGE_KEEP;
    struct diverted *token = calloc(1, sizeof *token);
    token->dest = malloc(size ? size : 1);
    token->size = size;
    memcpy(token->to, to, sizeof token->to);
    *d = (struct rb_diversion){.head_bytes = (size_t)(c.at - head.at),
                               .dest = token->dest,
                               .dest_bytes = size,
                               .token = token};
    return o->diverted++, RB_LARGE_DIVERT;
}

static inline int owner_end_large(void *user, void *p, struct rb_slice tail, int tail_cut) {
    struct owner *o = user;
    struct diverted *token = p;
    write_down(o, 0, token->to, (struct rb_slice){token->dest, token->size}, tail, tail_cut);
    free(token->dest);
    free(token);
    o->ended++;
    if (!o->refuse) return 0;
    o->in->why = "refused";
    return -EPROTO;
}

static inline void owner_abort_large(void *user, void *p) {
    struct owner *o = user;
    struct diverted *token = p;
    free(token->dest);
    free(token);
    o->aborted++;
}

static inline void owner_open(struct owner *o, struct rb_intake *in, uint64_t flags,
                              uint64_t frame_bytes_max, uint64_t heap_bytes_max) {
    *o = (struct owner){.in = in, .given = SIZE_MAX};
    o->face = (struct rb_intake_owner){.signal = owner_signal,
                                       .begin_large = owner_begin_large,
                                       .end_large = owner_end_large,
                                       .abort_large = owner_abort_large,
                                       .user = o};
    if (rb_intake_open(in, &o->face, flags, frame_bytes_max, heap_bytes_max) < 0) abort();
}

/* Every diversion has ended exactly once. */
static inline int owner_close(struct owner *o) {
    rb_intake_close(o->in);
    bytes_free(&o->log);
    return o->diverted == o->ended + o->aborted;
}

/* Gives `n` bytes to the intake as recvmsg would: at most `chunk` at a time, into all of its
 * pieces or only the first. */
static inline int give(struct rb_intake *in, const uint8_t *p, size_t n, size_t chunk,
                       int first_only) {
    while (n > 0) {
        struct rb_room room[2];
        int pieces = rb_intake_room(in, room);
        size_t took = 0, want = n < chunk ? n : chunk;
        if (pieces < 1 || pieces > 2) abort();
        for (int i = 0; i < (first_only ? 1 : pieces); i++) {
            size_t part = want - took < room[i].size ? want - took : room[i].size;
            if (room[i].size == 0) abort(); /* nothing could ever be read again */
            if (part) memcpy(room[i].at, p + took, part);
            took += part;
        }
        p += took;
        n -= took;
        /* What went to a payload's own place did not come to the buffer. */
        size_t direct = pieces == 1 ? 0 : took < room[0].size ? took : room[0].size;
        size_t end = in->end + took - direct;
        FORBID(in->buffer + end, in->capacity - end);
        int rc = rb_intake_took(in, took);
        ALLOW(in->buffer, in->capacity);
        if (rc < 0) return rc;
    }
    return 0;
}

/* --- Frames ----------------------------------------------------------------------------------- */

static inline void put_frame(struct bytes *b, const struct bytes *body) {
    put_u32(b, (uint32_t)body->size);
    put(b, body->at, body->size);
}

/* {6, From, '', To}, and {[alias], Payload, rest of `options`}. */
static inline void put_signal(struct bytes *b, const char *to, uint32_t payload_bytes,
                              uint32_t options_bytes, int pass_through) {
    put_tuple(b, 4);
    put_integer(b, RB_OP_REG_SEND);
    put_pid(b, "a@b", 3);
    put_atom(b, "");
    put_atom(b, to);
    if (pass_through) put_u8(b, RB_TAG_VERSION);
    put_tuple(b, 3);
    put_reference(b, "a@b", 3);
    put_u8(b, RB_TAG_BINARY);
    put_u32(b, payload_bytes);
    for (uint32_t i = 0; i < payload_bytes; i++) put_u8(b, i * 7 + payload_bytes);
    put_u8(b, RB_TAG_BINARY);
    put_u32(b, options_bytes);
    put_fill(b, 'o', options_bytes);
}

static inline void put_whole(struct bytes *b, const struct bytes *signal, int pass_through) {
    struct bytes body = {0};
    if (pass_through)
        PUT(&body, "\x70\x83");
    else
        PUT(&body, "\x83\x44\0");
    put(&body, signal->at, signal->size);
    put_frame(b, &body);
    bytes_free(&body);
}

/* Fragment `count` of `sequence`; `first`: its kind is 69. */
static inline void put_fragment(struct bytes *b, int first, uint64_t sequence, uint64_t count,
                                const uint8_t *p, size_t n) {
    struct bytes body = {0};
    put_u8(&body, RB_TAG_VERSION);
    put_u8(&body, first ? 69 : 70);
    put_u64(&body, sequence);
    put_u64(&body, count);
    if (first) put_u8(&body, 0);
    put(&body, p, n);
    put_frame(b, &body);
    bytes_free(&body);
}

#endif
