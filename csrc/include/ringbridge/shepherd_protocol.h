/* shepherd_protocol.h: the messages between the bridge and a worker's shepherd.
 *
 * One Unix SOCK_SEQPACKET socket: a message is a packet, its descriptors (SCM_RIGHTS) come with it.
 * Both ends are of one build on one machine, so the integers are in the machine's own order.
 * bridge/workers/_shepherd_protocol.py has the same layouts;
 * tests/workers/test_shepherd_protocol.py reads this file and holds the two together.
 *
 *   bridge -> shepherd      descriptors
 *     START                 six of the link (3..8 in the worker), the obituary's write end; then, as
 *                           its flags say, a Landlock ruleset and two directories of control groups
 *     SIGNAL
 *     CLOSE_STDIN           the shepherd lets go of the worker's stdin, if it held it
 *                           (RB_START_HOLD_STDIN); on a terminal: an end of file is typed
 *     STOP                  TERM, grace, KILL of the whole tree
 *     STATUS                answered by REPORT
 *     WINDOW_SIZE           of the worker's terminal (RB_START_TERMINAL)
 *   shepherd -> bridge
 *     STARTED               pidfd of the worker, write end of its stdin, read ends of its stdout
 *                           and stderr (stdin and stdout are both the terminal's master, if it has
 *                           one)
 *     REPORT                how the worker does
 *     EXITED                last message; the whole tree has ended (or RB_EXITED_LINGERS says that
 *                           it has not)
 *     ERROR                 instead of STARTED: nothing runs, and it is the last message.
 *                           After STARTED: a command was not carried out, the worker goes on
 *
 * Who may speak: START's sender must be our parent, as the kernel tells it (SCM_CREDENTIALS), and
 * every command must come from that same process; a descriptor that has leaked commands nobody.
 *
 * Order: START first and once; then STARTED or ERROR; then commands; then EXITED. After EXITED (or
 * a fatal ERROR) the shepherd exits, so end of file without either means that the shepherd itself
 * was killed.
 */
#ifndef RINGBRIDGE_SHEPHERD_PROTOCOL_H
#define RINGBRIDGE_SHEPHERD_PROTOCOL_H

#include <stdint.h>

#define RB_SHEPHERD_VERSION 2
#define RB_SHEPHERD_SOCKET_FD 3 /* where the shepherd finds its socket */

#define RB_SHEPHERD_MESSAGE_MAX 65536 /* bytes of one message; only START comes near */
#define RB_SHEPHERD_ARGC_MAX 256
#define RB_SHEPHERD_ENVC_MAX 512
#define RB_SHEPHERD_LINK_FDS 6
#define RB_SHEPHERD_GROUPS_MAX 64 /* supplementary groups of a user */
#define RB_SHEPHERD_LIMITS_MAX 16 /* more than there are resources */
#define RB_SHEPHERD_NAME_MAX 64   /* bytes of a control group's name, NUL included */

#define RB_MESSAGE_START 1
#define RB_MESSAGE_SIGNAL 2
#define RB_MESSAGE_CLOSE_STDIN 3
#define RB_MESSAGE_STOP 4
#define RB_MESSAGE_STATUS 5
#define RB_MESSAGE_WINDOW_SIZE 6
#define RB_MESSAGE_STARTED 16
#define RB_MESSAGE_EXITED 17
#define RB_MESSAGE_ERROR 18
#define RB_MESSAGE_REPORT 19

struct rb_message_header {
    uint16_t version; /* RB_SHEPHERD_VERSION */
    uint16_t type;    /* RB_MESSAGE_* */
    uint32_t length;  /* of the whole message, this header included */
};

#define RB_START_NO_NAMESPACES 0x1 /* do not try namespaces: a debugger needs to see the tree */
#define RB_START_LANDLOCK 0x2      /* a descriptor more: a ruleset for the worker */
#define RB_START_HOLD_STDIN 0x4    /* the shepherd keeps stdin open too, until CLOSE_STDIN */
#define RB_START_USER 0x8          /* the worker runs as uid, gid and the groups; for root only */
#define RB_START_NO_NETWORK 0x10   /* no socket but those of the Unix domain */
#define RB_START_TERMINAL 0x20     /* stdin and stdout are a pseudo-terminal, the controlling one */
/* A descriptor more each: directories of control groups in which to make a group for the worker:
 * one whose groups have a memory limit, and one of version 2, whose groups have cgroup.kill (sent
 * only where the first one is of version 1, or not there). */
#define RB_START_MEMORY_GROUP 0x40
#define RB_START_KILL_GROUP 0x80

/* Which system calls it may make: shepherd/seccomp.c has the lists. */
#define RB_SYSCALLS_ANY 0     /* all */
#define RB_SYSCALLS_GUARDED 1 /* but those that reach into other processes or change the machine */
#define RB_SYSCALLS_STRICT 2  /* only what computing takes: no process, no socket */

/* Followed by limitc limits, groupc group ids (uint32_t), and strings_bytes of NUL-terminated
 * strings: cwd ("" = the bridge's own), the name of its control groups ("" = none to be made), argc
 * arguments (the first one is also the path to execute), envc entries NAME=value. */
struct rb_message_start {
    struct rb_message_header header;
    uint32_t flags;    /* RB_START_* */
    uint32_t grace_ms; /* between TERM and KILL, unless STOP says otherwise */
    uint32_t argc;
    uint32_t envc;
    uint32_t limitc;
    uint32_t groupc;
    uint32_t uid; /* with RB_START_USER */
    uint32_t gid;
    uint32_t syscalls; /* RB_SYSCALLS_* */
    int32_t nice;      /* added to the bridge's own */
    uint32_t strings_bytes;
    uint32_t reserved;      /* 0 */
    uint64_t memory_bytes;  /* the most that it may use, 0 = no cap: by a control group, or */
    uint64_t address_bytes; /* as this RLIMIT_AS where none can be made */
};

#define RB_LIMIT_INFINITY 0xFFFFFFFFFFFFFFFF

/* One resource limit, soft and hard. */
struct rb_message_limit {
    uint32_t resource; /* RLIMIT_* */
    uint32_t reserved; /* 0 */
    uint64_t value;
};

struct rb_message_signal {
    struct rb_message_header header;
    uint32_t signum;
    uint32_t reserved; /* 0 */
};

struct rb_message_close_stdin {
    struct rb_message_header header;
};

struct rb_message_status {
    struct rb_message_header header;
};

struct rb_message_window_size {
    struct rb_message_header header;
    uint32_t rows; /* 1..65535 */
    uint32_t columns;
};

#define RB_STOP_GRACE_OF_START 0xFFFFFFFF

struct rb_message_stop {
    struct rb_message_header header;
    uint32_t grace_ms; /* or RB_STOP_GRACE_OF_START; 0 = KILL at once */
    uint32_t reserved; /* 0 */
};

#define RB_STARTED_PID_NAMESPACE 0x1  /* the tree ends with its init, whatever it does */
#define RB_STARTED_USER_NAMESPACE 0x2 /* that took a user namespace too (not root) */
#define RB_STARTED_SUBREAPER 0x4      /* none to be had: docs/shepherd.md says what then holds */
#define RB_STARTED_LANDLOCK 0x8       /* the ruleset of START is in force */
#define RB_STARTED_SECCOMP 0x10       /* a system call filter is */
#define RB_STARTED_MEMORY_GROUP 0x20  /* the memory cap is that of a control group, tree and all */
#define RB_STARTED_ADDRESS_LIMIT 0x40 /* it is RLIMIT_AS, of each process */
#define RB_STARTED_KILL_GROUP 0x80    /* the tree is in a group that can be killed as a whole */

struct rb_message_started {
    struct rb_message_header header;
    uint32_t flags;          /* RB_STARTED_* */
    int32_t worker_pid;      /* as the bridge sees it; inside its namespace the worker is PID 2 */
    int32_t init_pid;        /* as the bridge sees it */
    int32_t namespace_error; /* errno that made namespaces impossible, 0 = none */
    uint32_t spawn_us;       /* from START's arrival to the end of the worker's exec */
    int32_t group_error;     /* errno that made a control group impossible, 0 = none */
};

#define RB_EXITED_CORE 0x1      /* a core was dumped */
#define RB_EXITED_OOM 0x2       /* most likely the OOM killer */
#define RB_EXITED_STOPPED 0x4   /* asked for: STOP, the bridge's death, SIGTERM to the shepherd */
#define RB_EXITED_INIT_LOST 0x8 /* the init was killed, after the grace or by someone else */
#define RB_EXITED_LINGERS 0x10  /* something of the tree is in uninterruptible sleep */

struct rb_message_exited {
    struct rb_message_header header;
    int32_t status;  /* exit code 0..255, or -1 when a signal ended the worker */
    uint32_t signal; /* or 0 */
    uint32_t flags;  /* RB_EXITED_* */
    uint32_t reserved;
    uint64_t user_us; /* the worker and all descendants that it waited for (getrusage(2)) */
    uint64_t system_us;
    uint64_t rss_max_kib;
    uint64_t minor_faults;
    uint64_t major_faults;
    uint64_t switches_voluntary;
    uint64_t switches_involuntary;
};

#define RB_REPORT_RUNNING 1
#define RB_REPORT_STOPPING 2 /* TERM is sent, the grace runs */
#define RB_REPORT_KILLING 3
#define RB_REPORT_LEAVING 4 /* it has ended, the rest of its tree is being ended */

/* Figures are of the worker's own process, those of /proc; all 0 where that cannot be read. */
struct rb_message_report {
    struct rb_message_header header;
    uint32_t state;   /* RB_REPORT_* */
    uint32_t process; /* its state as proc(5) has it: 'R', 'S', 'D', 'T', ...; 0 = unknown */
    uint32_t threads;
    uint32_t grace_left_ms; /* while STOPPING */
    uint64_t user_us;
    uint64_t system_us;
    uint64_t rss_bytes;
    uint64_t memory_bytes; /* of its control group, with all that its tree has; 0 = no group */
    uint64_t age_us;       /* since START arrived */
};

#define RB_STEP_MESSAGE 1     /* the bridge broke a rule of this file; the text says which */
#define RB_STEP_PIPES 2       /* stdio pipes and the sockets to the init */
#define RB_STEP_INIT 3        /* clone of the init, or it was killed before the worker ran */
#define RB_STEP_WORKER 4      /* clone of the worker */
#define RB_STEP_SESSION 5     /* its group or session, parent death signal, pidfd */
#define RB_STEP_DESCRIPTORS 6 /* placing 0..8 and closing the rest */
#define RB_STEP_CWD 7
#define RB_STEP_PRIVILEGES 8 /* no_new_privs */
#define RB_STEP_LANDLOCK 9
#define RB_STEP_EXEC 10
#define RB_STEP_SIGNAL 11
#define RB_STEP_LIMITS 12
#define RB_STEP_USER 13
#define RB_STEP_TERMINAL 14 /* making it, or its window size */
#define RB_STEP_SECCOMP 15

/* Followed by a text of length - sizeof bytes, without NUL: the path or rule in question. */
struct rb_message_error {
    struct rb_message_header header;
    int32_t error; /* errno */
    uint32_t step; /* RB_STEP_* */
};

#define RB_ASSERT_BYTES(name, bytes) \
    typedef char name##_has_##bytes##_bytes[sizeof(struct name) == (bytes) ? 1 : -1]

RB_ASSERT_BYTES(rb_message_header, 8);
RB_ASSERT_BYTES(rb_message_start, 72);
RB_ASSERT_BYTES(rb_message_limit, 16);
RB_ASSERT_BYTES(rb_message_signal, 16);
RB_ASSERT_BYTES(rb_message_close_stdin, 8);
RB_ASSERT_BYTES(rb_message_stop, 16);
RB_ASSERT_BYTES(rb_message_status, 8);
RB_ASSERT_BYTES(rb_message_window_size, 16);
RB_ASSERT_BYTES(rb_message_started, 32);
RB_ASSERT_BYTES(rb_message_exited, 80);
RB_ASSERT_BYTES(rb_message_report, 64);
RB_ASSERT_BYTES(rb_message_error, 16);

#endif
