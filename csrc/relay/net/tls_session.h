/* tls_session.h: one connection from its first byte to the relay, between TLS and a plain stream.
 *
 *      peer <== TLS ==> session <-- socket pair --> the distribution handshake (Python)
 *
 *      HANDSHAKE --done--> FLOWING --stream given back--> ENDING --all sent--> LINGER --> gone
 *          |  failed, or its time is over    |                                    ^
 *          +---------------------------------+------------------------------------+
 *      FLOWING --collected--> the relay's
 *
 * LINGER reads what the peer still sends, for a second: a socket closed over unread bytes is reset, and the peer would never see our alert. */
#ifndef RB_RELAY_TLS_SESSION_H
#define RB_RELAY_TLS_SESSION_H

#include "relay/net/tls.h"

enum {
    RB_TLS_PIECE_BYTES = 4096, /* a handshake message has at most 2 KiB */
    RB_TLS_LINGER_MS = 1000,
};
#define NS_PER_MS 1000000ull

enum rb_tls_session_state { RB_TLS_HANDSHAKE, RB_TLS_FLOWING, RB_TLS_ENDING, RB_TLS_LINGER };

struct rb_tls_piece {
    uint8_t at[RB_TLS_PIECE_BYTES];
    size_t begin, end;
};

struct rb_tls_session {
    struct rb_tls_session *next;
    int64_t id;
    enum rb_tls_session_state state;
    int forgotten;      /* the caller has given it back */
    struct rb_tls *tls; /* NULL: closed; the record stays for its words until it is forgotten */
    int stream;         /* our end of the pair; -1: closed */
    int peer_ended, stream_ended;
    struct rb_tls_piece in, out;
    uint64_t deadline_ns;
    int failed; /* negative errno, with words in `why` */
    struct rb_tls_words why;
};

struct rb_tls_wants { /* EPOLLIN, EPOLLOUT or both of each descriptor; 0: nothing */
    uint32_t tls, stream;
};
struct rb_tls_wants rb_tls_session_step(struct rb_tls_session *s);
void rb_tls_session_overdue(struct rb_tls_session *s);
/* For the relay: what is under way, both ways, into s->tls. `stream` is the reader's end. */
int rb_tls_session_collect(struct rb_tls_session *s, int stream);
uint64_t rb_tls_now_ns(void);

#endif
