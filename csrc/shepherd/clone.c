/* clone.c: a new process, by the kernel's own call. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shepherd_pvt.h"

pid_t rb_clone(unsigned long flags) {
    /* All other arguments are 0, so their order, which differs between machines, does not
     * matter. */
    return (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
}

pid_t rb_clone_into_group(int group) {
    struct clone_args how = {
        .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)group};
    pid_t pid = (pid_t)syscall(SYS_clone3, &how, sizeof how);
    return pid < 0 ? -errno : pid;
}
