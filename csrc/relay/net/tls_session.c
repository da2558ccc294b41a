#include "relay/net/tls_session.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t rb_tls_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void close_stream(struct rb_tls_session *s) {
    if (s->stream >= 0) close(s->stream);
    s->stream = -1;
}

/* What libssl holds is sent, nothing else; what the peer sends is read and dropped for a while. */
static void begin_linger(struct rb_tls_session *s) {
    s->state = RB_TLS_LINGER;
    s->deadline_ns = rb_tls_now_ns() + RB_TLS_LINGER_MS * NS_PER_MS;
    close_stream(s);
}

static void session_fail(struct rb_tls_session *s, int error, const struct rb_tls_words *why) {
    s->failed = error;
    s->why = *why;
    begin_linger(s);
}

/* Closed or reset behind its TLS handshake: no fault of TLS. The reader of the stream knows best what it means there. */
static void peer_end(struct rb_tls_session *s) {
    s->peer_ended = 1;
    shutdown(s->stream, SHUT_WR);
}

/* One move from one side to the other: 1 it moved, 0 it must wait (for what, in *w). */
static int move_in(struct rb_tls_session *s, struct rb_tls_wants *w) {
    struct rb_tls_piece *in = &s->in;
    if (in->begin == in->end) {
        if (s->peer_ended) return 0;
        ssize_t n = rb_tls_read(s->tls, in->at, sizeof in->at);
        if (n == -EAGAIN) {
            w->tls |= s->tls->wants;
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
        w->stream |= EPOLLOUT;
        return 0;
    }
    in->begin += n < 0 ? in->end - in->begin : (size_t)n; /* nobody reads it any more: dropped */
    return 1;
}

static int move_out(struct rb_tls_session *s, struct rb_tls_wants *w) {
    struct rb_tls_piece *out = &s->out;
    if (out->begin == out->end) {
        if (s->stream_ended) return 0;
        ssize_t n = recv(s->stream, out->at, sizeof out->at, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) return 1;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            w->stream |= EPOLLIN;
            return 0;
        }
        out->begin = 0;
        out->end = n > 0 ? (size_t)n : 0;
        if (n <= 0) {
            s->stream_ended = 1;
            s->state = RB_TLS_ENDING;
            return 1;
        }
    }
    ssize_t n = rb_tls_write(s->tls, out->at + out->begin, out->end - out->begin);
    if (n == -EAGAIN) {
        w->tls |= s->tls->wants;
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
static int drop_input(const struct rb_tls_session *s) {
    uint8_t drop[RB_TLS_PIECE_BYTES];
    for (int i = 0; i < 16; i++) {
        ssize_t n = recv(s->tls->fd, drop, sizeof drop, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
            return 1;
        if (n < 0 && errno != EINTR) return 0;
    }
    return 0;
}

/* Goes as far as it can without waiting. It ends: both peers give no more than they have sent. */
struct rb_tls_wants rb_tls_session_step(struct rb_tls_session *s) {
    struct rb_tls_wants w = {0, 0};
    if (!s->tls) return w;
    rb_tls_allow(s->tls); /* what is left then wakes us at once */
    if (s->state == RB_TLS_HANDSHAKE) {
        int rc = rb_tls_handshake(s->tls);
        if (rc == 0)
            s->state = RB_TLS_FLOWING;
        else if (rc == -EAGAIN)
            w.tls = s->tls->wants;
        else
            session_fail(s, rc, &s->tls->why);
    }
    if (s->state == RB_TLS_FLOWING) {
        while (s->state == RB_TLS_FLOWING && move_in(s, &w)) {
        }
        while (s->state == RB_TLS_FLOWING && move_out(s, &w)) {
        }
    }
    if (s->state == RB_TLS_ENDING) {
        while (s->out.begin < s->out.end && move_out(s, &w)) {
        }
        if (s->state == RB_TLS_ENDING && s->out.begin == s->out.end) {
            rb_tls_end(s->tls);
            begin_linger(s);
        }
    }
    int flushed = rb_tls_flush(s->tls);
    if (s->state == RB_TLS_LINGER) {
        if (flushed == 0) shutdown(s->tls->fd, SHUT_WR);
        w.tls = EPOLLIN;
        if (drop_input(s)) {
            rb_tls_free(s->tls);
            s->tls = NULL;
        }
    }
    if (flushed == -EAGAIN) w.tls |= EPOLLOUT;
    return w;
}

/* What it was doing is what was too slow. */
void rb_tls_session_overdue(struct rb_tls_session *s) {
    if (s->state == RB_TLS_HANDSHAKE) {
        rb_tls_say(
            &s->why, 0, "%s",
            s->tls->first_count || s->tls->server
                ? "the peer was silent within the TLS handshake for too long"
                : "the peer was dialled with TLS and has said nothing; it may be a plain node: "
                  "start it with -proto_dist inet_tls, or this node without tls");
        s->failed = -ETIMEDOUT;
    } else if (s->state == RB_TLS_FLOWING) {
        rb_tls_say(&s->why, 0, "the peer was silent within the handshake for too long");
        s->failed = -ETIMEDOUT;
    }
    if (s->tls) s->tls->broken = 1; /* not even a close_notify to who does not read */
    rb_tls_free(s->tls);
    s->tls = NULL;
    close_stream(s);
}

static int drain(int fd, struct rb_buffer *into) {
    for (;;) {
        uint8_t *room = rb_buffer_room(into, RB_TLS_PIECE_BYTES);
        if (!room) return -ENOMEM;
        ssize_t n = recv(fd, room, RB_TLS_PIECE_BYTES, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return 0;
        into->end += (size_t)n;
    }
}

/* Both directions, the older bytes first: the pair's own, then what we hold; what we hold, then the pair's. */
int rb_tls_session_collect(struct rb_tls_session *s, int stream) {
    struct rb_tls *t = s->tls;
    int rc = drain(stream, &t->unread);
    if (rc == 0) rc = rb_buffer_put(&t->unread, s->in.at + s->in.begin, s->in.end - s->in.begin);
    if (rc == 0)
        rc = rb_buffer_put(&t->unsent, s->out.at + s->out.begin, s->out.end - s->out.begin);
    return rc < 0 ? rc : drain(s->stream, &t->unsent);
}
