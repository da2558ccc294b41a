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
 *   shepherd  socket to the bridge, life, signalfd, the worker's pidfd; its stdin if START said so
 *   init      life, obituary, signalfd
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

/* What START asked for, checked. The strings stay in the message's own buffer. */
struct rb_job {
    uint32_t flags;
    uint32_t grace_ms;
    uint32_t argc;
    uint32_t envc;
    const char *cwd;  /* "" = as it is */
    const char *argv; /* argc strings, one after the other */
    const char *env;  /* envc strings */
    int link_fds[RB_SHEPHERD_LINK_FDS];
    int obituary_fd;
    int landlock_fd; /* -1 = none */
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

/* Check START and its descriptors. Returns NULL and fills `job`, or the rule that was broken. */
const char *rb_parse_start(char *message, size_t size, const int *fds, size_t count,
                           struct rb_job *job);

struct rusage;
/* The seven figures of rb_message_exited, from user_us on. */
void rb_put_usage(uint64_t figures[7], const struct rusage *usage);

void rb_close(int *fd); /* closes once, sets -1 */
int64_t rb_now_ms(void);
int64_t rb_now_us(void);

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

/* fork(2) with namespace flags, without the C library's own ideas of what a fork is. */
pid_t rb_clone(unsigned long flags);

/* init.c, exec.c, sweep.c, oom.c, footprint.c ------------------------------------------------- */

void rb_run_init(const struct rb_job *job, const struct rb_worker_ends *ends, int life,
                 int in_namespace) __attribute__((noreturn));

/* In the child: become the worker. Only async-signal-safe calls; never returns. */
void rb_exec_worker_async_signal_safe(const struct rb_job *job, const struct rb_worker_ends *ends,
                                      pid_t parent) __attribute__((noreturn));

/* Tell the shepherd that a step of the birth failed. */
void rb_report_failed_birth(int birth, int error, uint32_t step);

/* SIGKILL every child of this process and reap it, until none is left: as a subreaper inherits
 * orphans, that is the whole tree. Where the kernel lists no children (no /proc), only `group`
 * is ended. */
void rb_sweep_children(pid_t group);

/* The kernel's count of OOM kills since boot, 0 when it cannot be read. */
uint64_t rb_oom_kills(void);

/* Give back the text pages that only the start needed; they come again on demand. */
void rb_forget_startup(void);

/* shepherd.c ----------------------------------------------------------------------------------- */

int rb_shepherd_run(int bridge);

#endif
