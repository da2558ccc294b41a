/* Streams: every order of ask, part, cancel and death, with a relay that stands still between two rounds. */
#define _GNU_SOURCE
#include "ringbridge/lab.h"

#include "relay_lab.h"

static const uint64_t MS = 1000000;
enum { SLOTS = 16, HEARD_MAX = 4096 };

struct stage {
    struct lab lab;
    uint64_t now;
    struct rb_lab_worker *worker;
    uint8_t in
        [1
         << 20]; /* what has come of frames: a relay that stands still may have written half of one */
    size_t in_size, in_at;
};

static void open_stage(struct stage *s) {
    struct rb_relay_config config = lab_config();
    struct rb_role_config role = lab_role_config();
    *s = (struct stage){.lab = {.peer = -1}, .now = 1000 * MS};
    if (rb_lab_open(&s->lab.relay, &config, s->now) < 0) abort();
    if (rb_relay_install_service(s->lab.relay, RB_SERVICE_JOBS, 1, 0, "job_dispatcher\0") < 0 ||
        rb_relay_install_service(s->lab.relay, RB_SERVICE_STREAMS, 2, 0,
                                 "Elixir.Ringbridge.Streams\0streams\0") < 0)
        abort();
    if (rb_relay_add_role(s->lab.relay, 0, &role) < 0) abort();
    s->lab.peer = lab_connect(&s->lab);
    if (rb_lab_hire(s->lab.relay, 0, 1, SLOTS, &s->worker) < 0) abort();
    rb_lab_greet(s->worker, "echo");
    rb_lab_round(s->lab.relay, s->now);
}
static void turn(struct stage *s) { rb_lab_round(s->lab.relay, s->now += MS); }
static void close_stage(struct stage *s) {
    if (s->worker) rb_lab_die(s->worker, 0, 0, 0);
    lab_close(&s->lab);
}
static struct rb_relay_stats stats_of(struct stage *s) {
    struct rb_relay_stats stats;
    rb_relay_read_stats(s->lab.relay, &stats);
    return stats;
}

/* --- What a consumer says --------------------------------------------------------------------------------------------- */

static void say_head(struct lab_bytes *b, uint32_t consumer, uint32_t tag, const char *verb,
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
static void put_small(struct lab_bytes *b, uint32_t n) {
    PUT(b, "\x62");
    lab_put_u32(b, n);
}
/* [{max_demand, 1000}, {job, {Role, <<"go">>}}]; `key`: of the last. */
static void put_options(struct lab_bytes *b, const char *key, const char *role) {
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
static void say_subscribe_as(struct stage *s, uint32_t consumer, uint32_t tag, const char *key,
                             const char *role) {
    struct lab_bytes b = {.size = 0};
    say_head(&b, consumer, tag, "subscribe", 3);
    lab_put_atom(&b, "nil");
    put_options(&b, key, role);
    lab_frame(s->lab.peer, &b);
}
static void say_subscribe(struct stage *s, uint32_t consumer) {
    say_subscribe_as(s, consumer, consumer, "job", "echo");
}
static void say_ask(struct stage *s, uint32_t consumer, uint32_t parts) {
    struct lab_bytes b = {.size = 0};
    say_head(&b, consumer, consumer, "ask", 2);
    put_small(&b, parts);
    lab_frame(s->lab.peer, &b);
}
static void say_cancel(struct stage *s, uint32_t consumer, const char *reason) {
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

static uint32_t id_of(struct rb_slice pid_or_ref, size_t from_end) {
    return pid_or_ref.size < from_end ? 0 : rb_be32(pid_or_ref.at + pid_or_ref.size - from_end);
}
/* The next frame, without its header; empty: none has come whole. */
static struct rb_slice next_frame(struct stage *s) {
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
static int frame_has(struct stage *s, const void *wanted, size_t size) {
    struct rb_slice frame = next_frame(s);
    return memmem(frame.at, frame.size, wanted, size) != NULL;
}
#define FRAME_HAS(s, literal) frame_has((s), (literal), sizeof(literal) - 1)
static struct heard listen_to(struct stage *s) {
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
static int64_t hear_numbered(struct stage *s, int64_t from) {
    int64_t count = 0;
    for (;;) {
        struct heard h = listen_to(s);
        if (h.kind == NOTHING) return count;
        CHECK_EQUAL(h.kind, EVENTS);
        if (h.kind != EVENTS) return count;
        struct rb_cursor c = rb_cursor_of(h.term);
        for (int64_t i = 0; i < h.count; i++, count++) {
            char wanted[16];
            struct rb_slice text;
            snprintf(wanted, sizeof wanted, "%06lld", (long long)(from + count));
            CHECK(rb_term_text(&c, &text) == 0 && text.size >= 6 &&
                  memcmp(text.at, wanted, 6) == 0);
        }
    }
}
static void expect_cancel(struct stage *s, uint32_t consumer, const void *reason, size_t size) {
    struct heard h = listen_to(s);
    CHECK_EQUAL(h.kind, CANCEL);
    CHECK_EQUAL(h.consumer, consumer);
    CHECK_EQUAL(h.producer, 2);
    CHECK(h.kind == CANCEL && memmem(h.term.at, h.term.size, reason, size) != NULL);
}
#define EXPECT_CANCEL(s, consumer, literal) \
    expect_cancel((s), (consumer), (literal), sizeof(literal) - 1)
static void expect_kind(struct stage *s, int kind, uint32_t consumer) {
    struct heard h = listen_to(s);
    CHECK_EQUAL(h.kind, kind);
    CHECK_EQUAL(h.consumer, consumer);
    CHECK_EQUAL(h.producer, 2);
}
static void expect_silence(struct stage *s) { CHECK_EQUAL(listen_to(s).kind, NOTHING); }

/* --- What the worker does ---------------------------------------------------------------------------------------------- */

static uint32_t demand(struct stage *s, uint64_t i) {
    struct rb_lab_request r = {.demand = 9999};
    CHECK_EQUAL(rb_lab_request(s->worker, i, &r), 0);
    return r.demand;
}
static int send_as(struct stage *s, uint64_t i, uint32_t status, uint32_t flags, const void *bytes,
                   uint32_t size) {
    struct rb_lab_request r;
    if (rb_lab_request(s->worker, i, &r) < 0) return -ENOENT;
    rb_lab_start(s->worker, i + 1);
    struct rb_lab_answer a = {
        .job = r.job, .status = status, .flags = flags, .payload = bytes, .payload_bytes = size};
    return rb_lab_complete(s->worker, &a);
}
/* `count` parts of `size` bytes, at least 6, numbered from `from` on. How many found room in the worker's own ring and region. */
static int64_t send_parts(struct stage *s, int64_t from, int64_t count, uint32_t size) {
    static uint8_t part[RB_PART_BYTES_MAX + 1];
    char number[16];
    for (int64_t i = 0; i < count; i++) {
        snprintf(number, sizeof number, "%06lld", (long long)(from + i));
        memcpy(part, number, 6);
        if (send_as(s, 0, RB_STATUS_PART, 0, part, size) < 0) return i;
    }
    return count;
}
static void send_end(struct stage *s) {
    CHECK_EQUAL(send_as(s, 0, RB_STATUS_OK, 0, "", 0), 0);
    rb_lab_release(s->worker, 1);
}
/* Subscribed, and its job with the worker. */
static void begin(struct stage *s, uint32_t consumer) {
    say_subscribe(s, consumer);
    turn(s);
    expect_kind(s, WATCH, consumer);
    CHECK_EQUAL(rb_lab_requests(s->worker), 1);
}

/* --- Demand ------------------------------------------------------------------------------------------------------------ */

static void a_stream_goes_from_the_first_ask_to_its_end(void) {
    static struct stage s;
    struct rb_lab_request r;
    open_stage(&s);
    begin(&s, 1);
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    CHECK_EQUAL(r.flags, RB_FLAG_INLINE | RB_FLAG_PARTS);
    CHECK(r.payload_bytes == 2 && memcmp(r.payload, "go", 2) == 0);
    CHECK_EQUAL(r.demand, 0);
    CHECK_EQUAL(stats_of(&s).streams, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 5);
    CHECK_EQUAL(send_parts(&s, 0, 5, 20), 5);
    turn(&s);
    CHECK_EQUAL(hear_numbered(&s, 0), 5);
    send_end(&s);
    turn(&s);
    EXPECT_CANCEL(&s, 1, "\x77\x06normal");
    expect_kind(&s, UNWATCH, 1);
    expect_silence(&s);
    CHECK_EQUAL(stats_of(&s).streams, 0);
    CHECK_EQUAL(stats_of(&s).events, 5);
    CHECK_EQUAL(stats_of(&s).answered[RB_REASON_OK], 1);
    close_stage(&s);
}

static void parts_that_come_together_leave_as_one_list(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 10);
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 3, 6), 3);
    CHECK_EQUAL(send_as(&s, 0, RB_STATUS_PART, RB_FLAG_TERM, "\x61\x07", 2), 0);
    CHECK_EQUAL(send_as(&s, 0, RB_STATUS_PART, 0, "", 0), 0);
    turn(&s);
    struct heard h = listen_to(&s);
    CHECK_EQUAL(h.kind, EVENTS);
    CHECK_EQUAL(h.count, 5);
    CHECK_EQUAL(h.tag, 1);
    static const char wanted[] = "m\0\0\0\6"
                                 "000000m\0\0\0\6"
                                 "000001m\0\0\0\6"
                                 "000002\x61\x07m\0\0\0\0j";
    CHECK(h.term.size == sizeof wanted - 1 && memcmp(h.term.at, wanted, sizeof wanted - 1) == 0);
    expect_silence(&s);
    close_stage(&s);
}

static void demand_before_the_worker_is_there_is_kept(void) {
    static struct stage s;
    open_stage(&s);
    rb_relay_hold(s.lab.relay, RB_SERVICE_JOBS, 1);
    say_subscribe(&s, 1);
    say_ask(&s, 1, 3);
    say_ask(&s, 1, 4);
    turn(&s);
    CHECK_EQUAL(rb_lab_requests(s.worker), 0);
    rb_relay_hold(s.lab.relay, RB_SERVICE_JOBS, 0);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 7);
    close_stage(&s);
}

static void a_worker_is_never_further_ahead_than_the_window(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 100000);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 16); /* nobody knows how large they are */
    CHECK_EQUAL(send_parts(&s, 0, 1, 6), 1);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 1 + 1024); /* tiny */
    CHECK_EQUAL(send_parts(&s, 1, 1, 40000), 1);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 1 + 1024); /* what was allowed stays so */
    CHECK_EQUAL(hear_numbered(&s, 0), 2);
    /* 6 of 40 KB are what streams keep to here (256 KiB) */
    int64_t sent = 2;
    while (demand(&s, 0) == 1025) {
        sent += send_parts(&s, sent, 1, 40000);
        turn(&s);
        CHECK_EQUAL(hear_numbered(&s, sent - 1), 1);
        if (sent > 1100) break;
    }
    CHECK_EQUAL(demand(&s, 0), sent + 6);
    close_stage(&s);
}

static void no_demand_is_no_word_and_none_is_made_of_nonsense(void) {
    static struct stage s;
    static const char *const asks[] = {
        "\x61\x00",                     /* 0 */
        "\x62\xff\xff\xff\xff",         /* -1 */
        "\x6e\x08\x01\1\1\1\1\1\1\1\1", /* a large negative one */
        "\x77\x03"
        "all",
        "\x6a",
    };
    static const size_t sizes[] = {2, 5, 11, 5, 1};
    open_stage(&s);
    begin(&s, 1);
    for (unsigned i = 0; i < sizeof asks / sizeof *asks; i++) {
        struct lab_bytes b = {.size = 0};
        say_head(&b, 1, 1, "ask", 2);
        lab_put(&b, asks[i], sizes[i]);
        lab_frame(s.lab.peer, &b);
        turn(&s);
        CHECK_EQUAL(demand(&s, 0), 0);
    }
    struct lab_bytes b = {.size = 0};
    say_head(&b, 1, 1, "ask", 2);
    PUT(&b, "\x6e\x09\x00\1\1\1\1\1\1\1\1\1"); /* more than 2^64: all there will ever be */
    lab_frame(s.lab.peer, &b);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 16);
    expect_silence(&s);
    close_stage(&s);
}

static void a_slow_socket_holds_demand_and_parts_back(void) {
    enum { PART = 40000 };
    static struct stage s;
    int64_t sent = 0, heard = 0;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 1000);
    turn(&s);
    /* The consumer's node reads nothing: the worker sends all it may, whatever it finds room for. */
    for (int i = 0; i < 200; i++) {
        uint32_t allowed = demand(&s, 0);
        sent += send_parts(&s, sent, (int64_t)allowed - sent, PART);
        turn(&s);
    }
    CHECK(sent < 100); /* of 1000: 6 MB where 60 were asked for */
    CHECK(rb_relay_backlog(s.lab.relay, 1) <= (256 << 10) + 2 * PART);
    uint64_t due = s.now;
    for (int i = 0; i < 3000 && heard < 1000; i++) {
        heard += hear_numbered(&s, heard);
        turn(&s);
        uint32_t allowed = demand(&s, 0);
        sent += send_parts(&s, sent, (int64_t)allowed - sent, PART);
    }
    CHECK_EQUAL(heard, 1000);
    CHECK(s.now > due);
    close_stage(&s);
}

static void a_stream_has_its_worker_to_itself(void) {
    static struct stage s;
    open_stage(&s);
    for (int i = 0; i < 30; i++) { /* quick jobs: it has credit for many */
        lab_submit(s.lab.peer, 9, "x", 1);
        turn(&s);
        CHECK_EQUAL(send_as(&s, 0, RB_STATUS_OK, 0, "", 0), 0);
        rb_lab_release(s.worker, 1);
        turn(&s);
        while (listen_to(&s).kind != NOTHING) {
        }
        lab_monitor(s.lab.peer, 0, 9, 9);
    }
    for (uint32_t i = 20; i < 22; i++) lab_submit(s.lab.peer, i, "x", 1);
    turn(&s);
    CHECK_EQUAL(rb_lab_requests(s.worker), 2);
    say_subscribe(&s, 1);
    turn(&s);
    CHECK_EQUAL(rb_lab_requests(s.worker), 3); /* behind those that will end by themselves */
    for (uint32_t i = 30; i < 32; i++) lab_submit(s.lab.peer, i, "x", 1);
    turn(&s);
    CHECK_EQUAL(rb_lab_requests(s.worker), 3); /* and nothing behind it */
    for (int i = 0; i < 3; i++) {
        CHECK_EQUAL(send_as(&s, 0, RB_STATUS_OK, 0, "", 0), 0);
        rb_lab_release(s.worker, 1);
    }
    turn(&s);
    CHECK_EQUAL(rb_lab_requests(s.worker), 2);
    close_stage(&s);
}

/* With the relay's thread: held parts must not keep it awake. */
static void parts_that_wait_for_the_socket_let_the_relay_sleep(void) {
    enum { PART = 40000, PARTS = 16 };
    static struct stage s;
    struct rb_relay_stats before, after;
    struct timespec pause = {.tv_nsec = 100000000};
    s = (struct stage){.now = 0};
    lab_open(&s.lab);
    if (rb_relay_install_service(s.lab.relay, RB_SERVICE_STREAMS, 2, 0, "streams\0") < 0) abort();
    struct lab_worker *w = lab_worker(&s.lab);
    say_subscribe(&s, 1);
    say_ask(&s, 1, PARTS);
    const struct rb_request *r = lab_request(w, 0);
    if (!r) abort();
    lab_start(w, 1);
    for (int ms = 0; ms < LAB_WAIT_MS && /* D0, stream.c */
                     rb_demand_left(rb_load_seq_cst(&w->link.demands[0]), 0, 0) < PARTS;
         ms++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    for (int i = 0; i < PARTS; i++) {
        int64_t first = rb_region_take(&w->link.result_region, PART);
        if (first < 0) abort();
        struct rb_completion e = {.job = r->job,
                                  .status = RB_STATUS_PART,
                                  .payload_at = (uint64_t)first * 4096,
                                  .payload_bytes = PART};
        e.crc = rb_completion_crc(&e, w->link.results + e.payload_at, w->link.header.features);
        lab_publish(w, &e);
    }
    nanosleep(&pause, NULL);
    CHECK(rb_ring_free(&w->link.completion_ring) < 16); /* some are in the ring still */
    rb_relay_read_stats(s.lab.relay, &before);
    nanosleep(&pause, NULL);
    rb_relay_read_stats(s.lab.relay, &after);
    CHECK(after.rounds - before.rounds < 100); /* awake it makes tens of thousands */
    CHECK(after.events < PARTS);
    int64_t heard = 0;
    for (int ms = 0; ms < LAB_WAIT_MS && heard < PARTS; ms++) {
        struct heard h = listen_to(&s);
        if (h.kind == EVENTS) heard += h.count;
        if (h.kind == NOTHING) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    CHECK_EQUAL(heard, PARTS);
    lab_worker_end(&s.lab, w, NULL);
    lab_close(&s.lab);
}

/* --- Who leaves -------------------------------------------------------------------------------------------------------- */

static void a_consumer_that_cancels_is_told_so_and_the_worker_stops(void) {
    for (int when = 0; when < 3;
         when++) { /* while queued, while running without demand, and amid its parts */
        static struct stage s;
        struct rb_lab_request r;
        open_stage(&s);
        if (when == 0) rb_relay_hold(s.lab.relay, RB_SERVICE_JOBS, 1);
        say_subscribe(&s, 1);
        if (when == 2) say_ask(&s, 1, 5);
        turn(&s);
        expect_kind(&s, WATCH, 1);
        if (when == 2) CHECK_EQUAL(send_parts(&s, 0, 2, 20), 2);
        if (when == 2) turn(&s);
        if (when == 2) CHECK_EQUAL(hear_numbered(&s, 0), 2);
        say_cancel(&s, 1, "enough");
        turn(&s);
        EXPECT_CANCEL(&s, 1, "enough");
        expect_kind(&s, UNWATCH, 1);
        CHECK_EQUAL(stats_of(&s).answered[RB_REASON_CANCELLED], 1);
        if (when > 0) {
            CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
            CHECK(r.cancelled);
            /* A part that was on its way is nobody's. */
            if (when == 2) CHECK_EQUAL(send_parts(&s, 2, 3, 20), 3);
            CHECK_EQUAL(send_as(&s, 0, RB_STATUS_CANCELLED, 0, "", 0), 0);
            rb_lab_release(s.worker, 1);
            turn(&s);
        }
        expect_silence(&s);
        rb_relay_hold(s.lab.relay, RB_SERVICE_JOBS, 0);
        turn(&s);
        CHECK_EQUAL(rb_lab_requests(s.worker), 0);
        close_stage(&s);
    }
}

static void a_consumer_that_dies_stops_the_worker_and_hears_nothing(void) {
    static struct stage s;
    struct rb_lab_request r;
    struct lab_bytes b = {.size = 0};
    uint8_t body[512];
    open_stage(&s);
    say_subscribe(&s, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    int n = lab_read(s.lab.peer, body, sizeof body, 0); /* {19, Streams, Consumer, Ref} */
    struct rb_cursor c = rb_cursor_of((struct rb_slice){body, (size_t)n});
    struct rb_signal watch;
    CHECK(n > 0 && rb_signal_parse(&c, &watch) == 0 && watch.op == RB_OP_MONITOR_P);
    PUT(&b, "\x68\x04\x61\x1c"); /* {28, Consumer, Streams, Ref} and the reason */
    lab_put(&b, watch.to.at, watch.to.size);
    lab_put(&b, watch.from.at, watch.from.size);
    lab_put(&b, watch.ref.at, watch.ref.size);
    lab_put_atom(&b, "killed");
    CHECK_EQUAL(send_parts(&s, 0, 2, 20), 2);
    lab_frame(s.lab.peer, &b);
    turn(&s);
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    CHECK(r.cancelled);
    expect_silence(&s); /* not even DEMONITOR */
    CHECK_EQUAL(stats_of(&s).streams, 0);
    close_stage(&s);
}

static void a_node_that_goes_ends_its_streams(void) {
    static struct stage s;
    struct rb_lab_request r;
    open_stage(&s);
    begin(&s, 1);
    close(s.lab.peer);
    s.lab.peer = -1;
    turn(&s);
    turn(&s);
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    CHECK(r.cancelled);
    CHECK_EQUAL(stats_of(&s).streams, 0);
    close_stage(&s);
}

static void a_deadline_ends_a_stream_with_its_name(void) {
    static struct stage s;
    struct rb_lab_request r;
    open_stage(&s);
    begin(&s, 1);
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    CHECK_EQUAL(r.deadline_ns, s.now + 60000 * MS); /* the role's cap, where none is asked for */
    s.now += 60000 * MS;
    turn(&s);
    EXPECT_CANCEL(&s, 1, "deadline_exceeded");
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    CHECK(r.cancelled);
    close_stage(&s);
}

static void a_worker_that_dies_amid_its_parts_gives_cancel_with_the_reason(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 2, 20), 2); /* its last words count */
    rb_lab_die(s.worker, -1, 11, 0);
    s.worker = NULL;
    turn(&s);
    struct heard h = listen_to(&s);
    CHECK_EQUAL(h.kind, EVENTS);
    CHECK_EQUAL(h.count, 2);
    EXPECT_CANCEL(&s, 1, "worker_crashed");
    expect_kind(&s, UNWATCH, 1);
    expect_silence(&s);
    close_stage(&s);
}

static void a_stream_that_had_not_begun_goes_to_the_next_worker_with_its_demand(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 5);
    rb_lab_die(s.worker, -1, 11, 0);
    turn(&s);
    if (rb_lab_hire(s.lab.relay, 0, 2, SLOTS, &s.worker) < 0) abort();
    rb_lab_greet(s.worker, "echo");
    turn(&s);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 5);
    CHECK_EQUAL(send_parts(&s, 0, 5, 20), 5);
    turn(&s);
    CHECK_EQUAL(hear_numbered(&s, 0), 5);
    close_stage(&s);
}

static void one_whose_parts_have_left_is_not_run_again_whatever_its_worker_says(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 2, 20), 2);
    rb_lab_start(s.worker, 0); /* "it was never entered" */
    turn(&s);
    CHECK_EQUAL(hear_numbered(&s, 0), 2);
    rb_lab_die(s.worker, -1, 11, 0);
    s.worker = NULL;
    turn(&s);
    EXPECT_CANCEL(&s, 1, "worker_crashed");
    close_stage(&s);
}

static void a_failed_job_gives_cancel_with_code_and_message(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 1, 20), 1);
    CHECK_EQUAL(send_as(&s, 0, RB_STATUS_FAILED, 0, "no more", 7), 0);
    turn(&s);
    struct heard h = listen_to(&s);
    CHECK_EQUAL(h.kind, EVENTS); /* the events that were there before come first */
    EXPECT_CANCEL(&s, 1, "\x68\x03\x77\x0ajob_failed\x61\x00m\0\0\0\7no more");
    close_stage(&s);
}

/* --- Subscriptions ----------------------------------------------------------------------------------------------------- */

static void two_subscriptions_of_one_consumer_are_two_streams(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_subscribe_as(&s, 1, 7, "job", "echo");
    turn(&s);
    expect_kind(&s, WATCH, 1);
    CHECK_EQUAL(rb_lab_requests(s.worker), 1); /* a stream has its worker to itself */
    CHECK_EQUAL(stats_of(&s).streams, 2);
    say_cancel(&s, 1, "enough");
    turn(&s);
    EXPECT_CANCEL(&s, 1, "enough");
    expect_kind(&s, UNWATCH, 1);
    CHECK_EQUAL(send_as(&s, 0, RB_STATUS_CANCELLED, 0, "", 0), 0);
    rb_lab_release(s.worker, 1);
    turn(&s);
    CHECK_EQUAL(rb_lab_requests(s.worker), 1);
    struct lab_bytes b = {.size = 0};
    say_head(&b, 1, 7, "ask", 2);
    put_small(&b, 2);
    lab_frame(s.lab.peer, &b);
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 2, 20), 2);
    turn(&s);
    struct heard h = listen_to(&s);
    CHECK_EQUAL(h.kind, EVENTS);
    CHECK_EQUAL(h.tag, 7);
    close_stage(&s);
}

static void a_second_subscription_of_the_same_tag_is_refused_and_the_first_goes_on(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_subscribe(&s, 1);
    turn(&s);
    EXPECT_CANCEL(&s, 1, "duplicated_subscription");
    say_ask(&s, 1, 2);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 2);
    close_stage(&s);
}

static void a_new_subscription_may_end_another_first(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    struct lab_bytes b = {.size = 0};
    say_head(&b, 1, 2, "subscribe", 3);
    PUT(&b, "\x68\x02"); /* {Tag 1, moved_on} */
    lab_put_ref(&b, 1);
    lab_put_atom(&b, "moved_on");
    put_options(&b, "job", "echo");
    lab_frame(s.lab.peer, &b);
    turn(&s);
    EXPECT_CANCEL(&s, 1, "moved_on");
    expect_kind(&s, UNWATCH, 1);
    expect_kind(&s, WATCH, 1);
    CHECK_EQUAL(stats_of(&s).streams, 1);
    close_stage(&s);
}

static void what_cannot_be_begun_is_cancelled_with_the_reason(void) {
    static struct stage s;
    open_stage(&s);
    say_subscribe_as(&s, 1, 1, "jobb", "echo");
    say_subscribe_as(&s, 1, 2, "job", "nosuch");
    turn(&s);
    EXPECT_CANCEL(&s, 1, "bad_request");
    EXPECT_CANCEL(&s, 1, "unknown role nosuch");
    rb_relay_hold(s.lab.relay, RB_SERVICE_JOBS, 1);
    for (uint32_t i = 10; i < 10 + LAB_DEPTH; i++) say_subscribe(&s, i);
    turn(&s);
    for (uint32_t i = 10; i < 10 + LAB_DEPTH; i++) expect_kind(&s, WATCH, i);
    say_subscribe(&s, 20);
    turn(&s);
    EXPECT_CANCEL(&s, 20, "overloaded");
    rb_relay_set_role_state(s.lab.relay, 0, RB_ROLE_DRAINING);
    turn(&s);
    say_subscribe(&s, 21);
    turn(&s);
    EXPECT_CANCEL(&s, 21, "draining");
    close_stage(&s);
}

/* A consumer asks as soon as it has subscribed: it is told of the refusal, and of nothing more. */
static void what_crosses_a_refusal_is_not_answered(void) {
    static struct stage s;
    open_stage(&s);
    say_subscribe_as(&s, 1, 1, "job", "nosuch");
    say_ask(&s, 1, 1000);
    say_subscribe_as(&s, 2, 2, "jobb", "echo");
    say_cancel(&s, 2, "enough");
    turn(&s);
    EXPECT_CANCEL(&s, 1, "unknown role nosuch");
    EXPECT_CANCEL(&s, 2, "bad_request");
    expect_silence(&s);
    close_stage(&s);
}

static void a_word_about_no_subscription_is_answered_unless_it_crossed_the_end(void) {
    static struct stage s;
    open_stage(&s);
    say_ask(&s, 5, 1);
    say_cancel(&s, 6, "enough");
    turn(&s);
    EXPECT_CANCEL(&s, 5, "unknown_subscription");
    EXPECT_CANCEL(&s, 6, "unknown_subscription");
    begin(&s, 1);
    send_end(&s);
    turn(&s);
    EXPECT_CANCEL(&s, 1, "normal");
    expect_kind(&s, UNWATCH, 1);
    say_ask(&s, 1, 1);
    say_cancel(&s, 1, "enough");
    turn(&s);
    expect_silence(&s);
    close_stage(&s);
}

static void other_messages_are_ignored_and_calls_are_told_why_not(void) {
    static struct stage s;
    struct lab_bytes b = {.size = 0};
    open_stage(&s);
    say_head(&b, 1, 1, "dance", 2);
    PUT(&b, "\x6a");
    lab_frame(s.lab.peer, &b);
    turn(&s);
    expect_silence(&s);
    b.size = 0;
    PUT(&b, "\x68\x04\x61\x06");
    lab_put_pid(&b, "peer@host", 1);
    lab_put_atom(&b, "");
    lab_put_atom(&b, "Elixir.Ringbridge.Streams");
    PUT(&b, "\x68\x03");
    lab_put_atom(&b, "$gen_call");
    PUT(&b, "\x68\x02");
    lab_put_pid(&b, "peer@host", 1);
    lab_put_ref(&b, 1);
    lab_put_atom(&b, "stats");
    lab_frame(s.lab.peer, &b);
    turn(&s);
    CHECK(FRAME_HAS(&s, "takes no calls"));
    close_stage(&s);
}

/* --- The process ------------------------------------------------------------------------------------------------------- */

static void monitor_streams(struct stage *s, uint32_t caller) {
    struct lab_bytes b = {.size = 0};
    PUT(&b, "\x68\x04\x61\x13");
    lab_put_pid(&b, "peer@host", caller);
    lab_put_atom(&b, "streams");
    lab_put_ref(&b, caller);
    lab_frame(s->lab.peer, &b);
}

static void the_end_of_the_process_ends_its_streams_and_no_job(void) {
    static struct stage s;
    struct rb_lab_request r;
    open_stage(&s);
    monitor_streams(&s, 1);
    lab_monitor(s.lab.peer, 1, 2, 2); /* the JobDispatcher's */
    begin(&s, 1);
    lab_submit(s.lab.peer, 3, "x", 1);
    turn(&s);
    rb_relay_service_down(s.lab.relay, RB_SERVICE_STREAMS, (const uint8_t *)"\x77\x06killed", 8);
    turn(&s);
    expect_kind(&s, UNWATCH, 1);
    CHECK(FRAME_HAS(&s, "killed"));
    expect_silence(&s);
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    CHECK(r.cancelled);
    CHECK_EQUAL(stats_of(&s).in_flight, 1);
    monitor_streams(&s, 4);
    turn(&s);
    CHECK(FRAME_HAS(&s, "noproc"));
    say_subscribe(&s, 4); /* to nobody */
    turn(&s);
    expect_silence(&s);
    close_stage(&s);
}

static void suspended_it_asks_no_worker_for_more(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    rb_relay_hold(s.lab.relay, RB_SERVICE_STREAMS, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 0);
    rb_relay_hold(s.lab.relay, RB_SERVICE_STREAMS, 0);
    turn(&s);
    CHECK_EQUAL(demand(&s, 0), 5);
    close_stage(&s);
}

/* --- A worker that lies ------------------------------------------------------------------------------------------------ */

static void expect_broke(struct stage *s, const char *rule) {
    turn(s);
    CHECK(lab_event(&s->lab, RB_EVENT_WORKER_BROKE));
    CHECK(lab_event_says(&s->lab, rule));
}

static void a_part_without_demand_fences(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 3);
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 4, 20), 4);
    expect_broke(&s, "part_without_demand");
    struct heard h = listen_to(&s); /* those that were asked for are true */
    CHECK_EQUAL(h.kind, EVENTS);
    CHECK_EQUAL(h.count, 3);
    EXPECT_CANCEL(&s, 1, "part_without_demand");
    close_stage(&s);
}

static void so_does_one_of_a_stream_that_nobody_hears_of_any_more(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 3);
    turn(&s);
    say_cancel(&s, 1, "enough");
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 4, 20), 4);
    expect_broke(&s, "part_without_demand");
    close_stage(&s);
}

static void a_part_of_a_job_that_is_no_stream_fences(void) {
    static struct stage s;
    open_stage(&s);
    lab_submit(s.lab.peer, 1, "x", 1);
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 1, 20), 1);
    expect_broke(&s, "part_not_asked");
    CHECK(FRAME_HAS(&s, "part_not_asked"));
    close_stage(&s);
}

static void a_part_after_the_end_fences(void) {
    static struct stage s;
    struct rb_lab_request r;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    send_end(&s);
    struct rb_lab_answer a = {.job = r.job, .status = RB_STATUS_PART};
    CHECK_EQUAL(rb_lab_complete(s.worker, &a), 0);
    expect_broke(&s, "completion_of_no_job_here");
    EXPECT_CANCEL(&s, 1, "normal");
    close_stage(&s);
}

static void a_part_of_anothers_job_fences_only_the_liar(void) {
    static struct stage s;
    struct rb_lab_request r;
    struct rb_lab_worker *liar;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 5);
    if (rb_lab_hire(s.lab.relay, 0, 2, SLOTS, &liar) < 0) abort();
    rb_lab_greet(liar, "echo");
    turn(&s);
    turn(&s);
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    struct rb_lab_answer a = {.job = r.job, .status = RB_STATUS_PART};
    CHECK_EQUAL(rb_lab_complete(liar, &a), 0);
    /* Its ring is looked at when it has jobs or rings: let it have one. */
    lab_submit(s.lab.peer, 3, "x", 1);
    expect_broke(&s, "completion_of_no_job_here");
    CHECK_EQUAL(send_parts(&s, 0, 5, 20), 5);
    turn(&s);
    int64_t count = 0;
    for (struct heard h = listen_to(&s); h.kind != NOTHING; h = listen_to(&s))
        count += h.kind == EVENTS ? h.count : 0;
    CHECK_EQUAL(count, 5);
    rb_lab_die(liar, -1, 9, 0);
    close_stage(&s);
}

static void no_term_progress_unasked_and_an_unknown_status_fence(void) {
    static const struct {
        uint32_t status, flags, size;
        const void *bytes;
        const char *rule;
    } cases[] = {
        {RB_STATUS_PART, RB_FLAG_TERM, 2, "\x68\x02", "term_cut_short"},
        {RB_STATUS_PART, RB_FLAG_TERM, 0, "", "term_cut_short"},
        {RB_STATUS_PROGRESS, 0, 1, "x", "progress_not_asked"},
        {5, 0, 1, "x", "completion_status"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        static struct stage s;
        open_stage(&s);
        begin(&s, 1);
        say_ask(&s, 1, 5);
        turn(&s);
        CHECK_EQUAL(send_parts(&s, 0, 1, 20), 1);
        CHECK_EQUAL(send_as(&s, 0, cases[i].status, cases[i].flags, cases[i].bytes, cases[i].size),
                    0);
        expect_broke(&s, cases[i].rule);
        struct heard h = listen_to(&s);
        CHECK_EQUAL(h.kind, EVENTS);
        CHECK_EQUAL(h.count, 1);
        EXPECT_CANCEL(&s, 1, "worker_broke");
        close_stage(&s);
    }
}

/* A link whose region holds more than a part may have. */
static void a_part_that_is_too_large_fences(void) {
    static struct stage s;
    struct rb_link_worker link;
    int fds[5], ends[2];
    char why[256];
    open_stage(&s);
    rb_lab_die(s.worker, 0, 0, 0);
    s.worker = NULL;
    turn(&s);
    if (rb_relay_create_link(s.lab.relay, 0, 2, SLOTS, 4 << 20, 4096, 0, fds) < 0) abort();
    struct rb_link_fds copies = {dup(fds[0]), dup(fds[1]), dup(fds[2]), dup(fds[3]), dup(fds[4])};
    if (rb_link_attach(&link, &copies, why, sizeof why) < 0 || pipe2(ends, O_CLOEXEC) < 0) abort();
    if (rb_relay_add_worker(s.lab.relay, 2, -1, ends[0], -1, -1) < 0) abort();
    rb_link_greet(&link, "lab", 1 << 16, "echo");
    turn(&s);
    say_subscribe(&s, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(rb_ring_available(&link.request_ring), 1);
    for (uint32_t over = 0; over < 2; over++) {
        int64_t slot = rb_ring_claim(&link.completion_ring);
        link.completions[slot] = (struct rb_completion){.job = link.requests[0].job,
                                                        .status = RB_STATUS_PART,
                                                        .payload_bytes = RB_PART_BYTES_MAX + over};
        rb_ring_publish(&link.completion_ring);
        turn(&s);
        CHECK_EQUAL(stats_of(&s).events, 1);
        while (recv(s.lab.peer, s.in, sizeof s.in, MSG_DONTWAIT) > 0) turn(&s); /* fragments */
    }
    expect_broke(&s, "part_too_large");
    close(ends[1]);
    rb_link_detach(&link);
    close_stage(&s);
}

/* --- At random --------------------------------------------------------------------------------------------------------- */

/* What a consumer knows, held against what it is told: never more events than asked for, each once and in order, and one end. */
struct model {
    int open;
    int64_t asked, sent, heard;
};

static void any_order_of_ask_part_cancel_and_end_keeps_the_rules(void) {
    enum { CONSUMERS = 6, STEPS = 4000 };
    static struct stage s;
    struct model m[CONSUMERS] = {{0}};
    uint64_t random = 20261121;
    int64_t ends = 0, begun = 0;
    open_stage(&s);
    for (int step = 0; step < STEPS; step++) {
        uint32_t i = (uint32_t)(check_random(&random) % CONSUMERS);
        switch (check_random(&random) % 8) {
        case 0:
            if (m[i].open) break;
            m[i] = (struct model){.open = 1};
            say_subscribe(&s, i + 1);
            begun++;
            break;
        case 1:
        case 2: {
            uint32_t parts = (uint32_t)(check_random(&random) % 50);
            if (m[i].open) m[i].asked += parts;
            if (m[i].open) say_ask(&s, i + 1, parts);
            break;
        }
        case 3:
            if (check_random(&random) % 4 == 0) say_cancel(&s, i + 1, "enough");
            break;
        case 4:
        case 5: { /* the worker sends some of what it may */
            struct rb_lab_request r;
            if (rb_lab_request(s.worker, 0, &r) < 0) break;
            static uint64_t job, sent;
            if (job != r.job) job = r.job, sent = 0;
            while (sent < r.demand && check_random(&random) % 10) {
                uint8_t bytes[8];
                memcpy(bytes, &sent, 8);
                if (send_as(&s, 0, RB_STATUS_PART, 0, bytes, 8) < 0) break;
                sent++;
            }
            if (r.cancelled || check_random(&random) % 16 == 0) {
                if (send_as(&s, 0, r.cancelled ? RB_STATUS_CANCELLED : RB_STATUS_OK, 0, "", 0) == 0)
                    rb_lab_release(s.worker, 1);
            }
            break;
        }
        default: turn(&s);
        }
        for (struct heard h = listen_to(&s); h.kind != NOTHING; h = listen_to(&s)) {
            if (h.kind == WATCH || h.kind == UNWATCH) continue;
            CHECK(h.consumer >= 1 && h.consumer <= CONSUMERS && h.consumer == h.tag);
            struct model *of = &m[(h.consumer - 1) % CONSUMERS];
            if (h.kind == EVENTS) {
                struct rb_cursor c = rb_cursor_of(h.term);
                CHECK(of->open);
                for (int64_t k = 0; k < h.count; k++) {
                    struct rb_slice text;
                    uint64_t number = UINT64_MAX;
                    if (rb_term_text(&c, &text) == 0 && text.size == 8) memcpy(&number, text.at, 8);
                    CHECK_EQUAL(number, of->heard);
                    of->heard++;
                }
                CHECK(of->heard <= of->asked);
            } else {
                CHECK_EQUAL(h.kind, CANCEL);
                if (!of->open) { /* a word about none */
                    CHECK(memmem(h.term.at, h.term.size, "unknown_subscription", 20) != NULL);
                    continue;
                }
                if (memmem(h.term.at, h.term.size, "unknown_subscription", 20)) continue;
                of->open = 0;
                ends++;
            }
        }
    }
    CHECK(ends > 100);
    CHECK(begun - ends <= CONSUMERS);
    close_stage(&s);
}

int main(void) {
    RUN(a_stream_goes_from_the_first_ask_to_its_end);
    RUN(parts_that_come_together_leave_as_one_list);
    RUN(demand_before_the_worker_is_there_is_kept);
    RUN(a_worker_is_never_further_ahead_than_the_window);
    RUN(no_demand_is_no_word_and_none_is_made_of_nonsense);
    RUN(a_slow_socket_holds_demand_and_parts_back);
    RUN(a_stream_has_its_worker_to_itself);
    RUN(parts_that_wait_for_the_socket_let_the_relay_sleep);
    RUN(a_consumer_that_cancels_is_told_so_and_the_worker_stops);
    RUN(a_consumer_that_dies_stops_the_worker_and_hears_nothing);
    RUN(a_node_that_goes_ends_its_streams);
    RUN(a_deadline_ends_a_stream_with_its_name);
    RUN(a_worker_that_dies_amid_its_parts_gives_cancel_with_the_reason);
    RUN(a_stream_that_had_not_begun_goes_to_the_next_worker_with_its_demand);
    RUN(one_whose_parts_have_left_is_not_run_again_whatever_its_worker_says);
    RUN(a_failed_job_gives_cancel_with_code_and_message);
    RUN(two_subscriptions_of_one_consumer_are_two_streams);
    RUN(a_second_subscription_of_the_same_tag_is_refused_and_the_first_goes_on);
    RUN(a_new_subscription_may_end_another_first);
    RUN(what_cannot_be_begun_is_cancelled_with_the_reason);
    RUN(what_crosses_a_refusal_is_not_answered);
    RUN(a_word_about_no_subscription_is_answered_unless_it_crossed_the_end);
    RUN(other_messages_are_ignored_and_calls_are_told_why_not);
    RUN(the_end_of_the_process_ends_its_streams_and_no_job);
    RUN(suspended_it_asks_no_worker_for_more);
    RUN(a_part_without_demand_fences);
    RUN(so_does_one_of_a_stream_that_nobody_hears_of_any_more);
    RUN(a_part_of_a_job_that_is_no_stream_fences);
    RUN(a_part_after_the_end_fences);
    RUN(a_part_of_anothers_job_fences_only_the_liar);
    RUN(no_term_progress_unasked_and_an_unknown_status_fence);
    RUN(a_part_that_is_too_large_fences);
    RUN(any_order_of_ask_part_cancel_and_end_keeps_the_rules);
    return check_end();
}
