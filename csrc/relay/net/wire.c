#include "relay/net/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay/net/tls.h"
#include "relay/tape/tape.h"

static ssize_t read_tls(struct rb_wire *w, struct iovec *iov, int pieces) {
    size_t done = 0;
    rb_tls_allow(w->tls);
    for (int i = 0; i < pieces; i++) {
        for (size_t at = 0; at < iov[i].iov_len;) {
            ssize_t n = rb_tls_read(w->tls, (uint8_t *)iov[i].iov_base + at, iov[i].iov_len - at);
            if (n <= 0) {
                w->drained = n == -EAGAIN && !w->tls->stopped;
                return done ? (ssize_t)done : n; /* an end behind these bytes shows again */
            }
            at += (size_t)n;
            done += (size_t)n;
        }
    }
    return (ssize_t)done;
}

static ssize_t write_tls(struct rb_wire *w, struct iovec *iov, int pieces) {
    size_t done = 0;
    for (int i = 0; i < pieces; i++) {
        for (size_t at = 0; at < iov[i].iov_len;) {
            ssize_t n =
                rb_tls_write(w->tls, (const uint8_t *)iov[i].iov_base + at, iov[i].iov_len - at);
            if (n < 0) return done ? (ssize_t)done : n;
            at += (size_t)n;
            done += (size_t)n;
        }
    }
    return (ssize_t)done;
}

ssize_t rb_wire_read_untaped(struct rb_wire *w, struct iovec *iov, int pieces) {
    w->drained = 0;
    if (w->tls) {
        ssize_t n = read_tls(w, iov, pieces);
        w->unsent = rb_tls_held(w->tls) > 0; /* the answer to a KeyUpdate, an alert */
        return n;
    }
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)pieces};
    size_t asked = 0;
    for (int i = 0; i < pieces; i++) asked += iov[i].iov_len;
    ssize_t n;
    do n = recvmsg(w->fd, &message, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0) return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    w->drained = (size_t)n < asked;
    return n;
}

ssize_t rb_wire_write_untaped(struct rb_wire *w, struct iovec *iov, int pieces) {
    if (w->tls) {
        ssize_t n = write_tls(w, iov, pieces);
        int rc = rb_wire_flush_untaped(w);
        return rc < 0 && rc != -EAGAIN ? rc : n;
    }
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)pieces};
    ssize_t n;
    do n = sendmsg(w->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0) return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    return n;
}

int rb_wire_flush_untaped(struct rb_wire *w) {
    if (!w->tls) return 0;
    int rc = rb_tls_flush(w->tls);
    w->unsent = rc == -EAGAIN;
    return rc;
}

ssize_t rb_wire_read(struct rb_wire *w, struct iovec *iov, int pieces) {
    return w->tape ? rb_tape_read(w, iov, pieces) : rb_wire_read_untaped(w, iov, pieces);
}
ssize_t rb_wire_write(struct rb_wire *w, struct iovec *iov, int pieces) {
    return w->tape ? rb_tape_write(w, iov, pieces) : rb_wire_write_untaped(w, iov, pieces);
}
int rb_wire_flush(struct rb_wire *w) {
    return w->tape ? rb_tape_flush(w) : rb_wire_flush_untaped(w);
}

const char *rb_wire_why(const struct rb_wire *w) { return w->tls ? w->tls->why.text : ""; }

void rb_wire_close(struct rb_wire *w) {
    if (w->tls && w->tape && rb_tape_is_replayed(w->tape)) {
        free(w->tls->unread.at); /* there is no session: relay/tape/notes.c made it up */
        free(w->tls);
        w->tls = NULL;
    }
    if (w->tls)
        rb_tls_free(w->tls);
    else
        close(w->fd);
}
