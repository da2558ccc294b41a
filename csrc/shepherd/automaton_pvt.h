/* automaton_pvt.h: the shepherd's states, events and memory.
 *
 * Rules
 *   - Nothing runs before START and nothing is left after GONE.
 *   - The bridge hears STARTED or a fatal ERROR once, and after STARTED exactly one EXITED, sent
 *     when the tree is gone.
 *   - The bridge's death is a STOP with a short grace.
 *   - A later witness asks the earlier ones first: the init's end is acted on after all that the
 *     init said, and the worker's end after all that the worker said. So no order of wake-ups shows
 *     an effect before its cause.
 *
 *              START           exec            TERM or bridge gone      grace over
 *     WAITING -------> BIRTH --------> RUNNING -------------------> STOPPING -----> KILLING
 *                        |                | worker ended               |               |
 *                        | failed         v                            |               |
 *                        |             LEAVING <-----------------------+               |
 *                        +--> KILLING     | init reaped: EXITED                        |
 *                                         v                                            |
 *                                        GONE <----------------------------------------+
 */
#ifndef RINGBRIDGE_AUTOMATON_PVT_H
#define RINGBRIDGE_AUTOMATON_PVT_H

#include "shepherd_pvt.h"

enum rb_state {
    WAITING, /* for START */
    BIRTH,   /* the init is told to go; the worker's exec has not succeeded yet */
    RUNNING,
    STOPPING, /* TERM is sent, the grace runs */
    KILLING,  /* the init is killed, its end is awaited */
    LEAVING,  /* the worker ended by itself; its init ends the rest */
    GONE,
    STATES
};

enum rb_event {
    START,
    SIGNAL,
    CLOSE_STDIN,
    STOP,
    STATUS,
    WINDOW_SIZE,
    NONSENSE, /* a message that breaks the rules */
    BRIDGE_GONE,
    ASKED,       /* SIGTERM, SIGINT or SIGHUP to the shepherd itself */
    BORN,        /* the worker's exec succeeded */
    STILLBORN,   /* a step before or at exec failed */
    WORKER_DEAD, /* the init reported the worker's end */
    INIT_DEAD,   /* reaped; in a namespace: nothing of the tree is left */
    TIMER,
    EVENTS
};

struct rb_shepherd {
    enum rb_state state;
    int bridge, life, birth, signals;
    int worker_pidfd, stdin_fd, stdout_fd, stderr_fd;
    int terminal; /* the master of the worker's, -1 = it has none */
    pid_t bridge_pid;
    pid_t worker_pid;
    struct rb_groups groups;
    struct rb_family family;
    uint32_t grace_ms;
    int64_t deadline_ms; /* of TIMER; 0 = none */
    int64_t start_us;
    int stopping;    /* the end was asked for */
    int sent_kill;   /* a SIGKILL of ours cannot be the OOM killer's */
    int worker_dead; /* `end` holds the init's report */
    int told_end;    /* EXITED or the fatal ERROR is sent */
    uint32_t start_flags;
    uint32_t confined; /* RB_STARTED_* that the job brings with it, and that the worker told */
    struct rb_life_note end;
    struct rb_birth_note failure;
};

/* An event's own data: for commands the message, with its descriptors. */
struct rb_news {
    char *message;
    size_t size;
    const int *fds;
    size_t fd_count;
    const char *rule; /* NONSENSE: the rule that was broken */
};

/* Pipes or a terminal, socket pairs, control groups, then the init (birth.c). Returns 0, or -errno
 * and the RB_STEP_* that failed; after that the shepherd ends, and all with it. */
int rb_give_birth(struct rb_shepherd *s, struct rb_job *job, uint32_t *step);

/* Take one event: actions[state][event] decides. `news` may be NULL. */
void rb_dispatch(struct rb_shepherd *s, enum rb_event event, const struct rb_news *news);

#endif
