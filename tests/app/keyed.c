/* A worker for tests of keys: writes when it begins and ends a job into a log that all workers append to, and dies of some jobs once.
 *
 *      keyed FOLDER
 *
 * A payload is "KEY NUMBER WORD". "B KEY NUMBER WORKER" is logged as the job begins, "E KEY NUMBER WORKER" as it ends; each line is one write.
 * WORD "crash": it dies between the two, unless FOLDER/KEY-NUMBER says that one has died of this job before. The answer is the
 * payload. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ringbridge_worker.h"

struct log {
    const char *folder;
    int fd;
};

static void note(const struct log *log, char what, const char *key, long number) {
    char line[128];
    const char *worker = getenv("RINGBRIDGE_WORKER_ID");
    int n = snprintf(line, sizeof line, "%c %s %ld %s\n", what, key, number, worker);
    if (write(log->fd, line, (size_t)n) != n) abort();
}

static void handle(struct rb_job *job, void *user) {
    const struct log *log = user;
    char text[128] = "", key[32], word[32], path[512];
    long number;
    size_t size;
    const void *payload = rb_job_payload(job, &size);
    memcpy(text, payload, size < sizeof text ? size : sizeof text - 1);
    if (sscanf(text, "%31s %ld %31s", key, &number, word) != 3) {
        rb_fail(job, 1, "no such payload");
        return;
    }
    note(log, 'B', key, number);
    if (strcmp(word, "crash") == 0) {
        snprintf(path, sizeof path, "%s/%s-%ld", log->folder, key, number);
        int first = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (first >= 0) abort();
    }
    usleep(300); /* so that others of its key could get between */
    note(log, 'E', key, number);
    rb_complete_bytes(job, payload, size);
}

int main(int argc, char **argv) {
    struct log log = {.folder = argc > 1 ? argv[1] : "."};
    struct rb_worker_options options = {.handler = handle, .user = &log};
    char path[512];
    snprintf(path, sizeof path, "%s/log.txt", log.folder);
    log.fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log.fd < 0) return 3;
    return rb_worker_main(1, argv, &options);
}
