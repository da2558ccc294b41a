/* rb-sleep: sleeps for its payload, milliseconds in decimal text ("1500"), answers the payload; a cancel ends it early. */
#include <stdint.h>

#include "ringbridge_worker.h"

enum { CODE_BAD_PAYLOAD = 1 };
static const uint64_t MS_MAX = 86400000; /* a day */

/* -1 when the payload is not a number of 0 to MS_MAX: digits only, no sign, no space, one digit at least. */
static int64_t milliseconds(const char *text, size_t size) {
    uint64_t value = 0;
    if (size == 0) return -1;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9') return -1;
        value = value * 10 + (uint64_t)(text[i] - '0');
        if (value > MS_MAX) return -1;
    }
    return (int64_t)value;
}

static void handle(struct rb_job *job, void *user) {
    size_t size;
    const char *text = rb_job_payload(job, &size);
    int64_t ms = rb_job_payload_is_term(job) ? -1 : milliseconds(text, size);
    (void)user;
    if (ms < 0)
        rb_fail(job, CODE_BAD_PAYLOAD,
                "the payload must be milliseconds in decimal text, 0 to %llu, got %zu bytes%s",
                (unsigned long long)MS_MAX, size,
                rb_job_payload_is_term(job) ? " of an external term" : "");
    else if (rb_job_sleep(job, (uint64_t)ms * 1000000))
        rb_cancelled(job);
    else
        rb_complete_bytes(job, text, size);
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {.handler = handle};
    return rb_worker_main(argc, argv, &options);
}
