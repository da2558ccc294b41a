/* paced.c: a worker whose jobs show signs, or none, for as long as they are told. Payload: milliseconds in decimal.
 *
 * Opcodes: 0 pulses every 50 ms; 1 shows no sign, and looks for no cancel; 2 is not ready for so long, from another thread, and says at
 * once which worker it is; 3 says which worker it is. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ringbridge_worker.h"

static unsigned unready_ms;

static void *be_ready_later(void *arg) {
    usleep(unready_ms * 1000);
    rb_set_ready(1);
    return arg;
}

static void handle(struct rb_job *job, void *user) {
    char text[32] = "";
    size_t size;
    const void *payload = rb_job_payload(job, &size);
    pthread_t thread;
    (void)user;
    memcpy(text, payload, size < sizeof text ? size : sizeof text - 1);
    unsigned ms = (unsigned)strtoul(text, NULL, 10);
    switch (rb_job_opcode(job)) {
    case 0:
        for (unsigned i = 0; i < ms; i += 50) {
            usleep(50000);
            rb_pulse(job);
        }
        break;
    case 1: usleep(ms * 1000); break;
    case 2:
        unready_ms = ms;
        rb_set_ready(0);
        if (pthread_create(&thread, NULL, be_ready_later, NULL) != 0) abort();
        break;
    default: break;
    }
    const char *id = getenv("RINGBRIDGE_WORKER_ID");
    rb_complete_bytes(job, id, strlen(id));
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {.handler = handle};
    return rb_worker_main(argc, argv, &options);
}
