/* primes.c: a worker that streams: the primes below its payload, a number in decimal text, one event each. docs/streams.md has
 * consumers for it.
 *
 * As a plain job it answers how many there are, and tells its progress in percent while it looks. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringbridge_worker.h"

static const unsigned long LIMIT_MAX = 100000000;

/* One small integer as an external term, without the leading 131. */
static size_t integer(uint8_t term[5], unsigned long n) {
    uint8_t whole[5] = {98, (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
    memcpy(term, whole, 5);
    return 5;
}

/* 1: as said; 0: nobody wants any more. */
static int say(struct rb_job *job, unsigned long prime) {
    uint8_t term[5];
    return !rb_job_wants_parts(job) || rb_emit_term(job, term, integer(term, prime)) == 0;
}

static void handle(struct rb_job *job, void *user) {
    uint8_t term[5], *composite;
    char text[16] = "", *end;
    unsigned long count = 0;
    size_t size;
    const void *payload = rb_job_payload(job, &size);
    (void)user;
    if (size < sizeof text) memcpy(text, payload, size);
    unsigned long limit = strtoul(text, &end, 10);
    if (size == 0 || *end || limit > LIMIT_MAX || (composite = calloc(limit + 1, 1)) == NULL) {
        rb_fail(job, 1, "not a number of 0 to %lu", LIMIT_MAX);
        return;
    }
    for (unsigned long n = 2; n < limit; n++) {
        if (n % (limit / 100 + 1) == 0) {
            if (rb_is_cancelled(job)) break;
            rb_progress_term(job, term, integer(term, n * 100 / limit));
        }
        if (composite[n]) continue;
        for (unsigned long k = n * n; n < 65536 && k < limit; k += n) composite[k] = 1;
        if (!say(job, n)) break; /* waits here until the consumer asks for more */
        count++;
    }
    free(composite);
    if (rb_is_cancelled(job))
        rb_cancelled(job);
    else if (rb_job_wants_parts(job))
        rb_done(job);
    else
        rb_complete_term_bytes(job, term, integer(term, count));
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {.handler = handle};
    return rb_worker_main(argc, argv, &options);
}
