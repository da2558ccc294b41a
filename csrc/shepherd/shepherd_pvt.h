/* shepherd_pvt.h: what the shepherd's own files share.
 *
 *   bridge ==socket==> shepherd --clone--> init --clone--> worker
 *                                          PID 1           PID 2 of the worker's namespace
 *
 * Between shepherd and init lie two socket pairs:
 *   life   held by the shepherd and the init for as long as they live: the word to go, the worker's
 *          end, and by its end of file the death of the other one.
 *   birth  held by the shepherd and, until its exec, by the worker: who it is, why it failed; end
 *          of file = it runs.
 *
 * Who holds which descriptor, once the worker runs:
 *   shepherd  socket to the bridge, life, signalfd, the worker's pidfd; its stdin if START said so;
 *             its terminal's master and its control groups, if it has any
 *   init      life, obituary, signalfd; the OOM count of the worker's memory group
 *   worker    0..8
 * Nobody but the worker holds the link, so its memory is freed with the worker's and the bridge's
 * last descriptor.
 */
#ifndef RINGBRIDGE_SHEPHERD_PVT_H
#define RINGBRIDGE_SHEPHERD_PVT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ringbridge/shepherd_protocol.h"

#define RB_BRIDGE_GONE_GRACE_MS 500 /* a dead bridge leaves nothing behind after a second */
#define RB_ORPHAN_MS 700  /* the init acts by itself when the shepherd should have and did not */
#define RB_LINGER_MS 1000 /* a killed tree is gone in milliseconds; past this we say it is not */
#define RB_START_FDS_MAX (RB_SHEPHERD_LINK_FDS + 4) /* obituary, ruleset, two places for groups */

/* One control group of a worker (group.c); descriptors are -1 where there is none. */
struct rb_group {
    int place;     /* the directory that it is in */
    int directory; /* its own */
    int procs;     /* who writes "0" here moves in */
    int kill;      /* who writes "1" here ends it */
    int events;    /* of a memory group: its count of OOM kills */
    int made;
    int joined_by_birth; /* of version 2: a process is born into it */
};

struct rb_groups {
    struct rb_group memory; /* with a limit; of version 2 it can be killed, too */
    struct rb_group kill;   /* for that alone, beside a memory group of version 1 or none */
    int error;              /* errno that made one impossible */
    char name[RB_SHEPHERD_NAME_MAX];
};

/* What START asked for, checked. The strings stay in the message's own buffer. */
struct rb_job {
    uint32_t flags;
    uint32_t grace_ms;
    uint32_t argc;
    uint32_t envc;
    uint32_t limitc;
    uint32_t groupc;
    uint32_t uid; /* with RB_START_USER */
    uint32_t gid;
    uint32_t syscalls; /* RB_SYSCALLS_* */
    int32_t nice;
    uint64_t memory_bytes; /* 0 = no cap */
    uint64_t address_bytes;
    struct rb_message_limit limits[RB_SHEPHERD_LIMITS_MAX];
    uint32_t groups[RB_SHEPHERD_GROUPS_MAX];
    const char *cwd;        /* "" = as it is */
    const char *group_name; /* "" = none */
    const char *argv;       /* argc strings, one after the other */
    const char *env;        /* envc strings */
    int link_fds[RB_SHEPHERD_LINK_FDS];
    int obituary_fd;
    int landlock_fd; /* -1 = none, as the next two */
    int memory_place;
    int kill_place;
    const struct rb_groups *control; /* what was made there */
};

/* The worker's ends of stdio and of the birth socket; all are closed in the shepherd once the
 * init exists. */
struct rb_worker_ends {
    int stdin_fd;
    int stdout_fd;
    int stderr_fd;
    int birth;
};

enum { RB_BIRTH_HELLO = 1, RB_BIRTH_FAILED = 2 };

/* Worker (before exec) or init -> shepherd, on the birth socket. HELLO carries the worker's
 * pidfd. */
struct rb_birth_note {
    uint32_t kind;
    int32_t error;
    uint32_t step;
    uint32_t flags; /* of HELLO: RB_STARTED_*, as far as the worker itself knows best */
};

/* Init -> shepherd, on the life socket: the worker ended so. */
struct rb_life_note {
    int32_t status;
    uint32_t signal;
    uint32_t flags; /* RB_EXITED_CORE, RB_EXITED_OOM */
    uint32_t reserved;
    uint64_t usage[7]; /* as in rb_message_exited, from user_us on */
};

/* message.c ------------------------------------------------------------------------------------ */

/* Send one packet with `count` descriptors, never waiting. Returns 0, or -errno (-EAGAIN: the
 * peer does not read). */
int rb_send(int socket_fd, const void *data, size_t size, const int *fds, size_t count);

/* Receive one packet without waiting. Returns its size; 0 at end of file; -EAGAIN when there is
 * none, -EMSGSIZE when packet or descriptors did not fit (then no descriptor is kept). `*count`
 * is capacity in, number out; the descriptors are close-on-exec and the caller's. `*sender` (may
 * be NULL) is the sender's pid, in our namespace, when the socket has SO_PASSCRED, else 0. */
ssize_t rb_receive(int socket_fd, void *data, size_t size, int *fds, size_t *count, pid_t *sender);

struct rusage;
/* The seven figures of rb_message_exited, from user_us on. */
void rb_put_usage(uint64_t figures[7], const struct rusage *usage);

void rb_close(int *fd); /* closes once, sets -1 */
int64_t rb_now_ms(void);
int64_t rb_now_us(void);

/* Write `value` in decimal at `at`, without a NUL; returns the end. Async-signal-safe. */
char *rb_put_decimal(char *at, uint64_t value);

/* start.c -------------------------------------------------------------------------------------- */

/* Check START and its descriptors. Returns NULL and fills `job`, whose strings stay in `message`;
 * or the rule that was broken. */
const char *rb_parse_start(const char *message, size_t size, const int *fds, size_t count,
                           struct rb_job *job);

/* group.c -------------------------------------------------------------------------------------- */

void rb_no_groups(struct rb_groups *groups); /* nothing made yet */

/* Make what START asks for. A group that cannot be made is none, and `groups->error` says why. */
void rb_make_groups(const struct rb_job *job, struct rb_groups *groups);

/* The directory of the group that a worker is to be born into, or -1. */
int rb_group_of_birth(const struct rb_groups *groups);

/* In the child: move into the groups into which it was not born. Returns the RB_STARTED_* that
 * then hold. */
uint32_t rb_join_groups_async_signal_safe(const struct rb_groups *groups, int born_into);

void rb_kill_groups(const struct rb_groups *groups); /* SIGKILL to all that is in them */
void rb_remove_groups(struct rb_groups *groups);     /* may be repeated */

/* clone.c -------------------------------------------------------------------------------------- */

/* fork(2) with namespace flags, without the C library's own ideas of what a fork is. */
pid_t rb_clone(unsigned long flags);

/* The same, born into a control group of version 2. Returns -errno where that cannot be. */
pid_t rb_clone_into_group(int group);

/* family.c ------------------------------------------------------------------------------------- */

struct rb_family {
    pid_t init_pid;
    uint32_t flags;      /* RB_STARTED_* about namespaces */
    int namespace_error; /* why there is none, 0 otherwise */
};

/* Start the init in the strongest form the kernel allows, and tell it to go. `life` and `ends`
 * are what the init is to have. Returns 0 and fills `family`, or -errno. */
int rb_start_family(const struct rb_job *job, const struct rb_worker_ends *ends, const int life[2],
                    struct rb_family *family);

/* init.c, exec.c, confine.c, seccomp.c -------------------------------------------------------- */

void rb_run_init(const struct rb_job *job, const struct rb_worker_ends *ends, int life,
                 int in_namespace) __attribute__((noreturn));

/* In the child: become the worker. `born_into`: the control group, -1 = none. Only
 * async-signal-safe calls; never returns. */
void rb_exec_worker_async_signal_safe(const struct rb_job *job, const struct rb_worker_ends *ends,
                                      pid_t parent, int born_into) __attribute__((noreturn));

/* In the child, with its descriptors in place: limits, privileges, user. `flags`: RB_STARTED_*
 * that hold. Returns 0, or the RB_STEP_* that failed, with errno. */
uint32_t rb_give_up_rights_async_signal_safe(const struct rb_job *job, uint32_t flags);

/* The last thing before exec: Landlock and the filter. Returns as above. */
uint32_t rb_enter_sandbox_async_signal_safe(const struct rb_job *job, int landlock);

int rb_filters_syscalls(const struct rb_job *job);

/* Put a filter of system calls in force (RB_SYSCALLS_*). Async-signal-safe. Returns 0 or -errno. */
int rb_filter_syscalls(uint32_t syscalls, int no_network);

/* Tell the shepherd that a step of the birth failed. */
void rb_report_failed_birth(int birth, int error, uint32_t step);

/* terminal.c, report.c ------------------------------------------------------------------------- */

/* No controlling terminal, and a process group of our own. Returns 0 or -errno. */
int rb_leave_terminal(void);
/* Both ends are the caller's. Returns 0 or -errno. */
int rb_open_terminal(int *master, int *slave);
int rb_resize_terminal(int master, uint32_t rows, uint32_t columns);
void rb_type_end_of_file(int master); /* unless the program has switched lines off */

/* All of a report but its state. */
void rb_put_report(struct rb_message_report *report, pid_t pid, const struct rb_groups *groups);

/* sweep.c, oom.c, footprint.c ------------------------------------------------------------------ */

/* SIGKILL every child of this process and reap it, until none is left: as a subreaper inherits
 * orphans, that is the whole tree. Where the kernel lists no children (no /proc), only `group`
 * is ended. */
void rb_sweep_children(pid_t group);

/* The count of OOM kills: of a memory group (its `events`), or where that is -1 the kernel's since
 * boot. 0 when it cannot be read. */
uint64_t rb_oom_kills(int group_events);

/* Give back the text pages that only the start needed; they come again on demand. */
void rb_forget_startup(void);

/* loop.c --------------------------------------------------------------------------------------- */

/* Block every signal and return a signalfd of those that a shepherd hears (CHLD, TERM, INT, HUP); -1
 * with errno. */
int rb_open_signals(void);

/* What poll(2) is to wait for a deadline of rb_now_ms()'s clock, ms; -1 without one (0). At most an
 * hour: who is woken looks again. */
int rb_wait_ms(int64_t deadline_ms);

/* shepherd.c ----------------------------------------------------------------------------------- */

int rb_shepherd_run(int bridge);

#endif
