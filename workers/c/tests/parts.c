/* parts.c: a worker whose jobs say what to send before the answer. Payload: "COUNT BYTES" in decimal.
 *
 * Opcodes: 0 COUNT parts of BYTES, and done; 1 the same as terms; 2 COUNT reports of progress, and done; 3 reserve 100,000 bytes,
 * then the parts, then complete the reservation; 4 a part after the answer; 5 progress after the answer; 6 what the kit says of a
 * part, as the answer's text: its return value and the demand. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringbridge_worker.h"

enum { RESERVED = 100000 };

static void handle(struct rb_job *job, void *user) {
    static uint8_t part[2 << 20];
    char text[64] = "";
    unsigned long count = 0, bytes = 0;
    size_t size;
    const void *payload = rb_job_payload(job, &size);
    unsigned opcode = rb_job_opcode(job);
    void *room = NULL;
    (void)user;
    memcpy(text, payload, size < sizeof text ? size : sizeof text - 1);
    if (sscanf(text, "%lu %lu", &count, &bytes) != 2 || bytes > sizeof part) abort();
    if (opcode == 3) room = rb_result_reserve(job, RESERVED);
    if (room) memset(room, 'r', RESERVED);
    if (opcode >= 4 && opcode <= 5) rb_done(job);
    if (opcode == 5) rb_progress(job, part, bytes);
    if (opcode == 6) {
        unsigned before = rb_demand(job);
        int refused = rb_emit(job, part, bytes);
        snprintf(text, sizeof text, "%u %d %u", before, refused, rb_demand(job));
        rb_complete_bytes(job, text, strlen(text));
        return;
    }
    for (unsigned long i = 0; i < count; i++) {
        memset(part, 'a' + (int)(i % 26), bytes);
        int failed = opcode == 1   ? rb_emit_term(job, part, bytes)
                     : opcode == 2 ? rb_progress(job, part, bytes)
                                   : rb_emit(job, part, bytes);
        if (failed == -ECANCELED) return;
        if (failed && failed != -EAGAIN) {
            rb_fail(job, (uint16_t)-failed, "part %lu was refused", i);
            return;
        }
    }
    if (opcode == 3)
        rb_complete(job, RESERVED);
    else
        rb_done(job);
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {.handler = handle};
    return rb_worker_main(argc, argv, &options);
}
