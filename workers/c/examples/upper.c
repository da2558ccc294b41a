/* upper.c: a whole worker: answers its payload in upper case. docs/workers-c.md begins with it.
 *
 *      make -C workers/c
 *      cc -std=gnu99 -Iworkers/c/include upper.c build/libringbridge-worker.a -pthread -o upper */
#include <ctype.h>

#include "ringbridge_worker.h"

static void handle(struct rb_job *job, void *user) {
    size_t size;
    const char *text = rb_job_payload(job, &size); /* where it lies: no copy */
    char *answer = rb_result_reserve(job, size);   /* in memory that the bridge reads */
    (void)user;
    if (answer == NULL) return; /* too large, or cancelled meanwhile: the kit answers */
    for (size_t i = 0; i < size; i++) {
        if (i % 65536 == 0 && rb_is_cancelled(job)) {
            rb_cancelled(job);
            return;
        }
        answer[i] = (char)toupper((unsigned char)text[i]);
    }
    rb_complete(job, size);
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {.handler = handle};
    return rb_worker_main(argc, argv, &options);
}
