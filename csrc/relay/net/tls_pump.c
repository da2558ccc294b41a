/* tls_pump.c: a thread that moves the sessions under handshake, and the functions by which the other thread makes and ends them.
 *
 * Why not the relay's own thread: whoever reaches the port can make us sign (a millisecond with RSA), and nothing that an unknown peer does
 * may delay a job. Its own thread and one lock, held for one step of one session, keep the two apart.
 * Descriptors are watched for one event at a time (EPOLLONESHOT): else a hang-up that nobody can act upon yet would wake us for ever. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay/net/tls_session.h"

enum {
    SESSIONS_MAX =
        256, /* the caller's own bound on peers under handshake is lower; those that linger come on top */
    STREAM_BYTES = 16 << 10,
    EVENTS_AT_ONCE = 64,
};
#define WAKE \
    UINT64_MAX /* the eventfd's mark in epoll; a session's is its number * 2 + 1 for the stream */

struct rb_tls_pump {
    pthread_t thread;
    pthread_mutex_t lock; /* of everything below */
    int epoll, wake;
    int stopping;
    struct rb_tls_session *sessions;
    uint32_t count;
    int64_t last_id;
};

static struct rb_tls_session *session_find(const struct rb_tls_pump *p, int64_t id) {
    for (struct rb_tls_session *s = p->sessions; s; s = s->next) {
        if (s->id == id) return s;
    }
    return NULL;
}

static void session_free(struct rb_tls_pump *p, struct rb_tls_session *s) {
    for (struct rb_tls_session **at = &p->sessions; *at; at = &(*at)->next) {
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

/* One step, then it is watched for what it waits for. */
static void step(struct rb_tls_pump *p, struct rb_tls_session *s) {
    struct rb_tls_wants w = rb_tls_session_step(s);
    if (s->forgotten && !s->tls) {
        session_free(p, s);
        return;
    }
    if (s->tls) watch(p, s->tls->fd, (uint64_t)s->id * 2, w.tls);
    if (s->stream >= 0) watch(p, s->stream, (uint64_t)s->id * 2 + 1, w.stream);
}

/* Ends what is past its time; ms until the next one is, -1: none. */
static int look_at_clock(struct rb_tls_pump *p) {
    uint64_t now = rb_tls_now_ns(), next = 0;
    for (struct rb_tls_session *s = p->sessions, *after; s; s = after) {
        after = s->next;
        if (!s->tls) continue;
        if (now >= s->deadline_ns) {
            rb_tls_session_overdue(s);
            if (s->forgotten) session_free(p, s);
        } else if (!next || s->deadline_ns < next)
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
            struct rb_tls_session *s = session_find(p, (int64_t)(events[i].data.u64 / 2));
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
    return epoll_ctl(p->epoll, EPOLL_CTL_ADD, fd, &e) == 0;
}

/* Joins the others, waiting for `first`: its number. On failure nothing of it is kept. */
static int64_t admit(struct rb_tls_pump *p, struct rb_tls_session *s, uint32_t first) {
    int64_t id = -EMFILE;
    pthread_mutex_lock(&p->lock);
    if (p->count < SESSIONS_MAX) {
        s->id = ++p->last_id;
        id = -ENOSPC; /* of the kernel, for one more descriptor to watch */
        if (join_epoll(p, s->tls->fd, (uint64_t)s->id * 2) &&
            join_epoll(p, s->stream, (uint64_t)s->id * 2 + 1)) {
            id = s->id;
            s->next = p->sessions;
            p->sessions = s;
            p->count++;
            watch(p, s->tls->fd, (uint64_t)s->id * 2, first);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return id;
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
    struct rb_tls_session *s = calloc(1, sizeof *s);
    struct rb_tls *tls = s ? rb_tls_new(context, fd, host) : NULL;
    if (!tls) {
        close(fd);
        goto failed;
    }
    s->tls = tls;
    s->stream = pair[0];
    s->deadline_ns = rb_tls_now_ns() + timeout_ms * NS_PER_MS;
    rc = admit(p, s, host ? EPOLLOUT : EPOLLIN); /* the client speaks first */
    if (rc > 0) {
        wake(p); /* it has a deadline to think of */
        *stream = pair[1];
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
    const struct rb_tls_session *s = session_find(p, id);
    int rc = -ENOENT;
    why->text[0] = 0;
    if (s && s->failed) {
        rc = s->failed;
        *why = s->why;
    } else if (s) {
        rc = s->state != RB_TLS_HANDSHAKE;
    }
    pthread_mutex_unlock(&p->lock);
    return rc;
}

int rb_tls_version(struct rb_tls_pump *p, int64_t id, struct rb_tls_words *version) {
    pthread_mutex_lock(&p->lock);
    const struct rb_tls_session *s = session_find(p, id);
    int rc = s && s->tls && s->state != RB_TLS_HANDSHAKE ? 0 : -ENOTCONN;
    if (rc == 0)
        rb_tls_say(version, 0, "%s %s", SSL_get_version(s->tls->ssl),
                   SSL_get_cipher_name(s->tls->ssl));
    pthread_mutex_unlock(&p->lock);
    return rc;
}

int rb_tls_check_host(struct rb_tls_pump *p, int64_t id, const char *host,
                      struct rb_tls_words *why) {
    pthread_mutex_lock(&p->lock);
    const struct rb_tls_session *s = session_find(p, id);
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

int rb_tls_take(struct rb_tls_pump *p, int64_t id, int stream, struct rb_tls **tls) {
    pthread_mutex_lock(&p->lock);
    struct rb_tls_session *s = session_find(p, id);
    int rc = s && s->tls && s->state == RB_TLS_FLOWING ? rb_tls_session_collect(s, stream) : -EPIPE;
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
    struct rb_tls_session *s = session_find(p, id);
    if (s) {
        s->forgotten = 1;
        uint64_t soon = rb_tls_now_ns() + RB_TLS_LINGER_MS * NS_PER_MS;
        if (soon < s->deadline_ns) s->deadline_ns = soon;
        if (s->state == RB_TLS_HANDSHAKE) s->deadline_ns = 0; /* nothing can have been said */
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
