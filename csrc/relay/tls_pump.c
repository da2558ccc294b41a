/* tls_pump.c: a thread that does the TLS handshakes and gives the other thread plain streams until the relay takes over.
 *
 *      peer <== TLS ==> session <-- socket pair --> the distribution handshake (Python)
 *
 *      HANDSHAKE --done--> FLOWING --stream given back--> ENDING --all sent--> LINGER --> gone
 *          |  failed, or its time is over    |                                    ^
 *          +---------------------------------+------------------------------------+
 *      FLOWING --taken--> the relay's
 *
 * Why not the relay's own thread: whoever reaches the port can make us sign (a millisecond with RSA), and nothing that an unknown peer does
 * may delay a job. Its own thread and one lock, held for one step of one session, keep the two apart.
 * LINGER reads what the peer still sends, for a second: a socket closed over unread bytes is reset, and the peer would never see our alert.
 * Descriptors are watched for one event at a time (EPOLLONESHOT): else a hang-up that nobody can act upon yet would wake us for ever. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tls.h"

enum {
    SESSIONS_MAX =
        256, /* the caller's own bound on peers under handshake is lower; those that linger come on top */
    PIECE_BYTES = 4096, /* a handshake message has at most 2 KiB */
    STREAM_BYTES = 16 << 10,
    LINGER_MS = 1000,
    EVENTS_AT_ONCE = 64,
};
#define NS_PER_MS 1000000ull
#define WAKE \
    UINT64_MAX /* the eventfd's mark in epoll; a session's is its number * 2 + 1 for the stream */

enum session_state { HANDSHAKE, FLOWING, ENDING, LINGER };

struct piece {
    uint8_t at[PIECE_BYTES];
    size_t begin, end;
};

struct session {
    struct session *next;
    int64_t id;
    enum session_state state;
    int forgotten;      /* the caller has given it back */
    struct rb_tls *tls; /* NULL: closed; the record stays for its words until it is forgotten */
    int stream;         /* our end of the pair; -1: closed */
    int peer_ended, stream_ended;
    struct piece in, out;
    uint64_t deadline_ns;
    int failed; /* negative errno, with words in `why` */
    struct rb_tls_words why;
};

struct rb_tls_pump {
    pthread_t thread;
    pthread_mutex_t lock; /* of everything below */
    int epoll, wake;
    int stopping;
    struct session *sessions;
    uint32_t count;
    int64_t last_id;
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static struct session *session_find(const struct rb_tls_pump *p, int64_t id) {
    for (struct session *s = p->sessions; s; s = s->next) {
        if (s->id == id) return s;
    }
    return NULL;
}

static void session_free(struct rb_tls_pump *p, struct session *s) {
    for (struct session **at = &p->sessions; *at; at = &(*at)->next) {
        if (*at == s) {
            *at = s->next;
            break;
        }
    }
    p->count--;
    rb_tls_free(s->tls); /* a closed descriptor leaves epoll by itself */
    if (s->stream >= 0) close(s->stream);
    free(s);
}

static void watch(const struct rb_tls_pump *p, int fd, uint64_t mark, uint32_t events) {
    struct epoll_event e = {.events = events | EPOLLONESHOT, .data.u64 = mark};
    if (events) epoll_ctl(p->epoll, EPOLL_CTL_MOD, fd, &e);
}

/* --- Steps of a session ------------------------------------------------------------------------------------------------------ */

static void close_stream(struct session *s) {
    if (s->stream >= 0) close(s->stream);
    s->stream = -1;
}

/* What libssl holds is sent, nothing else; what the peer sends is read and dropped for a while. */
static void begin_linger(struct session *s) {
    s->state = LINGER;
    s->deadline_ns = now_ns() + LINGER_MS * NS_PER_MS;
    close_stream(s);
}

static void session_fail(struct session *s, int error, const struct rb_tls_words *why) {
    s->failed = error;
    s->why = *why;
    begin_linger(s);
}

/* Closed or reset behind its TLS handshake: no fault of TLS. The reader of the stream knows best what it means there. */
static void peer_end(struct session *s) {
    s->peer_ended = 1;
    shutdown(s->stream, SHUT_WR);
}

/* One move from one side to the other: 1 it moved, 0 it must wait (for what, in *tls_wants and *stream_wants). */
static int move_in(struct session *s, uint32_t *tls_wants, uint32_t *stream_wants) {
    struct piece *in = &s->in;
    if (in->begin == in->end) {
        if (s->peer_ended) return 0;
        ssize_t n = rb_tls_read(s->tls, in->at, sizeof in->at);
        if (n == -EAGAIN) {
            *tls_wants |= s->tls->wants;
            return 0;
        }
        if (n == -EPROTO) {
            session_fail(s, (int)n, &s->tls->why);
            return 0;
        }
        if (n <= 0) {
            peer_end(s);
            return 0;
        }
        in->begin = 0;
        in->end = (size_t)n;
    }
    ssize_t n =
        send(s->stream, in->at + in->begin, in->end - in->begin, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) return 1;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        *stream_wants |= EPOLLOUT;
        return 0;
    }
    in->begin += n < 0 ? in->end - in->begin : (size_t)n; /* nobody reads it any more: dropped */
    return 1;
}

static int move_out(struct session *s, uint32_t *tls_wants, uint32_t *stream_wants) {
    struct piece *out = &s->out;
    if (out->begin == out->end) {
        if (s->stream_ended) return 0;
        ssize_t n = recv(s->stream, out->at, sizeof out->at, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) return 1;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            *stream_wants |= EPOLLIN;
            return 0;
        }
        out->begin = 0;
        out->end = n > 0 ? (size_t)n : 0;
        if (n <= 0) {
            s->stream_ended = 1;
            s->state = ENDING;
            return 1;
        }
    }
    ssize_t n = rb_tls_write(s->tls, out->at + out->begin, out->end - out->begin);
    if (n == -EAGAIN) {
        *tls_wants |= s->tls->wants;
        return 0;
    }
    if (n == -EPROTO) {
        session_fail(s, (int)n, &s->tls->why);
        return 0;
    }
    if (n < 0) peer_end(s);
    out->begin += n < 0 ? out->end - out->begin : (size_t)n;
    return 1;
}

/* What the peer sends now is for nobody. Returns 1 when it has ended. */
static int drop_input(const struct session *s) {
    uint8_t drop[PIECE_BYTES];
    for (int i = 0; i < 16; i++) {
        ssize_t n = recv(s->tls->fd, drop, sizeof drop, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
            return 1;
        if (n < 0 && errno != EINTR) return 0;
    }
    return 0;
}

/* Goes as far as it can without waiting, then watches for what it waits for. It ends: both peers give no more than they have sent. */
static void step(struct rb_tls_pump *p, struct session *s) {
    uint32_t tls_wants = 0, stream_wants = 0;
    if (!s->tls) return;
    if (s->state == HANDSHAKE) {
        int rc = rb_tls_handshake(s->tls);
        if (rc == 0)
            s->state = FLOWING;
        else if (rc == -EAGAIN)
            tls_wants |= s->tls->wants;
        else
            session_fail(s, rc, &s->tls->why);
    }
    if (s->state == FLOWING) {
        while (s->state == FLOWING && move_in(s, &tls_wants, &stream_wants)) {
        }
        while (s->state == FLOWING && move_out(s, &tls_wants, &stream_wants)) {
        }
    }
    if (s->state == ENDING) {
        while (s->out.begin < s->out.end && move_out(s, &tls_wants, &stream_wants)) {
        }
        if (s->state == ENDING && s->out.begin == s->out.end) {
            rb_tls_end(s->tls);
            begin_linger(s);
        }
    }
    int flushed = rb_tls_flush(s->tls);
    if (s->state == LINGER) {
        if (flushed == 0) shutdown(s->tls->fd, SHUT_WR);
        tls_wants = EPOLLIN;
        if (drop_input(s)) {
            rb_tls_free(s->tls);
            s->tls = NULL;
        }
    }
    if (flushed == -EAGAIN) tls_wants |= EPOLLOUT;
    if (s->forgotten && !s->tls) {
        session_free(p, s);
        return;
    }
    if (s->tls) watch(p, s->tls->fd, (uint64_t)s->id * 2, tls_wants);
    if (s->stream >= 0) watch(p, s->stream, (uint64_t)s->id * 2 + 1, stream_wants);
}

/* Past its time: what it was doing then is what was too slow. */
static void overdue(struct rb_tls_pump *p, struct session *s) {
    if (s->state == HANDSHAKE) {
        rb_tls_say(
            &s->why, 0, "%s",
            s->tls->first_count || s->tls->server
                ? "the peer was silent within the TLS handshake for too long"
                : "the peer was dialled with TLS and has said nothing; it may be a plain node: "
                  "start it with -proto_dist inet_tls, or this node without tls");
        s->failed = -ETIMEDOUT;
    } else if (s->state == FLOWING) {
        rb_tls_say(&s->why, 0, "the peer was silent within the handshake for too long");
        s->failed = -ETIMEDOUT;
    }
    if (s->tls) s->tls->broken = 1; /* not even a close_notify to who does not read */
    rb_tls_free(s->tls);
    s->tls = NULL;
    close_stream(s);
    if (s->forgotten) session_free(p, s);
}

/* Ends what is past its time; ms until the next one is, -1: none. */
static int look_at_clock(struct rb_tls_pump *p) {
    uint64_t now = now_ns(), next = 0;
    for (struct session *s = p->sessions, *after; s; s = after) {
        after = s->next;
        if (!s->tls) continue;
        if (now >= s->deadline_ns)
            overdue(p, s);
        else if (!next || s->deadline_ns < next)
            next = s->deadline_ns;
    }
    return next ? (int)((next - now) / NS_PER_MS) + 1 : -1;
}

/* --- The thread ------------------------------------------------------------------------------------------------------------- */

static void *run(void *argument) {
    struct rb_tls_pump *p = argument;
    struct epoll_event events[EVENTS_AT_ONCE];
    prctl(PR_SET_NAME, "rb-tls");
    for (int timeout = -1;;) {
        int n = epoll_wait(p->epoll, events, EVENTS_AT_ONCE, timeout);
        for (int i = 0; i < n; i++) {
            uint64_t count;
            if (events[i].data.u64 == WAKE) {
                if (read(p->wake, &count, sizeof count) < 0) continue;
                continue;
            }
            pthread_mutex_lock(
                &p->lock); /* anew for each: the other thread waits for one step at most */
            struct session *s = session_find(p, (int64_t)(events[i].data.u64 / 2));
            if (s) step(p, s);
            pthread_mutex_unlock(&p->lock);
        }
        pthread_mutex_lock(&p->lock);
        int stopping = p->stopping;
        timeout = look_at_clock(p);
        pthread_mutex_unlock(&p->lock);
        if (stopping) return NULL;
    }
}

int rb_tls_pump_open(struct rb_tls_pump **pump) {
    struct rb_tls_pump *p = calloc(1, sizeof *p);
    if (!p) return -ENOMEM;
    pthread_mutex_init(&p->lock, NULL);
    int rc = 0;
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = WAKE};
    if (p->epoll < 0 || p->wake < 0 || epoll_ctl(p->epoll, EPOLL_CTL_ADD, p->wake, &e) < 0) {
        rc = -errno;
        goto failed;
    }
    sigset_t all, before; /* signals are the interpreter's business */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    rc = -pthread_create(&p->thread, NULL, run, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0) {
        *pump = p;
        return 0;
    }
failed:
    if (p->epoll >= 0) close(p->epoll);
    if (p->wake >= 0) close(p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
    return rc;
}

static void wake(const struct rb_tls_pump *p) {
    uint64_t one = 1;
    while (write(p->wake, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

void rb_tls_pump_close(struct rb_tls_pump *p) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->stopping = 1;
    pthread_mutex_unlock(&p->lock);
    wake(p);
    pthread_join(p->thread, NULL);
    while (p->sessions) session_free(p, p->sessions);
    close(p->epoll);
    close(p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* --- The caller's side ------------------------------------------------------------------------------------------------------- */

static int join_epoll(const struct rb_tls_pump *p, int fd, uint64_t mark) {
    struct epoll_event e = {.events = EPOLLONESHOT, .data.u64 = mark};
    return epoll_ctl(p->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

int64_t rb_tls_begin(struct rb_tls_pump *p, const struct rb_tls_context *context, int fd,
                     const char *host, uint32_t timeout_ms, int *stream) {
    int pair[2], bytes = STREAM_BYTES;
    int64_t rc = -ENOMEM;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        rc = -errno;
        close(fd);
        return rc;
    }
    for (int i = 0; i < 2; i++) setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    struct session *s = calloc(1, sizeof *s);
    struct rb_tls *tls = s ? rb_tls_new(context, fd, host) : NULL;
    if (!tls) {
        close(fd);
        goto failed;
    }
    s->tls = tls;
    s->stream = pair[0];
    s->deadline_ns = now_ns() + timeout_ms * NS_PER_MS;
    pthread_mutex_lock(&p->lock);
    rc = p->count < SESSIONS_MAX ? 0 : -EMFILE;
    s->id = ++p->last_id;
    if (rc == 0) rc = join_epoll(p, fd, (uint64_t)s->id * 2);
    if (rc == 0) rc = join_epoll(p, s->stream, (uint64_t)s->id * 2 + 1);
    if (rc == 0) {
        rc = s->id;
        s->next = p->sessions;
        p->sessions = s;
        p->count++;
        watch(p, fd, (uint64_t)s->id * 2, host ? EPOLLOUT : EPOLLIN); /* the client speaks first */
        *stream = pair[1];
    }
    pthread_mutex_unlock(&p->lock);
    if (rc > 0) {
        wake(p); /* it has a deadline to think of */
        return rc;
    }
    rb_tls_free(tls);
failed:
    free(s);
    close(pair[0]);
    close(pair[1]);
    return rc;
}

int rb_tls_state(struct rb_tls_pump *p, int64_t id, struct rb_tls_words *why) {
    pthread_mutex_lock(&p->lock);
    const struct session *s = session_find(p, id);
    int rc = -ENOENT;
    why->text[0] = 0;
    if (s && s->failed) {
        rc = s->failed;
        *why = s->why;
    } else if (s) {
        rc = s->state != HANDSHAKE;
    }
    pthread_mutex_unlock(&p->lock);
    return rc;
}

int rb_tls_version(struct rb_tls_pump *p, int64_t id, struct rb_tls_words *version) {
    pthread_mutex_lock(&p->lock);
    const struct session *s = session_find(p, id);
    int rc = s && s->tls && s->state != HANDSHAKE ? 0 : -ENOTCONN;
    if (rc == 0)
        rb_tls_say(version, 0, "%s %s", SSL_get_version(s->tls->ssl),
                   SSL_get_cipher_name(s->tls->ssl));
    pthread_mutex_unlock(&p->lock);
    return rc;
}

int rb_tls_check_host(struct rb_tls_pump *p, int64_t id, const char *host,
                      struct rb_tls_words *why) {
    pthread_mutex_lock(&p->lock);
    const struct session *s = session_find(p, id);
    X509 *shown = s && s->tls ? SSL_get0_peer_certificate(s->tls->ssl) : NULL;
    int rc = 0;
    if (!shown) {
        rc = rb_tls_say(why, -EPROTO, "the peer has shown no certificate");
    } else if (!rb_tls_is_host(shown, host)) {
        rb_tls_explain_host(shown, host, why);
        rc = -EPROTO;
    }
    pthread_mutex_unlock(&p->lock);
    return rc;
}

static int drain(int fd, struct rb_buffer *into) {
    for (;;) {
        uint8_t *room = rb_buffer_room(into, PIECE_BYTES);
        if (!room) return -ENOMEM;
        ssize_t n = recv(fd, room, PIECE_BYTES, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return 0;
        into->end += (size_t)n;
    }
}

/* Both directions, the older bytes first: the pair's own, then what we hold; what we hold, then the pair's. */
static int collect(struct session *s, int stream) {
    struct rb_tls *t = s->tls;
    int rc = drain(stream, &t->unread);
    if (rc == 0) rc = rb_buffer_put(&t->unread, s->in.at + s->in.begin, s->in.end - s->in.begin);
    if (rc == 0)
        rc = rb_buffer_put(&t->unsent, s->out.at + s->out.begin, s->out.end - s->out.begin);
    return rc < 0 ? rc : drain(s->stream, &t->unsent);
}

int rb_tls_take(struct rb_tls_pump *p, int64_t id, int stream, struct rb_tls **tls) {
    pthread_mutex_lock(&p->lock);
    struct session *s = session_find(p, id);
    int rc = s && s->tls && s->state == FLOWING ? collect(s, stream) : -EPIPE;
    if (rc == 0) {
        epoll_ctl(p->epoll, EPOLL_CTL_DEL, s->tls->fd, NULL);
        *tls = s->tls;
        s->tls = NULL;
        session_free(p, s);
        close(stream);
    }
    pthread_mutex_unlock(&p->lock);
    return rc;
}

void rb_tls_forget(struct rb_tls_pump *p, int64_t id) {
    pthread_mutex_lock(&p->lock);
    struct session *s = session_find(p, id);
    if (s) {
        s->forgotten = 1;
        uint64_t soon = now_ns() + LINGER_MS * NS_PER_MS;
        if (soon < s->deadline_ns) s->deadline_ns = soon;
        if (s->state == HANDSHAKE) s->deadline_ns = 0; /* nothing can have been said */
        if (!s->tls) session_free(p, s);
    }
    pthread_mutex_unlock(&p->lock);
    wake(p);
}

uint32_t rb_tls_sessions(struct rb_tls_pump *p) {
    pthread_mutex_lock(&p->lock);
    uint32_t count = p->count;
    pthread_mutex_unlock(&p->lock);
    return count;
}
