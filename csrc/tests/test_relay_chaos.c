/* Everything at once: peers that call, leave, cut and vanish, workers that are late, lie and die,
 * roles that close and open. Whatever happens: a caller that stays gets exactly one answer, its
 * own; nobody gets two; accepted == answered + in flight.
 *
 * The order of the moves comes from a seed (RINGBRIDGE_CHAOS_SEED takes another), their timing
 * from the machine. */
#define _GNU_SOURCE
#include "chaos_worker.h"

enum {
    PEERS = 4,
    WORKERS = 3,
    CALLS_MAX = 1 << 18,
    OPEN_MAX = 3, /* fragmented calls of one peer under way */
    RUN_MS = 1500,
    QUIET_MS = 15000,
    LARGEST = 200000,
};

enum call_state {
    WAITS = 1,
    ANSWERED,
    LEFT,
    LOST
}; /* LEFT: its caller demonitored or died; LOST: with a connection */

struct call {
    uint8_t state, answers, from, to; /* peers: who sent it, who is answered */
    uint8_t is_echo;                  /* an {ok, Binary} must be its own payload */
    uint32_t size;
};

struct sending { /* a call in fragments */
    uint32_t call;
    uint8_t *bytes;
    size_t size, sent;
    uint64_t left;
};

enum { ARRIVING_MAX = 32 };
struct arriving { /* a signal in fragments; sequence 0: none */
    uint64_t sequence, left;
    uint8_t *bytes;
    size_t size;
};
struct peer {
    struct arriving arriving[ARRIVING_MAX];
    int fd;
    uint32_t conn;
    uint32_t since; /* the number of the last call before its connection */
    uint8_t *in;
    size_t size, capacity;
    struct sending open[OPEN_MAX];
    char node[32];
};

static struct call calls[CALLS_MAX];
static uint32_t call_count;
static struct peer peers[PEERS];
static struct chaos_worker *workers[WORKERS];
static struct rb_relay *relay;
static uint64_t seed, workers_made;
static uint32_t connections;
static int honest;
static uint64_t seen_broke, seen_ended, seen_jobs, seen_last_watch_peer;
static uint8_t last_watch[64]; /* a reference of ours, as some peer got it */
static size_t last_watch_size;
static uint64_t some_job;

static uint32_t below(uint32_t bound) { return chaos_below(&seed, bound); }

/* --- Payloads: made of the call's number, so that each can be told from all others ------------ */

static uint8_t payload_byte(uint32_t call, uint32_t i) {
    return (uint8_t)(i < 4 ? call >> (8 * i) : call + i * 31 + (i >> 8));
}

static uint32_t random_size(void) {
    switch (below(8)) {
    case 0: return below(4);
    case 1:
    case 2: return below(65);
    case 3:
    case 4: return below(4000);
    case 5: return 15000 + below(4000);
    case 6: return below(70000);
    default: return below(LARGEST);
    }
}

/* --- Frames ----------------------------------------------------------------------------------- */

static struct lab_bytes head; /* of the signal being made; the payload follows it */

static void put_pid(uint32_t call, int peer) { lab_put_pid(&head, peers[peer].node, call); }

static void put_own_reference(uint32_t call, int peer) {
    PUT(&head, "\x5a\x00\x03");
    lab_put_atom(&head, peers[peer].node);
    lab_put_u32(&head, 7);
    lab_put_u32(&head, call);
    lab_put_u32(&head, 0);
    lab_put_u32(&head, 0);
}

static void send_head(int through) { lab_frame(peers[through].fd, &head); }

static void monitor(int on, uint32_t call, int owner, int through) {
    head.size = 0;
    PUT(&head, "\x68\x04\x61");
    lab_put(&head, on ? "\x13" : "\x14", 1);
    put_pid(call, owner);
    lab_put_atom(&head, "job_dispatcher");
    put_own_reference(call, owner);
    send_head(through);
}

enum tag { ALIAS_TAG, BARE_TAG, LONG_TAG };

static void begin_call(uint32_t call, int owner, enum tag tag) {
    static const uint8_t filler[3000];
    head.size = 0;
    PUT(&head, "\x68\x04\x61\x06");
    put_pid(call, owner);
    lab_put_atom(&head, "");
    lab_put_atom(&head, "job_dispatcher");
    PUT(&head, "\x68\x03");
    lab_put_atom(&head, "$gen_call");
    PUT(&head, "\x68\x02");
    put_pid(call, owner);
    if (tag == ALIAS_TAG) {
        PUT(&head, "\x6c\x00\x00\x00\x01");
        lab_put_atom(&head, "alias");
    }
    if (tag == LONG_TAG)
        lab_put_binary(&head, filler, sizeof filler);
    else
        put_own_reference(call, owner);
}

static uint32_t new_call(int from, int to) {
    uint32_t call = ++call_count;
    calls[call] = (struct call){.state = WAITS, .from = (uint8_t)from, .to = (uint8_t)to};
    return call;
}

static void write_fragment(int p, struct sending *s, int first, size_t n) {
    uint8_t frame[4 + 19] = {0, 0, 0, 0, 131, first ? 69 : 70};
    size_t size = first ? 19 : 18;
    rb_put_be32(frame, (uint32_t)(size + n));
    rb_put_be32(frame + 6 + 4, s->call); /* the sequence: any number that no other open one has */
    rb_put_be32(frame + 14 + 4, (uint32_t)s->left);
    lab_write(peers[p].fd, frame, 4 + size);
    lab_write(peers[p].fd, s->bytes + s->sent, n);
    s->sent += n;
    s->left--;
}

static void end_sending(struct sending *s) {
    free(s->bytes);
    *s = (struct sending){.call = 0};
}

/* The next piece of what peer p has begun. The last one takes what is left. */
static void go_on_sending(int p) {
    struct sending *s = &peers[p].open[below(OPEN_MAX)];
    if (!s->call) return;
    size_t rest = s->size - s->sent;
    write_fragment(p, s, 0, s->left == 1 ? rest : below((uint32_t)rest + 1));
    if (s->left == 0) end_sending(s);
}

/* Instead of another option: each stage echoes, so that the last one's answer is still the payload, or lists of it. */
static void put_stages(struct lab_bytes *o) {
    uint8_t count = (uint8_t)(1 + below(4));
    o->size = 0;
    PUT(o, "\x74\x00\x00\x00\x01");
    lab_put_atom(o, "stages");
    PUT(o, "\x6c\x00\x00\x00");
    lab_put(o, &count, 1);
    for (uint8_t i = 0, lists = 0; i < count; i++) {
        uint32_t kind = below(4);
        if (kind == 0 && lists < 2) {
            lists++;
            PUT(o, "\x6c\x00\x00\x00\x02");
            lab_put_atom(o, "echo");
            lab_put_atom(o, "echo");
            PUT(o, "\x6a");
        } else {
            if (kind == 1 && lists) {
                PUT(o, "\x68\x02");
                lab_put_atom(o, "map");
            }
            lab_put_atom(o, "echo");
        }
    }
    PUT(o, "\x6a");
}

/* {submit, echo, Payload [, Opts]} after the head of a call, whole or in fragments. */
static void send_submit(uint32_t call, int p) {
    struct peer *peer = &peers[p];
    uint32_t size = random_size(), kind = below(10), options = below(4) == 0, cut = below(3) == 0;
    const char *role = below(40) == 0 ? "nobody" : "echo";
    if (size > 100000 && below(3)) size /= 100;
    if (kind == 0 && size > 60000) size = 60000;
    lab_submit_head(&head, options ? 4 : 3, role);
    uint8_t *bytes = malloc(head.size + size + 256);
    memcpy(bytes, head.at, head.size);
    uint8_t *at = bytes + head.size;
    calls[call].size = size;
    calls[call].is_echo = kind != 0;
    if (kind == 0) { /* a term: a string of `size` characters, which is no binary */
        *at++ = RB_TAG_STRING;
        rb_put_be16(at, (uint16_t)size);
        at += 2;
    } else {
        *at++ = RB_TAG_BINARY;
        rb_put_be32(at, size);
        at += 4;
    }
    for (uint32_t i = 0; i < size; i++) *at++ = payload_byte(call, i);
    if (options) {
        static const char *const keys[] = {"timeout", "opcode", "mistake"};
        const char *key = keys[below(10) == 0 ? 2 : below(2)];
        struct lab_bytes o = {.size = 0};
        PUT(&o, "\x74\x00\x00\x00\x01");
        lab_put_atom(&o, key);
        uint8_t value[2] = {RB_TAG_SMALL_INTEGER, (uint8_t)below(40)};
        lab_put(&o, value, 2);
        if (below(2)) put_stages(&o);
        memcpy(at, o.at, o.size);
        at += o.size;
    }
    size_t whole = (size_t)(at - bytes);
    struct sending *s = &peer->open[below(OPEN_MAX)];
    if (cut && !s->call) {
        *s = (struct sending){.call = call, .bytes = bytes, .size = whole, .left = 1 + below(5)};
        size_t n = s->left == 1 ? whole : 60 + below((uint32_t)(whole - 60));
        write_fragment(p, s, 1, n);
        if (s->left == 0) end_sending(s);
        return;
    }
    uint8_t frame[7] = {0, 0, 0, 0, 131, 68, 0};
    rb_put_be32(frame, (uint32_t)whole + 3);
    lab_write(peer->fd, frame, sizeof frame);
    lab_write(peer->fd, bytes, whole);
    free(bytes);
}

/* --- What peers do ---------------------------------------------------------------------------- */

static void submit_through(int p, int owner, int forwarded) {
    uint32_t call = new_call(p, owner);
    int watched = forwarded || below(8) == 0;
    enum tag tag = below(10) == 0 ? LONG_TAG : below(8) == 0 ? BARE_TAG : ALIAS_TAG;
    if (!watched || owner == p) {
        if (!watched) monitor(1, call, p, p);
        if (!watched && below(30) == 0) monitor(1, call, p, p); /* the same twice */
    }
    begin_call(call, owner, tag);
    send_submit(call, p);
}

static void submit_somehow(void) {
    int p = (int)below(PEERS), forwarded = below(12) == 0;
    submit_through(p, forwarded ? (int)below(PEERS) : p, forwarded);
}

static void ask_something(void) {
    int p = (int)below(PEERS);
    uint32_t call = new_call(p, p);
    uint8_t id[11];
    begin_call(call, p, ALIAS_TAG);
    switch (below(4)) {
    case 0: lab_put_atom(&head, "stats"); break;
    case 1:
        PUT(&head, "\x68\x02");
        lab_put_atom(&head, "jobs");
        lab_put_atom(&head, "all");
        break;
    default:
        PUT(&head, "\x68\x02");
        lab_put_atom(&head, below(2) ? "cancel" : "status");
        id[0] = RB_TAG_SMALL_BIG;
        id[1] = 8;
        id[2] = 0;
        for (int i = 0; i < 8; i++) id[3 + i] = (uint8_t)(some_job >> (8 * i));
        lab_put(&head, id, sizeof id);
    }
    send_head(p);
}

/* The caller of a recent call leaves; or somebody else says that it does, which is nobody's
 * business but its own. */
static void leave_somehow(void) {
    if (call_count == 0) return;
    uint32_t back = below(40), call = call_count > back ? call_count - back : 1;
    struct call *c = &calls[call];
    int through = below(5) == 0 ? (int)below(PEERS) : c->to;
    monitor(0, call, c->to, through);
    if (through == c->to && c->state == WAITS) c->state = LEFT;
}

/* DOWN for a watch of the relay's, from a node that has nothing to say about it. */
static void forge_a_down(void) {
    int p = (int)below(PEERS);
    if (last_watch_size == 0 || (uint64_t)p == seen_last_watch_peer) return;
    head.size = 0;
    PUT(&head, "\x68\x04\x61\x1c");
    put_pid(1, p);
    lab_put_pid(&head, "bridge@host", 1);
    head.size -= 12; /* its numbers are the service's */
    lab_put_u32(&head, 1);
    lab_put_u32(&head, 0);
    lab_put_u32(&head, 5);
    lab_put(&head, last_watch, last_watch_size);
    lab_put_atom(&head, "noproc");
    send_head(p);
}

static void forget_arriving(int p);
static void connect_peer(int p) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) abort();
    struct peer *peer = &peers[p];
    peer->fd = pair[1];
    peer->conn = ++connections;
    peer->since = call_count;
    peer->size = 0;
    forget_arriving(p);
    if (rb_relay_adopt(relay, peer->conn, pair[0], peer->node, LAB_FLAGS, NULL, 0) < 0) abort();
}

static void lose_connection(int p) {
    for (uint32_t i = 1; i <= call_count; i++) {
        if (calls[i].state == WAITS && (calls[i].to == p || calls[i].from == p))
            calls[i].state = LOST;
    }
    for (int i = 0; i < OPEN_MAX; i++) end_sending(&peers[p].open[i]);
    close(peers[p].fd);
}

static void disconnect_somebody(void) {
    int p = (int)below(PEERS);
    switch (below(3)) {
    case 0: lab_write(peers[p].fd, "\x00\x00\x00\x05garbage", 11); break;
    case 1: rb_relay_drop(relay, peers[p].conn, "because"); break;
    default: break;
    }
    lose_connection(p);
    connect_peer(p);
    /* Others bring calls of its processes at once: the relay may read them in the round that it is in. */
    for (int through = 0; through < PEERS; through++)
        if (through != p) submit_through(through, p, 1);
}

/* --- What peers hear -------------------------------------------------------------------------- */

/* It, or a list of such, at the cursor. */
static int is_own_payload(uint32_t call, struct rb_cursor *reply) {
    uint32_t size;
    int tail;
    if (rb_term_tag(reply) == RB_TAG_LIST) {
        int64_t count = rb_term_list(reply, &tail);
        while (count-- > 0)
            if (!is_own_payload(call, reply)) return 0;
        return rb_term_list(reply, &tail) == 0;
    }
    if (rb_term_binary_head(reply, &size) < 0 || size != calls[call].size ||
        rb_cursor_left(reply) < size)
        return 0;
    for (uint32_t i = 0; i < size; i++) {
        if (reply->at[i] != payload_byte(call, i)) return 0;
    }
    reply->at += size;
    return 1;
}

static int check_own_payload(uint32_t call, struct rb_cursor reply) {
    struct rb_slice ok;
    if (rb_term_tuple(&reply) != 2 || rb_term_atom(&reply, &ok) < 0 || !rb_slice_is(ok, "ok"))
        return 1;
    if (!calls[call].is_echo) return 1;
    return is_own_payload(call, &reply) && rb_cursor_left(&reply) == 0;
}

/* 33 {_, Alias} or 22 {_, Pid}: the number of the call stands in either. */
static void hear(int p, struct rb_slice signal) {
    struct rb_cursor c = rb_cursor_of(signal);
    struct rb_signal s;
    struct rb_slice to;
    if (rb_signal_parse(&c, &s) < 0) {
        CHECK(!"a signal is well-formed");
        return;
    }
    struct rb_cursor at = rb_cursor_of(s.control);
    uint64_t op;
    rb_term_tuple(&at);
    rb_term_unsigned(&at, &op);
    if (op == RB_OP_MONITOR_P && s.ref.size <= sizeof last_watch) {
        memcpy(last_watch, s.ref.at, last_watch_size = s.ref.size);
        seen_last_watch_peer = (uint64_t)p;
    }
    if (op != RB_OP_ALIAS_SEND && op != RB_OP_SEND_SENDER) return;
    rb_term_skip(&at, NULL);
    rb_term_skip(&at, &to);
    uint32_t call = rb_be32(to.at + to.size - 12);
    struct rb_slice tag, job = {memmem(c.at, rb_cursor_left(&c), "\x77\x03job", 5), 0};
    if (job.at) {
        struct rb_cursor number = {job.at + 5, c.end};
        if (rb_term_unsigned(&number, &some_job) == 0) seen_jobs++;
    }
    CHECK(call > 0 && call <= call_count && rb_term_tuple(&c) == 2 && rb_term_skip(&c, &tag) == 0);
    if (call == 0 || call > call_count) return;
    struct rb_cursor whole = c;
    CHECK(rb_term_skip(&whole, NULL) == 0 && rb_cursor_left(&whole) == 0);
    CHECK_EQUAL(calls[call].to, p);
    CHECK_EQUAL(++calls[call].answers, 1);
    CHECK(check_own_payload(call, c));
    if (calls[call].state == WAITS) calls[call].state = ANSWERED;
}

/* A whole signal, or a fragment of one; several may be open at once. */
static void hear_frame(int p, const uint8_t *body, uint32_t length) {
    CHECK(length > 3 && body[0] == 131);
    if (body[1] == 68) {
        CHECK(body[2] == 0);
        hear(p, (struct rb_slice){body + 3, length - 3});
        return;
    }
    uint32_t head = body[1] == 69 ? 19 : 18;
    uint64_t sequence = rb_be64(body + 2), left = rb_be64(body + 10);
    CHECK((body[1] == 69 || body[1] == 70) && length >= head && sequence > 0 && left > 0);
    struct arriving *a = peers[p].arriving;
    while (a < peers[p].arriving + ARRIVING_MAX && a->sequence != (body[1] == 69 ? 0 : sequence))
        a++;
    if (a == peers[p].arriving + ARRIVING_MAX) {
        CHECK(!"a fragment is the next of its signal");
        return;
    }
    if (body[1] == 69)
        a->sequence = sequence;
    else
        CHECK_EQUAL(left, a->left - 1);
    a->left = left;
    a->bytes = realloc(a->bytes, a->size + length);
    memcpy(a->bytes + a->size, body + head, length - head);
    a->size += length - head;
    if (left > 1) return;
    hear(p, (struct rb_slice){a->bytes, a->size});
    free(a->bytes);
    *a = (struct arriving){.sequence = 0};
}

static void forget_arriving(int p) {
    for (int i = 0; i < ARRIVING_MAX; i++) free(peers[p].arriving[i].bytes);
    memset(peers[p].arriving, 0, sizeof peers[p].arriving);
}

static void listen_to_all(void) {
    for (int p = 0; p < PEERS; p++) {
        struct peer *peer = &peers[p];
        if (peer->capacity - peer->size < 65536)
            peer->in = realloc(peer->in, peer->capacity += 1 << 20);
        ssize_t n =
            recv(peer->fd, peer->in + peer->size, peer->capacity - peer->size, MSG_DONTWAIT);
        if (n == 0) CHECK(!"the relay closed a connection that did nothing wrong");
        if (n <= 0) continue;
        peer->size += (size_t)n;
        size_t at = 0;
        for (uint32_t length;
             peer->size - at >= 4 && peer->size - at - 4 >= (length = rb_be32(peer->in + at));
             at += 4 + length) {
            if (length == 0) continue;
            hear_frame(p, peer->in + at + 4, length);
        }
        memmove(peer->in, peer->in + at, peer->size -= at);
    }
}

static void hear_events(void) {
    struct rb_event e;
    rb_relay_hush(relay);
    while (rb_relay_take(relay, &e)) {
        for (int i = 0; i < WORKERS; i++) {
            if (!workers[i] || workers[i]->id != e.worker) continue;
            if (e.kind == RB_EVENT_WORKER_BROKE) {
                seen_broke++;
                rb_store_release(&workers[i]->killed, 1);
            } else if (e.kind == RB_EVENT_WORKER_ENDED) {
                seen_ended++;
                pthread_join(workers[i]->thread, NULL);
                free(workers[i]);
                workers[i] = NULL;
            }
        }
    }
    for (int i = 0; i < WORKERS; i++) {
        if (!workers[i])
            workers[i] = chaos_start(relay, ++workers_made, check_random(&seed), &honest);
    }
}

static uint64_t ms_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint32_t still_waiting(void) {
    uint32_t n = 0;
    for (uint32_t i = 1; i <= call_count; i++) n += calls[i].state == WAITS;
    return n;
}

/* --- The run ---------------------------------------------------------------------------------- */

static void open_all(void) {
    struct rb_relay_config config = {.node = "bridge@host",
                                     .creation = 5,
                                     .tick_ms = 60000,
                                     .silence_ms = 300000,
                                     .frame_bytes_max = INT32_MAX,
                                     .signal_bytes_max = 16 << 20,
                                     .upward_bytes_max = 4 << 20,
                                     .upward_total_max = 64 << 20,
                                     .outgoing_low_bytes = 256 << 10,
                                     .arrival_ms = 60000,
                                     .outgoing_bytes_max = 256 << 20,
                                     .monitors_max = 100000,
                                     .busy_sleep_us = 50,
                                     .spin_us = 20};
    struct rb_role_config role = {.name = "echo",
                                  .payload_bytes_max = 150000,
                                  .pool_bytes = 4 << 20,
                                  .admission.depth_max = 32,
                                  .choice.credit_us = 200,
                                  .timeout_default_ms = 60000,
                                  .timeout_max_ms = 60000,
                                  .cancel_term_ms = 3,
                                  .cancel_kill_ms = 3};
    if (rb_relay_open(&relay, &config) < 0) abort();
    if (rb_relay_install_service(relay, RB_SERVICE_JOBS, 1, 0, "job_dispatcher\0") < 0 ||
        rb_relay_add_role(relay, 0, &role) < 0)
        abort();
    for (int p = 0; p < PEERS; p++) {
        snprintf(peers[p].node, sizeof peers[p].node, "peer%d@host", p);
        connect_peer(p);
    }
}

static void one_move(void) {
    switch (below(40)) {
    case 0:
    case 1:
    case 2: ask_something(); break;
    case 3:
    case 4: leave_somehow(); break;
    case 5: forge_a_down(); break;
    case 6:
        if (below(20) == 0) disconnect_somebody();
        break;
    case 7:
        if (below(20) == 0)
            rb_relay_set_role_state(relay, 0, below(3));
        else
            rb_relay_set_role_state(relay, 0, RB_ROLE_RUNNING);
        break;
    case 8:
        if (below(10) == 0 && workers[0]) rb_relay_drain_worker(relay, workers[0]->id);
        break;
    case 9:
        chaos_nap(below(400));
        rb_relay_hold(relay, RB_SERVICE_JOBS, below(10) == 0);
        break;
    case 10:
    case 11:
    case 12:
    case 13:
    case 14:
    case 15: go_on_sending((int)below(PEERS)); break;
    default: submit_somehow(); break;
    }
}

static void whoever_stays_gets_one_answer_whatever_happens(void) {
    struct rb_relay_stats s;
    open_all();
    hear_events();
    uint64_t end = ms_now() + RUN_MS;
    while (ms_now() < end && call_count + 8 < CALLS_MAX) {
        for (int i = 0; i < 8; i++) one_move();
        listen_to_all();
        hear_events();
    }
    /* No more calls; what has begun is ended; workers behave. Now whoever stayed is answered. */
    rb_store_release(&honest, 1);
    rb_relay_set_role_state(relay, 0, RB_ROLE_RUNNING);
    rb_relay_hold(relay, RB_SERVICE_JOBS, 0);
    end = ms_now() + QUIET_MS;
    for (int open = 1; open;) {
        open = 0;
        for (int p = 0; p < PEERS; p++) {
            go_on_sending(p);
            for (int i = 0; i < OPEN_MAX; i++) open |= peers[p].open[i].call != 0;
        }
        listen_to_all();
        hear_events();
    }
    do {
        listen_to_all();
        hear_events();
        rb_relay_read_stats(relay, &s);
        chaos_nap(100);
    } while ((still_waiting() || s.in_flight) && ms_now() < end);
    for (uint32_t i = 1; i <= call_count; i++) {
        if (calls[i].state == WAITS)
            printf("call %u of %u, from %d for %d (here since %u and %u), %u bytes: no answer\n", i,
                   call_count, calls[i].from, calls[i].to, peers[calls[i].from].since,
                   peers[calls[i].to].since, calls[i].size);
    }
    CHECK_EQUAL(still_waiting(), 0);
    CHECK_EQUAL(s.in_flight, 0);
    rb_relay_read_stats(relay, &s);
    uint64_t answered = 0;
    for (int i = 0; i < RB_REASONS; i++) answered += s.answered[i];
    CHECK_EQUAL(answered + s.in_flight, s.accepted);
    CHECK(s.answered[RB_REASON_OK] > 0);
    if (check_breaches || getenv("RINGBRIDGE_CHAOS_SEED")) {
        printf(
            "calls %u accepted %llu ended %llu broke %llu workers %llu connections %u ids %llu\n",
            call_count, (unsigned long long)s.accepted, (unsigned long long)seen_ended,
            (unsigned long long)seen_broke, (unsigned long long)workers_made, connections,
            (unsigned long long)seen_jobs);
        for (int i = 0; i < RB_REASONS; i++)
            printf("  reason %d: answered %llu refused %llu\n", i,
                   (unsigned long long)s.answered[i], (unsigned long long)s.refused[i]);
    }

    /* With jobs under way the relay can be closed all the same. */
    for (int i = 0; i < 50; i++) submit_somehow();
    for (int p = 0; p < PEERS; p++) {
        lose_connection(p);
        forget_arriving(p);
        free(peers[p].in);
    }
    char why[256] = "";
    rb_relay_stop(relay);
    if (rb_relay_audit(relay, why, sizeof why) < 0)
        printf("at the end: %s\n", why), check_breaches++;
    rb_relay_close(relay);
    for (int i = 0; i < WORKERS; i++) {
        rb_store_release(&workers[i]->killed, 1);
        pthread_join(workers[i]->thread, NULL);
        free(workers[i]);
    }
}

int main(void) {
    const char *other = getenv("RINGBRIDGE_CHAOS_SEED");
    seed = other ? strtoull(other, NULL, 0) | 1 : 20261121;
    signal(SIGPIPE, SIG_IGN); /* a worker's obituary after the relay is closed */
    RUN(whoever_stays_gets_one_answer_whatever_happens);
    return check_end();
}
