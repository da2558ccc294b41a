/* stage_lab.h: consumers and a worker of a stream, played before a relay that stands still. */
#ifndef RINGBRIDGE_TESTS_STAGE_LAB_H
#define RINGBRIDGE_TESTS_STAGE_LAB_H

#include "relay_lab.h"

static const uint64_t MS = 1000000;
enum { SLOTS = 16, HEARD_MAX = 4096 };

struct stage {
    struct lab lab;
    uint64_t now;
    struct rb_lab_worker *worker;
    /* What has come of frames: a relay that stands still may have written half of one. */
    uint8_t in[1 << 20];
    size_t in_size, in_at;
};

static inline void open_stage(struct stage *s) {
    struct rb_relay_config config = lab_config();
    struct rb_role_config role = lab_role_config();
    *s = (struct stage){.now = 1000 * MS};
    lab_open_still(&s->lab, &config, &role, s->now);
    if (rb_relay_install_service(s->lab.relay, RB_SERVICE_STREAMS, 2, 0,
                                 "Elixir.Ringbridge.Streams\0streams\0") < 0)
        abort();
    if (rb_lab_hire(s->lab.relay, 0, 1, SLOTS, &s->worker) < 0) abort();
    rb_lab_greet(s->worker, "echo");
    rb_lab_round(s->lab.relay, s->now);
}
static inline void turn(struct stage *s) { rb_lab_round(s->lab.relay, s->now += MS); }
static inline void close_stage(struct stage *s) {
    if (s->worker) rb_lab_die(s->worker, 0, 0, 0);
    lab_close(&s->lab);
}
static inline struct rb_relay_stats stats_of(struct stage *s) {
    struct rb_relay_stats stats;
    rb_relay_read_stats(s->lab.relay, &stats);
    return stats;
}

/* --- What a consumer says --------------------------------------------------------------------------------------------- */

static inline void say_head(struct lab_bytes *b, uint32_t consumer, uint32_t tag, const char *verb,
                            uint8_t arity) {
    PUT(b, "\x68\x04\x61\x06");
    lab_put_pid(b, "peer@host", consumer);
    lab_put_atom(b, "");
    lab_put_atom(b, "streams");
    PUT(b, "\x68\x03");
    lab_put_atom(b, "$gen_producer");
    PUT(b, "\x68\x02");
    lab_put_pid(b, "peer@host", consumer);
    lab_put_ref(b, tag);
    uint8_t tuple[2] = {RB_TAG_SMALL_TUPLE, arity};
    lab_put(b, tuple, 2);
    lab_put_atom(b, verb);
}
static inline void put_small(struct lab_bytes *b, uint32_t n) {
    PUT(b, "\x62");
    lab_put_u32(b, n);
}
/* [{max_demand, 1000}, {job, {Role, <<"go">>}}]; `key`: of the last. */
static inline void put_options(struct lab_bytes *b, const char *key, const char *role) {
    PUT(b, "\x6c\x00\x00\x00\x02\x68\x02");
    lab_put_atom(b, "max_demand");
    put_small(b, 1000);
    PUT(b, "\x68\x02");
    lab_put_atom(b, key);
    PUT(b, "\x68\x02");
    lab_put_atom(b, role);
    lab_put_binary(b, "go", 2);
    PUT(b, "\x6a");
}
static inline void say_subscribe_as(struct stage *s, uint32_t consumer, uint32_t tag,
                                    const char *key, const char *role) {
    struct lab_bytes b = {.size = 0};
    say_head(&b, consumer, tag, "subscribe", 3);
    lab_put_atom(&b, "nil");
    put_options(&b, key, role);
    lab_frame(s->lab.peer, &b);
}
static inline void say_subscribe(struct stage *s, uint32_t consumer) {
    say_subscribe_as(s, consumer, consumer, "job", "echo");
}
static inline void say_ask(struct stage *s, uint32_t consumer, uint32_t parts) {
    struct lab_bytes b = {.size = 0};
    say_head(&b, consumer, consumer, "ask", 2);
    put_small(&b, parts);
    lab_frame(s->lab.peer, &b);
}
static inline void say_cancel(struct stage *s, uint32_t consumer, const char *reason) {
    struct lab_bytes b = {.size = 0};
    say_head(&b, consumer, consumer, "cancel", 2);
    lab_put_atom(&b, reason);
    lab_frame(s->lab.peer, &b);
}

/* --- What it hears ----------------------------------------------------------------------------------------------------- */

struct heard {
    enum { NOTHING, EVENTS, CANCEL, WATCH, UNWATCH, OTHER } kind;
    uint32_t consumer, tag, producer; /* ids of pids and references */
    uint64_t watch[2];                /* bytes of our reference, to answer with DOWN */
    int64_t count;                    /* of events */
    struct rb_slice term;             /* the events, after the list's head; the reason */
};

static inline uint32_t id_of(struct rb_slice pid_or_ref, size_t from_end) {
    return pid_or_ref.size < from_end ? 0 : rb_be32(pid_or_ref.at + pid_or_ref.size - from_end);
}
/* The next frame, without its header; empty: none has come whole. */
static inline struct rb_slice next_frame(struct stage *s) {
    memmove(s->in, s->in + s->in_at, s->in_size -= s->in_at);
    s->in_at = 0;
    ssize_t n = recv(s->lab.peer, s->in + s->in_size, sizeof s->in - s->in_size, MSG_DONTWAIT);
    if (n > 0) s->in_size += (size_t)n;
    if (s->in_size < 4 || s->in_size - 4 < rb_be32(s->in)) return (struct rb_slice){s->in, 0};
    uint32_t length = rb_be32(s->in);
    s->in_at = 4 + length;
    CHECK(length > 3 && memcmp(s->in + 4, "\x83\x44\x00", 3) == 0);
    return (struct rb_slice){s->in + 7, length - 3};
}
static inline int frame_has(struct stage *s, const void *wanted, size_t size) {
    struct rb_slice frame = next_frame(s);
    return memmem(frame.at, frame.size, wanted, size) != NULL;
}
#define FRAME_HAS(s, literal) frame_has((s), (literal), sizeof(literal) - 1)
static inline struct heard listen_to(struct stage *s) {
    struct heard h = {.kind = NOTHING};
    struct rb_slice frame = next_frame(s);
    if (frame.size == 0) return h;
    h.kind = OTHER;
    struct rb_cursor c = rb_cursor_of(frame), at;
    struct rb_slice control, own, to, tag, name;
    struct rb_signal signal;
    at = c;
    if (rb_term_skip(&c, &control) < 0 || rb_signal_parse(&at, &signal) < 0) return h;
    if (signal.op == RB_OP_MONITOR_P || signal.op == RB_OP_DEMONITOR_P) {
        h.kind = signal.op == RB_OP_MONITOR_P ? WATCH : UNWATCH;
        h.consumer = id_of(signal.to, 12);
        h.producer = id_of(signal.from, 12);
        return h;
    }
    if (signal.op != RB_OP_SEND_SENDER) return h;
    h.consumer = id_of(signal.to, 12);
    if (rb_term_tuple(&c) != 3 || rb_term_atom(&c, &name) < 0 ||
        !rb_slice_is(name, "$gen_consumer") || rb_term_tuple(&c) != 2 ||
        rb_term_skip(&c, &own) < 0 || rb_term_skip(&c, &tag) < 0)
        return h;
    h.producer = id_of(own, 12);
    h.tag = id_of(tag, 12);
    int tail;
    if ((h.count = rb_term_list(&c, &tail)) > 0) {
        h.kind = EVENTS;
        h.term = (struct rb_slice){c.at, (size_t)(c.end - c.at)};
        for (int64_t i = 0; i < h.count; i++)
            if (rb_term_skip(&c, NULL) < 0) h.kind = OTHER;
        if (rb_cursor_left(&c) != 1 || *c.at != RB_TAG_NIL) h.kind = OTHER;
        return h;
    }
    if (rb_term_tuple(&c) != 2 || rb_term_atom(&c, &name) < 0 || !rb_slice_is(name, "cancel"))
        return h;
    h.kind = CANCEL;
    rb_term_skip(&c, &to);
    h.term = to;
    return h;
}
/* Events only: how many of them until there is nothing more to hear, made of what `worker` sent ("0001", ...) in order. */
static inline int64_t hear_numbered(struct stage *s, int64_t from) {
    int64_t count = 0;
    for (;;) {
        struct heard h = listen_to(s);
        if (h.kind == NOTHING) return count;
        CHECK_EQUAL(h.kind, EVENTS);
        if (h.kind != EVENTS) return count;
        struct rb_cursor c = rb_cursor_of(h.term);
        for (int64_t i = 0; i < h.count; i++, count++) {
            char wanted[24];
            struct rb_slice text;
            snprintf(wanted, sizeof wanted, "%06lld", (long long)(from + count));
            CHECK(rb_term_text(&c, &text) == 0 && text.size >= 6 &&
                  memcmp(text.at, wanted, 6) == 0);
        }
    }
}
static inline void expect_cancel(struct stage *s, uint32_t consumer, const void *reason,
                                 size_t size) {
    struct heard h = listen_to(s);
    CHECK_EQUAL(h.kind, CANCEL);
    CHECK_EQUAL(h.consumer, consumer);
    CHECK_EQUAL(h.producer, 2);
    CHECK(h.kind == CANCEL && memmem(h.term.at, h.term.size, reason, size) != NULL);
}
#define EXPECT_CANCEL(s, consumer, literal) \
    expect_cancel((s), (consumer), (literal), sizeof(literal) - 1)
static inline void expect_kind(struct stage *s, int kind, uint32_t consumer) {
    struct heard h = listen_to(s);
    CHECK_EQUAL(h.kind, kind);
    CHECK_EQUAL(h.consumer, consumer);
    CHECK_EQUAL(h.producer, 2);
}
static inline void expect_silence(struct stage *s) { CHECK_EQUAL(listen_to(s).kind, NOTHING); }

/* --- What the worker does ---------------------------------------------------------------------------------------------- */

static inline uint32_t demand(struct stage *s, uint64_t i) {
    struct rb_lab_request r = {.demand = 9999};
    CHECK_EQUAL(rb_lab_request(s->worker, i, &r), 0);
    return r.demand;
}
static inline int send_as(struct stage *s, uint64_t i, uint32_t status, uint32_t flags,
                          const void *bytes, uint32_t size) {
    struct rb_lab_request r;
    if (rb_lab_request(s->worker, i, &r) < 0) return -ENOENT;
    rb_lab_start(s->worker, i + 1);
    struct rb_lab_answer a = {
        .job = r.job, .status = status, .flags = flags, .payload = bytes, .payload_bytes = size};
    return rb_lab_complete(s->worker, &a);
}
/* `count` parts of `size` bytes, at least 6, numbered from `from` on. How many found room in the worker's own ring and region. */
static inline int64_t send_parts(struct stage *s, int64_t from, int64_t count, uint32_t size) {
    static uint8_t part[RB_PART_BYTES_MAX + 1];
    char number[24];
    for (int64_t i = 0; i < count; i++) {
        snprintf(number, sizeof number, "%06lld", (long long)(from + i));
        memcpy(part, number, 6);
        if (send_as(s, 0, RB_STATUS_PART, 0, part, size) < 0) return i;
    }
    return count;
}
static inline void send_end(struct stage *s) {
    CHECK_EQUAL(send_as(s, 0, RB_STATUS_OK, 0, "", 0), 0);
    rb_lab_release(s->worker, 1);
}
/* Subscribed, and its job with the worker. */
static inline void begin(struct stage *s, uint32_t consumer) {
    say_subscribe(s, consumer);
    turn(s);
    expect_kind(s, WATCH, consumer);
    CHECK_EQUAL(rb_lab_requests(s->worker), 1);
}

#endif
