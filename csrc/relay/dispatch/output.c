/* output.c: what a worker writes to stdout and stderr, on its way up; and the end of it, for the answer to who lost a job. */
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "relay/dispatch/worker_pvt.h"
#include "relay/relay_pvt.h"

enum {
    OUTPUT_CHUNK = 4096,
    OUTPUT_CHUNKS_A_ROUND = 4,
    OUTPUT_LATE_NS = 20000000, /* what a job wrote is read within so long of its end */
    OUTPUT_CHUNKS_AT_END =
        32, /* all that a pipe of the usual size holds; a grandchild that is left may write for ever */
};

/* Out of epoll by hand: a descriptor that someone else holds open too (the bridge forks shepherds) would go on reporting. */
void rb_worker_close_watched(struct rb_worker *w, int *fd) {
    if (*fd < 0) return;
    epoll_ctl(w->relay->epoll, EPOLL_CTL_DEL, *fd, NULL);
    close(*fd);
    *fd = -1;
}

/* A negative errno where read() has -1. */
ssize_t rb_worker_read(int fd, void *at, size_t size) {
    ssize_t n = read(fd, at, size);
    return n < 0 ? -errno : n;
}

/* The job in whose course output was written that is read now: the one under way; else the last one, if that ended a moment ago, as its words
 * were in the pipe before its answer was in the ring. 0: none. It says what a line is about and decides nothing: of several jobs
 * in so short a time it may be the wrong one. */
static uint64_t job_of_output(struct rb_worker *w) {
    if (w->shadow) rb_tape_look(w);
    /* S1: pairs with the kit's release store, as S0. A lie names another job of the liar. */
    uint64_t started = rb_load_acquire(&w->link.theirs->started);
    const struct rb_job *j = w->placed[(started - 1) & (w->link.config.slots - 1)];
    if (j && j->position == started - 1) return j->id;
    return w->relay->now - w->stirred_ns < OUTPUT_LATE_NS ? w->last_job : 0;
}

static void take_output(struct rb_worker *w, int which, int chunks) {
    int *fd = which == 1 ? &w->stdout_fd : &w->stderr_fd;
    char chunk[OUTPUT_CHUNK];
    for (int i = 0; i < chunks && *fd >= 0; i++) {
        ssize_t n = w->shadow ? rb_tape_output(w, which, *fd, chunk, sizeof chunk)
                              : rb_worker_read(*fd, chunk, sizeof chunk);
        if (n == -EAGAIN || n == -EINTR) return;
        if (n < 0) n = 0;
        if (n == 0) {
            rb_worker_close_watched(w, fd);
            return;
        }
        if (which == 2) {
            size_t keep = (size_t)n < STDERR_TAIL ? (size_t)n : STDERR_TAIL;
            if (w->stderr_size + keep > STDERR_TAIL) {
                uint32_t drop = (uint32_t)(w->stderr_size + keep - STDERR_TAIL);
                memmove(w->stderr_tail, w->stderr_tail + drop, w->stderr_size - drop);
                w->stderr_size -= drop;
            }
            memcpy(w->stderr_tail + w->stderr_size, chunk + n - keep, keep);
            w->stderr_size += (uint32_t)keep;
        }
        rb_up_event(w->relay, RB_EVENT_WORKER_OUTPUT, 0, w->id, which, (int64_t)job_of_output(w), 0,
                    chunk, (size_t)n);
    }
}

void rb_worker_output(struct rb_worker *w, int which) {
    take_output(w, which, OUTPUT_CHUNKS_A_ROUND);
}

void rb_worker_last_output(struct rb_worker *w) {
    take_output(w, 2, OUTPUT_CHUNKS_AT_END);
    take_output(w, 1, OUTPUT_CHUNKS_AT_END);
}
