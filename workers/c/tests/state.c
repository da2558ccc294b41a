/* state.c: a worker whose jobs append their payload to its state, which it saves and is given.
 *
 * Opcodes: 0 appends, and answers the whole; 1 answers the whole once a promised state has come; 2 sleeps for so many milliseconds.
 * An increment is what was appended since the last save. A payload of "!" makes the next save fail; a state that begins with '?' is
 * not taken. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ringbridge_worker.h"

static char text[1 << 20];
static size_t text_size, saved_size;

static int save(struct rb_state *state, enum rb_state_kind wanted, void *user) {
    size_t from = wanted == RB_STATE_INCREMENT ? saved_size : 0;
    (void)user;
    if (text_size > 0 && text[text_size - 1] == '!') {
        text_size--;
        return -EAGAIN;
    }
    rb_state_write(state, text + from, text_size - from);
    saved_size = text_size;
    return (int)wanted;
}

static int restore(enum rb_state_kind kind, const void *bytes, size_t size, void *user) {
    (void)user;
    if (kind == RB_STATE_FULL) text_size = 0;
    if (size > 0 && *(const char *)bytes == '?') return -EINVAL;
    if (size > sizeof text - text_size) return -ENOSPC;
    memcpy(text + text_size, bytes, size);
    saved_size = text_size += size;
    return 0;
}

static void handle(struct rb_job *job, void *user) {
    size_t size;
    const char *payload = rb_job_payload(job, &size);
    (void)user;
    if (rb_job_opcode(job) == 2) {
        rb_job_sleep(job, strtoull(payload, NULL, 10) * 1000000);
    } else if (rb_job_opcode(job) == 1) {
        if (rb_await_state(job) == -ECANCELED) return;
    } else {
        if (size > sizeof text - text_size) abort();
        memcpy(text + text_size, payload, size);
        text_size += size;
    }
    rb_complete_bytes(job, text, text_size);
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {.handler = handle, .save = save, .restore = restore};
    return rb_worker_main(argc, argv, &options);
}
