/* tls.c: one TLS connection.
 *
 * Facts it rests on (OpenSSL 3.0, its manual pages and statem.c):
 *   a KeyUpdate that asks for ours is answered from within SSL_read(); while a record of SSL_write() is half sent, that answer fails with
 *   "bad length" and the connection is lost. So no record is ever half sent: what libssl writes goes to a buffer of ours, which a flush
 *   sends, many records in one call;
 *   that buffer is bounded: rb_tls_write() asks for room first, so only answers to KeyUpdates of a peer that reads none can pass HELD_MAX;
 *   SSL_read() returns when it has data or the socket has no more: messages of TLS itself, such as KeyUpdates, would keep it as long as they
 *   come. So our BIO gives it so many bytes a turn and then says "later", as an empty socket does;
 *   the error queue is the thread's: it is emptied before each call, else another connection's error would be ours;
 *   libssl's own socket BIO writes with write(2), which raises SIGPIPE: ours uses send(2). */
#include "relay/net/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    HELD_ENOUGH = 256 << 10, /* what is encrypted ahead of the socket */
    HELD_MAX = 2 * HELD_ENOUGH,
    READ_ENOUGH = 64 << 10, /* encrypted, in a turn; its last recv() may bring twice that */
};

/* --- The socket below ---------------------------------------------------------------------------------------------------- */

static int below_read(BIO *bio, char *at, int size) {
    struct rb_tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (t->allowance == 0) {
        t->stopped = 1;
        BIO_set_retry_read(bio);
        return -1;
    }
    ssize_t n;
    do n = recv(t->fd, at, (size_t)size, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) BIO_set_retry_read(bio);
    if (n == 0) t->ended = 1;
    if (n > 0) t->allowance -= (size_t)n < t->allowance ? (size_t)n : t->allowance;
    for (ssize_t i = 0; i < n && t->first_count < sizeof t->first; i++)
        t->first[t->first_count++] = (uint8_t)at[i];
    return (int)n;
}

static int below_write(BIO *bio, const char *at, int size) {
    struct rb_tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (rb_tls_held(t) > HELD_MAX) {
        t->overfull = 1;
        return -1;
    }
    return rb_buffer_put(&t->held, at, (size_t)size) < 0 ? -1 : size;
}

static long below_control(BIO *bio, int command, long number, void *pointer) {
    (void)number;
    (void)pointer;
    switch (command) {
    case BIO_CTRL_FLUSH: return 1; /* rb_tls_flush() does it */
    case BIO_CTRL_EOF: return ((const struct rb_tls *)BIO_get_data(bio))->ended;
    default: return 0;
    }
}

static BIO_METHOD *below;

static void make_below(void) {
    below = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "relay socket");
    if (!below) return;
    BIO_meth_set_read(below, below_read);
    BIO_meth_set_write(below, below_write);
    BIO_meth_set_ctrl(below, below_control);
}

/* --- A connection --------------------------------------------------------------------------------------------------------- */

static int demands(uint32_t verify, int server) {
    if (verify == RB_TLS_VERIFY_NONE || (server && verify == RB_TLS_VERIFY_SERVER))
        return SSL_VERIFY_NONE;
    return SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
}

struct rb_tls *rb_tls_new(const struct rb_tls_context *context, int fd, const char *host) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_below);
    struct rb_tls *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->fd = fd;
    t->server = host == NULL;
    t->ssl = SSL_new(context->ssl);
    BIO *bio = below ? BIO_new(below) : NULL;
    if (!t->ssl || !bio) {
        BIO_free(bio);
        goto no_memory;
    }
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_app_data(t->ssl, t);
    SSL_set_verify(t->ssl, demands(context->verify, t->server), rb_tls_verified);
    if (!host) {
        SSL_set_accept_state(t->ssl);
        return t;
    }
    strncpy(t->host, host, sizeof t->host - 1);
    SSL_set_connect_state(t->ssl);
    /* A BEAM sends the host part of the node's name, an IP address too (dist-protocol.md, 8). */
    if (!SSL_set_tlsext_host_name(t->ssl, t->host)) goto no_memory;
    if (context->verify != RB_TLS_VERIFY_NONE) {
        X509_VERIFY_PARAM *param = SSL_get0_param(t->ssl);
        X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        if (!X509_VERIFY_PARAM_set1_ip_asc(param, t->host) &&
            !X509_VERIFY_PARAM_set1_host(param, t->host, 0))
            goto no_memory;
        ERR_clear_error(); /* a name is no address: not an error */
    }
    return t;
no_memory:
    SSL_free(t->ssl);
    free(t);
    return NULL;
}

void rb_tls_free(struct rb_tls *t) {
    if (!t) return;
    rb_tls_end(t);
    (void)rb_tls_flush(t); /* as far as the socket takes it */
    SSL_free(t->ssl);
    close(t->fd);
    free(t->held.at);
    free(t->unread.at);
    free(t->unsent.at);
    free(t);
}

size_t rb_tls_held(const struct rb_tls *t) { return t->held.end - t->held.begin; }

int rb_tls_flush(struct rb_tls *t) {
    while (rb_tls_held(t)) {
        ssize_t n =
            send(t->fd, t->held.at + t->held.begin, rb_tls_held(t), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return -EAGAIN;
        if (n < 0) {
            t->broken = 1;
            t->held.begin = t->held.end; /* nobody will have it */
            return -errno;
        }
        t->held.begin += (size_t)n;
    }
    return 0;
}

/* What a call that failed waits for, or why it failed. */
static int failure(struct rb_tls *t, int returned) {
    int saved = errno, error = SSL_get_error(t->ssl, returned);
    switch (error) {
    case SSL_ERROR_WANT_READ: t->wants = EPOLLIN; return -EAGAIN;
    case SSL_ERROR_WANT_WRITE: t->wants = EPOLLOUT; return -EAGAIN;
    default:
        t->broken = 1;
        errno = saved;
        return rb_tls_explain(t, error);
    }
}

static void before_call(void) {
    ERR_clear_error();
    errno = 0;
}

void rb_tls_allow(struct rb_tls *t) {
    t->allowance = READ_ENOUGH;
    t->stopped = 0;
}

int rb_tls_handshake(struct rb_tls *t) {
    if (t->done) return 0;
    if (t->broken) return -EPROTO;
    before_call();
    int n = SSL_do_handshake(t->ssl);
    if (n != 1) return failure(t, n);
    t->done = 1;
    return 0;
}

ssize_t rb_tls_read(struct rb_tls *t, void *at, size_t size) {
    size_t n = 0;
    if (t->broken) return t->why.text[0] ? -EPROTO : -ECONNRESET;
    before_call();
    int rc = SSL_read_ex(t->ssl, at, size, &n);
    if (rc == 1) return (ssize_t)n;
    if (SSL_get_error(t->ssl, rc) == SSL_ERROR_ZERO_RETURN) return 0; /* and so it will again */
    return failure(t, rc);
}

ssize_t rb_tls_write(struct rb_tls *t, const void *at, size_t size) {
    size_t n = 0;
    if (t->broken) return t->why.text[0] ? -EPROTO : -ECONNRESET;
    if (rb_tls_held(t) >= HELD_ENOUGH) {
        int rc = rb_tls_flush(t);
        t->wants = EPOLLOUT;
        if (rc < 0 && rc != -EAGAIN) return rc;
        if (rb_tls_held(t) >= HELD_ENOUGH) return -EAGAIN;
    }
    before_call();
    int rc = SSL_write_ex(t->ssl, at, size, &n);
    return rc == 1 ? (ssize_t)n : failure(t, rc);
}

void rb_tls_end(struct rb_tls *t) {
    if (t->broken || !t->done) return;
    before_call();
    (void)SSL_shutdown(t->ssl); /* ours is said; the peer's is not waited for */
    ERR_clear_error();
}
