/* init.c: PID 1 of the worker's namespace: starts it, reaps, writes the obituary, ends the rest.
 *
 * In a PID namespace the kernel does the hard part: when this process ends, for whatever reason,
 * everything in the namespace is killed (pid_namespaces(7)). Nothing inside can harm it: the kernel
 * drops signals from inside for which PID 1 has no handler, SIGKILL and SIGSTOP too, and kill(-1)
 * spares it.
 *
 * It ends the tree when
 *   the worker ends              obituary, note to the shepherd, end
 *   the shepherd ends            PDEATHSIG=SIGKILL; end of file on the life socket covers the
 *                                moment before it was set
 *   the obituary has no reader   the bridge is dead, and the shepherd did not act in RB_ORPHAN_MS
 *                                (it may be stopped)
 * Without a namespace, dying at once would let grandchildren live. Then the parent death signal is
 * SIGCONT, the end of file does the work, and the tree is swept (sweep.c).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ringbridge/obituary.h"
#include "shepherd_pvt.h"

enum { LIFE_FD, OBITUARY_FD, SIGNAL_FD, INIT_FDS }; /* all that an init waits for, and */
enum { EVENTS_FD = INIT_FDS }; /* beside them the count of a memory group, where there is one */

struct init {
    pid_t worker;
    int in_namespace;
    int events; /* EVENTS_FD, or -1 */
    uint64_t oom_kills_before;
    int64_t orphaned_at_ms; /* 0 = the obituary has a reader */
};

static void end_tree(const struct init *init) __attribute__((noreturn));
static void end_tree(const struct init *init) {
    if (!init->in_namespace) rb_sweep_children(init->worker);
    _exit(0);
}

static void wait_for_go(int life) {
    struct pollfd wait = {.fd = life, .events = POLLIN};
    char go;
    while (poll(&wait, 1, -1) < 0 && errno == EINTR);
    if (rb_receive(life, &go, 1, NULL, NULL, NULL) != 1) _exit(0);
}

/* Keep life and obituary and a signalfd, at 0, 1 and 2, and `*events` at 3; close everything else,
 * the link first of all. */
static int keep_own_descriptors(int life, int obituary, int *events) {
    sigset_t child;
    int signals;

    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    signals = signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC);
    if (signals < 0) return -errno;
    /* The sources are above 3: the shepherd has 0, 1 and 2 taken (main.c sees to it), and 3 is its
     * socket. */
    if (dup3(life, LIFE_FD, O_CLOEXEC) < 0 || dup3(obituary, OBITUARY_FD, O_CLOEXEC) < 0 ||
        dup3(signals, SIGNAL_FD, O_CLOEXEC) < 0)
        return -errno;
    if (*events >= 0) {
        if (dup3(*events, EVENTS_FD, O_CLOEXEC) < 0) return -errno;
        *events = EVENTS_FD;
    }
    return syscall(SYS_close_range, INIT_FDS + (*events >= 0), ~0U, 0) == 0 ? 0 : -errno;
}

static void report(const struct init *init, int wait_status, const struct rusage *usage) {
    struct rb_obituary record = {RB_OBITUARY_MAGIC, -1, 0, 0};
    struct rb_life_note note;
    ssize_t written;

    if (WIFEXITED(wait_status)) {
        record.status = WEXITSTATUS(wait_status);
    } else {
        record.signal = (uint32_t)WTERMSIG(wait_status);
        record.flags = WCOREDUMP(wait_status) ? RB_OBITUARY_CORE : 0;
        if (record.signal == SIGKILL && rb_oom_kills(init->events) > init->oom_kills_before)
            record.flags |= RB_OBITUARY_OOM;
    }
    do written = write(OBITUARY_FD, &record, sizeof record);
    while (written < 0 && errno == EINTR);

    memset(&note, 0, sizeof note);
    note.status = record.status;
    note.signal = record.signal;
    note.flags = ((record.flags & RB_OBITUARY_CORE) ? RB_EXITED_CORE : 0u) |
                 ((record.flags & RB_OBITUARY_OOM) ? RB_EXITED_OOM : 0u);
    rb_put_usage(note.usage, usage);
    rb_send(LIFE_FD, &note, sizeof note, NULL, 0);
}

/* Reap whatever ended: orphans silently, the worker with a report and the end of all. */
static void reap(const struct init *init) {
    struct signalfd_siginfo info;
    struct rusage usage;
    int wait_status;
    pid_t pid;

    while (read(SIGNAL_FD, &info, sizeof info) > 0);
    while ((pid = wait4(-1, &wait_status, WNOHANG, &usage)) > 0)
        if (pid == init->worker) {
            report(init, wait_status, &usage);
            end_tree(init);
        }
}

static void watch(struct init *init) __attribute__((noreturn));
static void watch(struct init *init) {
    struct pollfd fds[INIT_FDS] = {
        {.fd = LIFE_FD, .events = POLLIN},
        {.fd = OBITUARY_FD, .events = 0}, /* POLLERR: no reader is left (pipe(7), poll(2)) */
        {.fd = SIGNAL_FD, .events = POLLIN},
    };

    for (;;) {
        int timeout_ms = -1;
        if (init->orphaned_at_ms != 0) {
            int64_t left_ms = init->orphaned_at_ms + RB_ORPHAN_MS - rb_now_ms();
            if (left_ms <= 0) end_tree(init);
            timeout_ms = (int)left_ms;
        }
        if (poll(fds, INIT_FDS, timeout_ms) < 0) continue;
        if (fds[SIGNAL_FD].revents) reap(init);
        if (fds[LIFE_FD].revents) /* nothing more is ever said to us: this is the shepherd's end */
            end_tree(init);
        if (fds[OBITUARY_FD].revents) {
            init->orphaned_at_ms = rb_now_ms();
            fds[OBITUARY_FD].fd = -1;
        }
    }
}

/* In its control group from birth where the kernel can; where not, it moves there by itself. */
static pid_t start_worker(const struct rb_job *job, const struct rb_worker_ends *ends, pid_t self) {
    int group = rb_group_of_birth(job->control);
    pid_t pid = group >= 0 ? rb_clone_into_group(group) : -ENOENT;

    if (pid < 0) {
        group = -1;
        pid = rb_clone(0);
    }
    if (pid == 0) rb_exec_worker_async_signal_safe(job, ends, self, group);
    return pid;
}

void rb_run_init(const struct rb_job *job, const struct rb_worker_ends *ends, int life,
                 int in_namespace) {
    struct init init = {.in_namespace = in_namespace};
    pid_t self = getpid();

    /* Set here, after the last change of credentials (a clone into a user namespace is one, and
     * clears it). */
    prctl(PR_SET_PDEATHSIG, in_namespace ? SIGKILL : SIGCONT, 0, 0, 0);
    if (!in_namespace) prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    wait_for_go(life);

    init.worker = start_worker(job, ends, self);
    if (init.worker < 0) {
        rb_report_failed_birth(ends->birth, errno, RB_STEP_WORKER);
        _exit(0);
    }
    init.events = job->control->memory.events;
    errno = -keep_own_descriptors(life, job->obituary_fd, &init.events);
    if (errno != 0) {
        rb_report_failed_birth(ends->birth, errno, RB_STEP_INIT);
        end_tree(&init);
    }
    init.oom_kills_before = rb_oom_kills(init.events);
    rb_forget_startup();
    watch(&init);
}
