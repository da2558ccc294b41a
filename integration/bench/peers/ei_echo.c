/* ei_echo: an echo C node on OTP's own `ei`, the peer that our relay is measured beside.
 *
 *     ei_echo ALIVE_NAME      registers ALIVE_NAME@127.0.0.1; cookie from ~/.erlang.cookie
 *
 * It answers {submit, echo, Bin} sent as a '$gen_call' with {ok, Bin}, in process. It is written to be as good
 * as a C node can be, not as the tutorial has it: ei_receive_msg() reads one message per two system calls and
 * ei_send() writes one, which would make the comparison worthless. So: read as much as there is, answer all
 * of it, one write. Pid and tag of a caller are copied as they came, not decoded and encoded again.
 *
 * ei negotiates neither fragments nor the atom cache, so every frame is 'p', control term, message.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ei.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PASS_THROUGH = 112, OP_SEND = 2, OP_REG_SEND = 6, OP_SEND_SENDER = 22 };
enum { READ_MIN = 256 * 1024 };

struct buffer {
    char *data;
    size_t length, capacity;
};

static void reserve(struct buffer *b, size_t more) {
    if (b->capacity - b->length >= more) return;
    while (b->capacity - b->length < more) b->capacity = b->capacity ? 2 * b->capacity : READ_MIN;
    b->data = realloc(b->data, b->capacity);
    if (!b->data) abort();
}

static void put(struct buffer *b, const void *bytes, size_t count) {
    reserve(b, count);
    memcpy(b->data + b->length, bytes, count);
    b->length += count;
}

static uint32_t read_u32(const char *p) {
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return ntohl(value);
}

static void write_u32(char *p, uint32_t value) {
    value = htonl(value);
    memcpy(p, &value, sizeof value);
}

struct slice {
    const char *start;
    size_t count;
};

struct call {
    struct slice pid, tag, payload; /* payload: the whole term, or empty for a ping */
};

static int skip(const char *frame, int *index, struct slice *out) {
    int from = *index;
    if (ei_skip_term(frame, index) < 0) return -1;
    out->start = frame + from;
    out->count = (size_t)(*index - from);
    return 0;
}

static int is_atom(const char *frame, int *index, const char *name) {
    char atom[MAXATOMLEN_UTF8];
    return ei_decode_atom(frame, index, atom) == 0 && strcmp(atom, name) == 0;
}

/* Takes {'$gen_call', {Pid, Tag}, {submit, _, Payload}} or the request {is_auth, _} of a ping. */
static int parse_call(const char *frame, int at, struct call *call) {
    int version, arity, type, size;
    char head[MAXATOMLEN_UTF8];
    if (ei_decode_version(frame, &at, &version) || ei_decode_tuple_header(frame, &at, &arity))
        return -1;
    if (arity != 3 || !is_atom(frame, &at, "$gen_call")) return -1;
    if (ei_decode_tuple_header(frame, &at, &arity) || arity != 2) return -1;
    if (skip(frame, &at, &call->pid) || skip(frame, &at, &call->tag)) return -1;
    if (ei_decode_tuple_header(frame, &at, &arity) || ei_decode_atom(frame, &at, head)) return -1;
    call->payload.count = 0;
    if (strcmp(head, "is_auth") == 0) return 0;
    if (strcmp(head, "submit") != 0 || arity != 3 || ei_skip_term(frame, &at)) return -1;
    if (ei_get_type(frame, &at, &type, &size) || type != ERL_BINARY_EXT) return -1;
    return skip(frame, &at, &call->payload);
}

/* {2, '', Pid} and then {Tag, {ok, Payload}}, or {Tag, yes} for a ping. */
static void put_answer(struct buffer *out, const struct call *call) {
    char head[64];
    size_t frame = out->length;
    int at = 0;
    put(out, "\0\0\0\0p", 5);
    ei_encode_version(head, &at);
    ei_encode_tuple_header(head, &at, 3);
    ei_encode_long(head, &at, OP_SEND);
    ei_encode_atom(head, &at, "");
    put(out, head, (size_t)at);
    put(out, call->pid.start, call->pid.count);
    at = 0;
    ei_encode_version(head, &at);
    ei_encode_tuple_header(head, &at, 2);
    put(out, head, (size_t)at);
    put(out, call->tag.start, call->tag.count);
    at = 0;
    if (call->payload.count) {
        ei_encode_tuple_header(head, &at, 2);
        ei_encode_atom(head, &at, "ok");
    } else {
        ei_encode_atom(head, &at, "yes");
    }
    put(out, head, (size_t)at);
    put(out, call->payload.start, call->payload.count);
    write_u32(out->data + frame, (uint32_t)(out->length - frame - 4));
}

/* MONITOR_P and DEMONITOR_P, two of the three frames of each call, need no answer from a server that lives on. */
static void handle_frame(const char *frame, struct buffer *out) {
    int at = 1, version, arity;
    long op;
    struct call call = {.payload = {NULL, 0}};
    if (frame[0] != PASS_THROUGH) return;
    if (ei_decode_version(frame, &at, &version) || ei_decode_tuple_header(frame, &at, &arity))
        return;
    if (ei_decode_long(frame, &at, &op)) return;
    if (op != OP_REG_SEND && op != OP_SEND && op != OP_SEND_SENDER) return;
    for (int i = 1; i < arity; i++)
        if (ei_skip_term(frame, &at)) return;
    if (parse_call(frame, at, &call) == 0) put_answer(out, &call);
}

static int write_all(int fd, const char *data, size_t count) {
    while (count) {
        ssize_t n = send(fd, data, count, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        data += n;
        count -= (size_t)n;
    }
    return 0;
}

static void serve(int fd) {
    static struct buffer in, out;
    in.length = out.length = 0;
    for (;;) {
        size_t at = 0;
        reserve(&in, READ_MIN);
        ssize_t n = recv(fd, in.data + in.length, in.capacity - in.length, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        in.length += (size_t)n;
        while (in.length - at >= 4) {
            size_t size = read_u32(in.data + at);
            if (size == 0) put(&out, "\0\0\0\0", 4); /* a tick, answered by a tick */
            if (in.length - at - 4 < size) {
                reserve(&in, size); /* the rest of a large frame in few reads */
                break;
            }
            if (size) handle_frame(in.data + at + 4, &out);
            at += 4 + size;
        }
        memmove(in.data, in.data + at, in.length - at);
        in.length -= at;
        if (out.length && write_all(fd, out.data, out.length) < 0) return;
        out.length = 0;
    }
}

int main(int argc, char **argv) {
    ei_cnode node;
    struct in_addr loopback = {.s_addr = htonl(INADDR_LOOPBACK)};
    char full[MAXNODELEN + 1];
    int port = 0, listener;
    if (argc != 2) {
        fprintf(stderr, "usage: ei_echo ALIVE_NAME\n");
        return 2;
    }
    if (ei_init()) return 1;
    snprintf(full, sizeof full, "%s@127.0.0.1", argv[1]);
    /* cookie NULL: ~/.erlang.cookie */
    if (ei_connect_xinit(&node, "127.0.0.1", argv[1], full, &loopback, NULL, (short)getpid()) < 0) {
        fprintf(stderr, "ei_echo: no node %s: is ~/.erlang.cookie there?\n", full);
        return 1;
    }
    listener = ei_listen(&node, &port, 5);
    if (listener < 0 || ei_publish(&node, port) < 0) {
        fprintf(stderr, "ei_echo: cannot listen and register: is epmd there?\n");
        return 1;
    }
    for (;;) {
        ErlConnect peer;
        int fd = ei_accept(&node, listener, &peer);
        if (fd < 0) continue;
        serve(fd);
        close(fd);
    }
}
