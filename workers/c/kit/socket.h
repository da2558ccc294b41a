/* socket.h: what the channel and the links to other workers share: one message on a socket of packets, and bodies in memfds. */
#ifndef RINGBRIDGE_SOCKET_H
#define RINGBRIDGE_SOCKET_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* Sends the parts as one message, and `descriptor` beside them unless it is -1; the descriptor stays the caller's. Never waits, and
 * sends all or nothing. 0; -EAGAIN: there is no room, or too many descriptors are under way; -EPIPE: the other end is closed; or what
 * else sendmsg() gave. */
int rb_socket_send(int fd, struct iovec *parts, int count, int descriptor);
/* The descriptors that a message brought, in `fds`, which must hold all that its control buffer can; how many. */
int rb_socket_descriptors(struct msghdr *message, int *fds);

/* A memfd with the parts in it, not sealed yet; yours to close. Or a negative errno. */
int rb_body_memfd(const struct iovec *parts, int count);
/* Seals it against every change, as a body must be before it is sent. 0, or a negative errno. */
int rb_body_seal(int memfd);
/* Whether it is a memfd sealed so, of this size. Touches nothing of what else it may be. */
int rb_body_is_sealed(int fd, uint64_t bytes);

#endif
