/* tls_context.c: what certificate, key and CA files say, checked as a whole and then kept as libssl's context. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "relay/net/tls.h"

enum { READ_BUFFER_BYTES = 64 << 10 }; /* several records from one recv() */

/* libssl tells of a file by two or three errors: the first is the cause. */
static const char *cause(void) {
    unsigned long code = ERR_peek_error();
    if (ERR_SYSTEM_ERROR(code)) return strerror(ERR_GET_REASON(code));
    const char *words = ERR_reason_error_string(code);
    return words ? words : "it cannot be read";
}

/* Never ask on the terminal: the bridge is a service. */
static int no_passphrase(char *at, int size, int writing, void *user) {
    (void)at;
    (void)size;
    (void)writing;
    (void)user;
    return -1;
}

static int use_own(SSL_CTX *ssl, const struct rb_tls_config *config, struct rb_tls_words *why) {
    const char *key = config->key ? config->key : config->cert;
    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(ssl, config->cert) != 1)
        return rb_tls_say(
            why, -EINVAL,
            "cert: %s holds no certificate that can be used (%s); it is PEM, the node's own "
            "first, then those that signed it",
            config->cert, cause());
    ERR_clear_error();
    if (SSL_CTX_use_PrivateKey_file(ssl, key, SSL_FILETYPE_PEM) != 1) {
        if (ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH)
            return rb_tls_say(why, -EINVAL,
                              "key: %s is not the key of the certificate in %s; give its own", key,
                              config->cert);
        return rb_tls_say(
            why, -EINVAL,
            "key: %s holds no key that can be used (%s); it is PEM and not encrypted by a "
            "passphrase",
            key, cause());
    }
    if (SSL_CTX_check_private_key(ssl) != 1)
        return rb_tls_say(why, -EINVAL,
                          "key: %s is not the key of the certificate in %s; give its own", key,
                          config->cert);
    return 0;
}

static int use_ca(SSL_CTX *ssl, const struct rb_tls_config *config, struct rb_tls_words *why) {
    ERR_clear_error();
    STACK_OF(X509_NAME) *names = NULL;
    if (SSL_CTX_load_verify_file(ssl, config->ca) == 1) names = SSL_load_client_CA_file(config->ca);
    if (!names)
        return rb_tls_say(why, -EINVAL,
                          "ca: %s holds no certificate that can be used (%s); it is PEM",
                          config->ca, cause());
    SSL_CTX_set_client_CA_list(ssl, names); /* told to who dials us; takes the list */
    return 0;
}

static int fill(SSL_CTX *ssl, const struct rb_tls_config *config, struct rb_tls_words *why) {
    int rc;
    SSL_CTX_set_default_passwd_cb(ssl, no_passphrase);
    if (!SSL_CTX_set_min_proto_version(ssl, (int)config->version_min) ||
        !SSL_CTX_set_max_proto_version(ssl, (int)config->version_max))
        return rb_tls_say(why, -EINVAL, "versions: libssl knows no TLS version %#x to %#x",
                          config->version_min, config->version_max);
    if (config->cert && (rc = use_own(ssl, config, why)) < 0) return rc;
    if (config->ca && (rc = use_ca(ssl, config, why)) < 0) return rc;
    if (!config->ca && config->verify != RB_TLS_VERIFY_NONE)
        return rb_tls_say(why, -EINVAL,
                          "ca: it is missing, and without one no peer can be verified");
    return 0;
}

int rb_tls_context_open(struct rb_tls_context **context, const struct rb_tls_config *config,
                        struct rb_tls_words *why) {
    struct rb_tls_context *c = calloc(1, sizeof *c);
    why->text[0] = 0;
    if (!c) return -ENOMEM;
    c->verify = config->verify;
    c->ssl = SSL_CTX_new(TLS_method());
    int rc = c->ssl ? fill(c->ssl, config, why) : -ENOMEM;
    ERR_clear_error();
    if (rc < 0) {
        rb_tls_context_close(c);
        return rc;
    }
    /* A peer's renegotiation (TLS 1.2) would cost us a handshake whenever it likes; an end without close_notify is an end: frames have lengths. */
    SSL_CTX_set_options(c->ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                                    SSL_OP_IGNORE_UNEXPECTED_EOF);
    /* Record by record (tls.c asks before each whether there is room), and again from wherever the bytes lie then. */
    SSL_CTX_set_mode(c->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* Each connection is verified anew: no session is resumed, so none outlives its certificate. */
    SSL_CTX_set_session_cache_mode(c->ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(c->ssl, 0);
    SSL_CTX_set_read_ahead(c->ssl, 1);
    SSL_CTX_set_default_read_buffer_len(c->ssl, READ_BUFFER_BYTES);
    *context = c;
    return 0;
}

void rb_tls_context_close(struct rb_tls_context *c) {
    if (!c) return;
    SSL_CTX_free(c->ssl); /* its connections hold it too */
    free(c);
}

static int64_t seconds_of(const ASN1_TIME *at) {
    struct tm tm = {.tm_year = 0};
    return ASN1_TIME_to_tm(at, &tm) ? (int64_t)timegm(&tm) : 0;
}

int rb_tls_context_certificate(const struct rb_tls_context *c, struct rb_tls_certificate *out) {
    const X509 *own = SSL_CTX_get0_certificate(c->ssl);
    if (!own) return -ENOENT;
    out->not_before = seconds_of(X509_get0_notBefore(own));
    out->not_after = seconds_of(X509_get0_notAfter(own));
    rb_tls_subject_of(own, out->subject, sizeof out->subject);
    rb_tls_names_of(own, out->names, sizeof out->names);
    return 0;
}

int rb_tls_context_names(const struct rb_tls_context *c, const char *host) {
    X509 *own = SSL_CTX_get0_certificate(c->ssl);
    return own && rb_tls_is_host(own, host);
}

int rb_tls_context_check(const struct rb_tls_context *c, struct rb_tls_words *why) {
    X509 *own = SSL_CTX_get0_certificate(c->ssl);
    STACK_OF(X509) *chain = NULL;
    X509_STORE_CTX *check = X509_STORE_CTX_new();
    int rc = -ENOMEM;
    why->text[0] = 0;
    if (!own)
        rc = rb_tls_say(why, -ENOENT, "there is no certificate");
    else if (check) {
        SSL_CTX_get0_chain_certs(c->ssl, &chain);
        X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(c->ssl), own, chain);
        rc = X509_verify_cert(check) == 1
                 ? 0
                 : rb_tls_say(why, -EPROTO, "%s",
                              X509_verify_cert_error_string(X509_STORE_CTX_get_error(check)));
    }
    X509_STORE_CTX_free(check);
    ERR_clear_error();
    return rc;
}
