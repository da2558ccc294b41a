/* lane_dial.c: how a BEAM comes by the descriptors of a lane, or of a worker's link: the bridge's socket, the token, SCM_RIGHTS.
 *
 * A SOCK_SEQPACKET socket, one packet each way: the token's bytes; then either one byte 0 with the descriptors (of a lane four: relay side,
 * beam side, bell, telemetry; of a link five, as struct rb_link_fds has them), or the reason in words. The bridge then closes it: from here
 * on the bell tells of the other's end. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "ringbridge/lane.h"

enum { DESCRIPTORS_MAX = 5, WORDS = 512 };

/* connect() waits for a place in the other end's queue, which others may hold for as long as they like: so long as a write may take.
 * 0 would be for ever. */
static int wait_no_longer(int fd, int timeout_ms) {
    struct timeval most = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
    if (timeout_ms <= 0) most.tv_usec = 1;
    return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
}

static int connect_to(const uint8_t *name, size_t size, int timeout_ms) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (size == 0 || size >= sizeof to.sun_path) return -EINVAL;
    memcpy(to.sun_path, name, size);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (wait_no_longer(fd, timeout_ms) == 0 &&
        connect(fd, (struct sockaddr *)&to,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size)) == 0)
        return fd;
    int failed = -errno;
    close(fd);
    return failed == -ENOENT ? -ECONNREFUSED : failed == -EAGAIN ? -ETIMEDOUT : failed;
}

/* How many descriptors came, of those that fit into `all`; -EPROTO: a shape that no bridge sends. */
static int take_rights(struct msghdr *m, int all[DESCRIPTORS_MAX]) {
    int count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        int n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + (size_t)i * sizeof fd, sizeof fd);
            if (count < DESCRIPTORS_MAX)
                all[count++] = fd;
            else
                close(fd);
        }
    }
    return count;
}

static int receive(int fd, int *fds, int wanted, char *why, size_t why_bytes) {
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int) * DESCRIPTORS_MAX)];
    } control;
    char words[WORDS];
    int all[DESCRIPTORS_MAX];
    struct iovec into = {.iov_base = words, .iov_len = sizeof words};
    struct msghdr m = {.msg_iov = &into,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof control.room};
    ssize_t n;
    do n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0) return -errno;
    int count = take_rights(&m, all);
    if (count == wanted && n == 1 && words[0] == 0) {
        memcpy(fds, all, (size_t)wanted * sizeof *fds);
        return 0;
    }
    while (count > 0) close(all[--count]);
    if (n == 0)
        snprintf(why, why_bytes, "the bridge closed the socket without a word");
    else
        snprintf(why, why_bytes, "%.*s", (int)n, words);
    return -EACCES;
}

static int dial(const uint8_t *name, size_t size, const uint8_t token[RB_LANE_TOKEN_BYTES],
                int timeout_ms, int *fds, int wanted, char *why, size_t why_bytes) {
    int fd = connect_to(name, size, timeout_ms), rc = fd < 0 ? fd : 0;
    if (rc == 0 && send(fd, token, RB_LANE_TOKEN_BYTES, MSG_NOSIGNAL) != RB_LANE_TOKEN_BYTES)
        rc = -errno;
    if (rc == 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready;
        do ready = poll(&p, 1, timeout_ms);
        while (ready < 0 && errno == EINTR);
        rc = ready > 0    ? receive(fd, fds, wanted, why, why_bytes)
             : ready == 0 ? -ETIMEDOUT
                          : -errno;
    }
    if (fd >= 0) close(fd);
    if (rc < 0 && rc != -EACCES) snprintf(why, why_bytes, "%s", strerror(-rc));
    return rc;
}

int rb_lane_dial(const uint8_t *name, size_t size, const uint8_t token[RB_LANE_TOKEN_BYTES],
                 int timeout_ms, struct rb_lane_fds *fds, char *why, size_t why_bytes) {
    int all[4], rc = dial(name, size, token, timeout_ms, all, 4, why, why_bytes);
    if (rc == 0) *fds = (struct rb_lane_fds){all[0], all[1], all[2], all[3]};
    return rc;
}

int rb_lane_dial_link(const uint8_t *name, size_t size, const uint8_t token[RB_LANE_TOKEN_BYTES],
                      int timeout_ms, int fds[5], char *why, size_t why_bytes) {
    return dial(name, size, token, timeout_ms, fds, 5, why, why_bytes);
}
