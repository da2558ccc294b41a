/* process.c: the worker as a process: what it was started with, and how it ends when a rule is broken. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kit_pvt.h"

void rb_kit_broken(const struct rb_worker *w, const char *format, ...) {
    char what[200];
    va_list arguments;
    va_start(arguments, format);
    /* clang-tidy 14 sees this only when it is given several files at once; alone the file is clean.
     * NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    fprintf(stderr, "worker %llu: the bridge broke a rule of the link: %s\n",
            (unsigned long long)w->link.header.worker_id, what);
    /* Without atexit(): the worker's own state says nothing about what is wrong. */
    _exit(RB_EXIT_PROTOCOL);
}

void rb_kit_misused(const struct rb_job *job, const char *what) {
    fprintf(stderr, "worker %llu: job %llu: %s\n",
            (unsigned long long)job->worker->link.header.worker_id,
            (unsigned long long)job->request.job, what);
    abort();
}

void rb_kit_channel_broken(const char *what) {
    fprintf(stderr, "worker: the bridge broke a rule of the channel: %s\n", what);
    _exit(RB_EXIT_PROTOCOL);
}

int rb_kit_first_descriptor(void) {
    const char *text = getenv(RB_ENV_LINK_FD);
    char *end;
    long fd;
    if (text == NULL || *text == '\0') return -1;
    errno = 0;
    fd = strtol(text, &end, 10);
    return errno == 0 && *end == '\0' && fd >= 0 && fd < 1 << 20 ? (int)fd : -1;
}
