/* peer_wire.c: one message to another worker, one from it (docs/links.md, "The socket").
 *
 * A descriptor from another worker can be anything: a file whose reads never end, a socket whose close() waits. Only a memfd that is
 * sealed is read, by pread() into our own memory: a mapping of it could fault, or charge its holes to us. What is no memfd is closed
 * by a thread that nobody waits for. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "peer_pvt.h"
#include "ringbridge/term.h"
#include "socket.h"

enum {
    HEAD_BYTES = sizeof(struct rb_packet),
    BODY_BYTES_MAX = RB_PACKET_BYTES_MAX - HEAD_BYTES,
    DESCRIPTORS_MAX =
        253, /* SCM_MAX_FD: all that one packet can bring, so that the kernel closes none of them here */
};

_Static_assert(sizeof(struct rb_request) == RB_PEER_ENVELOPE_BYTES, "an envelope's size");
_Static_assert(sizeof(struct rb_completion) == RB_PEER_ENVELOPE_BYTES, "an envelope's size");

union rights {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
};

/* --- out ---------------------------------------------------------------------------------------------------------------- */

static int send_by_memfd(int fd, struct rb_packet *head, const struct iovec *body, int count) {
    int memfd = rb_body_memfd(body, count);
    if (memfd < 0) return memfd;
    int failed = rb_body_seal(memfd);
    if (!failed) {
        struct iovec iov = {head, HEAD_BYTES};
        head->flags |= RB_PACKET_FLAG_MEMFD;
        failed = rb_socket_send(fd, &iov, 1, memfd);
    }
    close(memfd);
    return failed;
}

int rb_peer_send(int fd, const struct rb_packet *head, const void *envelope, const void *payload,
                 size_t payload_bytes) {
    struct rb_packet packet = *head;
    size_t envelope_bytes = envelope ? RB_PEER_ENVELOPE_BYTES : 0;
    struct iovec iov[3] = {{&packet, sizeof packet},
                           {(void *)envelope, envelope_bytes},
                           {(void *)payload, payload_bytes}};
    packet.bytes = envelope_bytes + payload_bytes;
    if (packet.bytes > BODY_BYTES_MAX) return send_by_memfd(fd, &packet, iov + 1, 2);
    return rb_socket_send(fd, iov, 3, -1);
}

/* --- in ----------------------------------------------------------------------------------------------------------------- */

struct strangers {
    int count;
    int fds[DESCRIPTORS_MAX];
};

static void *close_strangers(void *arg) {
    struct strangers *s = arg;
    for (int i = 0; i < s->count; i++) close(s->fds[i]);
    free(s);
    return NULL;
}

/* Closes descriptors of which nothing is known. Where there is no thread for it they stay open: better than to wait for ever. */
static void close_elsewhere(const struct strangers *s) {
    pthread_t thread;
    struct strangers *copy = s->count > 0 ? malloc(sizeof *copy) : NULL;
    if (copy == NULL) return;
    *copy = *s;
    if (pthread_create(&thread, NULL, close_strangers, copy) != 0)
        free(copy);
    else
        pthread_detach(thread);
}

static int read_all(int fd, uint8_t *to, size_t bytes) {
    size_t at = 0;
    while (at < bytes) {
        ssize_t n = pread(fd, to + at, bytes - at, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -EPROTO;
        at += (size_t)n;
    }
    return 0;
}

/* The body of a message whose first `inline_bytes` lie in `room`, or all in the one descriptor. */
static int take_body(struct rb_peer_message *m, const uint8_t *room, size_t inline_bytes,
                     struct strangers *s) {
    const struct rb_packet *head = &m->head;
    int by_memfd = (head->flags & RB_PACKET_FLAG_MEMFD) != 0;
    if (head->flags & ~RB_PACKET_FLAG_MEMFD || head->reserved != 0 || s->count != by_memfd ||
        inline_bytes != (by_memfd ? 0 : head->bytes) ||
        head->bytes > RB_PEER_ENVELOPE_BYTES + (uint64_t)RB_PEER_BYTES_MAX)
        return -EPROTO;
    if (head->bytes == 0 && head->kind == RB_PACKET_FORGET) return 0;
    if (head->kind == RB_PACKET_FORGET || head->bytes < RB_PEER_ENVELOPE_BYTES) return -EPROTO;
    if (by_memfd && !rb_body_is_sealed(s->fds[0], head->bytes)) return -EPROTO;
    m->memory = malloc(head->bytes);
    if (m->memory == NULL) return -ENOMEM;
    m->payload_bytes = head->bytes - RB_PEER_ENVELOPE_BYTES;
    if (!by_memfd) {
        memcpy(m->memory, room, head->bytes);
        return 0;
    }
    int failed = read_all(s->fds[0], m->memory, head->bytes);
    close(s->fds[0]);
    s->count = 0;
    return failed;
}

int rb_peer_receive(int fd, struct rb_peer_message *m) {
    static uint8_t room[RB_PACKET_BYTES_MAX];
    union rights control;
    struct strangers came;
    struct iovec iov = {room, sizeof room};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t n;
    *m = (struct rb_peer_message){0};
    do n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0) return errno == EAGAIN ? 0 : -EPIPE;
    came.count = rb_socket_descriptors(&message, came.fds);
    if (n == 0 && came.count == 0) return -EPIPE;
    int failed = -EPROTO;
    if (n >= HEAD_BYTES && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        memcpy(&m->head, room, sizeof m->head);
        failed = take_body(m, room + HEAD_BYTES, (size_t)n - HEAD_BYTES, &came);
    }
    close_elsewhere(&came);
    if (failed) rb_peer_message_drop(m);
    return failed ? failed : 1;
}

void rb_peer_message_drop(struct rb_peer_message *m) {
    free(m->memory);
    m->memory = NULL;
}

int rb_peer_term_is_sound(const void *bytes, size_t size) {
    struct rb_cursor c = {.at = bytes, .end = (const uint8_t *)bytes + size};
    struct rb_slice term;
    return rb_term_skip(&c, &term) == 0 && c.at == c.end;
}
