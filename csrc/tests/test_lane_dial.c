/* The way to a lane's descriptors (lane.h): what the socket's other end says, and that nobody waits there longer than he would. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "check.h"
#include "ringbridge/lane.h"

static const uint8_t token[RB_LANE_TOKEN_BYTES] = {7};
static struct sockaddr_un at;
static socklen_t at_size;

/* An abstract socket by a name of this process; its address without the family is what dial takes. */
static int listener(int backlog) {
    static int count;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    at = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(at.sun_path + 1, sizeof at.sun_path - 1, "test-lane-dial-%d-%d", getpid(),
                     count++);
    at_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    if (bind(fd, (struct sockaddr *)&at, at_size) < 0 || listen(fd, backlog) < 0) abort();
    return fd;
}
static int dial(int timeout_ms, char why[256]) {
    struct rb_lane_fds fds;
    return rb_lane_dial((const uint8_t *)at.sun_path,
                        at_size - offsetof(struct sockaddr_un, sun_path), token, timeout_ms, &fds,
                        why, 256);
}

static void nobody_listens(void) {
    char why[256] = "";
    close(listener(1));
    CHECK_EQUAL(dial(1000, why), -ECONNREFUSED);
    CHECK(why[0]);
}

static void who_accepts_and_says_nothing_is_not_waited_for_longer(void) {
    char why[256] = "";
    int fd = listener(8);
    CHECK_EQUAL(dial(20, why), -ETIMEDOUT);
    CHECK(why[0]);
    close(fd);
}

/* Others hold all places of its queue: connect() itself would wait, for as long as they like. */
static void a_queue_that_is_full_is_not_waited_for_longer(void) {
    char why[256] = "";
    int fd = listener(0), others[8], count = 0, refused = 0;
    for (; count < 8 && !refused; count++) {
        others[count] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        refused = connect(others[count], (struct sockaddr *)&at, at_size) < 0 && errno == EAGAIN;
    }
    CHECK(refused);
    CHECK_EQUAL(dial(20, why), -ETIMEDOUT);
    CHECK(why[0]);
    while (count > 0) close(others[--count]);
    close(fd);
}

int main(void) {
    RUN(nobody_listens);
    RUN(who_accepts_and_says_nothing_is_not_waited_for_longer);
    RUN(a_queue_that_is_full_is_not_waited_for_longer);
    return check_end();
}
