/* birth.c: all that a worker and its init are to have, made by the shepherd, and the init started. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "automaton_pvt.h"

/* Both ends of each, ours and theirs; -1 = not made. */
struct pair {
    int ours, theirs;
};

static int make_pipe(int *reads, int *writes) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return -errno;
    *reads = ends[0];
    *writes = ends[1];
    return 0;
}

static int make_sockets(struct pair *pair) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return -errno;
    pair->ours = ends[0];
    pair->theirs = ends[1];
    return 0;
}

/* stdin and stdout as one terminal: its master for the bridge twice, and once more for us. */
static int make_terminal(struct rb_shepherd *s, struct pair *in, struct pair *out) {
    int result = rb_open_terminal(&s->terminal, &in->theirs);
    if (result != 0) return result;
    in->ours = fcntl(s->terminal, F_DUPFD_CLOEXEC, 0);
    out->ours = fcntl(s->terminal, F_DUPFD_CLOEXEC, 0);
    out->theirs = fcntl(in->theirs, F_DUPFD_CLOEXEC, 0);
    return in->ours < 0 || out->ours < 0 || out->theirs < 0 ? -errno : 0;
}

int rb_give_birth(struct rb_shepherd *s, struct rb_job *job, uint32_t *step) {
    struct pair in = {-1, -1}, out = {-1, -1}, err = {-1, -1}, life = {-1, -1}, birth = {-1, -1};
    const int on = 1;
    int result = 0;

    if (job->flags & RB_START_TERMINAL) {
        *step = RB_STEP_TERMINAL;
        result = make_terminal(s, &in, &out);
    } else {
        *step = RB_STEP_PIPES;
        result = make_pipe(&in.theirs, &in.ours);
        if (result == 0) result = make_pipe(&out.ours, &out.theirs);
    }
    if (result == 0) {
        *step = RB_STEP_PIPES;
        result = make_pipe(&err.ours, &err.theirs);
    }
    if (result == 0) result = make_sockets(&life);
    if (result == 0) result = make_sockets(&birth);
    if (result == 0 && setsockopt(birth.ours, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0)
        result = -errno;
    if (result == 0) {
        const struct rb_worker_ends ends = {in.theirs, out.theirs, err.theirs, birth.theirs};
        const int line[2] = {life.ours, life.theirs};
        *step = RB_STEP_INIT;
        rb_make_groups(job, &s->groups);
        job->control = &s->groups;
        result = rb_start_family(job, &ends, line, &s->family);
    }
    rb_close(&in.theirs);
    rb_close(&out.theirs);
    rb_close(&err.theirs);
    rb_close(&life.theirs);
    rb_close(&birth.theirs);
    s->stdin_fd = in.ours;
    s->stdout_fd = out.ours;
    s->stderr_fd = err.ours;
    s->life = life.ours;
    s->birth = birth.ours;
    return result;
}
