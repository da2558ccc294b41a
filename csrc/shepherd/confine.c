/* confine.c: what a worker may not, laid on it step by step before its exec.
 *
 * The order is that of what each step still needs: limits may have to be raised (CAP_SYS_RESOURCE),
 * the bounding set is cut with CAP_SETPCAP, users are changed with CAP_SETUID; after that nothing
 * is held any more. Everything here is async-signal-safe: system calls, by their own names where
 * the C library would do more than that (its setresuid tells other threads).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shepherd_pvt.h"

/* What a worker that runs as root may keep: its way with files, sockets, users and the scheduler.
 * Not what reaches into other processes, the kernel or devices: CAP_PERFMON alone opens the
 * bridge's environment, Landlock or not. Only the bounding set is cut, which root's exec then
 * obeys (capabilities(7)); without CAP_SETPCAP there is nothing to cut. */
static void drop_capabilities(void) {
    static const int kept[] = {
        CAP_CHOWN,  CAP_DAC_OVERRIDE,     CAP_FOWNER,   CAP_FSETID,   CAP_SETGID,
        CAP_SETUID, CAP_NET_BIND_SERVICE, CAP_IPC_LOCK, CAP_SYS_NICE, CAP_SYS_RESOURCE,
    };
    uint64_t kept_mask = 0;
    size_t i;
    int cap;

    for (i = 0; i < sizeof kept / sizeof *kept; i++) kept_mask |= (uint64_t)1 << kept[i];
    for (cap = 0; cap < 64; cap++) {
        if (kept_mask >> cap & 1) continue;
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0 && errno == EINVAL)
            break; /* past the last one that this kernel knows */
    }
}

static int set_limit(int resource, uint64_t value) {
    const struct rlimit limit = {value, value}; /* RB_LIMIT_INFINITY is the kernel's own */
    return setrlimit(resource, &limit);
}

static int set_limits(const struct rb_job *job) {
    uint32_t i;
    for (i = 0; i < job->limitc; i++)
        if (set_limit((int)job->limits[i].resource, job->limits[i].value) != 0) return -1;
    if (job->nice == 0) return 0;
    errno = 0;
    return nice(job->nice) == -1 && errno != 0 ? -1 : 0;
}

/* The stdio pipes are the shepherd's user's: they become the worker's, so that it can open
 * /dev/stdout and the like as anybody can. */
static int change_user(const struct rb_job *job) {
    int fd;
    for (fd = 0; fd <= 2; fd++)
        if (fchown(fd, job->uid, job->gid) != 0) return -1;
    if (syscall(SYS_setgroups, (size_t)job->groupc, job->groups) != 0 ||
        syscall(SYS_setresgid, job->gid, job->gid, job->gid) != 0 ||
        syscall(SYS_setresuid, job->uid, job->uid, job->uid) != 0)
        return -1;
    return 0;
}

uint32_t rb_give_up_rights_async_signal_safe(const struct rb_job *job, uint32_t flags) {
    if (set_limits(job) != 0) return RB_STEP_LIMITS;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return RB_STEP_PRIVILEGES;
    drop_capabilities();
    if ((job->flags & RB_START_USER) && change_user(job) != 0) return RB_STEP_USER;
    if ((flags & RB_STARTED_ADDRESS_LIMIT) && set_limit(RLIMIT_AS, job->address_bytes) != 0)
        return RB_STEP_LIMITS;
    return 0;
}

uint32_t rb_enter_sandbox_async_signal_safe(const struct rb_job *job, int landlock) {
    if (landlock >= 0 && syscall(SYS_landlock_restrict_self, landlock, 0) != 0)
        return RB_STEP_LANDLOCK;
    if (rb_filters_syscalls(job)) {
        errno = -rb_filter_syscalls(job->syscalls, (job->flags & RB_START_NO_NETWORK) != 0);
        if (errno != 0) return RB_STEP_SECCOMP;
    }
    return 0;
}

int rb_filters_syscalls(const struct rb_job *job) {
    return job->syscalls != RB_SYSCALLS_ANY || (job->flags & RB_START_NO_NETWORK) != 0;
}
