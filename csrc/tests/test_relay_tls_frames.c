/* Distribution frames under TLS: taken over from the pump in the middle of everything, in any split of records, both ways at once. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sys/ioctl.h>

#include "relay/net/tls.h"
#include "relay/net/wire.h"
#include "tls_lab.h"

enum { HOUR = 3600, FRAMES = 100, HANDSHAKE_MAX = 3000 };

struct connection {
    SSL *ssl; /* the peer's */
    SSL_CTX *context;
    int stream;
    int64_t session;
};

static struct connection begin(struct tls_lab *tls, const struct tls_identity *it) {
    struct connection c = {.context = tls_peer_context(tls, it)};
    int pair[2];
    tls_pair(pair);
    c.ssl = SSL_new(c.context);
    SSL_set_fd(c.ssl, pair[1]);
    SSL_set_connect_state(c.ssl);
    c.session = rb_tls_begin(tls->pump, tls->context, pair[0], NULL, 5000, &c.stream);
    if (c.session < 0 || SSL_do_handshake(c.ssl) != 1) abort();
    return c;
}
static void adopt(struct lab *lab, struct tls_lab *tls, struct connection *c, const uint8_t *left,
                  size_t size) {
    struct rb_tls *taken;
    struct rb_tls_words why;
    /* TLS 1.3: the peer's handshake is over before ours. */
    while (rb_tls_state(tls->pump, c->session, &why) == 0) usleep(100);
    if (rb_tls_take(tls->pump, c->session, c->stream, &taken) < 0) abort();
    if (rb_relay_adopt_tls(lab->relay, ++lab->connections, taken, "peer@host", LAB_FLAGS, left,
                           size) < 0)
        abort();
}
static void end(struct connection *c) {
    int fd = SSL_get_fd(c->ssl);
    SSL_free(c->ssl);
    SSL_CTX_free(c->context);
    close(fd);
}
static int read_all(SSL *ssl, void *at, size_t size) {
    for (size_t n = 0, got; n < size; n += got) {
        if (SSL_read_ex(ssl, (char *)at + n, size - n, &got) != 1) return 0;
    }
    return 1;
}
/* The next frame that is no tick, without its length: its size. */
static size_t read_frame(SSL *ssl, uint8_t *body, size_t room) {
    uint8_t head[4];
    uint32_t size;
    do {
        if (!read_all(ssl, head, 4)) return 0;
        size = rb_be32(head);
    } while (size == 0);
    return size <= room && read_all(ssl, body, size) ? size : 0;
}

/* --- Taking over ---------------------------------------------------------------------------------- */

/* {6, Pid, '', nobody} and a number: goes up to the interpreter whole. */
static size_t numbered(uint8_t *at, uint32_t number) {
    struct lab_bytes b = {.size = 0};
    PUT(&b, "\0\0\0\0\x83\x44\0\x68\x04\x61\x06");
    lab_put_pid(&b, "peer@host", 1);
    lab_put_atom(&b, "");
    lab_put_atom(&b, "nobody");
    PUT(&b, "\x62");
    lab_put_u32(&b, number);
    rb_put_be32(b.at, (uint32_t)b.size - 4);
    memcpy(at, b.at, b.size);
    return b.size;
}
struct script {
    SSL *ssl;
    const uint8_t *bytes;
    size_t size;
    uint64_t random;
};
static void *play(void *argument) {
    struct script *s = argument;
    for (size_t at = 0; at < s->size;) {
        size_t n = 1 + check_random(&s->random) % (s->random & 64 ? 7 : 3000);
        if (n > s->size - at) n = s->size - at;
        if (SSL_write(s->ssl, s->bytes + at, (int)n) != (int)n) abort();
        at += n;
        if (s->random % 16 == 0) usleep(50);
    }
    return NULL;
}

/* The peer says something (its handshake), and frames at once behind it. We read some of that, answer, and hand over. */
static void take_over(struct lab *lab, struct tls_lab *tls, const struct tls_identity *it,
                      uint64_t *random) {
    static uint8_t said[HANDSHAKE_MAX + FRAMES * 64], got[sizeof said], answer[HANDSHAKE_MAX],
        heard[sizeof answer];
    size_t handshake = 1 + check_random(random) % (HANDSHAKE_MAX - 1), size = handshake;
    memset(said, 'h', handshake);
    for (uint32_t i = 0; i < FRAMES; i++) size += numbered(said + size, i);
    size_t replied = 1 + check_random(random) % (sizeof answer - 1);
    for (size_t i = 0; i < replied; i++) answer[i] = (uint8_t)check_random(random);

    struct connection c = begin(tls, it);
    struct script script = {c.ssl, said, size, check_random(random)};
    pthread_t thread;
    pthread_create(&thread, NULL, play, &script);
    /* The handshake, and what came in one piece behind it. */
    size_t read = 0, piece = 1 + check_random(random) % 4096;
    while (read < handshake) {
        struct pollfd f = {.fd = c.stream, .events = POLLIN};
        poll(&f, 1, LAB_WAIT_MS);
        ssize_t n = recv(c.stream, got + read, piece, 0);
        if (n > 0) read += (size_t)n;
    }
    CHECK(memcmp(got, said, read) == 0);
    if (*random & 1) usleep(check_random(random) % 1000);
    CHECK_EQUAL(send(c.stream, answer, replied, 0), (ssize_t)replied);
    if (*random & 2) usleep(check_random(random) % 1000);
    adopt(lab, tls, &c, got + handshake, read - handshake);
    uint8_t message[5] = {RB_TAG_INTEGER, 0, 0, 0, 0};
    for (uint32_t i = 0; i < FRAMES; i++) {
        rb_put_be32(message + 1, i);
        rb_relay_send(lab->relay, lab->connections, (const uint8_t *)"\x68\x00", 2, message, 5);
    }
    for (uint32_t i = 0; i < FRAMES; i++) {
        if (!lab_event(lab, RB_EVENT_SIGNAL)) {
            CHECK(0);
            break;
        }
        CHECK_EQUAL(rb_be32(lab->event.data + lab->event.size - 4), i);
    }
    pthread_join(thread, NULL);
    CHECK(read_all(c.ssl, heard, replied) && memcmp(heard, answer, replied) == 0);
    for (uint32_t i = 0; i < FRAMES; i++) {
        uint8_t body[64];
        size_t n = read_frame(c.ssl, body, sizeof body);
        CHECK(n > 4);
        CHECK_EQUAL(n > 4 ? rb_be32(body + n - 4) : 0, i);
        if (check_breaches) break;
    }
    SSL_shutdown(c.ssl);
    CHECK(lab_event(lab, RB_EVENT_CONNECTION_LOST));
    CHECK(lab_event_says(lab, "closed_by_peer"));
    end(&c);
}
static void hand_overs(uint32_t version) {
    struct lab lab;
    struct tls_lab tls;
    uint64_t random = 20261121;
    int before = open_descriptors();
    lab_open(&lab);
    tls_lab_open(&tls, RB_TLS_VERIFY_MUTUAL, version);
    struct tls_identity it = tls_identity(&tls.ca, "peer", "DNS:host", HOUR);
    for (int i = 0; i < 30 && !check_breaches; i++) take_over(&lab, &tls, &it, &random);
    CHECK_EQUAL(rb_tls_sessions(tls.pump), 0);
    tls_identity_free(&it);
    tls_lab_close(&tls);
    lab_close(&lab);
    CHECK_EQUAL(open_descriptors(), before);
}
static void no_byte_is_lost_or_moved_when_the_relay_takes_over_tls_1_2(void) {
    hand_overs(TLS1_2_VERSION);
}
static void no_byte_is_lost_or_moved_when_the_relay_takes_over_tls_1_3(void) {
    hand_overs(TLS1_3_VERSION);
}

/* All of it has come before the relay takes over, more than the stream holds; nothing follows that would wake epoll. */
static void what_libssl_holds_is_read_unasked(void) {
    enum { MANY = 1000 };
    static uint8_t said[MANY * 64];
    struct lab lab;
    struct tls_lab tls;
    size_t size = 0;
    lab_open(&lab);
    tls_lab_open(&tls, RB_TLS_VERIFY_MUTUAL, 0);
    struct tls_identity it = tls_identity(&tls.ca, "peer", "DNS:host", HOUR);
    for (uint32_t i = 0; i < MANY; i++) size += numbered(said + size, i);
    struct connection c = begin(&tls, &it);
    CHECK_EQUAL(SSL_write(c.ssl, said, (int)size), (int)size);
    usleep(20000); /* the pump has done what it can */
    adopt(&lab, &tls, &c, NULL, 0);
    for (uint32_t i = 0; i < MANY && !check_breaches; i++) {
        CHECK(lab_event(&lab, RB_EVENT_SIGNAL));
        CHECK_EQUAL(rb_be32(lab.event.data + lab.event.size - 4), i);
    }
    end(&c);
    tls_identity_free(&it);
    tls_lab_close(&tls);
    lab_close(&lab);
}

/* --- Afterwards ------------------------------------------------------------------------------------- */

struct bench { /* all that the tests below stand on */
    struct lab lab;
    struct tls_lab tls;
    struct tls_identity it;
    struct lab_worker *worker;
    struct connection c;
};
static void bench_open(struct bench *b, uint32_t version) {
    lab_open(&b->lab);
    b->worker = lab_worker(&b->lab);
    tls_lab_open(&b->tls, RB_TLS_VERIFY_MUTUAL, version);
    b->it = tls_identity(&b->tls.ca, "peer", "DNS:host", HOUR);
    b->c = begin(&b->tls, &b->it);
    adopt(&b->lab, &b->tls, &b->c, NULL, 0);
}
static void bench_close(struct bench *b) {
    end(&b->c);
    lab_worker_end(&b->lab, b->worker, NULL);
    lab_close(&b->lab);
    tls_identity_free(&b->it);
    tls_lab_close(&b->tls);
}
/* A call {submit, echo, Payload} as bytes: its frames, in one string. */
static size_t submit_bytes(uint8_t *at, uint32_t caller, const uint8_t *payload, uint32_t size) {
    uint8_t *p = at;
    struct lab_bytes b = {.size = 0};
    PUT(&b, "\0\0\0\0\x83\x44\0\x68\x04\x61\x13");
    lab_put_pid(&b, "peer@host", caller);
    lab_put_atom(&b, "job_dispatcher");
    lab_put_ref(&b, caller);
    rb_put_be32(b.at, (uint32_t)b.size - 4);
    memcpy(p, b.at, b.size);
    p += b.size;
    b.size = 0;
    PUT(&b, "\0\0\0\0\x83\x44\0");
    lab_call_head(&b, caller, caller);
    lab_submit_head(&b, 3, "echo");
    PUT(&b, "\x6d");
    lab_put_u32(&b, size);
    rb_put_be32(b.at, (uint32_t)b.size - 4 + size);
    memcpy(p, b.at, b.size);
    memcpy(p + b.size, payload, size);
    return (size_t)(p - at) + b.size + size;
}
static uint8_t payload[LAB_PAYLOAD_MAX], bytes[LAB_PAYLOAD_MAX + 4096], body[2 << 20];

static void key_update(SSL *ssl, uint32_t version) {
    if (version == TLS1_3_VERSION) CHECK_EQUAL(SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED), 1);
}
static void large_payloads(uint32_t version) {
    struct bench b;
    uint64_t random = 7;
    bench_open(&b, version);
    for (size_t i = 0; i < sizeof payload; i++) payload[i] = (uint8_t)check_random(&random);
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t size = (uint32_t)(sizeof payload - check_random(&random) % 100000);
        size_t all = submit_bytes(bytes, i + 1, payload, size);
        for (size_t at = 0, n; at < all; at += n) {
            n = 1 + check_random(&random) % 40000;
            if (n > all - at) n = all - at;
            if (check_random(&random) % 8 == 0) key_update(b.c.ssl, version);
            CHECK_EQUAL(SSL_write(b.c.ssl, bytes + at, (int)n), (int)n);
        }
        const struct rb_request *r = lab_request(b.worker, 0);
        CHECK(r != NULL);
        if (!r) break;
        CHECK_EQUAL(r->payload_bytes, size);
        CHECK(memcmp(lab_payload(b.worker, r), payload, size) == 0);
        lab_complete(b.worker, "done", 4);
        size_t n = read_frame(b.c.ssl, body, sizeof body);
        CHECK(n > 0 && memmem(body, n, "done", 4) != NULL);
    }
    bench_close(&b);
}
static void a_large_payload_lies_in_its_place_over_tls_1_2(void) { large_payloads(TLS1_2_VERSION); }
static void a_large_payload_lies_in_its_place_through_key_updates(void) {
    large_payloads(TLS1_3_VERSION);
}

static void a_peer_that_reads_late_gets_all_in_order(void) {
    enum { EACH = 60000, COUNT = 100 }; /* frames, no fragments */
    struct bench b;
    bench_open(&b, TLS1_3_VERSION);
    uint8_t *message = malloc(EACH);
    memset(message, 0, EACH);
    message[0] = RB_TAG_BINARY;
    rb_put_be32(message + 1, EACH - 5);
    for (uint32_t i = 0; i < COUNT;
         i++) { /* 6 MB, more than the socket takes: tried again and again */
        rb_put_be32(message + EACH - 4, i);
        rb_relay_send(b.lab.relay, b.lab.connections, (const uint8_t *)"\x68\x00", 2, message,
                      EACH);
        key_update(b.c.ssl, i % 10 == 0 ? TLS1_3_VERSION : 0); /* answered between our records */
        SSL_write(b.c.ssl, "\0\0\0\0", 4);
    }
    usleep(20000);
    for (uint32_t i = 0; i < COUNT; i++) {
        size_t n = read_frame(b.c.ssl, body, sizeof body);
        CHECK_EQUAL(n, EACH + 3 + 2);
        CHECK_EQUAL(n > 4 ? rb_be32(body + n - 4) : 0, i);
        if (check_breaches) break;
    }
    free(message);
    bench_close(&b);
}

static void a_peer_that_never_reads_is_closed(void) {
    struct bench b;
    bench_open(&b, TLS1_3_VERSION);
    uint8_t *message = calloc(1, 1 << 20);
    message[0] = RB_TAG_BINARY;
    rb_put_be32(message + 1, (1 << 20) - 5);
    for (uint32_t i = 0; i < 16; i++)
        rb_relay_send(b.lab.relay, b.lab.connections, (const uint8_t *)"\x68\x00", 2, message,
                      1 << 20);
    CHECK(lab_event(&b.lab, RB_EVENT_CONNECTION_LOST));
    CHECK(b.lab.event.size > 22 && memcmp(b.lab.event.data, "outgoing_limit_reached", 22) == 0);
    free(message);
    bench_close(&b);
}

static void a_peer_that_demands_keys_and_reads_none_is_closed(void) {
    struct bench b;
    bench_open(&b, TLS1_3_VERSION);
    int small = 4096;
    setsockopt(SSL_get_fd(b.c.ssl), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    for (int i = 0; i < 200000; i++) { /* a tick between, for libssl bears only so many in a row */
        if (SSL_key_update(b.c.ssl, SSL_KEY_UPDATE_REQUESTED) != 1) break;
        if (SSL_write(b.c.ssl, "\0\0\0\0", 4) != 4) break;
    }
    CHECK(lab_event(&b.lab, RB_EVENT_CONNECTION_LOST));
    CHECK(lab_event_says(&b.lab, "the peer demands KeyUpdates and reads none of their answers"));
    bench_close(&b);
}

/* One byte of data among as many KeyUpdates as libssl bears in a row: 30 times the bytes, and a thousand times the work, that the
 * data's own count tells of. One read takes a bounded part of them, and says that there is more. */
static void one_read_takes_a_bounded_part_of_what_is_no_data(void) {
    enum { BYTES = 150 << 10, IN_A_ROW = 30 };
    struct tls_lab tls;
    tls_lab_open(&tls, RB_TLS_VERIFY_MUTUAL, TLS1_3_VERSION);
    struct tls_identity it = tls_identity(&tls.ca, "peer", "DNS:host", HOUR);
    struct connection c = begin(&tls, &it);
    struct rb_tls_words why;
    struct rb_wire wire = {.tls = NULL};
    while (rb_tls_state(tls.pump, c.session, &why) == 0) usleep(100);
    CHECK_EQUAL(rb_tls_take(tls.pump, c.session, c.stream, &wire.tls), 0);
    wire.fd = wire.tls->fd;
    int after = 0, data = 0, got = 0;
    BIO *flood = BIO_new(BIO_s_mem()); /* sent at once: small pieces fill a socket by themselves */

    SSL_set0_wbio(c.ssl, flood);
    while (BIO_pending(flood) < BYTES) {
        for (int i = 0; i < IN_A_ROW; i++) {
            CHECK_EQUAL(SSL_key_update(c.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
            CHECK_EQUAL(SSL_do_handshake(c.ssl), 1); /* sends it */
        }
        CHECK_EQUAL(SSL_write(c.ssl, "x", 1), 1);
        data++;
    }
    char *at;
    long size = BIO_get_mem_data(flood, &at);
    CHECK_EQUAL(send(SSL_get_fd(c.ssl), at, (size_t)size, MSG_DONTWAIT), size);
    struct iovec room = {body, sizeof body};
    got = (int)rb_wire_read(&wire, &room, 1);
    ioctl(wire.fd, FIONREAD, &after);
    CHECK(got > 0 && got < data && after > 0 && !wire.drained);
    while (got < data) {
        ssize_t n = rb_wire_read(&wire, &room, 1);
        if (n <= 0 && !(n == -EAGAIN && !wire.drained)) break;
        got += n > 0 ? (int)n : 0;
    }
    CHECK_EQUAL(got, data);
    CHECK_EQUAL(rb_wire_read(&wire, &room, 1), -EAGAIN);
    CHECK(wire.drained);
    rb_wire_close(&wire);
    SSL_set0_wbio(c.ssl, BIO_new(BIO_s_null()));
    end(&c);
    tls_identity_free(&it);
    tls_lab_close(&tls);
}

static void a_record_that_was_tampered_with_ends_the_connection_in_words(void) {
    struct bench b;
    bench_open(&b, TLS1_3_VERSION);
    uint8_t forged[64] = {23, 3, 3, 0, 59};
    lab_write(SSL_get_fd(b.c.ssl), forged, sizeof forged);
    CHECK(lab_event(&b.lab, RB_EVENT_CONNECTION_LOST));
    CHECK(b.lab.event.size > 19 && memcmp(b.lab.event.data, "the peer broke TLS:", 19) == 0);
    bench_close(&b);
}

static void a_renegotiation_is_refused_and_the_connection_goes_on(void) {
    struct bench b;
    bench_open(&b, TLS1_2_VERSION);
    SSL_renegotiate(b.c.ssl);
    SSL_do_handshake(b.c.ssl); /* sends ClientHello; no_renegotiation comes back */
    size_t all = submit_bytes(bytes, 1, (const uint8_t *)"x", 1);
    CHECK(SSL_write(b.c.ssl, bytes, (int)all) == (int)all ||
          SSL_get_error(b.c.ssl, -1) != SSL_ERROR_NONE);
    /* Either way the relay stands: another connection is served. */
    struct connection other = begin(&b.tls, &b.it);
    adopt(&b.lab, &b.tls, &other, NULL, 0);
    all = submit_bytes(bytes, 2, (const uint8_t *)"y", 1);
    CHECK_EQUAL(SSL_write(other.ssl, bytes, (int)all), (int)all);
    for (int i = 0; i < 2 && !check_breaches; i++) {
        const struct rb_request *r = lab_request(b.worker, 0);
        CHECK(r != NULL);
        if (!r) break;
        int ours = lab_payload(b.worker, r)[0] == 'y';
        lab_complete(b.worker, "answer", 6);
        if (ours) break;
    }
    size_t n = read_frame(other.ssl, body, sizeof body);
    CHECK(n > 0 && memmem(body, n, "answer", 6) != NULL);
    end(&other);
    bench_close(&b);
}

/* Blocked in our threads, so it would hang there for ever: /proc shows it. */
static int sigpipe_pends(void) {
    DIR *tasks = opendir("/proc/self/task");
    int found = 0;
    for (struct dirent *e; (e = readdir(tasks));) {
        char path[300], line[256];
        snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
        FILE *f = fopen(path, "r");
        while (f && fgets(line, sizeof line, f)) {
            unsigned long long pending;
            if (sscanf(line, "SigPnd: %llx", &pending) == 1 && pending >> (SIGPIPE - 1) & 1)
                found = 1;
        }
        if (f) fclose(f);
    }
    closedir(tasks);
    return found;
}
static void a_connection_that_breaks_raises_no_signal(void) {
    struct bench b;
    signal(SIGPIPE, SIG_DFL); /* an ignored signal never pends */
    static uint8_t message[100000] = {RB_TAG_BINARY, 0, 1, 0x86, 0x9b};
    bench_open(&b, TLS1_3_VERSION);
    shutdown(SSL_get_fd(b.c.ssl), SHUT_RD);
    for (int i = 0; i < 20; i++)
        rb_relay_send(b.lab.relay, b.lab.connections, (const uint8_t *)"\x68\x00", 2, message,
                      sizeof message);
    CHECK(lab_event(&b.lab, RB_EVENT_CONNECTION_LOST));
    CHECK(lab_event_says(&b.lab, "reset_by_peer"));
    CHECK(!sigpipe_pends());
    signal(SIGPIPE, SIG_IGN);
    bench_close(&b);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN); /* of the peer's own libssl, in this thread */
    RUN(no_byte_is_lost_or_moved_when_the_relay_takes_over_tls_1_2);
    RUN(no_byte_is_lost_or_moved_when_the_relay_takes_over_tls_1_3);
    RUN(what_libssl_holds_is_read_unasked);
    RUN(a_large_payload_lies_in_its_place_over_tls_1_2);
    RUN(a_large_payload_lies_in_its_place_through_key_updates);
    RUN(a_peer_that_reads_late_gets_all_in_order);
    RUN(a_peer_that_never_reads_is_closed);
    RUN(a_connection_that_breaks_raises_no_signal);
    RUN(a_peer_that_demands_keys_and_reads_none_is_closed);
    RUN(one_read_takes_a_bounded_part_of_what_is_no_data);
    RUN(a_record_that_was_tampered_with_ends_the_connection_in_words);
    RUN(a_renegotiation_is_refused_and_the_connection_goes_on);
    return check_end();
}
