/* tls_words.c: what went wrong in TLS, in one line that names the rule, the value and the way out. libssl's own words are for its authors. */
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "relay/net/tls.h"

int rb_tls_say(struct rb_tls_words *why, int error, const char *form, ...) {
    va_list arguments;
    va_start(arguments, form);
    vsnprintf(why->text, sizeof why->text, form, arguments);
    va_end(arguments);
    return error;
}

/* --- Certificates ---------------------------------------------------------------------------------------------------------- */

void rb_tls_subject_of(const X509 *certificate, char *text, size_t room) {
    BIO *bio = BIO_new(BIO_s_mem());
    int n = 0;
    text[0] = 0;
    if (!bio || !certificate) goto out;
    X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0,
                       XN_FLAG_ONELINE & ~ASN1_STRFLGS_ESC_MSB);
    n = BIO_read(bio, text, (int)room - 1);
out:
    text[n > 0 ? n : 0] = 0;
    BIO_free(bio);
}

static void date_of(const ASN1_TIME *at, char *text, size_t room) {
    struct tm tm = {.tm_year = 0};
    text[0] = 0;
    if (at && ASN1_TIME_to_tm(at, &tm)) strftime(text, room, "%Y-%m-%d %H:%M:%S UTC", &tm);
}

/* The bytes of a name are the peer's: nothing of them may begin a line of its own in a log. */
static void append(char *text, size_t room, const char *kind, const char *value, int size) {
    size_t used = strlen(text);
    int n = snprintf(text + used, room - used, "%s%s:%.*s", used ? ", " : "", kind, size, value);
    if (n <= 0) return;
    for (char *p = text + used; *p; p++) {
        if (*p < ' ' || *p > '~') *p = '?';
    }
}

void rb_tls_names_of(const X509 *certificate, char *text, size_t room) {
    text[0] = 0;
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        char address[INET6_ADDRSTRLEN];
        if (name->type == GEN_DNS) {
            append(text, room, "DNS", (const char *)ASN1_STRING_get0_data(name->d.dNSName),
                   ASN1_STRING_length(name->d.dNSName));
        } else if (name->type == GEN_IPADD) {
            const ASN1_OCTET_STRING *ip = name->d.iPAddress;
            int size = ASN1_STRING_length(ip); /* whatever the peer has written there */
            int family = size == 16 ? AF_INET6 : AF_INET;
            if ((size == 4 || size == 16) &&
                inet_ntop(family, ASN1_STRING_get0_data(ip), address, sizeof address))
                append(text, room, "IP", address, (int)strlen(address));
        }
    }
    sk_GENERAL_NAME_pop_free(names, GENERAL_NAME_free);
    ERR_clear_error();
}

int rb_tls_is_host(X509 *certificate, const char *host) {
    if (X509_check_ip_asc(certificate, host, 0) == 1) return 1;
    return X509_check_host(certificate, host, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1;
}

void rb_tls_explain_host(const X509 *certificate, const char *host, struct rb_tls_words *why) {
    char subject[128], names[256];
    rb_tls_subject_of(certificate, subject, sizeof subject);
    rb_tls_names_of(certificate, names, sizeof names);
    rb_tls_say(why, 0,
               "a certificate names its node's host: that of %s names %s, not %s; "
               "give it a subjectAltName of that host, or use the name that it has",
               subject, names[0] ? names : "none", host);
}

/* Whose certificate it is, in the peer's chain. */
static const char *whose(int depth) { return depth == 0 ? "peer's certificate" : "CA"; }

/* libssl's verify callback: the one place where the certificate that was found bad is at hand. The verdict stays libssl's. */
int rb_tls_verified(int good, X509_STORE_CTX *store) {
    if (good) return 1;
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct rb_tls *t = SSL_get_app_data(ssl);
    const X509 *bad = X509_STORE_CTX_get_current_cert(store);
    int verdict = X509_STORE_CTX_get_error(store), depth = X509_STORE_CTX_get_error_depth(store);
    const char *means = X509_verify_cert_error_string(verdict);
    char subject[128], date[64];
    if (!bad) bad = X509_STORE_CTX_get0_cert(store);
    rb_tls_subject_of(bad, subject, sizeof subject);
    struct rb_tls_words *why = &t->why;
    switch (verdict) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        date_of(bad ? X509_get0_notAfter(bad) : NULL, date, sizeof date);
        rb_tls_say(why, 0, "the %s %s has expired: it was valid until %s; renew it", whose(depth),
                   subject, date);
        break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        date_of(bad ? X509_get0_notBefore(bad) : NULL, date, sizeof date);
        rb_tls_say(why, 0, "the %s %s is not valid yet, but from %s on; compare both hosts' clocks",
                   whose(depth), subject, date);
        break;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: rb_tls_explain_host(bad, t->host, why); break;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        rb_tls_say(
            why, 0,
            "our ca did not sign the %s %s (%s); have it signed by that CA, or add its own to "
            "the ca file",
            whose(depth), subject, means);
        break;
    case X509_V_ERR_INVALID_PURPOSE:
        rb_tls_say(why, 0, "the %s %s may not be used by a TLS %s; its extendedKeyUsage needs %s",
                   whose(depth), subject, t->server ? "client" : "server",
                   t->server ? "clientAuth" : "serverAuth");
        break;
    default: rb_tls_say(why, 0, "the %s %s is not accepted: %s", whose(depth), subject, means);
    }
    return 0;
}

/* --- What the peer says ------------------------------------------------------------------------------------------------------ */

/* An alert (RFC 8446, 6.2): the peer's reason for ending it, in its few words. */
static int alerted(struct rb_tls *t, int alert) {
    const char *name = SSL_alert_desc_string_long(alert);
    struct rb_tls_words *why = &t->why;
    switch (alert) {
    case SSL_AD_CERTIFICATE_REQUIRED:
        return rb_tls_say(why, -EPROTO,
                          "the peer demands a certificate of us (alert \"%s\"); give cert and key",
                          name);
    case SSL_AD_UNKNOWN_CA:
    case SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_CERTIFICATE_EXPIRED:
    case SSL_AD_CERTIFICATE_REVOKED:
    case SSL_AD_CERTIFICATE_UNKNOWN:
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
    case SSL_AD_DECRYPT_ERROR:
        return rb_tls_say(
            why, -EPROTO,
            "the peer does not accept our certificate (alert \"%s\"); its cacertfile must hold "
            "our CA, and its log may say more",
            name);
    case SSL_AD_PROTOCOL_VERSION:
        return rb_tls_say(
            why, -EPROTO,
            "no TLS version is common to both (alert \"%s\"); look at versions on both sides",
            name);
    case SSL_AD_HANDSHAKE_FAILURE:
    case SSL_AD_INSUFFICIENT_SECURITY:
        return rb_tls_say(
            why, -EPROTO,
            "the peer ended the TLS handshake (alert \"%s\"): no common cipher, or no "
            "certificate of ours where it demands one; its log may say more",
            name);
    default: return rb_tls_say(why, -EPROTO, "the peer ended TLS with the alert \"%s\"", name);
    }
}

/* A TLS record begins with its type, 20 to 23, and 3. */
static int no_tls(const struct rb_tls *t) {
    if (t->first_count == 0) return 0;
    return t->first[0] < 20 || t->first[0] > 23 || (t->first_count > 1 && t->first[1] != 3);
}

static int spoke_plainly(struct rb_tls *t) {
    char bytes[3 * sizeof t->first + 1] = "";
    for (uint32_t i = 0; i < t->first_count; i++)
        snprintf(bytes + 3 * i, sizeof bytes - 3 * i, "%02x ", t->first[i]);
    if (bytes[0]) bytes[3 * t->first_count - 1] = 0;
    /* libssl says nothing to such a peer. With an alert it can know what it dialled, as a BEAM's peer does. */
    static const uint8_t alert[] = {SSL3_RT_ALERT,           3, 1, 0, 2, SSL3_AL_FATAL,
                                    TLS1_AD_PROTOCOL_VERSION};
    if (t->server) (void)rb_buffer_put(&t->held, alert, sizeof alert);
    return rb_tls_say(
        &t->why, -EPROTO,
        "this node speaks TLS and the peer does not (it began with %s); start the peer with "
        "-proto_dist inet_tls, or this node without tls",
        bytes);
}

/* --- All of it -------------------------------------------------------------------------------------------------------------- */

static int ended(struct rb_tls *t, int error) {
    if (!t->done && t->first_count == 0 && !t->server)
        return rb_tls_say(
            &t->why, error,
            "the peer closed without a word of TLS; it may be a plain node: start it with "
            "-proto_dist inet_tls, or this node without tls");
    if (!t->done)
        return rb_tls_say(
            &t->why, error,
            "the peer closed within the TLS handshake; it does not accept our certificate or "
            "our TLS versions, and its log says why");
    return rb_tls_say(&t->why, error, "the peer closed without TLS's close_notify");
}

int rb_tls_explain(struct rb_tls *t, int error) {
    int saved = errno;
    unsigned long code = ERR_peek_error(); /* the first is the cause, the others its echoes */
    int reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
    const char *words = ERR_reason_error_string(code);
    ERR_clear_error();
    if (!t->done && no_tls(t)) return spoke_plainly(t);
    if (t->overfull)
        return rb_tls_say(&t->why, -EPROTO,
                          "the peer demands KeyUpdates and reads none of their answers");
    if (error == SSL_ERROR_SYSCALL || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING ||
        error == SSL_ERROR_ZERO_RETURN)
        return ended(t, saved == ECONNRESET || saved == EPIPE ? -saved : -ECONNRESET);
    if (reason > SSL_AD_REASON_OFFSET) return alerted(t, reason - SSL_AD_REASON_OFFSET);
    switch (reason) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED: return -EPROTO; /* rb_tls_verified() has said why */
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return rb_tls_say(
            &t->why, -EPROTO,
            "who dials this node must show a certificate and the peer has none; give it "
            "certfile and keyfile among the client options of its -ssl_dist_optfile, or set "
            "verify = \"server\" here");
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_NO_PROTOCOLS_AVAILABLE:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_WRONG_SSL_VERSION:
        return rb_tls_say(
            &t->why, -EPROTO,
            "no TLS version is common to both (the peer's is %s); look at versions on both "
            "sides",
            SSL_get_version(t->ssl));
    case SSL_R_NO_SHARED_CIPHER:
        return rb_tls_say(
            &t->why, -EPROTO,
            "no cipher is common to both; look at the peer's ciphers, and at the kinds of key "
            "in both certificates");
    default:
        return rb_tls_say(&t->why, -EPROTO, "the peer broke TLS: %s", words ? words : "unknown");
    }
}
