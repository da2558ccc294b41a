/* wire.h: the bytes of a connection as they cross its descriptor, plainly or under TLS. The rest of the relay does not know which. */
#ifndef RB_RELAY_WIRE_H
#define RB_RELAY_WIRE_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct rb_tape;
struct rb_tls;
struct rb_wire {
    int fd;
    uint32_t connection;
    struct rb_tape *tape; /* NULL: nobody records it */
    struct rb_tls *tls;   /* NULL: plain */
    int drained; /* the last read took all that there was: the next one may wait for epoll */
    int unsent;  /* TLS holds bytes, of frames or of its own, that the socket has not taken */
};

/* How many bytes came into the pieces, in order; 0: the peer has ended; -EAGAIN: none now; another negative errno: broken. */
ssize_t rb_wire_read(struct rb_wire *w, struct iovec *iov, int pieces);
/* How many bytes of the pieces left, in order; -EAGAIN: none now; another negative errno: broken. */
ssize_t rb_wire_write(struct rb_wire *w, struct iovec *iov, int pieces);
int rb_wire_flush(
    struct rb_wire *
        w); /* sends what is unsent: 0 all of it, -EAGAIN not all, another negative errno: broken */
/* The same for who has looked at the tape (relay/tape). */
ssize_t rb_wire_read_untaped(struct rb_wire *w, struct iovec *iov, int pieces);
ssize_t rb_wire_write_untaped(struct rb_wire *w, struct iovec *iov, int pieces);
int rb_wire_flush_untaped(struct rb_wire *w);
const char *rb_wire_why(const struct rb_wire *w); /* words for -EPROTO; valid until it is closed */
void rb_wire_close(struct rb_wire *w);

#endif
