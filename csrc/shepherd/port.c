/* port.c: the shepherd of a bridge whose owner is a BEAM: actions[state][event], and the loop (port_pvt.h). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "port_pvt.h"
#include "shepherd_pvt.h"

enum { IN_FD = 0, OUT_FD = 1 };

typedef enum rb_port_state action(struct rb_port *p, const struct rb_port_frame *frame);

/* Words to the BEAM ---------------------------------------------------------------------------- */

static void tell_numbers(struct rb_port *p, unsigned char type, const uint32_t *numbers,
                         size_t count) {
    unsigned char body[8];
    size_t i;
    for (i = 0; i < count; i++) rb_port_put_number(body + 4 * i, numbers[i]);
    rb_port_tell(p->out, type, body, 4 * count);
}

static void tell_error(struct rb_port *p, int error, const char *text) {
    unsigned char body[4 + 128];
    size_t size = strnlen(text, sizeof body - 4);
    rb_port_put_number(body, (uint32_t)error);
    memcpy(body + 4, text, size);
    rb_port_tell(p->out, RB_PORT_ERROR, body, 4 + size);
}

/* Steps that cells share ----------------------------------------------------------------------- */

static void arm(struct rb_port *p, uint32_t wait_ms) { p->deadline_ms = rb_now_ms() + wait_ms; }

static enum rb_port_state kill_it(struct rb_port *p) {
    p->deadline_ms = 0;
    if (p->pid > 0) kill(p->pid, SIGKILL);
    return KILLED;
}

/* TERM, and CONT so that a stopped one can hear it. */
static enum rb_port_state end_with_grace(struct rb_port *p, uint32_t grace_ms) {
    if (grace_ms == 0) return kill_it(p);
    if (p->pid > 0) {
        kill(p->pid, SIGTERM);
        kill(p->pid, SIGCONT);
    }
    arm(p, grace_ms);
    return ENDING;
}

/* A second wish can make the grace shorter, never longer. */
static enum rb_port_state shorten(struct rb_port *p, uint32_t grace_ms) {
    int64_t deadline_ms = rb_now_ms() + grace_ms;
    if (grace_ms == 0) return kill_it(p);
    if (deadline_ms < p->deadline_ms) p->deadline_ms = deadline_ms;
    return ENDING;
}

static uint32_t orphan_grace(const struct rb_port *p) {
    return p->grace_ms < RB_PORT_ORPHAN_GRACE_MS ? p->grace_ms : RB_PORT_ORPHAN_GRACE_MS;
}

/* Cells ---------------------------------------------------------------------------------------- */

static enum rb_port_state ignore(struct rb_port *p, const struct rb_port_frame *frame) {
    (void)frame;
    return p->state;
}

static enum rb_port_state leave(struct rb_port *p, const struct rb_port_frame *frame) {
    (void)p;
    (void)frame;
    return OVER;
}

static enum rb_port_state refuse(struct rb_port *p, const struct rb_port_frame *frame) {
    tell_error(p, EPROTO,
               frame->rule != NULL ? frame->rule : "a frame that is not allowed in this state");
    return p->state == IDLE ? FLUSHING : p->state;
}

static enum rb_port_state start(struct rb_port *p, const struct rb_port_frame *frame) {
    struct rb_port_order order;
    const char *rule = rb_port_parse(frame, &order), *step = "";
    uint32_t pid;
    int result;

    if (rule != NULL) {
        tell_error(p, EPROTO, rule);
        return FLUSHING;
    }
    p->grace_ms = order.grace_ms;
    result = rb_port_give_birth(&order, p, &step);
    if (result != 0) {
        tell_error(p, -result, step);
        return FLUSHING;
    }
    pid = (uint32_t)p->pid;
    tell_numbers(p, RB_PORT_STARTED, &pid, 1);
    return ALIVE;
}

static enum rb_port_state stop(struct rb_port *p, const struct rb_port_frame *frame) {
    return end_with_grace(p, rb_port_number(frame->body, 4));
}

static enum rb_port_state stop_faster(struct rb_port *p, const struct rb_port_frame *frame) {
    return shorten(p, rb_port_number(frame->body, 4));
}

static enum rb_port_state stop_asked(struct rb_port *p, const struct rb_port_frame *frame) {
    (void)frame;
    return end_with_grace(p, p->grace_ms);
}

static enum rb_port_state stop_orphan(struct rb_port *p, const struct rb_port_frame *frame) {
    (void)frame;
    return end_with_grace(p, orphan_grace(p));
}

static enum rb_port_state stop_orphan_faster(struct rb_port *p, const struct rb_port_frame *frame) {
    (void)frame;
    return shorten(p, orphan_grace(p));
}

static enum rb_port_state kill_now(struct rb_port *p, const struct rb_port_frame *frame) {
    (void)frame;
    return kill_it(p);
}

static enum rb_port_state tell_end(struct rb_port *p, const struct rb_port_frame *frame) {
    uint32_t numbers[2] = {(uint32_t)-1, 0};

    (void)frame;
    if (WIFEXITED(p->wait_status))
        numbers[0] = (uint32_t)WEXITSTATUS(p->wait_status);
    else
        numbers[1] = (uint32_t)WTERMSIG(p->wait_status);
    tell_numbers(p, RB_PORT_EXITED, numbers, 2);
    return FLUSHING;
}

/* An empty cell: an event that cannot come up in this state, or that changes nothing there. */
static action *const actions[PORT_STATES][PORT_EVENTS] = {
    [IDLE] =
        {
            [ORDER] = start,
            [HALT] = leave,
            [MISTAKE] = refuse,
            [OWNER_GONE] = leave,
            [WISH] = leave,
        },
    [ALIVE] =
        {
            [ORDER] = refuse,
            [HALT] = stop,
            [MISTAKE] = refuse,
            [OWNER_GONE] = stop_orphan,
            [WISH] = stop_asked,
            [ENDED] = tell_end,
        },
    [ENDING] =
        {
            [ORDER] = refuse,
            [HALT] = stop_faster,
            [MISTAKE] = refuse,
            [OWNER_GONE] = stop_orphan_faster,
            [WISH] = ignore,
            [ENDED] = tell_end,
            [ALARM] = kill_now,
        },
    [KILLED] =
        {
            [ORDER] = refuse,
            [HALT] = ignore,
            [MISTAKE] = refuse,
            [OWNER_GONE] = ignore,
            [WISH] = ignore,
            [ENDED] = tell_end,
        },
    [FLUSHING] =
        {
            [OWNER_GONE] = leave,
            [WISH] = leave,
        },
};

static void dispatch(struct rb_port *p, enum rb_port_event event,
                     const struct rb_port_frame *frame) {
    static const struct rb_port_frame none;
    action *cell = actions[p->state][event];
    if (cell != NULL) p->state = cell(p, frame != NULL ? frame : &none);
}

/* Where events come from ----------------------------------------------------------------------- */

/* Pass on what is there, at most `rounds` reads: a program that writes without end must not keep us from the rest. */
static void pass_on(struct rb_port *p, int *fd, unsigned char type, int rounds) {
    static unsigned char bytes[16384];
    while (*fd >= 0 && rounds-- > 0) {
        ssize_t got =
            read(*fd, bytes, type == RB_PORT_READY ? RB_PORT_KEPT_BYTES / 4 : sizeof bytes);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0)
            rb_close(fd);
        else
            rb_port_tell(p->out, type, bytes, (size_t)got);
    }
}

enum { A_FEW = 4, ALL_THERE_IS = 64 }; /* a pipe holds 64 KiB unless somebody made it larger */

static void reap(struct rb_port *p) {
    if (p->pid <= 0 || waitpid(p->pid, &p->wait_status, WNOHANG) != p->pid) return;
    p->pid = 0;
    /* Not until end of file: what it has started may hold the other end. */
    pass_on(p, &p->ready, RB_PORT_READY, A_FEW);
    pass_on(p, &p->output, RB_PORT_OUTPUT, ALL_THERE_IS);
    rb_close(&p->ready);
    rb_close(&p->output);
    dispatch(p, ENDED, NULL);
}

static void read_signals(struct rb_port *p) {
    struct signalfd_siginfo info;
    while (read(p->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            reap(p);
        else
            dispatch(p, WISH, NULL);
    }
}

/* Returns whether the owner is still there. */
static int read_owner(struct rb_port *p) {
    struct rb_port_frame frame;
    int there = rb_port_fill(p->in, IN_FD), whole;

    while ((whole = rb_port_next(p->in, &frame)) > 0) {
        enum rb_port_event event = MISTAKE;
        frame.rule = "a frame of unknown type, or not of its type's size";
        if (frame.type == RB_PORT_START) event = ORDER;
        if (frame.type == RB_PORT_STOP && frame.size == 4) event = HALT;
        if (event != MISTAKE) frame.rule = NULL;
        dispatch(p, event, &frame);
        rb_port_taken(p->in);
    }
    /* Behind a length that cannot be nothing makes sense: it is as if nobody were there. */
    return there && whole == 0;
}

/* The BEAM's stderr is not ours to keep open, nor is anything else of it. */
static int settle(void) {
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 2) < 0) return -errno;
    if (syscall(SYS_close_range, 3, ~0U, 0) != 0) return -errno;
    if (fcntl(IN_FD, F_SETFL, O_NONBLOCK) != 0) return -errno;
    if (fcntl(OUT_FD, F_SETFL, fcntl(OUT_FD, F_GETFL) | O_NONBLOCK) != 0) return -errno;
    setsid(); /* ^C in the BEAM's terminal is the BEAM's to hear */
    /* A stopped shepherd would not see the BEAM end: the death of its child setup process wakes it. One that died
     * before this line is seen on stdin. */
    prctl(PR_SET_PDEATHSIG, SIGCONT, 0, 0, 0);
    return 0;
}

int rb_port_run(void) {
    static struct rb_port_inbox in; /* pages that no frame touches cost nothing */
    static struct rb_port_outbox out;
    struct rb_port p = {
        .state = IDLE, .signals = -1, .output = -1, .ready = -1, .in = &in, .out = &out};
    int owner = IN_FD;

    if (settle() != 0) return 1;
    p.signals = rb_open_signals();
    if (p.signals < 0) return 1;
    while (p.state != OVER && !(p.state == FLUSHING && out.size == 0)) {
        struct pollfd fds[] = {
            {.fd = p.signals, .events = POLLIN},
            {.fd = owner, .events = POLLIN},
            {.fd = p.output, .events = POLLIN},
            {.fd = p.ready, .events = POLLIN},
            {.fd = owner < 0 ? -1 : OUT_FD, .events = out.size > 0 ? POLLOUT : 0},
        };
        if (poll(fds, sizeof fds / sizeof *fds, rb_wait_ms(p.deadline_ms)) < 0) continue;
        if (fds[2].revents) pass_on(&p, &p.output, RB_PORT_OUTPUT, A_FEW);
        if (fds[3].revents) pass_on(&p, &p.ready, RB_PORT_READY, A_FEW);
        if (fds[0].revents) read_signals(&p);
        /* With POLLHUP there may be frames before the end; without a reader of ours there is none. */
        if (owner >= 0 && ((fds[1].revents && !read_owner(&p)) || (fds[4].revents & POLLERR))) {
            owner = -1;
            dispatch(&p, OWNER_GONE, NULL);
        }
        if (p.deadline_ms != 0 && rb_now_ms() >= p.deadline_ms) {
            p.deadline_ms = 0;
            dispatch(&p, ALARM, NULL);
        }
        if (owner < 0 || rb_port_flush(&out, OUT_FD) != 0) out.size = 0; /* nobody hears it */
    }
    return 0;
}
