/* answers.c: a worker whose jobs say how to answer, the wrong ways included. Payload: "RESERVED USED" in decimal.
 *
 * Opcodes: 0 reserve, complete with less; 1 reserve twice, the second time USED, and complete that; 2 reserve and return;
 * 3 answer twice; 4 complete without a reservation; 5 reserve after the answer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringbridge_worker.h"

static void handle(struct rb_job *job, void *user) {
    char text[64] = "";
    unsigned long reserved = 0, used = 0;
    size_t size;
    const void *payload = rb_job_payload(job, &size);
    void *room;
    (void)user;
    memcpy(text, payload, size < sizeof text ? size : sizeof text - 1);
    if (sscanf(text, "%lu %lu", &reserved, &used) != 2) abort();
    if (rb_job_opcode(job) != 4) {
        room = rb_result_reserve(job, reserved);
        if (room == NULL || rb_job_opcode(job) == 2) return;
        if (rb_job_opcode(job) == 1) room = rb_result_reserve(job, used);
        memset(room, 'a', used);
    }
    rb_complete(job, used);
    if (rb_job_opcode(job) == 3) rb_cancelled(job);
    if (rb_job_opcode(job) == 5) rb_result_reserve(job, 1);
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {.handler = handle};
    return rb_worker_main(argc, argv, &options);
}
