/* channel_peer.h: the bridge's end of a worker's channel, played by a test: packets as they are, and what is expected of them. */
#ifndef RINGBRIDGE_WORKERS_TESTS_CHANNEL_PEER_H
#define RINGBRIDGE_WORKERS_TESTS_CHANNEL_PEER_H

#include "expect.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* --- the bridge's end ------------------------------------------------------------------------------------------------- */

struct got {
    struct rb_packet head;
    uint8_t body[1 << 20];
    uint64_t size;
    int memfd; /* 1: it came in one */
};
static struct got got;

static inline int came(struct peer *p, int within_ms) {
    struct pollfd readable = {.fd = p->channel, .events = POLLIN};
    return poll(&readable, 1, within_ms) == 1;
}

/* Takes the next packet into `got`; 0 when none came, -1 at the end of file. */
static inline int take(struct peer *p, int within_ms) {
    static uint8_t room[RB_PACKET_BYTES_MAX + 1];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct iovec iov = {room, sizeof room};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    struct stat is;
    if (!came(p, within_ms)) return 0;
    ssize_t n = recvmsg(p->channel, &message, MSG_CMSG_CLOEXEC);
    if (n <= 0) return -1;
    CHECK(n >= (ssize_t)sizeof got.head && n <= RB_PACKET_BYTES_MAX);
    memcpy(&got.head, room, sizeof got.head);
    CHECK_EQUAL(got.head.reserved, 0);
    got.size = got.head.bytes;
    got.memfd = (got.head.flags & RB_PACKET_FLAG_MEMFD) != 0;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    CHECK_EQUAL(rights != NULL, got.memfd);
    if (!got.memfd) {
        CHECK_EQUAL(n - (ssize_t)sizeof got.head, got.size);
        memcpy(got.body, room + sizeof got.head, got.size);
        return 1;
    }
    int fd;
    CHECK_EQUAL(rights->cmsg_len, CMSG_LEN(sizeof fd));
    memcpy(&fd, CMSG_DATA(rights), sizeof fd);
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
    CHECK_EQUAL(fcntl(fd, F_GET_SEALS) & seals, seals);
    CHECK(fstat(fd, &is) == 0 && (uint64_t)is.st_size == got.size);
    CHECK_EQUAL(pread(fd, got.body, sizeof got.body, 0), got.size);
    close(fd);
    return 1;
}

static inline void expect_packet(struct peer *p, uint16_t kind) {
    CHECK_EQUAL(take(p, 5000), 1);
    CHECK_EQUAL(got.head.kind, kind);
}

static inline void say(struct peer *p, uint16_t kind, uint16_t flags, uint64_t id, const void *body,
                       size_t size) {
    struct rb_packet head = {.kind = kind, .flags = flags, .id = id, .bytes = size};
    struct iovec iov[2] = {{&head, sizeof head}, {(void *)body, size}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    CHECK(sendmsg(p->channel, &message, MSG_NOSIGNAL) == (ssize_t)(sizeof head + size));
}

static inline void say_by_memfd(struct peer *p, uint16_t kind, uint64_t id, const void *body,
                                size_t size, int seals, uint64_t claimed) {
    struct rb_packet head = {
        .kind = kind, .flags = RB_PACKET_FLAG_MEMFD, .id = id, .bytes = claimed};
    struct iovec iov = {&head, sizeof head};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    int fd = memfd_create("test", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    CHECK(fd >= 0 && write(fd, body, size) == (ssize_t)size && fcntl(fd, F_ADD_SEALS, seals) == 0);
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    CHECK(sendmsg(p->channel, &message, MSG_NOSIGNAL) == sizeof head);
    close(fd);
}

static inline void say_error(struct peer *p, uint64_t id, uint64_t code) {
    uint8_t body[16] = {0};
    memcpy(body, &code, sizeof code);
    memcpy(body + 8, "w\4noop", 6);
    say(p, RB_PACKET_REPLY, RB_PACKET_FLAG_ERROR, id, body, 14);
}

static inline void start(struct peer *p, const char *program) {
    struct peer_options options = defaults;
    options.channel = 1;
    options.stderr_kept = 1;
    peer_start(p, program, &options, 1);
}

/* A worker with a state is not ready before it has asked for one: so it starts without a hello. */
static inline void start_with(struct peer *p, const void *state, size_t size) {
    struct peer_options options = defaults;
    options.channel = 1;
    options.stderr_kept = 1;
    peer_start(p, "rb-state", &options, 0);
    expect_packet(p, RB_PACKET_CHECKPOINT_LOAD);
    CHECK_EQUAL(got.size, 0);
    CHECK(got.head.id != 0 && !(got.head.id & RB_PACKET_ID_BRIDGE));
    say(p, RB_PACKET_REPLY, 0, got.head.id, state, size);
}

static inline void expect_text(struct peer *p, const char *text) {
    struct peer_answer a;
    CHECK(peer_answer(p, &a, 5000));
    CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
    CHECK_EQUAL(a.completion.payload_bytes, strlen(text));
    CHECK(memcmp(a.payload, text, strlen(text)) == 0);
    peer_give_back(p, &a);
}

static inline void expect_no_answer(struct peer *p) {
    struct peer_answer a;
    CHECK(!peer_answer(p, &a, 60));
}

/* One part of a state behind what is there; returns the size with it. */
static inline size_t add_part(uint8_t *state, size_t at, uint64_t kind, const char *text) {
    uint64_t size = strlen(text);
    memcpy(state + at, &kind, 8);
    memcpy(state + at + 8, &size, 8);
    memcpy(state + at + 16, text, size);
    return at + 16 + size;
}

static inline void say_restore(struct peer *p, uint64_t how, uint64_t id, uint64_t kind,
                               const char *text) {
    uint8_t body[256];
    size_t size = 8;
    memcpy(body, &how, 8);
    if (how == RB_RESTORE_STATE) size = add_part(body, 8, kind, text);
    say(p, RB_PACKET_RESTORE, 0, id, body, size);
}

static inline void ask_to_save(struct peer *p, uint64_t id, uint64_t kind, uint64_t when) {
    uint64_t body[2] = {kind, when};
    say(p, RB_PACKET_CHECKPOINT_NOW, 0, id, body, sizeof body);
}

static inline void expect_save(struct peer *p, uint64_t id, uint64_t kind, const char *text) {
    uint64_t was;
    expect_packet(p, RB_PACKET_CHECKPOINT_SAVE);
    CHECK_EQUAL(got.head.id, id);
    memcpy(&was, got.body, 8);
    CHECK_EQUAL(was, kind);
    CHECK_EQUAL(got.size, 8 + strlen(text));
    CHECK(memcmp(got.body + 8, text, strlen(text)) == 0);
}

enum { CHECKPOINT = 9, CALL = 10, SEND = 11, LOG = 12 };
static const uint64_t ASKED = RB_PACKET_ID_BRIDGE | 1;
static const char NAME[] = "w\3reg"; /* an atom */

/* Submits a call to `reg` with a request of `size` bytes. */
static inline uint64_t submit_call(struct peer *p, uint32_t timeout_ms, const void *request,
                                   uint32_t size, uint64_t deadline_ns) {
    uint32_t dest = sizeof NAME - 1;
    memcpy(big, &timeout_ms, 4);
    memcpy(big + 4, &dest, 4);
    memcpy(big + 8, NAME, dest);
    if (request != NULL) memcpy(big + 8 + dest, request, size);
    struct peer_request r = {
        .payload = big, .bytes = 8 + dest + size, .opcode = CALL, .deadline_ns = deadline_ns};
    uint64_t job = peer_put(p, &r);
    peer_publish(p);
    return job;
}

#endif
