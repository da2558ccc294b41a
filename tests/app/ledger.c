/* A worker for tests of upgrades: writes each payload that it is given as a line of a ledger, and answers its tag and the payload.
 *
 *      ledger FILE TAG [CRASH_AFTER]
 *
 * A line is one write to a file opened for appending, so that workers share it. With CRASH_AFTER it dies as it is given the job after so
 * many, before that has left a trace. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ringbridge_worker.h"

struct ledger {
    int fd;
    const char *tag;
    long left;
};

static void handle(struct rb_job *job, void *user) {
    struct ledger *ledger = user;
    char line[256];
    size_t size;
    const void *payload = rb_job_payload(job, &size);
    if (ledger->left-- == 0) abort();
    int n = snprintf(line, sizeof line, "%s %.*s\n", ledger->tag, (int)size, (const char *)payload);
    if (n < 0 || n >= (int)sizeof line || write(ledger->fd, line, (size_t)n) != n) abort();
    usleep(500); /* so that a drain finds jobs in its hands */
    void *room = rb_result_reserve(job, (size_t)n - 1);
    if (room == NULL) return;
    memcpy(room, line, (size_t)n - 1);
    rb_complete(job, (size_t)n - 1);
}

int main(int argc, char **argv) {
    struct ledger ledger = {.left = argc > 3 ? atol(argv[3]) : -1};
    struct rb_worker_options options = {.handler = handle, .user = &ledger};
    if (argc < 3) return 2;
    ledger.tag = argv[2];
    ledger.fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (ledger.fd < 0) return 3;
    return rb_worker_main(1, argv, &options);
}
