/* vitals.c: a worker whose jobs say how it is. Opcodes: 0 pulses as often as its payload says in decimal, and done; 1 wants no jobs
 * for now; 2 wants them again; 3 one report of progress and one part, where they are wanted. Started as rb-vitals-unready it is not
 * ready from the beginning. */
#include <stdlib.h>
#include <string.h>

#include "ringbridge_worker.h"

static void handle(struct rb_job *job, void *user) {
    char text[16] = "";
    size_t size;
    const void *payload = rb_job_payload(job, &size);
    (void)user;
    memcpy(text, payload, size < sizeof text ? size : sizeof text - 1);
    switch (rb_job_opcode(job)) {
    case 0:
        for (long n = strtol(text, NULL, 10); n > 0; n--) rb_pulse(job);
        break;
    case 1: rb_set_ready(0); break;
    case 2: rb_set_ready(1); break;
    default: rb_progress(job, "p", 1); rb_emit(job, "e", 1);
    }
    rb_done(job);
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {.handler = handle};
    if (strstr(argv[0], "unready") != NULL) rb_set_ready(0);
    return rb_worker_main(argc, argv, &options);
}
