/* rb-echo: answers what it was sent; for tests, probes and benchmarks.
 *
 * Opcodes (docs/workers-c.md):
 *      0  echo: raw bytes as raw bytes, terms as terms
 *      1  fail: payload "CODE MESSAGE", answered {:job_failed, CODE, MESSAGE}
 *      2  die by a signal: payload its number in decimal; empty: 6 (SIGABRT)
 *      3  exit: payload the status in decimal; empty: 0
 *      4  return without an answer
 * 2 and 3 let a test see what a crash costs: one worker, and a restart of the role's allowance. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ringbridge_worker.h"

enum { ECHO = 0, FAIL = 1, DIE = 2, EXIT = 3, NO_ANSWER = 4 };
enum { CODE_UNKNOWN_OPCODE = 1, CODE_BAD_PAYLOAD = 2 };

static void echo(struct rb_job *job) {
    size_t size;
    const void *payload = rb_job_payload(job, &size);
    /* Without room for it, the kit says so. */
    if (rb_job_payload_is_term(job))
        rb_complete_term_bytes(job, payload, size);
    else
        rb_complete_bytes(job, payload, size);
}

/* A decimal number that is the payload, or stands before its first space; `rest` is what follows the space. -1: none. */
static long number(struct rb_job *job, long otherwise, char *rest, size_t rest_bytes) {
    char text[200], *end;
    size_t size;
    const void *payload = rb_job_payload(job, &size);
    if (size >= sizeof text) size = sizeof text - 1;
    memcpy(text, payload, size);
    text[size] = '\0';
    if (rest != NULL) *rest = '\0';
    if (size == 0) return otherwise;
    long value = strtol(text, &end, 10);
    if (end == text || value < 0 || (*end != '\0' && *end != ' ')) return -1;
    if (rest != NULL && *end == ' ') snprintf(rest, rest_bytes, "%s", end + 1);
    return value;
}

static void fail(struct rb_job *job) {
    char message[200];
    long code = number(job, 0, message, sizeof message);
    if (code < 0 || code > 65535)
        rb_fail(job, CODE_BAD_PAYLOAD, "opcode %d takes \"CODE MESSAGE\" with a code of 0 to 65535",
                FAIL);
    else
        rb_fail(job, (uint16_t)code, "%s", message);
}

static void die(struct rb_job *job) {
    long number_of_signal = number(job, SIGABRT, NULL, 0);
    if (number_of_signal < 1 || number_of_signal > 64) {
        rb_fail(job, CODE_BAD_PAYLOAD,
                "opcode %d takes the number of a signal, 1 to 64, in decimal", DIE);
        return;
    }
    /* Its default meaning, whatever a sanitizer or a parent has made of it. */
    signal((int)number_of_signal, SIG_DFL);
    raise((int)number_of_signal);
    rb_fail(job, CODE_BAD_PAYLOAD, "signal %ld does not end a process", number_of_signal);
}

static void leave(struct rb_job *job) {
    long status = number(job, 0, NULL, 0);
    if (status < 0 || status > 255) {
        rb_fail(job, CODE_BAD_PAYLOAD, "opcode %d takes an exit status, 0 to 255, in decimal",
                EXIT);
        return;
    }
    _exit((int)status);
}

static void handle(struct rb_job *job, void *user) {
    (void)user;
    switch (rb_job_opcode(job)) {
    case ECHO: echo(job); break;
    case FAIL: fail(job); break;
    case DIE: die(job); break;
    case EXIT: leave(job); break;
    case NO_ANSWER: break;
    default:
        rb_fail(job, CODE_UNKNOWN_OPCODE, "opcode must be 0 to 4, got %u",
                (unsigned)rb_job_opcode(job));
    }
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {.handler = handle, .short_jobs = 1};
    return rb_worker_main(argc, argv, &options);
}
