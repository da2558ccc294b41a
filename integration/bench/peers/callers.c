/* callers: many nodes in one process that call a bridge, to see what connections cost it.
 *
 *     callers NODE CONNECTIONS UNDER_WAY MILLISECONDS      prints: result CALLS MICROSECONDS
 *
 * Each connection is a node of its own by name (OTP's `ei` shakes hands; cookie from ~/.erlang.cookie). UNDER_WAY calls of 16 bytes to the
 * role `echo` are kept under way, spread over the connections: each answer is followed by the next call. A call is a plain '$gen_call' without
 * a monitor, so the bridge watches the caller itself; those signals are read and left alone.
 */
#include <arpa/inet.h>
#include <ei.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_BYTES = 64 * 1024, PASS_THROUGH = 112, OP_SEND = 2, OP_SEND_SENDER = 22 };

struct connection {
    int fd;
    ei_x_buff call;
    char *data;
    size_t length;
    unsigned owed; /* calls to be written */
};

static void fail(const char *what) {
    fprintf(stderr, "callers: %s\n", what);
    exit(1);
}

static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static uint32_t read_u32(const char *p) {
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return ntohl(value);
}

/* The frame of one call: length, 112, {6, Pid, '', Name}, {'$gen_call', {Pid, Tag}, {submit, echo, Payload}}. */
static void make_call(struct connection *c, ei_cnode *node) {
    ei_x_buff *x = &c->call;
    erlang_ref tag;
    uint32_t length;
    if (ei_make_ref(node, &tag) < 0) fail("no reference");
    ei_x_new(x);
    ei_x_append_buf(x, "\0\0\0\0\x70", 5);
    ei_x_append_buf(x, "\x83", 1);
    ei_x_encode_tuple_header(x, 4);
    ei_x_encode_long(x, 6);
    ei_x_encode_pid(x, ei_self(node));
    ei_x_encode_atom(x, "");
    ei_x_encode_atom(x, "Elixir.Ringbridge.JobDispatcher");
    ei_x_append_buf(x, "\x83", 1);
    ei_x_encode_tuple_header(x, 3);
    ei_x_encode_atom(x, "$gen_call");
    ei_x_encode_tuple_header(x, 2);
    ei_x_encode_pid(x, ei_self(node));
    ei_x_encode_ref(x, &tag);
    ei_x_encode_tuple_header(x, 3);
    ei_x_encode_atom(x, "submit");
    ei_x_encode_atom(x, "echo");
    ei_x_encode_binary(x, "0123456789abcdef", 16);
    length = htonl((uint32_t)x->index - 4);
    memcpy(x->buff, &length, 4);
}

static void join(struct connection *c, const char *bridge, int number) {
    static char name[64], full[96];
    struct in_addr here = {.s_addr = htonl(INADDR_LOOPBACK)};
    ei_cnode *node = calloc(1, sizeof *node);
    snprintf(name, sizeof name, "callers%d", number);
    snprintf(full, sizeof full, "%s@127.0.0.1", name);
    if (ei_connect_xinit(node, "127.0.0.1", name, full, &here, NULL, 0) < 0) fail("no node");
    c->fd = ei_connect(node, (char *)(uintptr_t)bridge);
    if (c->fd < 0) fail("not connected");
    make_call(c, node);
    c->data = malloc(2 * READ_BYTES);
    fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
}

/* A connection has at most some dozens of small calls under way: what is written always fits into the socket. */
static void write_owed(struct connection *c) {
    char batch[64 * 256];
    size_t size = (size_t)c->call.index;
    while (c->owed) {
        size_t n = 0;
        for (; c->owed && n + size <= sizeof batch; c->owed--, n += size)
            memcpy(batch + n, c->call.buff, size);
        if (send(c->fd, batch, n, MSG_NOSIGNAL) != (ssize_t)n) fail("not written");
    }
}

/* Answers among the whole frames. */
static unsigned take(struct connection *c) {
    unsigned answers = 0;
    ssize_t n = recv(c->fd, c->data + c->length, READ_BYTES, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (n <= 0) fail("the bridge closed a connection");
    c->length += (size_t)n;
    size_t at = 0;
    while (c->length - at >= 4) {
        size_t size = 4 + read_u32(c->data + at);
        int index = 5, version, arity;
        long op;
        if (c->length - at < size) break;
        if (size > 5 && c->data[at + 4] == PASS_THROUGH &&
            ei_decode_version(c->data + at, &index, &version) == 0 &&
            ei_decode_tuple_header(c->data + at, &index, &arity) == 0 &&
            ei_decode_long(c->data + at, &index, &op) == 0)
            answers += op == OP_SEND || op == OP_SEND_SENDER;
        at += size;
    }
    memmove(c->data, c->data + at, c->length - at);
    c->length -= at;
    return answers;
}

int main(int argc, char **argv) {
    if (argc != 5) fail("NODE CONNECTIONS UNDER_WAY MILLISECONDS");
    int count = atoi(argv[2]), under_way = atoi(argv[3]);
    int64_t window = (int64_t)atoi(argv[4]) * 1000;
    struct connection *all = calloc((size_t)count, sizeof *all);
    struct epoll_event events[64];
    int epoll = epoll_create1(0);
    if (ei_init() < 0 || epoll < 0 || !all) fail("no memory");
    for (int i = 0; i < count; i++) {
        join(&all[i], argv[1], i);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &e);
    }
    for (int i = 0; i < under_way; i++) all[i % count].owed++;
    for (int i = 0; i < count; i++) write_owed(&all[i]);
    int64_t begin = now_us(), opens = begin + window / 5, now;
    uint64_t calls = 0;
    puts("ready");
    fflush(stdout);
    while ((now = now_us()) < begin + window) {
        int n = epoll_wait(epoll, events, 64, 100);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            unsigned answers = take(c);
            if (now >= opens) calls += answers;
            c->owed += answers;
            write_owed(c);
        }
    }
    printf("result %llu %lld\n", (unsigned long long)calls, (long long)(now - opens));
    return 0;
}
