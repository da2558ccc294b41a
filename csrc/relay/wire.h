/* wire.h: the bytes of a connection as they cross its descriptor. The rest of the relay does not know how they are carried. */
#ifndef RB_RELAY_WIRE_H
#define RB_RELAY_WIRE_H

#include <sys/types.h>
#include <sys/uio.h>

struct rb_wire {
    int fd;
    int drained; /* the last read took all that there was: the next one may wait for epoll */
};

/* How many bytes came into the pieces, in order; 0: the peer has ended; -EAGAIN: none now; another negative errno: broken. */
ssize_t rb_wire_read(struct rb_wire *w, struct iovec *iov, int pieces);
/* How many bytes of the pieces left, in order; -EAGAIN: none now; another negative errno: broken. */
ssize_t rb_wire_write(struct rb_wire *w, struct iovec *iov, int pieces);
void rb_wire_close(struct rb_wire *w);

#endif
