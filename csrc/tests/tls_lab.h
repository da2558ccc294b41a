/* tls_lab.h: a CA made on the spot, certificates of it, and a peer that speaks TLS by libssl's blocking calls in the test's own thread. */
#ifndef RINGBRIDGE_TESTS_TLS_LAB_H
#define RINGBRIDGE_TESTS_TLS_LAB_H

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "leaks.h"
#include "relay_lab.h"
#include "ringbridge/tls.h"

/* --- Certificates ------------------------------------------------------------------------------- */

struct tls_identity {
    X509 *certificate;
    EVP_PKEY *key;
};

static inline void tls_extend(X509 *c, X509 *issuer, int nid, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, c, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    if (!e || !X509_add_ext(c, e, -1)) abort();
    X509_EXTENSION_free(e);
}

/* Signed by `ca` (NULL: by itself, and a CA). `names` as in openssl's subjectAltName; `until_s` from now, may be past. */
static inline struct tls_identity tls_identity(const struct tls_identity *ca, const char *cn,
                                               const char *names, long until_s) {
    static long serial = 1;
    struct tls_identity it = {X509_new(), EVP_EC_gen("P-256")};
    X509 *c = it.certificate, *issuer = ca ? ca->certificate : c;
    X509_set_version(c, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(c), serial++);
    X509_gmtime_adj(X509_getm_notBefore(c), -2 * 86400);
    X509_gmtime_adj(X509_getm_notAfter(c), until_s);
    X509_set_pubkey(c, it.key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(c), "CN", MBSTRING_UTF8,
                               (const unsigned char *)cn, -1, -1, 0);
    X509_set_issuer_name(c, X509_get_subject_name(issuer));
    tls_extend(c, issuer, NID_basic_constraints, ca ? "CA:FALSE" : "critical,CA:TRUE");
    if (names) tls_extend(c, issuer, NID_subject_alt_name, names);
    if (!X509_sign(c, ca ? ca->key : it.key, EVP_sha256())) abort();
    return it;
}
static inline void tls_identity_free(struct tls_identity *it) {
    X509_free(it->certificate);
    EVP_PKEY_free(it->key);
}

struct tls_files {
    char directory[64], cert[96], key[96], ca[96];
};
static inline void tls_write(const char *path, const struct tls_identity *it, int key) {
    FILE *f = fopen(path, "w");
    if (!f) abort();
    if (key)
        PEM_write_PrivateKey(f, it->key, NULL, NULL, 0, NULL, NULL);
    else
        PEM_write_X509(f, it->certificate);
    fclose(f);
}
static inline struct tls_files tls_files(const struct tls_identity *own,
                                         const struct tls_identity *ca) {
    struct tls_files f = {.directory = "/tmp/rb-tls-XXXXXX"};
    if (!mkdtemp(f.directory)) abort();
    snprintf(f.cert, sizeof f.cert, "%s/cert.pem", f.directory);
    snprintf(f.key, sizeof f.key, "%s/key.pem", f.directory);
    snprintf(f.ca, sizeof f.ca, "%s/ca.pem", f.directory);
    tls_write(f.cert, own, 0);
    tls_write(f.key, own, 1);
    tls_write(f.ca, ca, 0);
    return f;
}
static inline void tls_files_remove(const struct tls_files *f) {
    unlink(f->cert);
    unlink(f->key);
    unlink(f->ca);
    rmdir(f->directory);
}

/* --- The laboratory ------------------------------------------------------------------------------- */

struct tls_lab {
    struct tls_identity ca, own;
    struct tls_files files;
    struct rb_tls_config config;
    struct rb_tls_context *context;
    struct rb_tls_pump *pump;
};

static inline void tls_lab_open(struct tls_lab *lab, uint32_t verify, uint32_t version) {
    struct rb_tls_words why;
    lab->ca = tls_identity(NULL, "the ca", NULL, 86400);
    lab->own = tls_identity(&lab->ca, "ours", "DNS:host,IP:127.0.0.1", 86400);
    lab->files = tls_files(&lab->own, &lab->ca);
    lab->config = (struct rb_tls_config){.cert = lab->files.cert,
                                         .key = lab->files.key,
                                         .ca = lab->files.ca,
                                         .verify = verify,
                                         .version_min = version ? version : TLS1_2_VERSION,
                                         .version_max = version ? version : TLS1_3_VERSION};
    if (rb_tls_context_open(&lab->context, &lab->config, &why) < 0) abort();
    if (rb_tls_pump_open(&lab->pump) < 0) abort();
}
static inline void tls_lab_close(struct tls_lab *lab) {
    rb_tls_pump_close(lab->pump);
    rb_tls_context_close(lab->context);
    tls_files_remove(&lab->files);
    tls_identity_free(&lab->ca);
    tls_identity_free(&lab->own);
}

/* --- The peer ------------------------------------------------------------------------------------- */

/* A context of the peer with `it` (or no certificate), which believes our CA. */
static inline SSL_CTX *tls_peer_context(const struct tls_lab *lab, const struct tls_identity *it) {
    SSL_CTX *c = SSL_CTX_new(TLS_method());
    if (it && (SSL_CTX_use_certificate(c, it->certificate) != 1 ||
               SSL_CTX_use_PrivateKey(c, it->key) != 1))
        abort();
    SSL_CTX_load_verify_file(c, lab->files.ca);
    return c;
}
static inline void tls_pair(int pair[2]) {
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) abort();
}

#endif
