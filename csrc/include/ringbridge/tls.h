/* tls.h: the relay's TLS, as the interpreter sees it (docs/decisions/0010).
 *
 * A context holds what the files said. The pump is a thread of its own: it takes a socket from ClientHello on and gives the other thread a
 * plain stream, one end of a socket pair, for the distribution handshake. Then rb_tls_take() ends the pumping and rb_relay_adopt_tls()
 * hands the TLS connection, with every byte that was under way, to the relay. Until then no unknown peer costs the relay anything.
 * One thread (the one that runs trio) calls these functions; none of them waits for a peer. */
#ifndef RINGBRIDGE_TLS_H
#define RINGBRIDGE_TLS_H

#include <stddef.h>
#include <stdint.h>

/* <cffi> */
struct rb_tls_context;
struct rb_tls_pump;
struct rb_tls; /* one connection, taken from the pump */

enum rb_tls_verify {
    RB_TLS_VERIFY_NONE,   /* encrypted, nobody's certificate is looked at */
    RB_TLS_VERIFY_SERVER, /* of whom we dial: signed by our CA, and it names the host */
    RB_TLS_VERIFY_MUTUAL, /* the same, and who dials us must show one that our CA signed */
};
struct rb_tls_config {
    const char *cert; /* PEM, leaf first, then the chain; NULL: none (we can dial only) */
    const char *key;  /* PEM; NULL: in the file of the certificate */
    const char *ca;   /* PEM; NULL only with RB_TLS_VERIFY_NONE */
    uint32_t verify;  /* rb_tls_verify */
    uint32_t version_min, version_max; /* 0x0303: TLS 1.2, 0x0304: TLS 1.3 */
};
/* What a file or a peer did wrong: rule, value and way out, in one line. */
struct rb_tls_words {
    char text[512];
};
struct rb_tls_certificate {
    int64_t not_before, not_after; /* seconds since 1970 */
    char subject[256];
    char names[512]; /* its subjectAltName: "DNS:a.example, IP:127.0.0.1" */
};

/* 0, or a negative errno with words. Reads the files now and never again. */
int rb_tls_context_open(struct rb_tls_context **context, const struct rb_tls_config *config,
                        struct rb_tls_words *why);
void rb_tls_context_close(struct rb_tls_context *context); /* connections of it go on */
/* About our own certificate: -ENOENT when there is none. */
int rb_tls_context_certificate(const struct rb_tls_context *context,
                               struct rb_tls_certificate *certificate);
/* 1 when our own certificate names `host` (a DNS name or an IP address), else 0. */
int rb_tls_context_names(const struct rb_tls_context *context, const char *host);
/* Does the CA sign our own certificate? 0, or -EPROTO with words. */
int rb_tls_context_check(const struct rb_tls_context *context, struct rb_tls_words *why);

int rb_tls_pump_open(struct rb_tls_pump **pump);
void rb_tls_pump_close(struct rb_tls_pump *pump);

/* Takes the socket `fd` (also when it fails). `host`: whom we dial, sent as SNI and demanded of the certificate; NULL: we were dialled.
 * The number of the new session; `stream` is the caller's end of it, to be given back by rb_tls_take() or rb_tls_forget(). After `timeout_ms` it ends by itself. */
int64_t rb_tls_begin(struct rb_tls_pump *pump, const struct rb_tls_context *context, int fd,
                     const char *host, uint32_t timeout_ms, int *stream);
/* How it stands: 1 the TLS handshake is done, 0 it goes on, -EPROTO and the like: it has failed, and `why` says why. */
int rb_tls_state(struct rb_tls_pump *pump, int64_t session, struct rb_tls_words *why);
/* Of one whose handshake is done: "TLSv1.3 TLS_AES_256_GCM_SHA384". */
int rb_tls_version(struct rb_tls_pump *pump, int64_t session, struct rb_tls_words *version);
/* Does the certificate that the peer showed name `host`? 0, or -EPROTO with words. */
int rb_tls_check_host(struct rb_tls_pump *pump, int64_t session, const char *host,
                      struct rb_tls_words *why);
/* Ends the pumping of a connection. Closes `stream`; what was unread in it and what was written to it goes along. On failure (-EPIPE: the
 * connection is gone) nothing is taken and `stream` is the caller's still. */
int rb_tls_take(struct rb_tls_pump *pump, int64_t session, int stream, struct rb_tls **tls);
/* The caller is done with it and closes `stream`: what was written to it is still sent, as far as the peer takes it within a second. */
void rb_tls_forget(struct rb_tls_pump *pump, int64_t session);
/* Sessions that hold a descriptor or memory. */
uint32_t rb_tls_sessions(struct rb_tls_pump *pump);

void rb_tls_free(struct rb_tls *tls); /* of one that no relay has adopted */
/* </cffi> */

#endif
