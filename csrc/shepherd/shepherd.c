/* shepherd.c: where the automaton's events come from, and the loop that waits for them. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "automaton_pvt.h"

/* What the worker said before its exec. End of file: everyone who had this socket has exec'ed or
 * ended. */
static void read_birth(struct rb_shepherd *s) {
    struct rb_birth_note note;
    pid_t sender;
    ssize_t size;

    while (s->birth >= 0) {
        int pidfd = -1;
        size_t count = 1;
        size = rb_receive(s->birth, &note, sizeof note, &pidfd, &count, &sender);
        if (size == -EAGAIN) return;
        if (size <= 0) {
            rb_close(&s->birth);
            /* Without a word of who it is, it was killed before it could say so. */
            if (s->failure.kind != RB_BIRTH_FAILED && s->worker_pidfd < 0)
                s->failure = (struct rb_birth_note){RB_BIRTH_FAILED, ECHILD, RB_STEP_WORKER, 0};
            rb_dispatch(s, s->failure.kind == RB_BIRTH_FAILED ? STILLBORN : BORN, NULL);
        } else if (note.kind == RB_BIRTH_HELLO && count == 1) {
            s->worker_pid = sender;
            s->worker_pidfd = pidfd;
            s->confined |= note.flags;
        } else if (note.kind == RB_BIRTH_FAILED) {
            s->failure = note;
        }
    }
}

/* What the init said. Its end of file is not an event: SIGCHLD is. */
static void read_life(struct rb_shepherd *s) {
    struct rb_life_note note;
    ssize_t size;

    read_birth(s);
    while (s->life >= 0) {
        size = rb_receive(s->life, &note, sizeof note, NULL, NULL, NULL);
        if (size == -EAGAIN) return;
        if (size <= 0) {
            rb_close(&s->life);
        } else {
            s->end = note;
            if (s->sent_kill) s->end.flags &= ~(uint32_t)RB_EXITED_OOM;
            s->worker_dead = 1;
            rb_dispatch(s, WORKER_DEAD, NULL);
        }
    }
}

static void reap_init(struct rb_shepherd *s) {
    struct rusage usage;

    if (s->family.init_pid <= 0 ||
        wait4(s->family.init_pid, NULL, WNOHANG, &usage) != s->family.init_pid)
        return;
    s->family.init_pid = 0;
    read_life(s);
    if (!s->worker_dead) rb_put_usage(s->end.usage, &usage); /* all that its namespace used */
    rb_dispatch(s, INIT_DEAD, NULL);
}

static void read_signals(struct rb_shepherd *s) {
    struct signalfd_siginfo info;

    while (read(s->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            reap_init(s);
        else
            rb_dispatch(s, ASKED, NULL);
    }
}

/* Which event a packet is; NONSENSE with the rule when it is none. */
static enum rb_event classify(const struct rb_news *news, const char **rule) {
    static const struct {
        uint16_t type;
        enum rb_event event;
        size_t size; /* 0: checked by its own action, as are its descriptors */
    } known[] = {
        {RB_MESSAGE_START, START, 0},
        {RB_MESSAGE_SIGNAL, SIGNAL, sizeof(struct rb_message_signal)},
        {RB_MESSAGE_CLOSE_STDIN, CLOSE_STDIN, sizeof(struct rb_message_close_stdin)},
        {RB_MESSAGE_STOP, STOP, sizeof(struct rb_message_stop)},
        {RB_MESSAGE_STATUS, STATUS, sizeof(struct rb_message_status)},
        {RB_MESSAGE_WINDOW_SIZE, WINDOW_SIZE, sizeof(struct rb_message_window_size)},
    };
    struct rb_message_header head;
    size_t i;

    *rule = "a message is shorter than its header, or its length is not the packet's";
    if (news->size < sizeof head) return NONSENSE;
    memcpy(&head, news->message, sizeof head);
    if (head.length != news->size) return NONSENSE;
    *rule = "another version of shepherd_protocol.h";
    if (head.version != RB_SHEPHERD_VERSION) return NONSENSE;
    for (i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].type != head.type) continue;
        *rule = "a message has not its type's size";
        if (known[i].size != 0 && known[i].size != news->size) return NONSENSE;
        *rule = "only START brings descriptors";
        if (known[i].size != 0 && news->fd_count != 0) return NONSENSE;
        *rule = NULL;
        return known[i].event;
    }
    *rule = "unknown message type";
    return NONSENSE;
}

static void read_bridge(struct rb_shepherd *s, short revents) {
    static char buffer[RB_SHEPHERD_MESSAGE_MAX]; /* pages that no message touches cost nothing */
    int fds[RB_START_FDS_MAX];
    struct rb_news news = {.message = buffer, .fds = fds, .fd_count = sizeof fds / sizeof *fds};
    enum rb_event event;
    ssize_t size;
    pid_t sender = 0;
    size_t i;

    /* A dead bridge's last commands are not carried out: who would hear the answer? */
    size = (revents & (POLLHUP | POLLERR))
               ? 0
               : rb_receive(s->bridge, buffer, sizeof buffer, fds, &news.fd_count, &sender);
    if (size == -EAGAIN) return;
    if (size == 0) {
        rb_close(&s->bridge);
        rb_dispatch(s, BRIDGE_GONE, NULL);
        return;
    }
    if (size < 0) {
        news.fd_count = 0;
        news.rule = "a message or its descriptors are too many to receive";
        event = NONSENSE;
    } else if (sender != s->bridge_pid) {
        news.rule = "a message is not from the process that started the shepherd";
        event = NONSENSE;
    } else {
        news.size = (size_t)size;
        event = classify(&news, &news.rule);
    }
    rb_dispatch(s, event, &news);
    /* The worker and the init have their own by now. */
    for (i = 0; i < news.fd_count; i++) close(fds[i]);
}

/* The loop ------------------------------------------------------------------------------------- */

int rb_shepherd_run(int bridge) {
    struct rb_shepherd s = {
        .state = WAITING,
        .bridge = bridge,
        .life = -1,
        .birth = -1,
        .signals = rb_open_signals(),
        .worker_pidfd = -1,
        .stdin_fd = -1,
        .stdout_fd = -1,
        .stderr_fd = -1,
        .terminal = -1,
        .bridge_pid = getppid(),
    };

    rb_no_groups(&s.groups);
    if (s.signals < 0) return errno;
    while (s.state != GONE) {
        struct pollfd fds[] = {
            {.fd = s.birth, .events = POLLIN},
            {.fd = s.life, .events = POLLIN},
            {.fd = s.signals, .events = POLLIN},
            {.fd = s.bridge, .events = POLLIN},
        };
        if (poll(fds, sizeof fds / sizeof *fds, rb_wait_ms(s.deadline_ms)) < 0) continue;
        if (fds[0].revents) read_birth(&s);
        if (fds[1].revents) read_life(&s);
        if (fds[2].revents) read_signals(&s);
        if (fds[3].revents && s.bridge >= 0 && s.state != GONE) read_bridge(&s, fds[3].revents);
        if (s.deadline_ms != 0 && s.state != GONE && rb_now_ms() >= s.deadline_ms) {
            s.deadline_ms = 0;
            rb_dispatch(&s, TIMER, NULL);
        }
    }
    rb_remove_groups(&s.groups);
    return 0;
}
