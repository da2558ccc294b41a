/* The relay's TLS, rule by rule: against libssl's own blocking calls as the peer, over socket pairs. */
#define _GNU_SOURCE
#include "tls_lab.h"

enum { HOUR = 3600, PATIENT_MS = 5000 };

struct peer {
    SSL *ssl;
    SSL_CTX *context;
    int stream; /* what the interpreter would hold */
    int64_t session;
};

/* A session with a peer of its own. `dialled`: the peer is the server, and this the host that we dial. */
static struct peer peer_new(struct tls_lab *lab, const struct tls_identity *it, const char *dialled,
                            uint32_t timeout_ms) {
    struct peer p = {.context = tls_peer_context(lab, it)};
    int pair[2];
    tls_pair(pair);
    p.ssl = SSL_new(p.context);
    SSL_set_fd(p.ssl, pair[1]);
    if (dialled)
        SSL_set_accept_state(p.ssl);
    else
        SSL_set_connect_state(p.ssl);
    p.session = rb_tls_begin(lab->pump, lab->context, pair[0], dialled, timeout_ms, &p.stream);
    if (p.session < 0) abort();
    return p;
}
static void peer_close(struct peer *p) {
    int fd = SSL_get_fd(p->ssl);
    SSL_free(p->ssl);
    SSL_CTX_free(p->context);
    if (fd >= 0) close(fd);
}
static int wait_ms(int fd, int ms) {
    struct pollfd f = {.fd = fd, .events = POLLIN};
    return poll(&f, 1, ms);
}
/* What the session says once its stream has ended. */
static const char *words(struct tls_lab *lab, const struct peer *p) {
    static struct rb_tls_words why;
    char byte;
    while (wait_ms(p->stream, PATIENT_MS) == 1 && recv(p->stream, &byte, 1, 0) == 1) {
    }
    rb_tls_state(lab->pump, p->session, &why);
    return why.text;
}
static void forget(struct tls_lab *lab, struct peer *p) {
    rb_tls_forget(lab->pump, p->session);
    close(p->stream);
    peer_close(p);
}
static void sessions_end(struct tls_lab *lab) {
    for (int ms = 0; rb_tls_sessions(lab->pump) && ms < 3000; ms++) usleep(1000);
    CHECK_EQUAL(rb_tls_sessions(lab->pump), 0);
}
static int read_exactly(int fd, void *at, size_t size) {
    for (size_t n = 0; n < size;) {
        if (wait_ms(fd, PATIENT_MS) != 1) return 0;
        ssize_t got = recv(fd, (char *)at + n, size - n, 0);
        if (got <= 0 && errno != EAGAIN) return 0;
        if (got > 0) n += (size_t)got;
    }
    return 1;
}
static int ssl_read_exactly(SSL *ssl, void *at, size_t size) {
    for (size_t n = 0, got; n < size; n += got) {
        if (SSL_read_ex(ssl, (char *)at + n, size - n, &got) != 1) return 0;
    }
    return 1;
}

/* --- The pump ---------------------------------------------------------------------------------- */

static void streams(uint32_t version, const char *dialled) {
    struct tls_lab lab;
    char got[64];
    struct rb_tls_words said;
    int before = open_descriptors();
    tls_lab_open(&lab, RB_TLS_VERIFY_MUTUAL, version);
    struct tls_identity it = tls_identity(&lab.ca, "peer", "DNS:host", HOUR);
    struct peer p = peer_new(&lab, &it, dialled, 5000);
    CHECK_EQUAL(SSL_do_handshake(p.ssl), 1);
    for (int i = 0; i < 10; i++) SSL_write(p.ssl, "ten times.", 10);
    char all[100];
    CHECK(read_exactly(p.stream, all, sizeof all));
    CHECK(memcmp(all + 90, "ten times.", 10) == 0);
    CHECK_EQUAL(send(p.stream, "and back", 8, 0), 8);
    CHECK(ssl_read_exactly(p.ssl, got, 8) && memcmp(got, "and back", 8) == 0);
    CHECK_EQUAL(rb_tls_state(lab.pump, p.session, &said), 1);
    CHECK_EQUAL(rb_tls_version(lab.pump, p.session, &said), 0);
    CHECK(strncmp(said.text, version == TLS1_2_VERSION ? "TLSv1.2 " : "TLSv1.3 ", 8) == 0);
    CHECK_EQUAL(rb_tls_check_host(lab.pump, p.session, "host", &said), 0);
    CHECK_EQUAL(rb_tls_check_host(lab.pump, p.session, "elsewhere", &said), -EPROTO);
    CHECK(strstr(said.text, "CN = peer names DNS:host, not elsewhere") != NULL);
    /* The last words of the stream still go, then close_notify. */
    CHECK_EQUAL(send(p.stream, "last", 4, 0), 4);
    rb_tls_forget(lab.pump, p.session);
    close(p.stream);
    CHECK(ssl_read_exactly(p.ssl, got, 4) && memcmp(got, "last", 4) == 0);
    CHECK_EQUAL(SSL_read(p.ssl, got, 1), 0);
    CHECK_EQUAL(SSL_get_shutdown(p.ssl), SSL_RECEIVED_SHUTDOWN);
    peer_close(&p);
    sessions_end(&lab);
    tls_identity_free(&it);
    tls_lab_close(&lab);
    CHECK_EQUAL(open_descriptors(), before);
}
static void a_client_is_a_plain_stream_over_tls_1_2(void) { streams(TLS1_2_VERSION, NULL); }
static void a_client_is_a_plain_stream_over_tls_1_3(void) { streams(TLS1_3_VERSION, NULL); }
static void a_server_is_a_plain_stream_over_tls_1_2(void) { streams(TLS1_2_VERSION, "host"); }
static void a_server_is_a_plain_stream_over_tls_1_3(void) { streams(TLS1_3_VERSION, "host"); }

static void the_host_that_is_dialled_is_told_as_a_beam_tells_it(void) {
    struct tls_lab lab;
    tls_lab_open(&lab, RB_TLS_VERIFY_MUTUAL, 0);
    struct tls_identity it = tls_identity(&lab.ca, "peer", "IP:127.0.0.1", HOUR);
    struct peer p = peer_new(&lab, &it, "127.0.0.1", 5000);
    CHECK_EQUAL(SSL_do_handshake(p.ssl), 1);
    const char *sni = SSL_get_servername(p.ssl, TLSEXT_NAMETYPE_host_name);
    CHECK(sni && strcmp(sni, "127.0.0.1") == 0);
    CHECK_EQUAL(send(p.stream, "x", 1, 0), 1);
    char got;
    CHECK(ssl_read_exactly(p.ssl, &got, 1));
    forget(&lab, &p);
    tls_identity_free(&it);
    tls_lab_close(&lab);
}

/* --- What is refused, and in which words ----------------------------------------------------------- */

static void refused(const struct tls_identity *it, struct tls_lab *lab, const char *dialled,
                    const char *rule) {
    struct peer p = peer_new(lab, it, dialled, 5000);
    char byte;
    SSL_do_handshake(p.ssl);
    SSL_read(p.ssl, &byte, 1); /* TLS 1.3 tells a client of it here only */
    CHECK(ERR_GET_REASON(ERR_peek_error()) > SSL_AD_REASON_OFFSET); /* the peer has heard why */
    ERR_clear_error();
    const char *said = words(lab, &p);
    if (!strstr(said, rule)) printf("%s\n", said);
    CHECK(strstr(said, rule) != NULL);
    forget(lab, &p);
}
static void certificates(uint32_t version) {
    struct tls_lab lab;
    tls_lab_open(&lab, RB_TLS_VERIFY_MUTUAL, version);
    struct tls_identity stranger = tls_identity(NULL, "stranger", "DNS:host", HOUR);
    struct tls_identity expired = tls_identity(&lab.ca, "old", "DNS:host", -HOUR);
    struct tls_identity elsewhere =
        tls_identity(&lab.ca, "other", "DNS:elsewhere,IP:10.0.0.1", HOUR);
    refused(&stranger, &lab, NULL, "our ca did not sign the peer's certificate CN = stranger");
    refused(&stranger, &lab, "host", "our ca did not sign the peer's certificate CN = stranger");
    refused(&expired, &lab, NULL,
            "the peer's certificate CN = old has expired: it was valid until 2");
    refused(&expired, &lab, "host",
            "the peer's certificate CN = old has expired: it was valid until 2");
    refused(&elsewhere, &lab, "host", "CN = other names DNS:elsewhere, IP:10.0.0.1, not host");
    refused(&elsewhere, &lab, "127.0.0.1", "IP:10.0.0.1, not 127.0.0.1");
    refused(NULL, &lab, NULL, "must show a certificate and the peer has none");
    sessions_end(&lab);
    tls_identity_free(&stranger);
    tls_identity_free(&expired);
    tls_identity_free(&elsewhere);
    tls_lab_close(&lab);
}
/* An address of one byte, and a name with a line's end in it: what is told of them is read from the certificate alone, in one line. */
static void names_that_are_none_are_told_in_one_line(void) {
    struct tls_lab lab;
    tls_lab_open(&lab, RB_TLS_VERIFY_SERVER, 0);
    struct tls_identity address = tls_identity(&lab.ca, "other", "DER:30:03:87:01:7F", HOUR),
                        line = tls_identity(&lab.ca, "other", "DER:30:06:82:04:61:0A:62:7F", HOUR);
    refused(&address, &lab, "host", "CN = other names none, not host");
    refused(&line, &lab, "host", "CN = other names DNS:a?b?, not host");
    tls_identity_free(&address);
    tls_identity_free(&line);
    tls_lab_close(&lab);
}

static void a_bad_certificate_is_named_over_tls_1_2(void) { certificates(TLS1_2_VERSION); }
static void a_bad_certificate_is_named_over_tls_1_3(void) { certificates(TLS1_3_VERSION); }

static void a_peer_that_demands_our_certificate_is_named(void) {
    struct tls_lab lab;
    struct rb_tls_words why;
    tls_lab_open(&lab, RB_TLS_VERIFY_MUTUAL, TLS1_3_VERSION);
    rb_tls_context_close(lab.context);
    lab.config.cert = lab.config.key = NULL;
    CHECK_EQUAL(rb_tls_context_open(&lab.context, &lab.config, &why), 0);
    struct tls_identity it = tls_identity(&lab.ca, "peer", "DNS:host", HOUR);
    struct peer p = peer_new(&lab, &it, "host", 5000);
    SSL_set_verify(p.ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    CHECK(SSL_do_handshake(p.ssl) != 1);
    CHECK(strstr(words(&lab, &p), "the peer demands a certificate of us") != NULL);
    forget(&lab, &p);
    tls_identity_free(&it);
    tls_lab_close(&lab);
}

static void versions_that_do_not_meet_are_named(void) {
    struct tls_lab lab;
    tls_lab_open(&lab, RB_TLS_VERIFY_MUTUAL, TLS1_3_VERSION);
    struct tls_identity it = tls_identity(&lab.ca, "peer", "DNS:host", HOUR);
    struct peer p = peer_new(&lab, &it, NULL, 5000);
    SSL_set_max_proto_version(p.ssl, TLS1_2_VERSION);
    CHECK(SSL_do_handshake(p.ssl) != 1);
    CHECK(strstr(words(&lab, &p), "no TLS version is common to both") != NULL);
    forget(&lab, &p);
    p = peer_new(&lab, &it, "host", 5000);
    SSL_set_max_proto_version(p.ssl, TLS1_2_VERSION);
    CHECK(SSL_do_handshake(p.ssl) != 1);
    CHECK(strstr(words(&lab, &p), "no TLS version is common to both") != NULL);
    forget(&lab, &p);
    tls_identity_free(&it);
    tls_lab_close(&lab);
}

static void a_peer_that_speaks_plainly_is_named(void) {
    struct tls_lab lab;
    tls_lab_open(&lab, RB_TLS_VERIFY_MUTUAL, 0);
    for (int dial = 0; dial < 2; dial++) {
        struct peer p = peer_new(&lab, NULL, dial ? "host" : NULL, 5000);
        CHECK_EQUAL(send(SSL_get_fd(p.ssl), "\0\x17N\0\0\0\1", 7, 0), 7);
        CHECK(strstr(words(&lab, &p), "the peer does not (it began with 00 17 4e") != NULL);
        char alert[7]; /* who dialled us can know why */
        if (!dial) CHECK(read_exactly(SSL_get_fd(p.ssl), alert, 7) && alert[0] == 0x15);
        forget(&lab, &p);
    }
    struct peer p = peer_new(&lab, NULL, "host", 5000);
    shutdown(SSL_get_fd(p.ssl), SHUT_WR);
    CHECK(strstr(words(&lab, &p), "closed without a word of TLS; it may be a plain node") != NULL);
    forget(&lab, &p);
    sessions_end(&lab);
    tls_lab_close(&lab);
}

/* --- Peers that hold on --------------------------------------------------------------------------- */

static void a_silent_peer_has_its_time_and_no_more(void) {
    struct tls_lab lab;
    tls_lab_open(&lab, RB_TLS_VERIFY_MUTUAL, 0);
    int before = open_descriptors();
    struct tls_identity it = tls_identity(&lab.ca, "peer", "DNS:host", HOUR);
    struct peer silent = peer_new(&lab, NULL, NULL, 50);
    struct peer half = peer_new(&lab, NULL, NULL, 1000);
    struct peer idle = peer_new(&lab, &it, NULL, 2000);
    CHECK_EQUAL(send(SSL_get_fd(half.ssl), "\x16\x03\x01", 3, 0), 3); /* of a record's head */
    CHECK_EQUAL(SSL_do_handshake(idle.ssl), 1);
    CHECK(strstr(words(&lab, &silent), "silent within the TLS handshake") != NULL);
    CHECK(strstr(words(&lab, &half), "silent within the TLS handshake") != NULL);
    CHECK(strstr(words(&lab, &idle), "silent within the handshake") != NULL);
    forget(&lab, &silent);
    forget(&lab, &half);
    forget(&lab, &idle);
    sessions_end(&lab);
    CHECK_EQUAL(open_descriptors(), before);
    tls_identity_free(&it);
    tls_lab_close(&lab);
}

static void a_session_that_nobody_reads_holds_no_more_than_its_stream(void) {
    struct tls_lab lab;
    static char zeros[1 << 16];
    tls_lab_open(&lab, RB_TLS_VERIFY_MUTUAL, 0);
    int before = open_descriptors();
    struct tls_identity it = tls_identity(&lab.ca, "peer", "DNS:host", HOUR);
    struct peer p = peer_new(&lab, &it, NULL, 400);
    CHECK_EQUAL(SSL_do_handshake(p.ssl), 1);
    int fd = SSL_get_fd(p.ssl);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    SSL_set_mode(p.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE);
    size_t sent = 0;
    for (int still = 0; still < 50;) { /* until nothing has gone for 50 ms */
        int n = SSL_write(p.ssl, zeros, sizeof zeros);
        if (n > 0) sent += (size_t)n;
        still = n > 0 ? 0 : still + 1;
        if (n <= 0) usleep(1000);
    }
    CHECK(sent < 4u << 20);             /* socket buffers of the kernel, not memory of ours */
    rb_tls_forget(lab.pump, p.session); /* and the stream is never closed: its time ends it */
    sessions_end(&lab);
    close(p.stream);
    peer_close(&p);
    CHECK_EQUAL(open_descriptors(), before);
    tls_identity_free(&it);
    tls_lab_close(&lab);
}

static void there_is_room_for_so_many_sessions(void) {
    struct tls_lab lab;
    int before = open_descriptors(), streams[256], peers[256], stream, pair[2];
    int64_t ids[256];
    tls_lab_open(&lab, RB_TLS_VERIFY_MUTUAL, 0);
    for (int i = 0; i < 256; i++) {
        tls_pair(pair);
        peers[i] = pair[1];
        ids[i] = rb_tls_begin(lab.pump, lab.context, pair[0], NULL, 60000, &streams[i]);
        CHECK(ids[i] > 0);
    }
    tls_pair(pair);
    CHECK_EQUAL(rb_tls_begin(lab.pump, lab.context, pair[0], NULL, 60000, &stream), -EMFILE);
    close(pair[1]);
    for (int i = 0; i < 256; i++) {
        rb_tls_forget(lab.pump, ids[i]);
        close(streams[i]);
        close(peers[i]);
    }
    sessions_end(&lab);
    tls_lab_close(&lab);
    CHECK_EQUAL(open_descriptors(), before);
}

/* --- Files ---------------------------------------------------------------------------------------- */

static void files_that_do_not_fit_are_named(void) {
    struct tls_lab lab;
    struct rb_tls_context *c = NULL;
    struct rb_tls_words why;
    struct rb_tls_certificate own;
    tls_lab_open(&lab, RB_TLS_VERIFY_MUTUAL, 0);
    CHECK_EQUAL(rb_tls_context_certificate(lab.context, &own), 0);
    CHECK(strcmp(own.subject, "CN = ours") == 0);
    CHECK(strcmp(own.names, "DNS:host, IP:127.0.0.1") == 0);
    CHECK(own.not_after - own.not_before == 3 * 86400);
    CHECK(rb_tls_context_names(lab.context, "host") && !rb_tls_context_names(lab.context, "other"));
    CHECK_EQUAL(rb_tls_context_check(lab.context, &why), 0);

    struct rb_tls_config config = lab.config;
    config.cert = "/nowhere/cert.pem";
    CHECK_EQUAL(rb_tls_context_open(&c, &config, &why), -EINVAL);
    CHECK(strstr(why.text, "cert: /nowhere/cert.pem") && strstr(why.text, "No such file"));
    config = lab.config;
    config.key = lab.config.ca;
    CHECK_EQUAL(rb_tls_context_open(&c, &config, &why), -EINVAL);
    CHECK(strstr(why.text, "key: ") && strstr(why.text, "holds no key"));
    struct tls_identity other = tls_identity(&lab.ca, "other", NULL, HOUR);
    struct tls_identity self = tls_identity(NULL, "self", NULL, HOUR);
    struct tls_files files = tls_files(&other, &self);
    config.key = files.key;
    CHECK_EQUAL(rb_tls_context_open(&c, &config, &why), -EINVAL);
    CHECK(strstr(why.text, "is not the key of the certificate in") != NULL);
    config = lab.config;
    config.ca = NULL;
    CHECK_EQUAL(rb_tls_context_open(&c, &config, &why), -EINVAL);
    CHECK(strstr(why.text, "ca: it is missing") != NULL);
    config.ca = files.key;
    CHECK_EQUAL(rb_tls_context_open(&c, &config, &why), -EINVAL);
    CHECK(strstr(why.text, "holds no certificate") != NULL);
    config = lab.config;
    config.ca = files.ca;
    CHECK_EQUAL(rb_tls_context_open(&c, &config, &why), 0);
    CHECK_EQUAL(rb_tls_context_check(c, &why), -EPROTO);
    CHECK(why.text[0] != 0);
    rb_tls_context_close(c);
    tls_files_remove(&files);
    tls_identity_free(&other);
    tls_identity_free(&self);
    tls_lab_close(&lab);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN); /* of the peer's own libssl, in this thread */
    RUN(a_client_is_a_plain_stream_over_tls_1_2);
    RUN(a_client_is_a_plain_stream_over_tls_1_3);
    RUN(a_server_is_a_plain_stream_over_tls_1_2);
    RUN(a_server_is_a_plain_stream_over_tls_1_3);
    RUN(the_host_that_is_dialled_is_told_as_a_beam_tells_it);
    RUN(names_that_are_none_are_told_in_one_line);
    RUN(a_bad_certificate_is_named_over_tls_1_2);
    RUN(a_bad_certificate_is_named_over_tls_1_3);
    RUN(a_peer_that_demands_our_certificate_is_named);
    RUN(versions_that_do_not_meet_are_named);
    RUN(a_peer_that_speaks_plainly_is_named);
    RUN(a_silent_peer_has_its_time_and_no_more);
    RUN(a_session_that_nobody_reads_holds_no_more_than_its_stream);
    RUN(there_is_room_for_so_many_sessions);
    RUN(files_that_do_not_fit_are_named);
    return check_end();
}
