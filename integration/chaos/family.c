/* family.c: a worker with a child and a daemon of its own, for tests that kill one of them.
 *
 * Payload "later N": the job stays until a SIGUSR1, then it answers N bytes. Any other is answered as it
 * came. By its name in /proc it tells where it is: rb-family, rb-holds, rb-said. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ringbridge_worker.h"

static void is_now(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

static void stay(const char *name, int ready) {
    is_now(name);
    if (write(ready, "", 1) == 1)
        for (;;) pause();
    _exit(1);
}

/* Returns when both are there and have their names. */
static void start_family(void) {
    int ready[2];
    char both[2];
    if (pipe(ready) < 0) abort();
    pid_t child = fork();
    if (child == 0) stay("rb-child", ready[1]);
    pid_t between = fork();
    if (between == 0) { /* leaves its session and its parent, as a daemon does */
        setsid();
        if (fork() == 0) stay("rb-daemon", ready[1]);
        _exit(0);
    }
    if (child < 0 || between < 0 || waitpid(between, NULL, 0) != between) abort();
    for (int n = 0; n < 2; n++)
        if (read(ready[0], &both[n], 1) != 1) abort();
    close(ready[0]);
    close(ready[1]);
}

static volatile sig_atomic_t told;
static void hear(int signum) { told = signum; }

static void answer_large(struct rb_job *job, size_t bytes) {
    char *room = rb_result_reserve(job, bytes);
    if (room == NULL) return;
    memset(room, 'x', bytes);
    rb_complete(job, bytes);
    is_now("rb-said");
}

static void handle(struct rb_job *job, void *user) {
    char text[32] = {0};
    size_t size;
    const char *payload = rb_job_payload(job, &size);
    (void)user;
    memcpy(text, payload, size < sizeof text ? size : sizeof text - 1);
    if (strncmp(text, "later ", 6) != 0) {
        is_now("rb-family");
        rb_complete_bytes(job, payload, size);
        return;
    }
    told = 0;
    is_now("rb-holds");
    while (!rb_job_sleep(job, 1000000) && !told) {
    }
    if (told) {
        answer_large(job, strtoull(text + 6, NULL, 10));
    } else {
        is_now("rb-family");
        rb_cancelled(job);
    }
}

int main(int argc, char **argv) {
    start_family();
    signal(SIGUSR1, hear);
    is_now("rb-family");
    return rb_worker_main(argc, argv, &(struct rb_worker_options){.handler = handle});
}
