/* What the relay sends: atoms as references that a receiver resolves, large signals as fragments that let others pass. */
#define _GNU_SOURCE
#include "intake_run.h"
#include "relay/net/pack.h"
#undef PUT /* both headers have one; here the lab's signals are written with those of terms.h */
#include "relay_lab.h"
#undef PUT
#define PUT(b, text) put(b, text, sizeof(text) - 1)

enum { ALL = HEADER | CACHE | RB_DFLAG_SEND_SENDER | RB_DFLAG_EXIT_PAYLOAD };

/* --- A receiver: keeps all that comes and gives it to an intake -------------------------------- */

struct receiver {
    int fd;
    struct bytes all;
    struct rb_intake in;
    struct owner owner;
};

static void receiver_open(struct receiver *v, int fd, uint64_t flags) {
    *v = (struct receiver){.fd = fd};
    owner_open(&v->owner, &v->in, flags, FRAME_MAX, HEAP_MAX);
}
static void receiver_close(struct receiver *v) {
    CHECK(owner_close(&v->owner));
    bytes_free(&v->all);
    close(v->fd);
}
static const char *log_of(struct receiver *v) {
    put_u8(&v->owner.log, 0);
    v->owner.log.size--;
    return (const char *)v->owner.log.at;
}
/* Reads until so many signals have come, or nothing does any more. */
static void receive(struct receiver *v, int signals) {
    uint8_t piece[65536];
    while (lines_of(log_of(v)) < signals) {
        struct pollfd p = {.fd = v->fd, .events = POLLIN};
        ssize_t n = poll(&p, 1, LAB_WAIT_MS) > 0 ? recv(v->fd, piece, sizeof piece, 0) : -1;
        CHECK(n > 0);
        if (n <= 0) return;
        put(&v->all, piece, (size_t)n);
        CHECK_EQUAL(give(&v->in, piece, (size_t)n, WHOLE, 0), 0);
    }
}
/* The frames that came, a letter each: w whole, f first fragment, c another, l the last; ticks are none. */
static void kinds(const struct receiver *v, char *out, size_t room) {
    for (size_t at = 0; at + 4 <= v->all.size && room > 1; at += 4 + rb_be32(v->all.at + at)) {
        const uint8_t *p = v->all.at + at + 4;
        if (rb_be32(p - 4) == 0) continue;
        *out++ = p[1] == 68 ? 'w' : p[1] == 69 ? 'f' : rb_be64(p + 10) == 1 ? 'l' : 'c';
        room--;
        CHECK(p[1] == 68 || (rb_be64(p + 2) >= 1 && rb_be64(p + 10) >= 1));
    }
    *out = 0;
}

static int connect_with(struct lab *lab, uint64_t flags) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) abort();
    if (rb_relay_adopt(lab->relay, ++lab->connections, pair[0], "peer@host", flags, NULL, 0) < 0)
        abort();
    return pair[1];
}

/* {6, Pid, '', name} of process `from`, with a binary of `size`. */
static void send_from(struct lab *lab, uint32_t from, const char *name, uint32_t size) {
    struct bytes control = {0}, message = {0};
    put_tuple(&control, 4);
    put_integer(&control, RB_OP_REG_SEND);
    put_pid(&control, "bridge@host", from);
    put_atom(&control, "");
    put_atom(&control, name);
    put_u8(&message, RB_TAG_BINARY);
    put_u32(&message, size);
    for (uint32_t i = 0; i < size; i++) put_u8(&message, i * 31 >> 3);
    CHECK_EQUAL(rb_relay_send(lab->relay, lab->connections, control.at, control.size, message.at,
                              message.size),
                0);
    bytes_free(&control);
    bytes_free(&message);
}

/* Waits until the relay has taken all that was handed to it: it answers on another connection. */
static void settle(struct lab *lab) {
    struct lab_bytes b = {.size = 0};
    lab_call_head(&b, 77, 77);
    lab_put_atom(&b, "stats");
    lab_frame(lab->peer, &b);
    CHECK(lab_answer_has(lab->peer, "accepted", 8));
}

/* --- Atoms ------------------------------------------------------------------------------------- */

/* Random signals, packed one after the other, are the same signals to an intake, and atoms leave once. */
static void a_receiver_has_the_atoms_that_were_packed(void) {
    static struct rb_packing k;
    struct rb_taught *t = calloc(1, sizeof *t);
    struct bytes plain = {0}, packed = {0};
    for (uint64_t i = 1; i <= 3000; i++) {
        uint64_t seed = i * 7919;
        struct bytes s = {0}, body = {0};
        char name[8];
        snprintf(name, sizeof name, "n%u", (unsigned)(i % 37));
        put_tuple(&s, 4);
        put_integer(&s, RB_OP_REG_SEND);
        put_pid(&s, "bridge@host", (uint32_t)i);
        put_atom(&s, "");
        put_atom(&s, name);
        put_random(&s, &seed, 5);
        put_whole(&plain, &s, 0);
        if (s.size > 1 << 20) abort();            /* for a compiler that thinks so */
        struct bytes out = exactly(s.at, s.size); /* it never grows: ASan would see it */
        size_t walk = i % 5 ? SIZE_MAX : (size_t)i % 300;
        size_t n = rb_pack(t, &k, s.at, s.size, walk, out.at);
        CHECK(n <= s.size);
        PUT(&body, "\x83\x44");
        put(&body, k.header, k.size);
        put(&body, out.at, n);
        put_frame(&packed, &body);
        bytes_free(&s);
        bytes_free(&out);
        bytes_free(&body);
    }
    struct outcome wanted = run_all(&plain, HEADER, WHOLE, 0);
    CHECK_EQUAL(lines_of(wanted.log), 3000);
    same_as(&wanted, run_all(&packed, HEADER | CACHE, WHOLE, 0), "packed", 0);
    free(wanted.log);
    rb_taught_free(t);
    bytes_free(&plain);
    bytes_free(&packed);
}

static void an_atom_leaves_once_and_then_as_its_slot(void) {
    static struct rb_packing k;
    struct rb_taught *t = calloc(1, sizeof *t);
    struct bytes s = {0};
    uint8_t out[256];
    put_tuple(&s, 3);
    put_integer(&s, 2);
    put_atom(&s, "hello");
    put_atom(&s, "hello");
    CHECK_EQUAL(rb_pack(t, &k, s.at, s.size, SIZE_MAX, out), 2 + 2 + 2 + 2);
    CHECK(k.count == 1 && k.size == 1 + 1 + 1 + 1 + 5 && k.header[1] & 8);
    CHECK_EQUAL(rb_pack(t, &k, s.at, s.size, SIZE_MAX, out), 8);
    CHECK(k.count == 1 && k.size == 3 && !(k.header[1] & 8));
    rb_taught_free(t);
    bytes_free(&s);
}

/* More than a header can name, two that share a slot, one too long: they go whole, and slots stay below a BEAM's 2039. */
static void atoms_beyond_the_header_go_whole(void) {
    static struct rb_packing k;
    struct rb_taught *t = calloc(1, sizeof *t);
    struct bytes s = {0}, plain = {0}, packed = {0}, body = {0};
    char name[32];
    put_tuple(&s, 4);
    put_integer(&s, RB_OP_REG_SEND);
    put_pid(&s, "bridge@host", 1);
    put_atom(&s, "");
    put_atom(&s, "plain");
    put_list(&s, 1001);
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "atom number %d", i);
        put_atom(&s, name);
    }
    put_u8(&s, RB_TAG_ATOM_UTF8);
    put_u16(&s, 300);
    for (int i = 0; i < 150; i++) PUT(&s, "\xc3\xa9");
    put_nil(&s);
    put_whole(&plain, &s, 0);
    uint8_t *out = malloc(s.size);
    size_t n = rb_pack(t, &k, s.at, s.size, SIZE_MAX, out);
    CHECK_EQUAL(k.count, 255);
    const uint8_t *at = k.header + 1 + 128;
    for (unsigned i = 0; i < 255; i++) {
        unsigned how = k.header[1 + i / 2] >> 4 * (i % 2) & 15;
        CHECK(((how & 7) << 8 | at[0]) < 2039);
        at += how & 8 ? 2 + at[1] : 1;
    }
    PUT(&body, "\x83\x44");
    put(&body, k.header, k.size);
    put(&body, out, n);
    put_frame(&packed, &body);
    struct outcome wanted = run_all(&plain, HEADER, WHOLE, 0);
    same_as(&wanted, run_all(&packed, HEADER | CACHE, WHOLE, 0), "packed", 0);
    free(wanted.log);
    free(out);
    rb_taught_free(t);
    bytes_free(&s);
    bytes_free(&plain);
    bytes_free(&packed);
    bytes_free(&body);
}

/* --- Fragments --------------------------------------------------------------------------------- */

static void a_large_signal_leaves_in_fragments(void) {
    struct lab lab;
    struct receiver v;
    char seen[64];
    lab_open(&lab);
    receiver_open(&v, connect_with(&lab, ALL), HEADER | CACHE);
    send_from(&lab, 1, "one", 300000);
    send_from(&lab, 1, "two", 65000);
    receive(&v, 2);
    kinds(&v, seen, sizeof seen);
    CHECK(strcmp(seen, "fccccclw") == 0 || strcmp(seen, "fcccclw") == 0);
    CHECK(strncmp(log_of(&v), "6 to one: 300005 ", 17) == 0);
    receiver_close(&v);
    lab_close(&lab);
}

static void without_the_flag_it_leaves_whole(void) {
    static const uint64_t flags[] = {0, CACHE};
    for (int i = 0; i < 2; i++) {
        struct lab lab;
        struct receiver v;
        lab_open(&lab);
        receiver_open(&v, connect_with(&lab, flags[i] | RB_DFLAG_SEND_SENDER), flags[i]);
        send_from(&lab, 1, "one", 300000);
        receive(&v, 1);
        CHECK(strncmp(log_of(&v), "6 to one: 300005 ", 17) == 0);
        CHECK(rb_be32(v.all.at) > 300000);
        receiver_close(&v);
        lab_close(&lab);
    }
}

static const char *line(const char *log, int n) {
    while (n-- && log) log = strchr(log, '\n') ? strchr(log, '\n') + 1 : NULL;
    return log ? log : "";
}

/* Nobody reads while they are sent, so all of them queue behind what the socket took. */
static void others_pass_a_large_signal_and_its_sender_does_not(void) {
    struct lab lab;
    struct receiver v;
    lab_open(&lab);
    receiver_open(&v, connect_with(&lab, ALL), HEADER | CACHE);
    send_from(&lab, 1, "large1", 3000000);
    send_from(&lab, 2, "large2", 2000000);
    send_from(&lab, 1, "behind", 10);
    send_from(&lab, 3, "small3", 10);
    send_from(&lab, 2, "then2", 70000);
    send_from(&lab, 2, "last2", 10);
    send_from(&lab, 4, "small4", 10);
    settle(&lab);
    receive(&v, 7);
    const char *log = log_of(&v);
    CHECK(strncmp(line(log, 0), "6 to small3", 11) == 0);
    CHECK(strncmp(line(log, 1), "6 to small4", 11) == 0);
    CHECK(strncmp(line(log, 2), "6 to large2", 11) == 0); /* in turn with the longer one */
    CHECK(strstr(log, "to large1") < strstr(log, "to behind"));
    CHECK(strstr(log, "to large2") < strstr(log, "to then2"));
    CHECK(strstr(log, "to then2") < strstr(log, "to last2"));
    receiver_close(&v);
    lab_close(&lab);
}

/* A signal that does not name its sender (a peer without SEND_SENDER) keeps its place among all. */
static void a_signal_of_an_unknown_sender_passes_nobody(void) {
    struct lab lab;
    struct receiver v;
    struct bytes control = {0};
    lab_open(&lab);
    receiver_open(&v, connect_with(&lab, ALL), HEADER | CACHE);
    send_from(&lab, 1, "large", 3000000);
    put_tuple(&control, 3);
    put_integer(&control, RB_OP_SEND);
    put_atom(&control, "");
    put_atom(&control, "nobody"); /* a name in a pid's place: the receiver writes names down */
    rb_relay_send(lab.relay, lab.connections, control.at, control.size, (const uint8_t *)"a\1", 2);
    send_from(&lab, 2, "after", 10);
    settle(&lab);
    receive(&v, 3);
    const char *log = log_of(&v);
    CHECK(strncmp(line(log, 0), "6 to large", 10) == 0);
    CHECK(strncmp(line(log, 1), "2 to nobody", 11) == 0);
    CHECK(strncmp(line(log, 2), "6 to after", 10) == 0);
    bytes_free(&control);
    receiver_close(&v);
    lab_close(&lab);
}

/* More at once than streams there may be, of many senders, in portions; each is whole and each sender's are in order. */
static void many_large_signals_of_many_senders_stay_whole_and_in_order(void) {
    enum { SENDERS = 40, EACH = 3 };
    struct lab lab;
    struct receiver v;
    char name[16];
    lab_open(&lab);
    receiver_open(&v, connect_with(&lab, ALL), HEADER | CACHE);
    for (int i = 0; i < EACH; i++) {
        for (unsigned from = 0; from < SENDERS; from++) {
            snprintf(name, sizeof name, "s%u_%d", from % 100, i % 10);
            send_from(&lab, from + 1, name, i == 1 ? 20 : 66000 + from);
        }
    }
    receive(&v, SENDERS * EACH);
    const char *log = log_of(&v);
    for (unsigned from = 0; from < SENDERS; from++) {
        const char *before = log;
        for (int i = 0; i < EACH; i++) {
            char wanted[48];
            snprintf(wanted, sizeof wanted, "to s%u_%d: %u ", from, i, i == 1 ? 25 : 66005 + from);
            const char *at = strstr(log, wanted);
            CHECK(at != NULL && at >= before);
            if (at) before = at;
        }
    }
    receiver_close(&v);
    lab_close(&lab);
}

/* --- Answers ----------------------------------------------------------------------------------- */

static uint8_t large[400000];

static void answer_from_the_region(struct lab_worker *w) {
    const struct rb_request *r = lab_request(w, 0);
    if (!r) return;
    lab_start(w, 1);
    memcpy(w->link.results, large, sizeof large);
    struct rb_completion e;
    memset(&e, 0, sizeof e);
    e.job = r->job;
    e.payload_bytes = sizeof large;
    e.crc = rb_completion_crc(&e, w->link.results, w->link.header.features);
    rb_ring_release(&w->link.request_ring, 1);
    lab_publish(w, &e);
}

/* Its kinds of frames, when a job of a caller with an alias is answered by 400,000 bytes. */
static void large_answer(uint64_t flags, char *seen, size_t room) {
    struct lab lab;
    struct receiver v;
    for (size_t i = 0; i < sizeof large; i++) large[i] = (uint8_t)(i * 7 >> 4);
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    receiver_open(&v, connect_with(&lab, flags), flags);
    lab_submit(v.fd, 1, "please", 6);
    answer_from_the_region(w);
    receive(&v, 1);
    kinds(&v, seen, room);
    CHECK(memmem(v.all.at, v.all.size, large, 1000) != NULL);
    receiver_close(&v);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void a_large_answer_to_an_alias_leaves_whole_before_otp_28(void) {
    char seen[64];
    large_answer(ALL, seen, sizeof seen);
    CHECK(strcmp(seen, "w") == 0);
    large_answer(ALL | RB_DFLAG_ALTACT_SIG, seen, sizeof seen);
    CHECK(strcmp(seen, "fccccccl") == 0);
}

/* --- Bounds ------------------------------------------------------------------------------------ */

static void what_waits_is_bounded_and_the_end_names_the_limit(void) {
    struct lab lab;
    lab_open(&lab); /* 8 MiB */
    int fd = connect_with(&lab, ALL);
    for (unsigned i = 0; i < 6; i++) send_from(&lab, i + 1, "large", 2000000);
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    CHECK(lab_event_says(&lab, "outgoing_limit_reached: the peer does not read"));
    close(fd);
    lab_close(&lab);
}

/* LSan is the judge. */
static void a_connection_that_ends_with_streams_frees_them(void) {
    struct lab lab;
    lab_open(&lab);
    int fd = connect_with(&lab, ALL);
    for (unsigned i = 0; i < 3; i++) send_from(&lab, 1, "large", 1000000);
    close(fd);
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    lab_close(&lab);
}

int main(void) {
    RUN(a_receiver_has_the_atoms_that_were_packed);
    RUN(an_atom_leaves_once_and_then_as_its_slot);
    RUN(atoms_beyond_the_header_go_whole);
    RUN(a_large_signal_leaves_in_fragments);
    RUN(without_the_flag_it_leaves_whole);
    RUN(others_pass_a_large_signal_and_its_sender_does_not);
    RUN(a_signal_of_an_unknown_sender_passes_nobody);
    RUN(many_large_signals_of_many_senders_stay_whole_and_in_order);
    RUN(a_large_answer_to_an_alias_leaves_whole_before_otp_28);
    RUN(what_waits_is_bounded_and_the_end_names_the_limit);
    RUN(a_connection_that_ends_with_streams_frees_them);
    return check_end();
}
