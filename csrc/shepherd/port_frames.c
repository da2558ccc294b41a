/* port_frames.c: frames of a port, in and out, and the rules of START. Knows bytes, and no process. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "port_pvt.h"

uint32_t rb_port_number(const unsigned char *at, size_t bytes) {
    uint32_t value = 0;
    while (bytes-- > 0) value = value << 8 | *at++;
    return value;
}

void rb_port_put_number(unsigned char *at, uint32_t value) {
    int i;
    for (i = 3; i >= 0; i--, value >>= 8) at[i] = (unsigned char)value;
}

int rb_port_fill(struct rb_port_inbox *in, int fd) {
    ssize_t got = read(fd, in->bytes + in->size, sizeof in->bytes - in->size);
    if (got > 0) in->size += (size_t)got;
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

int rb_port_next(const struct rb_port_inbox *in, struct rb_port_frame *frame) {
    size_t length;

    if (in->size < 4) return 0;
    length = rb_port_number(in->bytes, 4);
    if (length < 1 || length > RB_PORT_FRAME_MAX) return -1;
    if (in->size - 4 < length) return 0;
    frame->type = in->bytes[4];
    frame->body = in->bytes + 5;
    frame->size = length - 1;
    frame->rule = NULL;
    return 1;
}

void rb_port_taken(struct rb_port_inbox *in) {
    size_t used = 4 + (size_t)rb_port_number(in->bytes, 4);
    memmove(in->bytes, in->bytes + used, in->size - used);
    in->size -= used;
}

static void queue(struct rb_port_outbox *out, unsigned char type, const void *body, size_t size) {
    unsigned char *at;

    if (out->start + out->size + 5 + size > sizeof out->bytes) {
        memmove(out->bytes, out->bytes + out->start, out->size);
        out->start = 0;
    }
    at = out->bytes + out->start + out->size;
    rb_port_put_number(at, (uint32_t)(size + 1));
    at[4] = type;
    if (size > 0) memcpy(at + 5, body, size);
    out->size += 5 + size;
}

void rb_port_tell(struct rb_port_outbox *out, unsigned char type, const void *body, size_t size) {
    const size_t room = sizeof out->bytes - out->size;
    /* Of a frame and of the LOST before it. */
    const size_t needs = 5 + size + 9 + (type == RB_PORT_OUTPUT ? RB_PORT_KEPT_BYTES : 0);

    if (needs > room) {
        if (type == RB_PORT_OUTPUT) out->lost += (uint32_t)size;
        return;
    }
    if (out->lost > 0) {
        unsigned char lost[4];
        rb_port_put_number(lost, out->lost);
        out->lost = 0;
        queue(out, RB_PORT_LOST, lost, sizeof lost);
    }
    queue(out, type, body, size);
}

int rb_port_flush(struct rb_port_outbox *out, int fd) {
    while (out->size > 0) {
        ssize_t put = write(fd, out->bytes + out->start, out->size);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return errno == EAGAIN ? 0 : -errno;
        out->start += (size_t)put;
        out->size -= (size_t)put;
    }
    out->start = 0;
    return 0;
}

/* Step over `count` NUL-terminated strings; NULL when they run past `end`. */
static const char *skip_strings(const char *at, const char *end, uint32_t count) {
    while (count-- > 0) {
        const char *nul = at == NULL ? NULL : memchr(at, 0, (size_t)(end - at));
        if (nul == NULL) return NULL;
        at = nul + 1;
    }
    return at;
}

#define HEAD_BYTES 13

const char *rb_port_parse(const struct rb_port_frame *frame, struct rb_port_order *order) {
    const unsigned char *head = frame->body;
    const char *end = (const char *)frame->body + frame->size;

    if (frame->size < 1 || head[0] != RB_PORT_VERSION)
        return "START is of another version of port_protocol.h: program and library are of "
               "different releases";
    if (frame->size < HEAD_BYTES) return "START is shorter than its head";
    order->grace_ms = rb_port_number(head + 1, 4);
    order->argc = rb_port_number(head + 5, 2);
    order->envc = rb_port_number(head + 7, 2);
    order->stdin_bytes = rb_port_number(head + 9, 4);
    if (order->argc < 1 || order->argc > RB_PORT_ARGC_MAX)
        return "START: argc is not 1..RB_PORT_ARGC_MAX";
    if (order->envc > RB_PORT_ENVC_MAX) return "START: envc is above RB_PORT_ENVC_MAX";
    if (order->stdin_bytes > RB_PORT_STDIN_MAX)
        return "START: stdin_bytes is above RB_PORT_STDIN_MAX";
    order->directory = (const char *)head + HEAD_BYTES;
    order->argv = skip_strings(order->directory, end, 1);
    order->env = skip_strings(order->argv, end, order->argc);
    order->input = skip_strings(order->env, end, order->envc);
    if (order->input == NULL || (size_t)(end - order->input) != order->stdin_bytes)
        return "START: its strings and its input do not end where it ends";
    return NULL;
}
