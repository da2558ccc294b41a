/* automaton.c: actions[state][event], one small function per cell (rules: automaton_pvt.h). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "automaton_pvt.h"

typedef enum rb_state action(struct rb_shepherd *s, const struct rb_news *news);

/* Words to the bridge -------------------------------------------------------------------------- */

static struct rb_message_header header(uint16_t type, size_t length) {
    struct rb_message_header h = {RB_SHEPHERD_VERSION, type, (uint32_t)length};
    return h;
}

/* To a bridge that does not read, words are lost rather than waited with; a dead one has no use
 * for them. */
static void tell(struct rb_shepherd *s, const void *data, size_t size, const int *fds,
                 size_t count) {
    if (s->bridge >= 0) rb_send(s->bridge, data, size, fds, count);
}

static void tell_error(struct rb_shepherd *s, int error, uint32_t step, const char *text) {
    char buffer[sizeof(struct rb_message_error) + 256];
    struct rb_message_error message;
    size_t size = text == NULL ? 0 : strnlen(text, 256);

    message.header = header(RB_MESSAGE_ERROR, sizeof message + size);
    message.error = error;
    message.step = step;
    memcpy(buffer, &message, sizeof message);
    if (size > 0) memcpy(buffer + sizeof message, text, size);
    tell(s, buffer, sizeof message + size, NULL, 0);
}

static void tell_end(struct rb_shepherd *s, uint32_t flags) {
    struct rb_message_exited message;

    if (s->told_end) return;
    s->told_end = 1;
    memset(&message, 0, sizeof message);
    message.header = header(RB_MESSAGE_EXITED, sizeof message);
    message.status = s->worker_dead ? s->end.status : -1;
    /* Without the init's word it was SIGKILL: that is what a dying init does to its namespace. */
    message.signal = s->worker_dead ? s->end.signal : SIGKILL;
    message.flags = s->end.flags | flags;
    if (s->stopping) message.flags |= RB_EXITED_STOPPED;
    if (!s->worker_dead) message.flags |= RB_EXITED_INIT_LOST;
    memcpy(&message.user_us, s->end.usage, sizeof s->end.usage);
    tell(s, &message, sizeof message, NULL, 0);
}

/* Steps that cells share ----------------------------------------------------------------------- */

static void arm(struct rb_shepherd *s, int64_t wait_ms) { s->deadline_ms = rb_now_ms() + wait_ms; }

static int signal_worker(struct rb_shepherd *s, int signum) {
    if (s->worker_pidfd < 0) return -ESRCH;
    if (signum == SIGKILL) s->sent_kill = 1;
    return syscall(SYS_pidfd_send_signal, s->worker_pidfd, signum, NULL, 0) == 0 ? 0 : -errno;
}

/* As long as the init is our child and not reaped, its pid is nobody else's; after that it is 0. */
static enum rb_state kill_tree(struct rb_shepherd *s) {
    s->sent_kill = 1;
    rb_kill_groups(&s->groups);
    if (s->family.init_pid > 0) kill(s->family.init_pid, SIGKILL);
    arm(s, RB_LINGER_MS);
    return KILLING;
}

/* TERM, and CONT so that a stopped worker can hear it; the grace starts now. */
static enum rb_state end_with_grace(struct rb_shepherd *s, uint32_t grace_ms) {
    s->stopping = 1;
    if (grace_ms == 0) return kill_tree(s);
    signal_worker(s, SIGTERM);
    signal_worker(s, SIGCONT);
    arm(s, grace_ms);
    return STOPPING;
}

/* A second wish can make the grace shorter, never longer. */
static enum rb_state shorten_grace(struct rb_shepherd *s, uint32_t grace_ms) {
    int64_t deadline_ms = rb_now_ms() + grace_ms;
    if (deadline_ms < s->deadline_ms) s->deadline_ms = deadline_ms;
    return grace_ms == 0 ? kill_tree(s) : STOPPING;
}

static uint32_t grace_of(const struct rb_shepherd *s, const struct rb_news *news) {
    struct rb_message_stop stop;
    memcpy(&stop, news->message, sizeof stop);
    return stop.grace_ms == RB_STOP_GRACE_OF_START ? s->grace_ms : stop.grace_ms;
}

static uint32_t grace_of_orphan(const struct rb_shepherd *s) {
    return s->grace_ms < RB_BRIDGE_GONE_GRACE_MS ? s->grace_ms : RB_BRIDGE_GONE_GRACE_MS;
}

/* Cells ---------------------------------------------------------------------------------------- */

static enum rb_state ignore(struct rb_shepherd *s, const struct rb_news *news) {
    (void)news;
    return s->state;
}

static enum rb_state leave(struct rb_shepherd *s, const struct rb_news *news) {
    (void)s;
    (void)news;
    return GONE;
}

static enum rb_state refuse_fatally(struct rb_shepherd *s, const struct rb_news *news) {
    tell_error(s, EPROTO, RB_STEP_MESSAGE,
               news->rule != NULL ? news->rule : "a command came before START");
    return GONE;
}

static enum rb_state refuse(struct rb_shepherd *s, const struct rb_news *news) {
    tell_error(s, EPROTO, RB_STEP_MESSAGE,
               news->rule != NULL ? news->rule : "not allowed in this state");
    return s->state;
}

static enum rb_state start(struct rb_shepherd *s, const struct rb_news *news) {
    struct rb_job job;
    const char *rule = rb_parse_start(news->message, news->size, news->fds, news->fd_count, &job);
    uint32_t step;
    int result;

    if (rule != NULL) {
        tell_error(s, EPROTO, RB_STEP_MESSAGE, rule);
        return GONE;
    }
    s->start_us = rb_now_us();
    s->grace_ms = job.grace_ms;
    s->start_flags = job.flags;
    s->confined = ((job.flags & RB_START_LANDLOCK) ? RB_STARTED_LANDLOCK : 0u) |
                  (rb_filters_syscalls(&job) ? RB_STARTED_SECCOMP : 0u);
    result = rb_give_birth(s, &job, &step);
    if (result != 0) {
        tell_error(s, -result, step, NULL);
        return GONE;
    }
    return BIRTH;
}

static enum rb_state announce(struct rb_shepherd *s, const struct rb_news *news) {
    struct rb_message_started message;
    int fds[] = {s->worker_pidfd, s->stdin_fd, s->stdout_fd, s->stderr_fd};

    (void)news;
    memset(&message, 0, sizeof message);
    message.header = header(RB_MESSAGE_STARTED, sizeof message);
    message.flags = s->family.flags | s->confined;
    message.worker_pid = s->worker_pid;
    message.init_pid = s->family.init_pid;
    message.namespace_error = s->family.namespace_error;
    message.spawn_us = (uint32_t)(rb_now_us() - s->start_us);
    message.group_error = s->groups.error;
    tell(s, &message, sizeof message, fds, sizeof fds / sizeof *fds);
    rb_close(&s->stdout_fd);
    rb_close(&s->stderr_fd);
    if (!(s->start_flags & RB_START_HOLD_STDIN)) rb_close(&s->stdin_fd);
    rb_forget_startup();
    return RUNNING;
}

/* The step that failed names what it was about; the bridge knows the path and adds it. */
static enum rb_state mourn_stillborn(struct rb_shepherd *s, const struct rb_news *news) {
    (void)news;
    s->told_end = 1;
    tell_error(s, s->failure.error, s->failure.step, NULL);
    return kill_tree(s);
}

static enum rb_state kill_unborn(struct rb_shepherd *s, const struct rb_news *news) {
    (void)news;
    s->stopping = 1;
    if (!s->told_end) tell_error(s, ECANCELED, RB_STEP_INIT, "stopped before the worker ran");
    s->told_end = 1;
    return kill_tree(s);
}

static enum rb_state lose_unborn(struct rb_shepherd *s, const struct rb_news *news) {
    (void)news;
    rb_kill_groups(&s->groups);
    rb_sweep_children(0);
    tell_error(s, ECHILD, RB_STEP_INIT, "the init was killed before the worker ran");
    return GONE;
}

static enum rb_state pass_signal(struct rb_shepherd *s, const struct rb_news *news) {
    struct rb_message_signal message;
    int result;

    memcpy(&message, news->message, sizeof message);
    result = signal_worker(s, (int)message.signum);
    if (result != 0 && result != -ESRCH) /* ESRCH: it is dead already, EXITED is on its way */
        tell_error(s, -result, RB_STEP_SIGNAL, NULL);
    return s->state;
}

static enum rb_state close_stdin(struct rb_shepherd *s, const struct rb_news *news) {
    (void)news;
    rb_close(&s->stdin_fd);
    if (s->terminal >= 0) rb_type_end_of_file(s->terminal);
    return s->state;
}

static enum rb_state resize_terminal(struct rb_shepherd *s, const struct rb_news *news) {
    struct rb_message_window_size message;
    int result = -ENOTTY;

    memcpy(&message, news->message, sizeof message);
    if (s->terminal >= 0) result = rb_resize_terminal(s->terminal, message.rows, message.columns);
    if (result != 0) tell_error(s, -result, RB_STEP_TERMINAL, NULL);
    return s->state;
}

static enum rb_state report(struct rb_shepherd *s, const struct rb_news *news) {
    static const uint32_t states[STATES] = {
        [RUNNING] = RB_REPORT_RUNNING,
        [STOPPING] = RB_REPORT_STOPPING,
        [KILLING] = RB_REPORT_KILLING,
        [LEAVING] = RB_REPORT_LEAVING,
    };
    struct rb_message_report message;
    int64_t left_ms = s->deadline_ms - rb_now_ms();

    (void)news;
    memset(&message, 0, sizeof message);
    message.header = header(RB_MESSAGE_REPORT, sizeof message);
    message.state = states[s->state];
    if (s->state == STOPPING && left_ms > 0) message.grace_left_ms = (uint32_t)left_ms;
    message.age_us = (uint64_t)(rb_now_us() - s->start_us);
    /* Its pid is its own for as long as the init has not reaped it, and told us. */
    rb_put_report(&message, s->worker_dead ? 0 : s->worker_pid, &s->groups);
    tell(s, &message, sizeof message, NULL, 0);
    return s->state;
}

static enum rb_state stop(struct rb_shepherd *s, const struct rb_news *news) {
    return end_with_grace(s, grace_of(s, news));
}

static enum rb_state stop_faster(struct rb_shepherd *s, const struct rb_news *news) {
    return shorten_grace(s, grace_of(s, news));
}

static enum rb_state stop_asked(struct rb_shepherd *s, const struct rb_news *news) {
    (void)news;
    return end_with_grace(s, s->grace_ms);
}

static enum rb_state stop_orphan(struct rb_shepherd *s, const struct rb_news *news) {
    (void)news;
    return end_with_grace(s, grace_of_orphan(s));
}

static enum rb_state stop_orphan_faster(struct rb_shepherd *s, const struct rb_news *news) {
    (void)news;
    return shorten_grace(s, grace_of_orphan(s));
}

static enum rb_state kill_now(struct rb_shepherd *s, const struct rb_news *news) {
    (void)news;
    return kill_tree(s);
}

/* The init has sent its report and is ending the rest; EXITED waits for it. */
static enum rb_state await_rest(struct rb_shepherd *s, const struct rb_news *news) {
    (void)news;
    arm(s, RB_LINGER_MS);
    return LEAVING;
}

static enum rb_state say_it_lingers(struct rb_shepherd *s, const struct rb_news *news) {
    (void)news;
    s->deadline_ms = 0;
    tell_end(s, RB_EXITED_LINGERS);
    return s->state;
}

static enum rb_state say_the_end(struct rb_shepherd *s, const struct rb_news *news) {
    (void)news;
    rb_kill_groups(&s->groups);
    if (s->family.flags & RB_STARTED_SUBREAPER)
        rb_sweep_children(s->worker_pid); /* what the init left is our child now */
    tell_end(s, 0);
    return GONE;
}

/* The table ------------------------------------------------------------------------------------ */

static action *const actions[STATES][EVENTS] = {
    [WAITING] =
        {
            [START] = start,
            [SIGNAL] = refuse_fatally,
            [CLOSE_STDIN] = refuse_fatally,
            [STOP] = leave,
            [STATUS] = refuse_fatally,
            [WINDOW_SIZE] = refuse_fatally,
            [NONSENSE] = refuse_fatally,
            [BRIDGE_GONE] = leave,
            [ASKED] = leave,
        },
    [BIRTH] =
        {
            [START] = refuse,
            [SIGNAL] = refuse,
            [CLOSE_STDIN] = refuse,
            [STOP] = kill_unborn,
            [STATUS] = refuse,
            [WINDOW_SIZE] = refuse,
            [NONSENSE] = refuse,
            [BRIDGE_GONE] = kill_unborn,
            [ASKED] = kill_unborn,
            [BORN] = announce,
            [STILLBORN] = mourn_stillborn,
            [INIT_DEAD] = lose_unborn,
        },
    [RUNNING] =
        {
            [START] = refuse,
            [SIGNAL] = pass_signal,
            [CLOSE_STDIN] = close_stdin,
            [STOP] = stop,
            [STATUS] = report,
            [WINDOW_SIZE] = resize_terminal,
            [NONSENSE] = refuse,
            [BRIDGE_GONE] = stop_orphan,
            [ASKED] = stop_asked,
            [WORKER_DEAD] = await_rest,
            [INIT_DEAD] = say_the_end,
        },
    [STOPPING] =
        {
            [START] = refuse,
            [SIGNAL] = pass_signal,
            [CLOSE_STDIN] = close_stdin,
            [STOP] = stop_faster,
            [STATUS] = report,
            [WINDOW_SIZE] = resize_terminal,
            [NONSENSE] = refuse,
            [BRIDGE_GONE] = stop_orphan_faster,
            [ASKED] = ignore,
            [WORKER_DEAD] = await_rest,
            [INIT_DEAD] = say_the_end,
            [TIMER] = kill_now,
        },
    [KILLING] =
        {
            [START] = refuse,
            [SIGNAL] = ignore,
            [CLOSE_STDIN] = close_stdin,
            [STOP] = ignore,
            [STATUS] = report,
            [WINDOW_SIZE] = ignore,
            [NONSENSE] = refuse,
            [BRIDGE_GONE] = ignore,
            [ASKED] = ignore,
            [BORN] = ignore,
            [STILLBORN] = ignore,
            [WORKER_DEAD] = ignore,
            [INIT_DEAD] = say_the_end,
            [TIMER] = say_it_lingers,
        },
    [LEAVING] =
        {
            [START] = refuse,
            [SIGNAL] = ignore,
            [CLOSE_STDIN] = close_stdin,
            [STOP] = ignore,
            [STATUS] = report,
            [WINDOW_SIZE] = ignore,
            [NONSENSE] = refuse,
            [BRIDGE_GONE] = ignore,
            [ASKED] = ignore,
            [INIT_DEAD] = say_the_end,
            [TIMER] = kill_now, /* an init that does not end by itself was stopped from outside */
        },
};

void rb_dispatch(struct rb_shepherd *s, enum rb_event event, const struct rb_news *news) {
    static const struct rb_news none;
    action *cell = actions[s->state][event];

    /* An empty cell: an event that cannot come up in this state. Should it do so all the same,
     * doing nothing is safe: every state but WAITING ends by INIT_DEAD, and every tree by the
     * bridge's or the shepherd's death. */
    if (cell != NULL) s->state = cell(s, news != NULL ? news : &none);
}
