/* message.c: one packet with its descriptors, out and in. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "shepherd_pvt.h"

#define FDS_MAX RB_START_FDS_MAX

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(FDS_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
};

int rb_send(int socket_fd, const void *data, size_t size, const int *fds, size_t count) {
    union control control;
    struct iovec part = {(void *)data, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t sent;

    if (count > FDS_MAX) return -EINVAL;
    if (count > 0) {
        struct cmsghdr *rights;
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
    }
    do sent = sendmsg(socket_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

/* Move the descriptors and the sender out of the control data. Returns how many descriptors
 * there were; those above `capacity` are closed. */
static size_t read_control(struct msghdr *message, int *fds, size_t capacity, pid_t *sender) {
    struct cmsghdr *part;
    size_t total = 0;

    for (part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET) continue;
        if (part->cmsg_type == SCM_CREDENTIALS && sender != NULL) {
            struct ucred who;
            memcpy(&who, CMSG_DATA(part), sizeof who);
            *sender = who.pid;
        }
        if (part->cmsg_type == SCM_RIGHTS) {
            size_t here = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int), i;
            for (i = 0; i < here; i++, total++) {
                int fd;
                memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
                if (total < capacity)
                    fds[total] = fd;
                else
                    close(fd);
            }
        }
    }
    return total;
}

ssize_t rb_receive(int socket_fd, void *data, size_t size, int *fds, size_t *count, pid_t *sender) {
    union control control;
    struct iovec part = {data, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    size_t capacity = count != NULL ? *count : 0, total;
    ssize_t received;

    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control;
    if (sender != NULL) *sender = 0;
    do received = recvmsg(socket_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (received < 0 && errno == EINTR);
    if (received < 0)
        return errno == ECONNRESET
                   ? 0
                   : -errno; /* the peer closed with our words unread: gone all the same */

    total = read_control(&message, fds, capacity, sender);
    if (total > capacity || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        size_t i;
        for (i = 0; i < total && i < capacity; i++) close(fds[i]);
        return -EMSGSIZE;
    }
    if (count != NULL) *count = total;
    return received;
}

static uint64_t in_us(struct timeval time) {
    return (uint64_t)time.tv_sec * 1000000u + (uint64_t)time.tv_usec;
}

void rb_put_usage(uint64_t figures[7], const struct rusage *usage) {
    figures[0] = in_us(usage->ru_utime);
    figures[1] = in_us(usage->ru_stime);
    figures[2] = (uint64_t)usage->ru_maxrss;
    figures[3] = (uint64_t)usage->ru_minflt;
    figures[4] = (uint64_t)usage->ru_majflt;
    figures[5] = (uint64_t)usage->ru_nvcsw;
    figures[6] = (uint64_t)usage->ru_nivcsw;
}

void rb_close(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

int64_t rb_now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t rb_now_ms(void) { return rb_now_us() / 1000; }

char *rb_put_decimal(char *at, uint64_t value) {
    char digits[24];
    int count = 0;
    do digits[count++] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    while (count > 0) *at++ = digits[--count];
    return at;
}
