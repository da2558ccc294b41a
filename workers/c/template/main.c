/* @ROLE@: answers its payload with the letters a to z in capitals. Put your work in handle(). */
#include <ctype.h>
#include <stddef.h>

#include "ringbridge_worker.h"

enum { LOOK_EVERY_BYTES = 65536 };

static void handle(struct rb_job *job, void *user) {
    size_t size;
    const unsigned char *text = rb_job_payload(job, &size); /* where it lies: no copy */
    char *answer = rb_result_reserve(job, size);            /* in memory that the bridge reads */
    (void)user;
    if (answer == NULL) return; /* too large, or cancelled meanwhile: the kit answers */
    for (size_t i = 0; i < size; i++) {
        /* Nobody waits any more: the caller gave up or died, or its deadline has passed. */
        if (i % LOOK_EVERY_BYTES == 0 && rb_is_cancelled(job)) {
            rb_cancelled(job);
            return;
        }
        answer[i] = (char)toupper(text[i]);
    }
    rb_complete(job, size);
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {.handler = handle};
    /* What has to be loaded or opened is done here, before the worker says that it is ready. */
    return rb_worker_main(argc, argv, &options);
}
