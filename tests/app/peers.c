/* peers.c: a worker that asks other workers, and serves them: what it does is its payload's (test_worker_links.py). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ringbridge/layout.h"
#include "ringbridge_worker.h"

enum { ECHO, SLEEP, DIE, FAIL, ABOUT, SILENT, ASK = 10, CLOSE, OPEN_MANY, LIE };

static struct rb_peer *peer; /* the one link that it keeps */

static void told(struct rb_job *job, int failed) {
    if (failed)
        rb_fail(job, (uint16_t)-failed, "%s", strerrorname_np(-failed));
    else
        rb_done(job);
}

static void about(struct rb_job *job) {
    struct rb_trace trace;
    char text[64];
    rb_job_trace(job, &trace);
    int size = snprintf(text, sizeof text, "%d %02x%02x %d", rb_job_deadline_ns(job) != 0,
                        trace.trace_id[0], trace.trace_id[15], rb_job_wants_parts(job));
    rb_complete_bytes(job, text, (size_t)size);
}

/* "role\0", opcode u8, timeout_ms u32, payload */
static void ask(struct rb_job *job, const char *p, size_t size, int is_term) {
    struct rb_peer_answer answer;
    size_t at = strnlen(p, size) + 1;
    uint32_t timeout_ms;
    int failed = peer ? 0 : rb_peer_open(job, p, &peer);
    if (failed) {
        told(job, failed);
        return;
    }
    memcpy(&timeout_ms, p + at + 1, 4);
    failed = rb_peer_call(job, peer, (uint8_t)p[at], p + at + 5, size - at - 5, is_term, timeout_ms,
                          &answer);
    if (failed == -EPIPE || failed == -EPROTO) { /* open another one the next time */
        rb_peer_close(job, peer);
        peer = NULL;
    }
    if (failed == -EREMOTEIO)
        rb_fail(job, answer.code, "peer: %.*s", (int)answer.size, (const char *)answer.bytes);
    else if (failed == -ECANCELED)
        rb_cancelled(job);
    else if (failed)
        told(job, failed);
    else if (answer.is_term)
        rb_complete_term_bytes(job, answer.bytes, answer.size);
    else
        rb_complete_bytes(job, answer.bytes, answer.size);
    rb_peer_answer_free(&answer);
}

static void open_many(struct rb_job *job, const char *role) {
    struct rb_peer *more;
    char text[64];
    int failed, count = 0;
    while ((failed = rb_peer_open(job, role, &more)) == 0) count++;
    int size = snprintf(text, sizeof text, "%d %s", count, strerrorname_np(-failed));
    rb_complete_bytes(job, text, (size_t)size);
}

static void send_raw(int fd, const void *head, size_t bytes, int descriptor) {
    struct iovec iov = {(void *)head, bytes};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof descriptor)];
    } control = {0};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (descriptor >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof descriptor);
        memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
    }
    sendmsg(fd, &message, MSG_NOSIGNAL);
}

/* "role\0lie": opens a link and breaks a rule on it. */
static void lie(struct rb_job *job, const char *role) {
    const char *what = role + strlen(role) + 1;
    struct {
        struct rb_packet head;
        struct rb_request request;
        uint8_t payload[8];
    } m = {.head = {.kind = RB_PACKET_CALL, .id = 1, .bytes = 136},
           .request = {.payload_bytes = 8}};
    struct rb_peer *link;
    struct rb_peer_answer answer;
    size_t bytes = sizeof m;
    int descriptor = -1, ends[2];
    int failed = rb_peer_open(job, role, &link);
    if (failed) {
        told(job, failed);
        return;
    }
    int fd = *(int *)link; /* its first field */
    if (!strcmp(what, "short")) bytes = 7;
    if (!strcmp(what, "kind")) m.head.kind = RB_PACKET_LOG;
    if (!strcmp(what, "id")) m.head.id = 0;
    if (!strcmp(what, "id_twice")) m.head.id = 5; /* not the one of the call below */
    if (!strcmp(what, "flags")) m.head.flags = RB_PACKET_FLAG_ERROR;
    if (!strcmp(what, "reserved")) m.head.reserved = 1;
    if (!strcmp(what, "length")) m.head.bytes = 99;
    if (!strcmp(what, "payload")) m.request.payload_bytes = UINT32_MAX;
    if (!strcmp(what, "parts")) m.request.flags = RB_FLAG_PARTS;
    if (!strcmp(what, "inline")) m.request.flags = RB_FLAG_INLINE;
    if (!strcmp(what, "term"))
        m.request.flags = RB_FLAG_TERM, m.payload[0] = 104, m.payload[1] = 255;
    if (!strcmp(what, "no_envelope")) m.head.bytes = 5, bytes = sizeof m.head + 5;
    if (!strcmp(what, "descriptor")) descriptor = 2;
    if (!strncmp(what, "memfd", 5) || !strcmp(what, "pipe")) {
        m.head.flags = RB_PACKET_FLAG_MEMFD;
        bytes = sizeof m.head;
        if (!strcmp(what, "pipe"))
            descriptor = pipe(ends) == 0 ? ends[0] : -1;
        else if (strcmp(what, "memfd_none") != 0)
            descriptor = memfd_create("lie", MFD_ALLOW_SEALING | MFD_CLOEXEC);
        if (!strcmp(what, "memfd_unsealed") && ftruncate(descriptor, 136) < 0) abort();
        if (!strcmp(what, "memfd_huge")) m.head.bytes = 1ull << 40;
        if (!strcmp(what, "memfd_size")) fcntl(descriptor, F_ADD_SEALS, 15);
    }
    send_raw(fd, &m, bytes, descriptor);
    if (!strcmp(what, "id_twice")) send_raw(fd, &m, bytes, -1);
    failed = rb_peer_call(job, link, ECHO, "x", 1, 0, 20000, &answer);
    rb_peer_answer_free(&answer);
    rb_peer_close(job, link);
    told(job, failed);
}

static void handle(struct rb_job *job, void *user) {
    size_t size;
    const char *p = rb_job_payload(job, &size);
    uint32_t ms = 0;
    (void)user;
    if (size >= 4) memcpy(&ms, p, 4);
    switch (rb_job_opcode(job)) {
    case ECHO:
        if (rb_job_payload_is_term(job))
            rb_complete_term_bytes(job, p, size);
        else
            rb_complete_bytes(job, p, size);
        break;
    case SLEEP:
        if (rb_job_sleep(job, ms * 1000000ull))
            rb_cancelled(job);
        else
            rb_done(job);
        break;
    case DIE: raise(SIGKILL); break;
    case FAIL: rb_fail(job, 7, "not today"); break;
    case ABOUT: about(job); break;
    case SILENT: break;
    case ASK: ask(job, p, size, rb_job_payload_is_term(job)); break;
    case CLOSE:
        told(job, peer ? rb_peer_close(job, peer) : 0);
        peer = NULL;
        break;
    case OPEN_MANY: open_many(job, p); break;
    case LIE: lie(job, p); break;
    default: rb_fail(job, 1, "opcode");
    }
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {.handler = handle, .serves_peers = argc < 2};
    return rb_worker_main(argc, argv, &options);
}
