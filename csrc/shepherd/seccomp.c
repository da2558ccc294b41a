/* seccomp.c: which system calls a worker may make, as a filter that its exec inherits.
 *
 * Two lists, by RB_SYSCALLS_* of START:
 *   GUARDED  all but those that reach into other processes, into the kernel or into the machine:
 *            nothing that computes needs one of them, and each is a way to another's memory.
 *   STRICT   only those that computing takes, once files are open or openable by name: memory,
 *            threads, time, files, waiting. No process is made and no socket. exec stays possible:
 *            the filter is there before the worker's own exec; what it runs then has it, too.
 * A call that is refused fails with EPERM, so that a program can say which one it was.
 *
 * clone3 fails with ENOSYS in both: a filter cannot see its arguments, and the C libraries fall
 * back to clone. A filter is inherited and cannot be taken off (seccomp(2)); it needs no_new_privs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shepherd_pvt.h"

#if defined(__x86_64__)
#define THIS_MACHINE AUDIT_ARCH_X86_64
#define X32_SYSCALL_BIT 0x40000000u /* a second table of calls behind the same machine (x32) */
#elif defined(__aarch64__)
#define THIS_MACHINE AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define THIS_MACHINE AUDIT_ARCH_RISCV64
#else
#error "seccomp.c does not know this machine"
#endif

#define NAMESPACES                                                                                \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | \
     CLONE_NEWNET)
#define FILTER_MAX 512

static const int forbidden[] = {
    /* other processes */
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_kcmp,
#ifdef SYS_pidfd_getfd
    SYS_pidfd_getfd,
#endif
#ifdef SYS_process_madvise
    SYS_process_madvise,
#endif
    /* namespaces, mounts, files by handle instead of by name */
    SYS_setns,
    SYS_unshare,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_open_by_handle_at,
#ifdef SYS_move_mount
    SYS_open_tree,
    SYS_move_mount,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
#endif
#ifdef SYS_mount_setattr
    SYS_mount_setattr,
#endif
    /* the kernel */
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    /* the machine */
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_quotactl,
    SYS_syslog,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_adjtimex,
    SYS_clock_adjtime,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_vhangup,
#ifdef SYS_iopl
    SYS_iopl,
    SYS_ioperm,
#endif
};

static const int allowed[] = {
    /* files and what is open */
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_preadv,
    SYS_pwritev,
    SYS_preadv2,
    SYS_pwritev2,
    SYS_openat,
    SYS_close,
    SYS_close_range,
    SYS_lseek,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_statfs,
    SYS_fstatfs,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_readlinkat,
    SYS_getdents64,
    SYS_getcwd,
    SYS_chdir,
    SYS_fchdir,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fsync,
    SYS_fdatasync,
    SYS_fadvise64,
    SYS_readahead,
    SYS_sync_file_range,
    SYS_flock,
    SYS_fcntl,
    SYS_ioctl,
    SYS_dup,
    SYS_dup3,
    SYS_pipe2,
    SYS_splice,
    SYS_tee,
    SYS_sendfile,
    SYS_copy_file_range,
    SYS_mkdirat,
    SYS_unlinkat,
    SYS_renameat2,
    SYS_symlinkat,
    SYS_linkat,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_utimensat,
    SYS_umask,
    SYS_memfd_create,
    /* memory */
    SYS_brk,
    SYS_mmap,
    SYS_munmap,
    SYS_mremap,
    SYS_mprotect,
    SYS_madvise,
    SYS_mincore,
    SYS_msync,
    SYS_mlock,
    SYS_mlock2,
    SYS_munlock,
    SYS_mbind,
    SYS_get_mempolicy,
    SYS_set_mempolicy,
    SYS_membarrier,
    /* itself and its threads; clone is looked at closer */
    SYS_execve,
    SYS_exit,
    SYS_exit_group,
    SYS_futex,
    SYS_set_robust_list,
    SYS_get_robust_list,
    SYS_set_tid_address,
    SYS_rseq,
    SYS_gettid,
    SYS_getpid,
    SYS_getppid,
    SYS_getpgid,
    SYS_getsid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getresuid,
    SYS_getresgid,
    SYS_getgroups,
    SYS_prctl,
    SYS_prlimit64,
    SYS_getrusage,
    SYS_sysinfo,
    SYS_uname,
    SYS_times,
    SYS_getcpu,
    SYS_getpriority,
    SYS_setpriority,
    SYS_capget,
    SYS_getrandom,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_sched_setaffinity,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_sched_get_priority_max,
    SYS_sched_get_priority_min,
    SYS_sched_getattr,
    /* signals and time */
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_rt_sigpending,
    SYS_rt_sigtimedwait,
    SYS_rt_sigsuspend,
    SYS_rt_sigqueueinfo,
    SYS_sigaltstack,
    SYS_kill,
    SYS_tkill,
    SYS_tgkill,
    SYS_signalfd4,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_gettimeofday,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_setitimer,
    SYS_getitimer,
    SYS_timer_create,
    SYS_timer_settime,
    SYS_timer_gettime,
    SYS_timer_getoverrun,
    SYS_timer_delete,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_timerfd_gettime,
    SYS_restart_syscall,
    /* waiting, and words on sockets that it was given */
    SYS_ppoll,
    SYS_pselect6,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_eventfd2,
    SYS_sendto,
    SYS_recvfrom,
    SYS_sendmsg,
    SYS_recvmsg,
    SYS_sendmmsg,
    SYS_recvmmsg,
    SYS_shutdown,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_getsockname,
    SYS_getpeername,
#ifdef SYS_getrlimit
    SYS_getrlimit,
    SYS_setrlimit,
#endif
#ifdef SYS_futex_waitv
    SYS_futex_waitv,
#endif
#ifdef SYS_epoll_pwait2
    SYS_epoll_pwait2,
#endif
#ifdef SYS_pidfd_open
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
#endif
#ifdef __x86_64__ /* the older forms of what stands above */
    SYS_open,
    SYS_stat,
    SYS_lstat,
    SYS_access,
    SYS_readlink,
    SYS_getdents,
    SYS_truncate,
    SYS_dup2,
    SYS_pipe,
    SYS_mkdir,
    SYS_rmdir,
    SYS_unlink,
    SYS_rename,
    SYS_renameat,
    SYS_link,
    SYS_symlink,
    SYS_chmod,
    SYS_utimes,
    SYS_poll,
    SYS_select,
    SYS_epoll_create,
    SYS_epoll_wait,
    SYS_eventfd,
    SYS_signalfd,
    SYS_time,
    SYS_alarm,
    SYS_pause,
    SYS_getpgrp,
    SYS_arch_prctl,
#endif
};

struct filter {
    struct sock_filter code[FILTER_MAX];
    unsigned short size;
};

static void put(struct filter *f, unsigned code, uint32_t k, unsigned yes, unsigned no) {
    if (f->size < FILTER_MAX)
        f->code[f->size] = (struct sock_filter){(uint16_t)code, (uint8_t)yes, (uint8_t)no, k};
    f->size++;
}

static void load(struct filter *f, size_t offset) {
    put(f, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void answer(struct filter *f, uint32_t what) { put(f, BPF_RET | BPF_K, what, 0, 0); }

static uint32_t fails_with(int error) { return SECCOMP_RET_ERRNO | (uint32_t)error; }

/* Jumps count the instructions that are left out. */
static void if_is(struct filter *f, uint32_t value, uint32_t what) {
    put(f, BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    answer(f, what);
}

static void if_has(struct filter *f, uint32_t bits, uint32_t what) {
    put(f, BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1);
    answer(f, what);
}

/* `call` is decided by its first argument, whose lower half is then loaded: five instructions of
 * which `decide` is two. */
static void if_argument(struct filter *f, int call,
                        void decide(struct filter *, uint32_t, uint32_t), uint32_t value,
                        uint32_t then, uint32_t otherwise) {
    put(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 4);
    load(f, offsetof(struct seccomp_data, args)); /* little endian: the lower half comes first */
    decide(f, value, then);
    answer(f, otherwise);
}

static void build(struct filter *f, uint32_t syscalls, int no_network) {
    const uint32_t yes = SECCOMP_RET_ALLOW, no = fails_with(EPERM);
    size_t i;

    f->size = 0;
    load(f, offsetof(struct seccomp_data, arch));
    put(f, BPF_JMP | BPF_JEQ | BPF_K, THIS_MACHINE, 1, 0);
    answer(f, SECCOMP_RET_KILL_PROCESS); /* 32-bit calls have other numbers: none is meant */
    load(f, offsetof(struct seccomp_data, nr));
#ifdef X32_SYSCALL_BIT
    put(f, BPF_JMP | BPF_JGE | BPF_K, X32_SYSCALL_BIT, 0, 1);
    answer(f, fails_with(ENOSYS));
#endif
    if (no_network && syscalls != RB_SYSCALLS_STRICT) { /* in which there is no socket at all */
        if_argument(f, SYS_socket, if_is, AF_UNIX, yes, fails_with(EACCES));
#ifdef SYS_io_uring_setup
        if_is(f, SYS_io_uring_setup, no); /* its own way to a socket, past every filter */
#endif
    }
    if (syscalls != RB_SYSCALLS_ANY) {
#ifdef SYS_clone3
        if_is(f, SYS_clone3, fails_with(ENOSYS));
#endif
    }
    if (syscalls == RB_SYSCALLS_GUARDED) {
        if_argument(f, SYS_clone, if_has, NAMESPACES, no, yes);
        for (i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
            if_is(f, (uint32_t)forbidden[i], no);
    }
    if (syscalls == RB_SYSCALLS_STRICT) {
        if_argument(f, SYS_clone, if_has, CLONE_THREAD, yes, no);
        for (i = 0; i < sizeof allowed / sizeof *allowed; i++) if_is(f, (uint32_t)allowed[i], yes);
    }
    answer(f, syscalls == RB_SYSCALLS_STRICT ? no : yes);
}

int rb_filter_syscalls(uint32_t syscalls, int no_network) {
    struct filter filter;
    struct sock_fprog program = {0, filter.code};

    build(&filter, syscalls, no_network);
    if (filter.size > FILTER_MAX) return -E2BIG;
    program.len = filter.size;
    /* SPEC_ALLOW: before 5.16 a filter would else slow the worker down by mitigations (prctl(2),
     * PR_SET_SPECULATION_CTRL), which shield those who run code of others in one process. */
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) ==
        0)
        return 0;
    return -errno;
}
