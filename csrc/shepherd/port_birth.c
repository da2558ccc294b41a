/* port_birth.c: from START to a running bridge. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "port_pvt.h"
#include "shepherd_pvt.h"

/* Above all numbers that the program is given, so that none lies where another belongs. */
#define PARKED_MIN 16

static int make_pipe(int ends[2]) {
    int i;
    if (pipe2(ends, O_CLOEXEC) != 0) return -errno;
    for (i = 0; i < 2; i++) {
        int low = ends[i];
        ends[i] = fcntl(low, F_DUPFD_CLOEXEC, PARKED_MIN);
        close(low);
        if (ends[i] < 0) return -errno;
    }
    return 0;
}

static void close_pipe(int ends[2]) {
    rb_close(&ends[0]);
    rb_close(&ends[1]);
}

/* What the child says of a step that failed, on a pipe that its exec closes. */
struct failure {
    int error;
    char step[32];
};

static void fail(int tell, const char *step) __attribute__((noreturn));
static void fail(int tell, const char *step) {
    struct failure failure = {errno, ""};
    ssize_t ignored;
    strncpy(failure.step, step, sizeof failure.step - 1);
    ignored = write(tell, &failure, sizeof failure);
    (void)ignored;
    _exit(127);
}

static void collect(const char *at, uint32_t count, char **pointers) {
    uint32_t i;
    for (i = 0; i < count; i++, at += strlen(at) + 1) pointers[i] = (char *)at;
    pointers[count] = NULL;
}

/* Only async-signal-safe calls. */
static void become(const struct rb_port_order *order, pid_t parent, int input, int output,
                   int ready, int tell) __attribute__((noreturn));
static void become(const struct rb_port_order *order, pid_t parent, int input, int output,
                   int ready, int tell) {
    static char *argv[RB_PORT_ARGC_MAX + 1], *env[RB_PORT_ENVC_MAX + 1];
    sigset_t none;
    int signum;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) fail(tell, "parent death signal");
    if (getppid() != parent) _exit(127); /* it died before we asked to die with it */
    if (setsid() < 0) fail(tell, "session");
    if (dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0 ||
        dup2(ready, RB_PORT_READY_FD) < 0)
        fail(tell, "descriptors");
    if (order->directory[0] != 0 && chdir(order->directory) != 0) fail(tell, "directory");
    /* Ignored signals and the mask survive an exec; a BEAM ignores some. SIGKILL, SIGSTOP: refused, nothing to do. */
    for (signum = 1; signum < NSIG; signum++) signal(signum, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    collect(order->argv, order->argc, argv);
    collect(order->env, order->envc, env);
    execve(argv[0], argv,
           env); /* closes the rest: all of ours are close-on-exec, the BEAM's are gone (main.c) */
    fail(tell, argv[0] != NULL ? "program" : "");
}

static int put_input(int pipe_end, const struct rb_port_order *order) {
    ssize_t put = order->stdin_bytes > 0 ? write(pipe_end, order->input, order->stdin_bytes) : 0;
    return put == (ssize_t)order->stdin_bytes ? 0 : -EIO;
}

/* Wait for the exec. Returns 0, or -errno with the step, the child reaped. */
static int await_exec(int listen, pid_t pid, const char **step) {
    static struct failure failure;
    ssize_t got;

    do got = read(listen, &failure, sizeof failure);
    while (got < 0 && errno == EINTR);
    if (got == 0) return 0; /* also when it was killed first: it is reaped as any that has ended */
    waitpid(pid, NULL, 0);
    *step = failure.step;
    return -failure.error;
}

int rb_port_give_birth(const struct rb_port_order *order, struct rb_port *port, const char **step) {
    int input[2] = {-1, -1}, output[2] = {-1, -1}, ready[2] = {-1, -1}, exec[2] = {-1, -1};
    pid_t self = getpid(), pid = -1;
    int result = make_pipe(input);

    *step = "pipes";
    if (result == 0) result = make_pipe(output);
    if (result == 0) result = make_pipe(ready);
    if (result == 0) result = make_pipe(exec);
    if (result == 0) result = put_input(input[1], order);
    if (result == 0) {
        *step = "fork";
        pid = fork();
        if (pid < 0) result = -errno;
        if (pid == 0) become(order, self, input[0], output[1], ready[1], exec[1]);
    }
    rb_close(&exec[1]);
    if (result == 0) result = await_exec(exec[0], pid, step);
    if (result == 0) {
        fcntl(output[0], F_SETFL, O_NONBLOCK);
        fcntl(ready[0], F_SETFL, O_NONBLOCK);
        port->pid = pid;
        port->output = output[0];
        port->ready = ready[0];
        output[0] = ready[0] = -1;
    }
    close_pipe(input);
    close_pipe(output);
    close_pipe(ready);
    close_pipe(exec);
    return result;
}
