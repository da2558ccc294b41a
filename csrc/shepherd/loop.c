/* loop.c: what both kinds of shepherd wait with, a worker's (shepherd.c) and a bridge's (port.c). */
#include <signal.h>
#include <sys/signalfd.h>

#include "shepherd_pvt.h"

int rb_open_signals(void) {
    sigset_t all, ours;

    /* All are blocked, so that no stray signal but SIGKILL takes the shepherd from its tree. */
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    signal(SIGCHLD, SIG_DFL); /* ignored, it would reap the child behind our back (waitpid(2)) */
    sigemptyset(&ours);
    sigaddset(&ours, SIGCHLD);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGHUP);
    return signalfd(-1, &ours, SFD_NONBLOCK | SFD_CLOEXEC);
}

int rb_wait_ms(int64_t deadline_ms) {
    int64_t left_ms;
    if (deadline_ms == 0) return -1;
    left_ms = deadline_ms - rb_now_ms();
    return left_ms > 0 ? (left_ms < 3600000 ? (int)left_ms : 3600000) : 0;
}
