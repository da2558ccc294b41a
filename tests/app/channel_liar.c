/* A worker that breaks the rules of its channel as its payload says, and is well behaved in its ring.
 *
 *      channel_liar
 *
 * A lie that should end it is answered by nobody: it waits for its end. One that should not is followed by the answer "alive". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ringbridge/layout.h"
#include "ringbridge_worker.h"

enum { CHANNEL = 8, FDS_MAX = 32 };
static const int ALL = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;

/* Sends a head as it is, a body and descriptors; waits while the socket is full. */
static void say(struct rb_packet head, const void *body, size_t size, const int *fds, int count) {
    struct iovec iov[2] = {{&head, sizeof head}, {(void *)body, size}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    if (count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, (size_t)count * sizeof(int));
    }
    while (sendmsg(CHANNEL, &message, MSG_NOSIGNAL) < 0 && errno == EINTR) {
    }
}

static int memfd(uint64_t size, int seals) {
    int fd = memfd_create("lie", MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0) abort();
    if (seals) fcntl(fd, F_ADD_SEALS, seals);
    return fd;
}

static void say_body(uint16_t kind, uint64_t id, const void *body, size_t size) {
    say((struct rb_packet){.kind = kind, .id = id, .bytes = size}, body, size, NULL, 0);
}

static void say_fds(uint16_t kind, uint16_t flags, uint64_t bytes, const int *fds, int count) {
    say((struct rb_packet){.kind = kind, .flags = flags, .id = 0, .bytes = bytes}, NULL, 0, fds,
        count);
}

/* {reg, [new atoms]} or {reg, a list in a list in a list...}. */
static void say_many_atoms(void) {
    static char body[1 << 16] = "h\2w\3regl\0\0\1\x2c";
    char *p = body + 12;
    for (int i = 0; i < 300; i++) p += sprintf(p, "w\7odd%04d", i);
    *p++ = 'j';
    say_body(RB_PACKET_SEND, 0, body, (size_t)(p - body));
}

static void say_deep(void) {
    static uint8_t body[8 + 600 * 6] = "h\2w\3reg";
    uint8_t *p = body + 7;
    for (int i = 0; i < 600; i++, p += 5) memcpy(p, "l\0\0\0\1", 5);
    for (int i = 0; i <= 600; i++) *p++ = 'j';
    say_body(RB_PACKET_SEND, 0, body, (size_t)(p - body));
}

/* Calls, and never reads what comes back. */
static void call_and_never_read(void) {
    for (uint64_t id = 1; id <= 3000; id++) {
        struct pollfd room = {.fd = CHANNEL, .events = POLLOUT};
        if (poll(&room, 1, 200) != 1) return; /* the bridge has stopped to read us: as it should */
        say_body(RB_PACKET_CALL, id, "h\3w\3regaAa\7", 11);
    }
}

/* Saves a state of 8 MiB, then asks for it again and again, and never reads it. Says how often it was asked before room ran out. */
static void load_and_never_read(void) {
    static uint8_t state[8 + (8 << 20)];
    int fd = memfd(0, 0);
    if (write(fd, state, sizeof state) != sizeof state) abort();
    fcntl(fd, F_ADD_SEALS, ALL);
    say_fds(RB_PACKET_CHECKPOINT_SAVE, RB_PACKET_FLAG_MEMFD, sizeof state, &fd, 1);
    close(fd);
    usleep(200000); /* it is stored meanwhile, most likely */
    for (uint64_t id = 1; id <= 2000; id++) {
        struct pollfd room = {.fd = CHANNEL, .events = POLLOUT};
        if (poll(&room, 1, 200) != 1) return;
        say_body(RB_PACKET_CHECKPOINT_LOAD, id, NULL, 0);
    }
}

/* 1: it should end us. */
static int lie(const char *what) {
    int fds[FDS_MAX], pipes[2], pair[2];
    static char big[70000];
    uint64_t one = 1, seven = 7;
    struct rb_packet send = {.kind = RB_PACKET_SEND, .bytes = 9};
    static const char good[] = "h\2w\3regaA"; /* {reg, 65} */

    if (!strcmp(what, "short"))
        (void)!write(CHANNEL, &send, 31);
    else if (!strcmp(what, "empty")) /* as a reader sees the end, and it is none */
        (void)!sendto(CHANNEL, "", 0, MSG_NOSIGNAL, NULL, 0);
    else if (!strcmp(what, "empty_at_the_end")) {
        (void)!sendto(CHANNEL, "", 0, MSG_NOSIGNAL, NULL, 0);
        close(CHANNEL);
    } else if (!strcmp(what, "long"))
        (void)!write(CHANNEL, big, sizeof big);
    else if (!strcmp(what, "kind"))
        say_body(999, 0, NULL, 0);
    else if (!strcmp(what, "kind_of_the_bridge"))
        say_body(RB_PACKET_CHECKPOINT_NOW, 1, NULL, 0);
    else if (!strcmp(what, "flags"))
        send.flags = 0x80, say(send, good, 9, NULL, 0);
    else if (!strcmp(what, "error_flag"))
        send.flags = RB_PACKET_FLAG_ERROR, say(send, good, 9, NULL, 0);
    else if (!strcmp(what, "reserved"))
        send.reserved = 1, say(send, good, 9, NULL, 0);
    else if (!strcmp(what, "length"))
        send.bytes = 1ull << 60, say(send, good, 9, NULL, 0);
    else if (!strcmp(what, "id_of_the_bridge"))
        say_body(RB_PACKET_CALL, RB_PACKET_ID_BRIDGE | 1, "h\3w\3regaAa\7", 11);
    else if (!strcmp(what, "no_id"))
        say_body(RB_PACKET_CALL, 0, "h\3w\3regaAa\7", 11);
    else if (!strcmp(what, "id_twice")) {
        static const char held[] = "h\3h\2w\4heldw\20caller@127.0.0.1aAb\0\1\0\0";
        say_body(RB_PACKET_CALL, 5, held, sizeof held - 1);
        say_body(RB_PACKET_CALL, 5, held, sizeof held - 1);
    } else if (!strcmp(what, "reply"))
        say_body(RB_PACKET_REPLY, RB_PACKET_ID_BRIDGE | 77, NULL, 0);
    else if (!strcmp(what, "save"))
        say_body(RB_PACKET_CHECKPOINT_SAVE, RB_PACKET_ID_BRIDGE | 77, &one, 8);
    else if (!strcmp(what, "save_kind"))
        say_body(RB_PACKET_CHECKPOINT_SAVE, 3, &seven, 8);
    else if (!strcmp(what, "save_short"))
        say_body(RB_PACKET_CHECKPOINT_SAVE, 3, &seven, 7);
    else if (!strcmp(what, "term"))
        say_body(RB_PACKET_SEND, 0, "h\2w\3regm\xff\xff\xff\xff", 12);
    else if (!strcmp(what, "trailing"))
        say_body(RB_PACKET_SEND, 0, "h\2w\3regaAj", 10);
    else if (!strcmp(what, "arity"))
        say_body(RB_PACKET_SEND, 0, "h\3w\3regaAj", 10);
    else if (!strcmp(what, "dest"))
        say_body(RB_PACKET_SEND, 0, "h\2aAaA", 6);
    else if (!strcmp(what, "timeout"))
        say_body(RB_PACKET_CALL, 1, "h\3w\3regaAb\x7f\0\0\0", 14);
    else if (!strcmp(what, "level"))
        say_body(RB_PACKET_LOG, 0, "h\2w\5panicm\0\0\0\1x", 15);
    else if (!strcmp(what, "line")) {
        memcpy(big, "h\2w\4infom\0\0\x20\0", 13);
        say_body(RB_PACKET_LOG, 0, big, 13 + 0x2000);
    } else if (!strcmp(what, "descriptor")) {
        fds[0] = memfd(9, ALL);
        say(send, good, 9, fds, 1);
    } else if (!strcmp(what, "two_descriptors")) {
        fds[0] = memfd(9, ALL), fds[1] = memfd(9, ALL);
        say_fds(RB_PACKET_SEND, RB_PACKET_FLAG_MEMFD, 9, fds, 2);
    } else if (!strcmp(what, "many_descriptors")) {
        for (int i = 0; i < FDS_MAX; i++) fds[i] = memfd(9, ALL);
        say_fds(RB_PACKET_SEND, RB_PACKET_FLAG_MEMFD, 9, fds, FDS_MAX);
    } else if (!strcmp(what, "no_descriptor"))
        say_fds(RB_PACKET_SEND, RB_PACKET_FLAG_MEMFD, 9, NULL, 0);
    else if (!strcmp(what, "unsealed")) {
        fds[0] = memfd(9, F_SEAL_SHRINK | F_SEAL_GROW);
        say_fds(RB_PACKET_SEND, RB_PACKET_FLAG_MEMFD, 9, fds, 1);
    } else if (!strcmp(what, "memfd_size")) {
        fds[0] = memfd(9, ALL);
        say_fds(RB_PACKET_SEND, RB_PACKET_FLAG_MEMFD, 1000, fds, 1);
    } else if (!strcmp(what, "pipe") && pipe(pipes) == 0)
        say_fds(RB_PACKET_SEND, RB_PACKET_FLAG_MEMFD, 9, pipes, 1);
    else if (!strcmp(what, "socket") && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0)
        say_fds(RB_PACKET_SEND, RB_PACKET_FLAG_MEMFD, 9, pair, 1);
    else if (!strcmp(what, "device")) {
        fds[0] = open("/dev/zero", O_RDONLY);
        say_fds(RB_PACKET_SEND, RB_PACKET_FLAG_MEMFD, 9, fds, 1);
    } else if (!strcmp(what, "zeros")) { /* sealed, of the right size, and no term */
        fds[0] = memfd(1 << 19, ALL);
        say_fds(RB_PACKET_SEND, RB_PACKET_FLAG_MEMFD, 1 << 19, fds, 1);
    } else {
        if (!strcmp(what, "huge_memfd")) {
            fds[0] = memfd(1ull << 40, ALL);
            say_fds(RB_PACKET_SEND, RB_PACKET_FLAG_MEMFD, 1ull << 40, fds, 1);
        } else if (!strcmp(what, "huge_checkpoint")) {
            fds[0] = memfd(1ull << 40, ALL);
            say_fds(RB_PACKET_CHECKPOINT_SAVE, RB_PACKET_FLAG_MEMFD, 1ull << 40, fds, 1);
        } else if (!strcmp(what, "atoms"))
            say_many_atoms();
        else if (!strcmp(what, "deep"))
            say_deep();
        else if (!strcmp(what, "flood"))
            for (int i = 0; i < 3000; i++) say(send, good, 9, NULL, 0);
        else if (!strcmp(what, "lines"))
            for (int i = 0; i < 1000; i++)
                say_body(RB_PACKET_LOG, 0, "h\2w\4infom\0\0\0\4line", 17);
        else if (!strcmp(what, "loads"))
            load_and_never_read();
        else if (!strcmp(what, "unread"))
            call_and_never_read();
        else if (!strcmp(what, "forget"))
            say_body(RB_PACKET_FORGET, 99, NULL, 0);
        else if (!strcmp(what, "closed"))
            close(CHANNEL);
        return 0;
    }
    return 1;
}

static void handle(struct rb_job *job, void *user) {
    char what[64] = "";
    size_t size;
    const char *payload = rb_job_payload(job, &size);
    (void)user;
    memcpy(what, payload, size < sizeof what ? size : sizeof what - 1);
    if (lie(what)) pause();
    rb_complete_bytes(job, "alive", 5);
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {.handler = handle};
    return rb_worker_main(argc, argv, &options);
}
