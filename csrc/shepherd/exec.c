/* exec.c: from the init's child to the worker. Everything here runs between clone and exec. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shepherd_pvt.h"

#define WORKER_FDS 9        /* stdin, stdout, stderr and the link's six */
#define BIRTH_FD WORKER_FDS /* close-on-exec; the first number that the worker does not have */
#define PARKED_MIN \
    (WORKER_FDS + 8) /* sources are moved up here first, so that none lies where another belongs */

void rb_report_failed_birth(int birth, int error, uint32_t step) {
    struct rb_birth_note note = {RB_BIRTH_FAILED, error, step, 0};
    rb_send(birth, &note, sizeof note, NULL, 0);
}

static void fail(int birth, uint32_t step) __attribute__((noreturn));
static void fail(int birth, uint32_t step) {
    rb_report_failed_birth(birth, errno, step);
    _exit(127);
}

/* A change of user clears the parent death signal, so this is done again after it. */
static int die_with(pid_t parent) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return -1;
    if (getppid() != parent) _exit(127); /* it died before we asked to die with it */
    return 0;
}

/* A terminal of our own needs a session of our own. Else the bridge's will do: its terminal, if it
 * has one, the shepherd has left for us (terminal.c). */
static int lead_group(const struct rb_job *job) {
    return (job->flags & RB_START_TERMINAL) ? setsid() : setpgid(0, 0);
}

/* Die with the init, lead a group of our own, and tell the shepherd who we are: the socket
 * adds our pid in the shepherd's namespace (SO_PASSCRED), which we cannot know; the pidfd is
 * ours from the first moment. */
static int enter_group(const struct rb_job *job, int birth, pid_t parent, uint32_t flags) {
    struct rb_birth_note note = {RB_BIRTH_HELLO, 0, 0, flags};
    int pidfd;

    if (die_with(parent) != 0 || lead_group(job) < 0) return -1;
    pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (pidfd < 0) return -1;
    errno = -rb_send(birth, &note, sizeof note, &pidfd, 1);
    return errno == 0 ? 0 : -1;
}

/* Put `fd` at or above PARKED_MIN. The old number is left to close_range. */
static int park(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, PARKED_MIN); }

static int place_descriptors(const struct rb_job *job, const struct rb_worker_ends *ends,
                             int *birth, int *landlock) {
    int parked[WORKER_FDS] = {ends->stdin_fd, ends->stdout_fd, ends->stderr_fd};
    int i, parked_birth = park(*birth), parked_landlock = *landlock < 0 ? -1 : park(*landlock);

    memcpy(parked + 3, job->link_fds, sizeof job->link_fds);
    if (parked_birth < 0 || (*landlock >= 0 && parked_landlock < 0)) return -1;
    for (i = 0; i < WORKER_FDS; i++)
        if ((parked[i] = park(parked[i])) < 0) return -1;
    for (i = 0; i < WORKER_FDS; i++)
        if (dup2(parked[i], i) < 0) return -1;
    if (dup3(parked_birth, BIRTH_FD, O_CLOEXEC) < 0) return -1;
    *birth = BIRTH_FD;
    if (*landlock >= 0) {
        if (dup3(parked_landlock, BIRTH_FD + 1, O_CLOEXEC) < 0) return -1;
        *landlock = BIRTH_FD + 1;
    }
    return (int)syscall(SYS_close_range, BIRTH_FD + (*landlock >= 0 ? 2 : 1), ~0U, 0);
}

/* Ignored signals and the mask survive an exec; the worker starts with neither. */
static void reset_signals(void) {
    sigset_t none;
    int signum;
    /* Refused for SIGKILL, SIGSTOP and the C library's own two: there is nothing to reset. */
    for (signum = 1; signum < NSIG; signum++) signal(signum, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void collect(const char *at, uint32_t count, char **pointers) {
    uint32_t i;
    for (i = 0; i < count; i++, at += strlen(at) + 1) pointers[i] = (char *)at;
    pointers[count] = NULL;
}

/* A cap on memory that no control group keeps is kept by the address space. */
static uint32_t join_groups(const struct rb_job *job, int born_into) {
    uint32_t flags = rb_join_groups_async_signal_safe(job->control, born_into);
    if (job->memory_bytes != 0 && !(flags & RB_STARTED_MEMORY_GROUP))
        flags |= RB_STARTED_ADDRESS_LIMIT;
    return flags;
}

void rb_exec_worker_async_signal_safe(const struct rb_job *job, const struct rb_worker_ends *ends,
                                      pid_t parent, int born_into) {
    char *argv[RB_SHEPHERD_ARGC_MAX + 1], *env[RB_SHEPHERD_ENVC_MAX + 1];
    int birth = ends->birth, landlock = job->landlock_fd;
    uint32_t flags = join_groups(job, born_into), step;

    if (enter_group(job, birth, parent, flags) != 0) fail(birth, RB_STEP_SESSION);
    if ((job->flags & RB_START_TERMINAL) && ioctl(ends->stdin_fd, TIOCSCTTY, 0) != 0)
        fail(birth, RB_STEP_TERMINAL);
    if (place_descriptors(job, ends, &birth, &landlock) != 0) fail(birth, RB_STEP_DESCRIPTORS);
    step = rb_give_up_rights_async_signal_safe(job, flags);
    if (step != 0) fail(birth, step);
    if (die_with(parent) != 0) fail(birth, RB_STEP_SESSION);
    if (job->cwd[0] != 0 && chdir(job->cwd) != 0) fail(birth, RB_STEP_CWD);
    reset_signals();
    step = rb_enter_sandbox_async_signal_safe(job, landlock);
    if (step != 0) fail(birth, step);
    collect(job->argv, job->argc, argv);
    collect(job->env, job->envc, env);
    execve(job->argv, argv, env); /* the first of its strings is the path */
    fail(birth, RB_STEP_EXEC);
}
