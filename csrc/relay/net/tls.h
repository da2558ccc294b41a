/* tls.h: one TLS connection over a socket that never blocks: handshake, read, write, and what went wrong in words. */
#ifndef RB_RELAY_TLS_H
#define RB_RELAY_TLS_H

#include <openssl/ssl.h>

#include "relay/net/buffer.h"
#include "ringbridge/tls.h"

struct rb_tls_context {
    SSL_CTX *ssl;
    uint32_t verify;
};

struct rb_tls {
    SSL *ssl;
    int fd;
    int server;
    int done;         /* the handshake */
    int broken;       /* a fatal error: libssl must not be asked again */
    int overfull;     /* KeyUpdates without end */
    int ended;        /* the socket's end was seen */
    size_t allowance; /* encrypted bytes that may still be read before rb_tls_allow() */
    int stopped;      /* since then, a call wanted more than that: it did not wait for the peer */
    uint32_t wants;   /* EPOLLIN or EPOLLOUT: what the last call waits for */
    uint8_t first[8]; /* the first bytes of the peer, to know one that speaks no TLS */
    uint32_t first_count;
    char host[256]; /* whom we dialled */
    struct rb_tls_words why;
    struct rb_buffer held; /* encrypted, not sent yet */
    struct rb_buffer unread,
        unsent; /* under way when the pump ended: to the relay's intake, and to the peer */
};

/* All: -EAGAIN (`wants` says for what), -ECONNRESET, -EPIPE, -EPROTO (`why` has words), -ENOMEM. */
struct rb_tls *rb_tls_new(const struct rb_tls_context *context, int fd,
                          const char *host); /* takes fd unless NULL */
/* What libssl reads at most until the next time: messages of TLS itself give no data, and each costs us work. */
void rb_tls_allow(struct rb_tls *t);
int rb_tls_handshake(struct rb_tls *t);                       /* 0: done */
ssize_t rb_tls_read(struct rb_tls *t, void *at, size_t size); /* 0: the peer has ended */
ssize_t rb_tls_write(struct rb_tls *t, const void *at, size_t size);
void rb_tls_end(struct rb_tls *t); /* close_notify */
/* None of them sends: what they have for the peer is held until a flush. 0: all is sent. */
int rb_tls_flush(struct rb_tls *t);
size_t rb_tls_held(const struct rb_tls *t);

/* tls_words.c. `error`: as SSL_get_error() gave it. Returns the negative errno that belongs to it. */
int rb_tls_explain(struct rb_tls *t, int error);
int rb_tls_verified(int good, X509_STORE_CTX *store);
__attribute__((format(printf, 3, 4))) int rb_tls_say(struct rb_tls_words *why, int error,
                                                     const char *form, ...); /* returns `error` */
void rb_tls_subject_of(const X509 *certificate, char *text, size_t room);
void rb_tls_explain_host(const X509 *certificate, const char *host, struct rb_tls_words *why);
void rb_tls_names_of(const X509 *certificate, char *text, size_t room);
int rb_tls_is_host(X509 *certificate, const char *host);

#endif
