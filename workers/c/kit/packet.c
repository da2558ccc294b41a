/* packet.c: one packet out, one packet in, and the wait for either (docs/channel.md, "The socket").
 *
 * Never blocks in the kernel: every call is told not to wait, and every wait is a poll() that a cancel, the gate or a deadline
 * ends. A packet is sent by one sendmsg(), so it is there as a whole or not at all. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "channel_pvt.h"
#include "peer_pvt.h"
#include "socket.h"

enum {
    BODY_BYTES_MAX = RB_PACKET_BYTES_MAX - sizeof(struct rb_packet),
    CHANNEL_AT = 5,      /* behind the link's five descriptors (layout.toml, [descriptors]) */
    DESCRIPTORS_MAX = 8, /* that may come with one packet */
    /* Between two looks of a wait that no gate ends (before the link is open). */
    SLICE_MS = 100,
    /* The same of a wait in a job that another worker asked for. */
    PEER_SLICE_NS = 5000000,
};

struct rb_channel rb_channel = {.fd = -1};

int rb_channel_fd(void) {
    struct rb_channel *c = &rb_channel;
    struct stat is;
    /* Pairs with the release below in whichever thread came first; two that come at once find the same. */
    if (rb_load_acquire(&c->opened)) return c->fd;
    int first = rb_kit_first_descriptor(), fd = first < 0 ? -1 : first + CHANNEL_AT;
    if (fd >= 0 && fstat(fd, &is) == 0 && S_ISSOCK(is.st_mode)) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        c->fd = fd;
    }
    rb_store_release(&c->opened, 1);
    return c->fd;
}

/* --- the wait ---------------------------------------------------------------------------------------------------------- */

static int ready_to_give_up(void *arg) {
    struct rb_job *job = arg;
    if (job != NULL) return rb_is_cancelled(job);
    return rb_kit_control(rb_channel.worker) == RB_CONTROL_STOP;
}

int rb_channel_wait(struct rb_job *job, short events, uint64_t until_ns) {
    return rb_kit_wait_fd(job, rb_channel.fd, events, until_ns);
}

int rb_kit_wait_fd(struct rb_job *job, int fd, short events, uint64_t until_ns) {
    struct rb_worker *w = job ? job->worker : rb_channel.worker;
    uint64_t deadline = until_ns, of_job = job ? job->request.deadline_ns : 0;
    /* A cancel rings the gate, the job's deadline does not. */
    if (of_job != 0 && (deadline == 0 || of_job < deadline)) deadline = of_job;
    uint64_t now = deadline == 0 ? 0 : rb_now_ns();
    int64_t left = deadline == 0 ? -1 : now < deadline ? (int64_t)(deadline - now) : 0;

    if (w == NULL) { /* main() says something before its worker is one */
        struct pollfd p = {.fd = fd, .events = events};
        int slice = left < 0 || left > SLICE_MS * 1000000LL ? SLICE_MS : (int)(left / 1000000 + 1);
        if (poll(&p, 1, left == 0 ? 0 : slice) > 0) return 1;
        return until_ns != 0 && rb_now_ns() >= until_ns ? 0 : -EAGAIN;
    }
    /* A peer that takes its request back does not ring the gate. */
    if (job != NULL && job->peer != NULL && (left < 0 || left > PEER_SLICE_NS))
        left = PEER_SLICE_NS;
    int found = rb_gate_wait_or_fd(&w->link.waiter, fd, events, ready_to_give_up, job, left);
    if (ready_to_give_up(job)) {
        if (job) job->refused = ECANCELED; /* for a handler that returns now */
        return -ECANCELED;
    }
    if (found) return 1;
    return until_ns != 0 && rb_now_ns() >= until_ns ? 0 : -EAGAIN;
}

/* --- out --------------------------------------------------------------------------------------------------------------- */

/* Relaxed: whoever does not see it yet finds the same. */
static int closed(void) {
    rb_store_relaxed(&rb_channel.closed, 1);
    return -ESHUTDOWN;
}

/* Sends as soon as there is room. */
static int send_in_time(struct rb_job *job, struct iovec *parts, int count, int descriptor,
                        uint64_t until_ns) {
    for (;;) {
        int failed = rb_socket_send(rb_channel.fd, parts, count, descriptor);
        if (failed == -EPIPE) return closed();
        if (failed != -EAGAIN || until_ns == RB_AT_ONCE) return failed;
        int found = rb_channel_wait(job, POLLOUT, until_ns);
        if (found == 0) return -ETIMEDOUT;
        if (found == -ECANCELED) return found;
    }
}

int rb_packet_send_memfd(struct rb_job *job, const struct rb_packet *head, int memfd,
                         uint64_t until_ns) {
    struct rb_packet packet = *head;
    struct iovec iov = {.iov_base = &packet, .iov_len = sizeof packet};
    struct stat is;
    int failed = rb_body_seal(memfd);
    if (!failed && fstat(memfd, &is) < 0) failed = -errno;
    if (failed) return failed;
    packet.flags |= RB_PACKET_FLAG_MEMFD;
    packet.bytes = (uint64_t)is.st_size;
    return send_in_time(job, &iov, 1, memfd, until_ns);
}

static int send_by_memfd(struct rb_job *job, const struct rb_packet *head,
                         const struct iovec *parts, int count, uint64_t until_ns) {
    int memfd = rb_body_memfd(parts, count);
    if (memfd < 0) return memfd;
    int failed = rb_packet_send_memfd(job, head, memfd, until_ns);
    close(memfd);
    return failed;
}

int rb_packet_send(struct rb_job *job, const struct rb_packet *head, const struct iovec *parts,
                   int count, uint64_t until_ns) {
    enum { PARTS_MAX = 7 };
    struct rb_packet packet = *head;
    struct iovec iov[1 + PARTS_MAX] = {{.iov_base = &packet, .iov_len = sizeof packet}};
    int iov_count = 1;
    if (rb_channel_fd() < 0) return -ENOTCONN;
    if (rb_load_relaxed(&rb_channel.closed)) return -ESHUTDOWN;
    if (count > PARTS_MAX) return -EINVAL;
    packet.bytes = 0;
    for (int i = 0; i < count; i++) {
        if (parts[i].iov_len > SIZE_MAX - packet.bytes) return -EMSGSIZE;
        packet.bytes += parts[i].iov_len;
        if (parts[i].iov_len > 0) iov[iov_count++] = parts[i];
    }
    if (packet.bytes > BODY_BYTES_MAX) return send_by_memfd(job, head, parts, count, until_ns);
    return send_in_time(job, iov, iov_count, -1, until_ns);
}

void rb_packet_refuse(const struct rb_packet *head, uint64_t code, const char *why) {
    struct rb_packet reply = {
        .kind = RB_PACKET_REPLY, .flags = RB_PACKET_FLAG_ERROR, .id = head->id};
    uint8_t opening[] = {104, 2,   119, 11,  'u', 'n', 'a', 'v', 'a', 'i',
                         'l', 'a', 'b', 'l', 'e', 109, 0,   0,   0,   (uint8_t)strlen(why)};
    const struct iovec parts[] = {
        {&code, sizeof code}, {opening, sizeof opening}, {(void *)why, (uint8_t)strlen(why)}};
    if (head->id != 0) rb_packet_send(NULL, &reply, parts, 3, 0);
}

/* --- in ---------------------------------------------------------------------------------------------------------------- */

static void close_all(const int *fds, int count) {
    for (int i = 0; i < count; i++) close(fds[i]);
}

/* The bridge is ours: what breaks a rule of the channel ends the worker, as on the link. */
static void take_body(struct rb_incoming *in, const int *fds, int count, size_t size) {
    const struct rb_packet *head = &in->head;
    if (!(head->flags & RB_PACKET_FLAG_MEMFD)) {
        if (head->bytes != size - sizeof *head)
            rb_kit_channel_broken("a body is not as long as its head says");
        in->size = head->bytes;
        in->body = malloc(in->size + 1); /* never NULL for want of bytes */
        if (in->body != NULL) memcpy(in->body, rb_channel.room + sizeof *head, in->size);
        /* One end of a link to another worker. Of other packets they are closed. */
        if (count == 1 && (head->kind == RB_PACKET_REPLY || head->kind == RB_PACKET_PEER_OFFER)) {
            in->has_fd = 1;
            in->fd = fds[0];
        }
    } else {
        if (count != 1 || size != sizeof *head || head->bytes == 0 ||
            !rb_body_is_sealed(fds[0], head->bytes))
            rb_kit_channel_broken("a body is not in one sealed memfd of its size");
        void *map = mmap(NULL, head->bytes, PROT_READ, MAP_SHARED, fds[0], 0);
        if (map != MAP_FAILED)
            *in = (struct rb_incoming){
                .head = in->head, .body = map, .size = head->bytes, .mapped = 1};
    }
    if (in->body == NULL) rb_kit_channel_broken("there is no memory for a body");
}

int rb_packet_receive(struct rb_incoming *in) {
    struct rb_channel *c = &rb_channel;
    int fds[DESCRIPTORS_MAX];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof fds)];
    } control;
    struct iovec iov = {.iov_len = RB_PACKET_BYTES_MAX};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    if (c->fd < 0 || rb_load_relaxed(&c->closed)) return -ESHUTDOWN;
    if (c->room == NULL) c->room = malloc(RB_PACKET_BYTES_MAX);
    if (c->room == NULL) return 0;
    iov.iov_base = c->room;
    ssize_t n;
    do n = recvmsg(c->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == ENOMEM)) return 0;
    if (n <= 0) return closed();
    int count = rb_socket_descriptors(&message, fds);
    if ((size_t)n < sizeof in->head || (message.msg_flags & MSG_TRUNC))
        rb_kit_channel_broken("a packet is too short or too long");
    *in = (struct rb_incoming){0};
    memcpy(&in->head, c->room, sizeof in->head);
    take_body(in, fds, count, (size_t)n);
    if (!in->has_fd) close_all(fds, count);
    return 1;
}

void rb_packet_drop(struct rb_incoming *in) {
    if (in->has_fd) close(in->fd);
    if (in->mapped)
        munmap(in->body, in->size);
    else
        free(in->body);
    *in = (struct rb_incoming){0};
}

void rb_packet_put_by(struct rb_incoming *in) {
    struct rb_channel *c = &rb_channel;
    if (in->head.kind == RB_PACKET_REPLY) {
        rb_peer_granted_too_late(in);
        rb_packet_drop(in);
    } else if (in->head.kind == RB_PACKET_PEER_OFFER) {
        rb_peers_take_offer(in); /* however many come in a job: it costs a descriptor */
    } else if (c->put_by_count == RB_PUT_BY_MAX) {
        rb_kit_channel_broken("more is asked of a worker in the midst of a job than may be open");
    } else {
        c->put_by[c->put_by_count++] = *in;
    }
}

int rb_packet_await_reply(struct rb_job *job, uint64_t id, uint64_t until_ns,
                          struct rb_incoming *reply) {
    for (;;) {
        int found = rb_packet_receive(reply);
        if (found < 0) return found;
        if (found && reply->head.kind == RB_PACKET_REPLY && reply->head.id == id) return 0;
        if (found) {
            rb_packet_put_by(reply);
            continue;
        }
        found = rb_channel_wait(job, POLLIN, until_ns);
        if (found == 0) return -ETIMEDOUT;
        if (found == -ECANCELED) return found;
    }
}

int rb_reply_errno(const struct rb_incoming *reply) {
    static const int numbers[] = {
        [RB_CHANNEL_ERROR_BAD_REQUEST] = EINVAL,  [RB_CHANNEL_ERROR_REFUSED] = EACCES,
        [RB_CHANNEL_ERROR_NO_PROCESS] = ESRCH,    [RB_CHANNEL_ERROR_NO_CONNECTION] = EHOSTUNREACH,
        [RB_CHANNEL_ERROR_DOWN] = EPIPE,          [RB_CHANNEL_ERROR_TIMEOUT] = ETIMEDOUT,
        [RB_CHANNEL_ERROR_TOO_LARGE] = EMSGSIZE,  [RB_CHANNEL_ERROR_BUSY] = EBUSY,
        [RB_CHANNEL_ERROR_UNAVAILABLE] = ENOTSUP, [RB_CHANNEL_ERROR_FULL_WANTED] = ESTALE,
        [RB_CHANNEL_ERROR_STORE_FAILED] = EIO,
    };
    if (!(reply->head.flags & RB_PACKET_FLAG_ERROR)) return 0;
    uint64_t code = reply->size >= sizeof code ? rb_u64_at(reply->body) : 0;
    if (code >= sizeof numbers / sizeof *numbers || numbers[code] == 0) return -EIO;
    return -numbers[code];
}
