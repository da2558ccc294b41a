/* test_channel.c: the worker's end of the channel (docs/channel.md), each rule held against a real worker process. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "expect.h"

/* --- the bridge's end ------------------------------------------------------------------------------------------------- */

struct got {
    struct rb_packet head;
    uint8_t body[1 << 20];
    uint64_t size;
    int memfd; /* 1: it came in one */
};
static struct got got;

static int came(struct peer *p, int within_ms) {
    struct pollfd readable = {.fd = p->channel, .events = POLLIN};
    return poll(&readable, 1, within_ms) == 1;
}

/* Takes the next packet into `got`; 0 when none came, -1 at the end of file. */
static int take(struct peer *p, int within_ms) {
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

static void expect_packet(struct peer *p, uint16_t kind) {
    CHECK_EQUAL(take(p, 5000), 1);
    CHECK_EQUAL(got.head.kind, kind);
}

static void say(struct peer *p, uint16_t kind, uint16_t flags, uint64_t id, const void *body,
                size_t size) {
    struct rb_packet head = {.kind = kind, .flags = flags, .id = id, .bytes = size};
    struct iovec iov[2] = {{&head, sizeof head}, {(void *)body, size}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    CHECK(sendmsg(p->channel, &message, MSG_NOSIGNAL) == (ssize_t)(sizeof head + size));
}

static void say_by_memfd(struct peer *p, uint16_t kind, uint64_t id, const void *body, size_t size,
                         int seals, uint64_t claimed) {
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

static void say_error(struct peer *p, uint64_t id, uint64_t code) {
    uint8_t body[16] = {0};
    memcpy(body, &code, sizeof code);
    memcpy(body + 8, "w\4noop", 6);
    say(p, RB_PACKET_REPLY, RB_PACKET_FLAG_ERROR, id, body, 14);
}

static void start(struct peer *p, const char *program) {
    struct peer_options options = defaults;
    options.channel = 1;
    options.stderr_kept = 1;
    peer_start(p, program, &options, 1);
}

/* A worker with a state is not ready before it has asked for one: so it starts without a hello. */
static void start_with(struct peer *p, const void *state, size_t size) {
    struct peer_options options = defaults;
    options.channel = 1;
    options.stderr_kept = 1;
    peer_start(p, "rb-state", &options, 0);
    expect_packet(p, RB_PACKET_CHECKPOINT_LOAD);
    CHECK_EQUAL(got.size, 0);
    CHECK(got.head.id != 0 && !(got.head.id & RB_PACKET_ID_BRIDGE));
    say(p, RB_PACKET_REPLY, 0, got.head.id, state, size);
}

static void expect_text(struct peer *p, const char *text) {
    struct peer_answer a;
    CHECK(peer_answer(p, &a, 5000));
    CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
    CHECK_EQUAL(a.completion.payload_bytes, strlen(text));
    CHECK(memcmp(a.payload, text, strlen(text)) == 0);
    peer_give_back(p, &a);
}

static void expect_no_answer(struct peer *p) {
    struct peer_answer a;
    CHECK(!peer_answer(p, &a, 60));
}

/* One part of a state behind what is there; returns the size with it. */
static size_t add_part(uint8_t *state, size_t at, uint64_t kind, const char *text) {
    uint64_t size = strlen(text);
    memcpy(state + at, &kind, 8);
    memcpy(state + at + 8, &size, 8);
    memcpy(state + at + 16, text, size);
    return at + 16 + size;
}

static void say_restore(struct peer *p, uint64_t how, uint64_t id, uint64_t kind,
                        const char *text) {
    uint8_t body[256];
    size_t size = 8;
    memcpy(body, &how, 8);
    if (how == RB_RESTORE_STATE) size = add_part(body, 8, kind, text);
    say(p, RB_PACKET_RESTORE, 0, id, body, size);
}

static void ask_to_save(struct peer *p, uint64_t id, uint64_t kind, uint64_t when) {
    uint64_t body[2] = {kind, when};
    say(p, RB_PACKET_CHECKPOINT_NOW, 0, id, body, sizeof body);
}

static void expect_save(struct peer *p, uint64_t id, uint64_t kind, const char *text) {
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
static uint64_t submit_call(struct peer *p, uint32_t timeout_ms, const void *request, uint32_t size,
                            uint64_t deadline_ns) {
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

/* --- messages and calls ------------------------------------------------------------------------------------------------ */

static void a_message_is_a_tuple_of_dest_and_term_without_an_id(void) {
    struct peer p;
    start(&p, "rb-conformance");
    uint64_t job = peer_submit(&p, SEND, "\5\0\0\0w\3regaA", 11);
    expect_packet(&p, RB_PACKET_SEND);
    CHECK_EQUAL(got.head.flags, 0);
    CHECK_EQUAL(got.head.id, 0);
    CHECK_EQUAL(got.head.job, job);
    CHECK_EQUAL(got.size, 9);
    CHECK(memcmp(got.body, "h\2w\3regaA", 9) == 0);
    expect_status(&p, RB_STATUS_OK, 5000);
    peer_stop(&p);
}

static void a_call_waits_for_the_reply_of_its_id(void) {
    struct peer p;
    struct peer_answer a;
    start(&p, "rb-conformance");
    uint64_t job = submit_call(&p, 5000, "a\7", 2, 0);
    expect_packet(&p, RB_PACKET_CALL);
    CHECK(got.head.id != 0 && !(got.head.id & RB_PACKET_ID_BRIDGE));
    CHECK_EQUAL(got.head.job, job);
    CHECK_EQUAL(got.size, 14);
    CHECK(memcmp(got.body, "h\3w\3rega\7b\0\0\x13\x88", 14) == 0);
    say(&p, RB_PACKET_REPLY, 0, got.head.id + 1, "a\1", 2); /* of nobody's: dropped */
    expect_no_answer(&p);
    say(&p, RB_PACKET_REPLY, 0, got.head.id, "a\2", 2);
    CHECK(peer_answer(&p, &a, 5000));
    CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
    CHECK_EQUAL(a.completion.payload_bytes, 2);
    CHECK(memcmp(a.payload, "a\2", 2) == 0);
    peer_give_back(&p, &a);
    peer_stop(&p);
}

static void what_fits_in_no_packet_goes_in_a_sealed_memfd_both_ways(void) {
    enum { FITS = RB_PACKET_BYTES_MAX - sizeof(struct rb_packet) - (2 + 5 + 5) };
    static const uint32_t sizes[] = {FITS, FITS + 1, 500000};
    static uint8_t answer[300000];
    struct peer p;
    struct peer_answer a;
    start(&p, "rb-conformance");
    for (int i = 0; i < 3; i++) {
        memset(big + 13, 'x', sizes[i]);
        submit_call(&p, 5000, NULL, sizes[i], 0);
        expect_packet(&p, RB_PACKET_CALL);
        CHECK_EQUAL(got.memfd, i > 0);
        CHECK_EQUAL(got.size, sizes[i] + 12);
        CHECK(got.body[7] == 'x' && got.body[6 + sizes[i]] == 'x' && got.body[7 + sizes[i]] == 'b');
        memset(answer, 'a' + i, sizeof answer);
        say_by_memfd(&p, RB_PACKET_REPLY, got.head.id, answer, sizeof answer,
                     F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL, sizeof answer);
        CHECK(peer_answer(&p, &a, 5000));
        CHECK_EQUAL(a.completion.payload_bytes, sizeof answer);
        CHECK(memcmp(a.payload, answer, sizeof answer) == 0);
        peer_give_back(&p, &a);
    }
    peer_stop(&p);
}

static void each_error_has_its_errno(void) {
    static const int numbers[] = {EIO,      EINVAL, EACCES,  ESRCH,  EHOSTUNREACH, EPIPE, ETIMEDOUT,
                                  EMSGSIZE, EBUSY,  ENOTSUP, ESTALE, EIO,          EIO};
    struct peer p;
    start(&p, "rb-conformance");
    for (unsigned code = 0; code < sizeof numbers / sizeof *numbers; code++) {
        submit_call(&p, 5000, "a\7", 2, 0);
        expect_packet(&p, RB_PACKET_CALL);
        say_error(&p, got.head.id, code);
        expect_failure(&p, 2, strerror(numbers[code]));
    }
    peer_stop(&p);
}

static void a_cancel_ends_a_call_and_the_bridge_hears_that_nobody_waits(void) {
    struct peer p;
    start(&p, "rb-conformance");
    uint64_t job = submit_call(&p, 60000, "a\7", 2, 0);
    expect_packet(&p, RB_PACKET_CALL);
    uint64_t id = got.head.id;
    expect_no_answer(&p);
    peer_cancel(&p, job);
    rb_gate_ring(&p.link.waker);
    expect_packet(&p, RB_PACKET_FORGET);
    CHECK_EQUAL(got.head.id, id);
    CHECK_EQUAL(got.size, 0);
    expect_status(&p, RB_STATUS_CANCELLED, 5000);
    say(&p, RB_PACKET_REPLY, 0, id, "a\1", 2); /* too late, and dropped */
    submit_call(&p, 5000, "a\7", 2, 0);
    expect_packet(&p, RB_PACKET_CALL);
    say_error(&p, got.head.id, RB_CHANNEL_ERROR_REFUSED);
    expect_failure(&p, 2, strerror(EACCES));
    peer_stop(&p);
}

static void so_do_the_deadline_the_timeout_and_a_stop(void) {
    struct peer p;
    start(&p, "rb-conformance");
    submit_call(&p, 60000, "a\7", 2, peer_now_ns() + 50000000);
    expect_packet(&p, RB_PACKET_CALL);
    CHECK(got.body[9] == 'b' && got.body[10] == 0 && got.body[12] == 0 && got.body[13] <= 50);
    expect_packet(&p, RB_PACKET_FORGET);
    expect_status(&p, RB_STATUS_CANCELLED, 5000);

    submit_call(&p, 40, "a\7", 2, 0);
    expect_packet(&p, RB_PACKET_CALL);
    expect_packet(&p, RB_PACKET_FORGET);
    expect_failure(&p, 2, strerror(ETIMEDOUT));

    submit_call(&p, 60000, "a\7", 2, 0);
    expect_packet(&p, RB_PACKET_CALL);
    expect_no_answer(&p);
    peer_stop(&p);
}

static void a_closed_channel_ends_what_waits_and_refuses_what_follows_but_not_jobs(void) {
    struct peer p;
    start(&p, "rb-conformance");
    submit_call(&p, 60000, "a\7", 2, 0);
    expect_packet(&p, RB_PACKET_CALL);
    close(p.channel);
    p.channel = -1;
    expect_failure(&p, 2, strerror(ESHUTDOWN));
    submit_call(&p, 60000, "a\7", 2, 0);
    expect_failure(&p, 2, strerror(ESHUTDOWN));
    peer_submit_text(&p, LOG, "\1 to nobody");
    expect_failure(&p, 2, strerror(ESHUTDOWN));
    peer_submit_text(&p, 0, "echo");
    expect_text(&p, "echo");
    peer_stop(&p);
}

static void without_a_channel_each_call_says_so(void) {
    struct peer p;
    peer_start(&p, "rb-conformance", &defaults, 1);
    submit_call(&p, 60000, "a\7", 2, 0);
    expect_failure(&p, 2, strerror(ENOTCONN));
    peer_submit_text(&p, LOG, "\1 to nobody");
    expect_failure(&p, 2, strerror(ENOTCONN));
    peer_submit(&p, CHECKPOINT, "\0 state", 7);
    expect_failure(&p, 2, strerror(ENOTCONN));
    peer_stop(&p);
}

static void a_send_waits_for_room_until_it_is_cancelled(void) {
    struct peer p;
    struct peer_answer a;
    uint64_t job = 0;
    start(&p, "rb-conformance");
    memset(big, 0, 60000);
    memcpy(big, "\5\0\0\0w\3reg", 9);
    for (int sent = 0;; sent++) {
        job = peer_submit(&p, SEND, big, 60000);
        if (!peer_answer(&p, &a, 300)) break;
        CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
        if (sent > 1000) break;
    }
    peer_cancel(&p, job);
    rb_gate_ring(&p.link.waker);
    expect_status(&p, RB_STATUS_CANCELLED, 5000);
    job = peer_submit(&p, SEND, big, 60000);
    expect_no_answer(&p);
    while (take(&p, 0) == 1) CHECK_EQUAL(got.head.kind, RB_PACKET_SEND);
    expect_status(&p, RB_STATUS_OK, 5000);
    peer_stop(&p);
}

/* --- log lines --------------------------------------------------------------------------------------------------------- */

static void a_line_has_its_level_and_its_job(void) {
    static const char *const bodies[] = {"h\2w\5debugm\0\0\0\2hi", "h\2w\4infom\0\0\0\2hi",
                                         "h\2w\7warningm\0\0\0\2hi", "h\2w\5errorm\0\0\0\2hi"};
    static const unsigned sizes[] = {16, 15, 18, 16};
    struct peer p;
    start(&p, "rb-conformance");
    for (int level = 0; level < 4; level++) {
        char payload[] = {(char)level, 'h', 'i'};
        uint64_t job = peer_submit(&p, LOG, payload, sizeof payload);
        expect_status(&p, RB_STATUS_OK, 5000);
        expect_packet(&p, RB_PACKET_LOG);
        CHECK_EQUAL(got.head.id, 0);
        CHECK_EQUAL(got.head.job, job);
        CHECK_EQUAL(got.size, sizes[level]);
        CHECK(memcmp(got.body, bodies[level], sizes[level]) == 0);
    }
    peer_stop(&p);
}

static void a_line_never_waits_and_what_is_missing_is_told(void) {
    struct peer p;
    struct peer_answer a;
    int sent = 0, dropped = 0, told = 0;
    start(&p, "rb-conformance");
    memset(big, 'y', 4000);
    big[0] = 1;
    while (dropped < 3 && sent < 100000) {
        peer_submit(&p, LOG, big, 4000);
        CHECK(peer_answer(&p, &a, 5000));
        if (a.completion.status == RB_STATUS_OK)
            sent++;
        else
            dropped++;
        peer_give_back(&p, &a);
    }
    CHECK_EQUAL(dropped, 3);
    while (take(&p, 0) == 1) told += got.size < 100;
    CHECK_EQUAL(told, 0);
    peer_submit_text(&p, LOG, "\1last");
    expect_status(&p, RB_STATUS_OK, 5000);
    expect_packet(&p, RB_PACKET_LOG);
    CHECK(memmem(got.body, got.size, "3 log lines are missing", 23) != NULL);
    expect_packet(&p, RB_PACKET_LOG);
    CHECK(memmem(got.body, got.size, "last", 4) != NULL);
    peer_stop(&p);
}

/* --- checkpoints out of a handler ---------------------------------------------------------------------------------------- */

static void a_checkpoint_is_done_when_the_bridge_says_so(void) {
    struct peer p;
    start(&p, "rb-conformance");
    for (int kind = 0; kind < 2; kind++) {
        peer_submit(&p, CHECKPOINT, kind ? "\1state" : "\0state", 6);
        expect_packet(&p, RB_PACKET_CHECKPOINT_SAVE);
        CHECK(got.head.id != 0 && !(got.head.id & RB_PACKET_ID_BRIDGE));
        CHECK_EQUAL(got.size, 13);
        CHECK_EQUAL(got.body[0], kind);
        CHECK(memcmp(got.body + 1, "\0\0\0\0\0\0\0state", 12) == 0);
        expect_no_answer(&p);
        say(&p, RB_PACKET_REPLY, 0, got.head.id, NULL, 0);
        expect_status(&p, RB_STATUS_OK, 5000);
    }
    peer_submit(&p, CHECKPOINT, "\1state", 6);
    expect_packet(&p, RB_PACKET_CHECKPOINT_SAVE);
    say_error(&p, got.head.id, RB_CHANNEL_ERROR_FULL_WANTED);
    expect_failure(&p, 2, strerror(ESTALE));
    peer_stop(&p);
}

static void a_state_is_loaded_with_its_increments_behind(void) {
    uint8_t state[200];
    struct peer p;
    size_t size = add_part(state, 0, RB_CHECKPOINT_FULL, "one");
    size = add_part(state, size, RB_CHECKPOINT_INCREMENTAL, "two");
    start(&p, "rb-conformance");
    peer_submit(&p, CHECKPOINT, "\2", 1);
    expect_packet(&p, RB_PACKET_CHECKPOINT_LOAD);
    CHECK_EQUAL(got.size, 0);
    say(&p, RB_PACKET_REPLY, 0, got.head.id, state, size);
    expect_text(&p, "onetwo");
    /* From now on it can be asked; this one has nothing to save. */
    ask_to_save(&p, ASKED, RB_CHECKPOINT_FULL, RB_SAVE_NOW);
    expect_packet(&p, RB_PACKET_REPLY);
    CHECK_EQUAL(got.head.flags, RB_PACKET_FLAG_ERROR);
    CHECK_EQUAL(got.head.id, ASKED);
    CHECK_EQUAL(got.body[0], RB_CHANNEL_ERROR_UNAVAILABLE);
    CHECK_EQUAL(got.size, 8u + 2 + 13 + 5 + got.body[8 + 2 + 13 + 4]);
    peer_stop(&p);
}

/* --- a worker that keeps state ------------------------------------------------------------------------------------------- */

static void it_has_its_state_before_its_first_job(void) {
    uint8_t state[200];
    struct peer p;
    size_t size = add_part(state, 0, RB_CHECKPOINT_FULL, "one");
    size = add_part(state, size, RB_CHECKPOINT_INCREMENTAL, "two");
    start_with(&p, state, size);
    peer_submit_text(&p, 0, "!");
    expect_text(&p, "onetwo!");
    peer_stop(&p);
}

static void a_state_that_it_does_not_take_ends_it(void) {
    uint8_t state[200];
    struct peer p;
    size_t size = add_part(state, 0, RB_CHECKPOINT_FULL, "?");
    start_with(&p, state, size);
    CHECK_EQUAL(peer_wait(&p, 5000), 65);
    CHECK(strstr(peer_stderr(&p), "it has no state to begin with") != NULL);
    peer_close(&p);
}

static void where_its_role_keeps_none_it_begins_without(void) {
    struct peer_options options = defaults;
    struct peer p;
    options.channel = 1;
    peer_start(&p, "rb-state", &options, 0);
    expect_packet(&p, RB_PACKET_CHECKPOINT_LOAD);
    say_error(&p, got.head.id, RB_CHANNEL_ERROR_UNAVAILABLE);
    peer_submit_text(&p, 0, "a");
    expect_text(&p, "a");
    peer_stop(&p);
    peer_start(&p, "rb-state", &defaults, 1);
    peer_submit_text(&p, 0, "b");
    expect_text(&p, "b");
    peer_stop(&p);
}

static void asked_while_idle_it_saves_the_whole_or_what_is_new(void) {
    struct peer p;
    start_with(&p, NULL, 0);
    peer_submit_text(&p, 0, "ab");
    expect_text(&p, "ab");
    usleep(20000); /* parked by now, most likely; the rule holds anyway */
    ask_to_save(&p, ASKED, RB_CHECKPOINT_FULL, RB_SAVE_NOW);
    expect_save(&p, ASKED, RB_CHECKPOINT_FULL, "ab");
    peer_submit_text(&p, 0, "cd");
    expect_text(&p, "abcd");
    ask_to_save(&p, ASKED + 1, RB_CHECKPOINT_INCREMENTAL, RB_SAVE_NOW);
    expect_save(&p, ASKED + 1, RB_CHECKPOINT_INCREMENTAL, "cd");
    peer_submit_text(&p, 0, "!");
    expect_text(&p, "abcd!");
    ask_to_save(&p, ASKED + 2, RB_CHECKPOINT_FULL, RB_SAVE_NOW);
    expect_packet(&p, RB_PACKET_REPLY);
    CHECK_EQUAL(got.head.id, ASKED + 2);
    CHECK_EQUAL(got.head.flags, RB_PACKET_FLAG_ERROR);
    peer_stop(&p);
}

static void asked_in_the_midst_of_a_job_it_saves_behind_it(void) {
    struct peer p;
    start_with(&p, NULL, 0);
    peer_submit_text(&p, 0, "ab");
    expect_text(&p, "ab");
    peer_submit_text(&p, 2, "150");
    peer_submit_text(&p, 0, "cd");
    peer_await_started(&p, 2);
    ask_to_save(&p, ASKED, RB_CHECKPOINT_FULL, RB_SAVE_NOW);
    CHECK(!came(&p, 20));
    expect_save(&p, ASKED, RB_CHECKPOINT_FULL, "ab");
    expect_text(&p, "ab");
    expect_text(&p, "abcd");
    peer_stop(&p);
}

static void asked_for_the_end_it_saves_behind_its_last_job(void) {
    struct peer p;
    start_with(&p, NULL, 0);
    peer_submit_text(&p, 2, "50");
    peer_submit_text(&p, 0, "ab");
    peer_await_started(&p, 1);
    ask_to_save(&p, ASKED, RB_CHECKPOINT_FULL, RB_SAVE_LEAVING);
    peer_control(&p, RB_CONTROL_DRAIN);
    CHECK_EQUAL(peer_wait(&p, 5000), 0);
    expect_save(&p, ASKED, RB_CHECKPOINT_FULL, "ab");
    CHECK_EQUAL(take(&p, 1000), -1);
    peer_close(&p);
}

static void it_takes_a_state_between_two_jobs(void) {
    struct peer p;
    start_with(&p, NULL, 0);
    peer_submit_text(&p, 0, "ab");
    expect_text(&p, "ab");
    say_restore(&p, RB_RESTORE_STATE, ASKED, RB_CHECKPOINT_FULL, "xy");
    expect_packet(&p, RB_PACKET_REPLY);
    CHECK_EQUAL(got.head.id, ASKED);
    CHECK_EQUAL(got.head.flags, 0);
    say_restore(&p, RB_RESTORE_STATE, ASKED + 1, RB_CHECKPOINT_INCREMENTAL, "z");
    expect_packet(&p, RB_PACKET_REPLY);
    peer_submit_text(&p, 0, "c");
    expect_text(&p, "xyzc");
    say_restore(&p, RB_RESTORE_STATE, ASKED + 2, RB_CHECKPOINT_FULL, "?");
    expect_packet(&p, RB_PACKET_REPLY);
    CHECK_EQUAL(got.head.flags, RB_PACKET_FLAG_ERROR);
    peer_stop(&p);
}

static void held_it_begins_no_job_before_the_state_comes(void) {
    struct peer p;
    start_with(&p, NULL, 0);
    say_restore(&p, RB_RESTORE_HOLD, 0, 0, "");
    usleep(20000);
    peer_submit_text(&p, 0, "c");
    expect_no_answer(&p);
    say_restore(&p, RB_RESTORE_STATE, ASKED, RB_CHECKPOINT_FULL, "xy");
    expect_text(&p, "xyc");
    expect_packet(&p, RB_PACKET_REPLY);
    say_restore(&p, RB_RESTORE_HOLD, 0, 0, "");
    usleep(20000);
    peer_submit_text(&p, 0, "d");
    expect_no_answer(&p);
    say_restore(&p, RB_RESTORE_ABANDONED, 0, 0, "");
    expect_text(&p, "xycd");
    say_restore(&p, RB_RESTORE_HOLD, 0, 0, "");
    peer_submit_text(&p, 0, "e");
    close(p.channel);
    p.channel = -1;
    expect_text(&p, "xycde");
    peer_stop(&p);
}

static void a_promised_state_holds_only_the_job_that_needs_it(void) {
    struct peer p;
    start_with(&p, NULL, 0);
    say_restore(&p, RB_RESTORE_COMING, 0, 0, "");
    peer_submit_text(&p, 0, "c");
    expect_text(&p, "c");
    peer_submit_text(&p, 1, "");
    expect_no_answer(&p);
    say_restore(&p, RB_RESTORE_STATE, ASKED, RB_CHECKPOINT_FULL, "xy");
    expect_text(&p, "xy");
    expect_packet(&p, RB_PACKET_REPLY);
    say_restore(&p, RB_RESTORE_COMING, 0, 0, "");
    uint64_t job = peer_submit_text(&p, 1, "");
    expect_no_answer(&p);
    peer_cancel(&p, job);
    rb_gate_ring(&p.link.waker);
    expect_status(&p, RB_STATUS_CANCELLED, 5000);
    peer_stop(&p);
}

/* --- a bridge that breaks the rules -------------------------------------------------------------------------------------- */

static void a_kind_that_it_does_not_know_is_refused_or_dropped(void) {
    struct peer p;
    start_with(&p, NULL, 0);
    say(&p, 999, 0, 0, "abc", 3);
    say(&p, RB_PACKET_CHAOS, 0, ASKED, "abc", 3);
    expect_packet(&p, RB_PACKET_REPLY);
    CHECK_EQUAL(got.head.id, ASKED);
    CHECK_EQUAL(got.head.flags, RB_PACKET_FLAG_ERROR);
    CHECK_EQUAL(got.body[0], RB_CHANNEL_ERROR_UNAVAILABLE);
    peer_stop(&p);
}

static void expect_broken(struct peer *p, const char *why) {
    CHECK_EQUAL(peer_wait(p, 5000), 76);
    const char *line = peer_stderr(p);
    CHECK(strstr(line, "broke a rule of the channel") != NULL && strstr(line, why) != NULL);
    peer_close(p);
}

static void a_packet_that_breaks_a_rule_ends_it_with_76(void) {
    struct rb_packet lies = {.kind = RB_PACKET_RESTORE, .bytes = 9};
    int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
    struct peer p;
    start_with(&p, NULL, 0);
    CHECK(send(p.channel, &lies, 31, 0) == 31);
    expect_broken(&p, "too short");
    start_with(&p, NULL, 0);
    CHECK(send(p.channel, &lies, sizeof lies, 0) == sizeof lies);
    expect_broken(&p, "not as long as its head says");
    start_with(&p, NULL, 0);
    say_by_memfd(&p, RB_PACKET_RESTORE, 0, big, 100, F_SEAL_SEAL, 100);
    expect_broken(&p, "sealed memfd");
    start_with(&p, NULL, 0);
    say_by_memfd(&p, RB_PACKET_RESTORE, 0, big, 100, all, 101);
    expect_broken(&p, "sealed memfd");
    start_with(&p, NULL, 0);
    say_restore(&p, RB_RESTORE_STATE, 0, 7, "of no kind");
    expect_broken(&p, "of no kind");
}

int main(void) {
    make_pattern();
    RUN(a_message_is_a_tuple_of_dest_and_term_without_an_id);
    RUN(a_call_waits_for_the_reply_of_its_id);
    RUN(what_fits_in_no_packet_goes_in_a_sealed_memfd_both_ways);
    RUN(each_error_has_its_errno);
    RUN(a_cancel_ends_a_call_and_the_bridge_hears_that_nobody_waits);
    RUN(so_do_the_deadline_the_timeout_and_a_stop);
    RUN(a_closed_channel_ends_what_waits_and_refuses_what_follows_but_not_jobs);
    RUN(without_a_channel_each_call_says_so);
    RUN(a_send_waits_for_room_until_it_is_cancelled);
    RUN(a_line_has_its_level_and_its_job);
    RUN(a_line_never_waits_and_what_is_missing_is_told);
    RUN(a_checkpoint_is_done_when_the_bridge_says_so);
    RUN(a_state_is_loaded_with_its_increments_behind);
    RUN(it_has_its_state_before_its_first_job);
    RUN(a_state_that_it_does_not_take_ends_it);
    RUN(where_its_role_keeps_none_it_begins_without);
    RUN(asked_while_idle_it_saves_the_whole_or_what_is_new);
    RUN(asked_in_the_midst_of_a_job_it_saves_behind_it);
    RUN(asked_for_the_end_it_saves_behind_its_last_job);
    RUN(it_takes_a_state_between_two_jobs);
    RUN(held_it_begins_no_job_before_the_state_comes);
    RUN(a_promised_state_holds_only_the_job_that_needs_it);
    RUN(a_kind_that_it_does_not_know_is_refused_or_dropped);
    RUN(a_packet_that_breaks_a_rule_ends_it_with_76);
    return check_end();
}
