/* A worker without a kit that answers as its payload says, and breaks a rule where that is the name of one.
 *
 *      liar
 *
 * "offset", "length", "crc", "job", "twice", "tail", "status", "part", "pid", "atoms", "short", "deep": a lie of that kind. Any other
 * payload is the answer. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ringbridge/envelope.h"
#include "ringbridge/link.h"

static struct rb_link_worker link_;
static char answer[1 << 16];

static void publish(const struct rb_completion *e) {
    int64_t slot;
    while ((slot = rb_ring_claim(&link_.completion_ring)) == -EAGAIN) usleep(100);
    if (slot < 0) exit(4);
    link_.completions[slot] = *e;
    rb_ring_publish(&link_.completion_ring);
    rb_gate_ring(&link_.waker);
}

static void say(struct rb_completion *e, const void *bytes, size_t size, int flags) {
    uint8_t *to = size <= RB_INLINE_BYTES_MAX ? e->body : link_.results;
    e->flags = (uint16_t)(flags | (to == e->body ? RB_FLAG_INLINE : 0));
    e->payload_bytes = (uint32_t)size;
    memcpy(to, bytes, size);
    e->crc = rb_completion_crc(e, to, link_.header.features);
}

static size_t new_atoms(char *at) {
    char *p = at + 5;
    memcpy(at, "l\0\0\1\x2c", 5); /* 300 */
    for (int i = 0; i < 300; i++) p += sprintf(p, "w\6new%03d", i);
    *p++ = 'j';
    return (size_t)(p - at);
}

static void lie(struct rb_completion *e, const char *what) {
    static const char pid[] = "\x58\x77\1a\0\0\0\1\0\0\0\0\0\0\0\1";
    say(e, "y", 1, 0);
    if (strcmp(what, "offset") == 0) {
        e->flags = 0;
        e->payload_at = 1ull << 60;
    } else if (strcmp(what, "length") == 0) {
        e->flags = 0;
        e->payload_bytes = UINT32_MAX;
    } else if (strcmp(what, "crc") == 0) {
        e->crc ^= 1;
    } else if (strcmp(what, "job") == 0) {
        e->job += 1000;
    } else if (strcmp(what, "status") == 0 || strcmp(what, "part") == 0) {
        e->status = what[0] == 's' ? 77 : RB_STATUS_PART;
        e->crc = rb_completion_crc(e, e->body, link_.header.features);
    } else if (strcmp(what, "pid") == 0) {
        say(e, pid, sizeof pid - 1, RB_FLAG_TERM);
    } else if (strcmp(what, "atoms") == 0) {
        say(e, answer, new_atoms(answer), RB_FLAG_TERM);
    } else if (strcmp(what, "short") == 0) {
        say(e, "h\2a\1", 4, RB_FLAG_TERM);
    } else if (strcmp(what, "deep") == 0) {
        for (int i = 0; i < 1000; i++) memcpy(answer + (ptrdiff_t)2 * i, "h\1", 2);
        answer[2000] = 'j';
        say(e, answer, 2001, RB_FLAG_TERM);
    } else if (strcmp(what, "tail") == 0) {
        rb_store_seq_cst(&link_.ours->completion_tail, UINT64_MAX);
        rb_gate_ring(&link_.waker);
        return;
    } else {
        say(e, what, strlen(what), 0);
    }
    publish(e);
    if (strcmp(what, "twice") == 0) publish(e);
}

int main(void) {
    struct rb_link_fds fds = {3, 4, 5, 6, 7};
    char why[256], what[RB_INLINE_BYTES_MAX + 1];
    signal(SIGPIPE, SIG_IGN);
    if (rb_link_attach(&link_, &fds, why, sizeof why) < 0) return 3;
    rb_link_greet(&link_, "liar", 1 << 16, getenv("RINGBRIDGE_ROLE"));
    rb_gate_ring(&link_.waker);
    for (uint64_t begun = 0;; usleep(200)) {
        int64_t count = rb_ring_available(&link_.request_ring);
        if (count < 0 || rb_load_seq_cst(&link_.theirs->control) != RB_CONTROL_RUN) return 0;
        for (; count > 0; count--) {
            struct rb_request r = link_.requests[rb_ring_slot(&link_.request_ring, 0)];
            struct rb_completion e;
            memset(&e, 0, sizeof e);
            e.job = r.job;
            rb_store_release(&link_.ours->started, ++begun);
            size_t size = r.flags & RB_FLAG_INLINE ? r.payload_bytes : 0;
            memcpy(what, r.body, size);
            what[size] = 0;
            lie(&e, what);
            rb_ring_release(&link_.request_ring, 1);
        }
    }
}
