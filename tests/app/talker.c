/* A worker for tests of output and crashes: writes each payload as a line to its stderr, and does as the first word says.
 *
 * "say ...": it goes over the channel, too; "crash": segmentation fault; "exit N": ends with that status; "flood": 100,000 bytes and a crash; anything else is answered. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringbridge_worker.h"

static void handle(struct rb_job *job, void *user) {
    char text[128] = "";
    size_t size;
    const void *payload = rb_job_payload(job, &size);
    (void)user;
    memcpy(text, payload, size < sizeof text ? size : sizeof text - 1);
    fprintf(stderr, "%s\n", text);
    if (strncmp(text, "say ", 4) == 0) rb_log(job, RB_LOG_WARNING, "%s", text + 4);
    if (strcmp(text, "flood") == 0) {
        for (int i = 0; i < 1000; i++) fprintf(stderr, "%0*d\n", 99, i);
        fprintf(stderr, "the end\n");
    }
    if (strcmp(text, "flood") == 0 || strcmp(text, "crash") == 0) raise(SIGSEGV);
    if (strncmp(text, "exit ", 5) == 0) exit(atoi(text + 5));
    char *answer = rb_result_reserve(job, size);
    if (answer == NULL) return;
    memcpy(answer, text, size);
    rb_complete(job, size);
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {.handler = handle};
    return rb_worker_main(argc, argv, &options);
}
