#include "wire.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

ssize_t rb_wire_read(struct rb_wire *w, struct iovec *iov, int pieces) {
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

ssize_t rb_wire_write(struct rb_wire *w, struct iovec *iov, int pieces) {
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)pieces};
    ssize_t n;
    do n = sendmsg(w->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0) return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    return n;
}

void rb_wire_close(struct rb_wire *w) { close(w->fd); }
