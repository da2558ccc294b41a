/* socket.c: one message with a descriptor, and bodies in sealed memfds (docs/channel.md, "The socket"; docs/links.md). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "socket.h"

enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL };

int rb_socket_send(int fd, struct iovec *parts, int count, int descriptor) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof descriptor)];
    } control = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
    if (descriptor >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof descriptor);
        memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
    }
    while (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        switch (errno) {
        case EINTR: continue;
        case EAGAIN:
        case ENOBUFS:
        case ETOOMANYREFS: return -EAGAIN;
        case EPIPE:
        case ECONNRESET:
        case ENOTCONN: return -EPIPE;
        default: return -errno;
        }
    }
    return 0;
}

int rb_socket_descriptors(struct msghdr *message, int *fds) {
    int count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        int came = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds + count, CMSG_DATA(c), (size_t)came * sizeof(int));
        count += came;
    }
    return count;
}

static int write_all(int fd, const void *bytes, size_t left) {
    const uint8_t *at = bytes;
    while (left > 0) {
        ssize_t n = write(fd, at, left);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? -errno : -EIO;
        at += n;
        left -= (size_t)n;
    }
    return 0;
}

int rb_body_memfd(const struct iovec *parts, int count) {
    int memfd = memfd_create("ringbridge body", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int failed = memfd < 0 ? -errno : 0;
    for (int i = 0; !failed && i < count; i++)
        failed = write_all(memfd, parts[i].iov_base, parts[i].iov_len);
    if (!failed) return memfd;
    if (memfd >= 0) close(memfd);
    return failed;
}

int rb_body_seal(int memfd) { return fcntl(memfd, F_ADD_SEALS, SEALS) < 0 ? -errno : 0; }

int rb_body_is_sealed(int fd, uint64_t bytes) {
    struct stat is;
    int seals = fcntl(fd, F_GET_SEALS); /* EINVAL of whatever is no memfd, without touching it */
    return seals >= 0 && (seals & SEALS) == SEALS && fstat(fd, &is) == 0 &&
           (uint64_t)is.st_size == bytes;
}
