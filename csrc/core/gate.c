/* gate.c: waiting and waking by futex, eventfd or signal (gate.h has the protocol and the
 * labels). */
#define _GNU_SOURCE
#include "ringbridge/gate.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef RWF_NOWAIT
#define RWF_NOWAIT 0x8
#endif

enum {
    SEQUENCE_SHIFT = 2,
    WAY_MASK = 3,
    NS_PER_S = 1000000000,
    /* A park that was answered within this time would better have been a spin: a wake-up across
       cores takes about as long. */
    SHORT_WAIT_NS = 100000,
    /* A signal goes to the whole process. If some thread of it does not block the signal, the
     * kernel may drop it, so a wait for one never trusts it for longer than this. */
    SIGNAL_SLICE_NS = 100000000,
    YIELD_EVERY = 16, /* pauses of a spin */
    /* A yield that took longer has given the core to somebody with work of his own, and a time slice with it. Spins then rest for
     * so much longer than was lost: who sleeps is preferred when it wakes, who yields is put last. */
    LOST_NS = 100000,
    REST = 64,
    /* Between two looks of a waiter that hears another descriptor and has no eventfd. */
    NO_BELL_SLICE_NS = 5000000,
};

/* Set once a futex was refused in this process (a seccomp filter): not asked again. Relaxed: a
 * hint, each thread may find out by itself. */
static int futex_refused;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static struct timespec to_timespec(int64_t ns) {
    if (ns < 0) ns = 0;
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

/* --- the waker ------------------------------------------------------------------------------- */

void rb_gate_waker_init(struct rb_gate_waker *w, const uint32_t *park, uint32_t *doorbell,
                        int eventfd, int pidfd) {
    /* woken 0 is "awake in round 0", which no parking has: sequences begin with 1. */
    *w = (struct rb_gate_waker){
        .park = park, .doorbell = doorbell, .bell = -1, .eventfd = eventfd, .pidfd = pidfd};
}

/* A full socket is a bell that still rings; one whose other end is gone rings for nobody. */
void rb_gate_strike(int fd) {
    while (send(fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EINTR) {
    }
}

int rb_gate_hush(int bell) {
    char rings[64];
    for (int tries = 8; tries > 0; tries--) {
        ssize_t n = recv(bell, rings, sizeof rings, MSG_DONTWAIT);
        if (n > 0 || (n < 0 && errno == EINTR)) continue;
        return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? 0 : -EPIPE;
    }
    return 0;
}

/* The flags of an eventfd's description are shared with the other side, which could clear
 * O_NONBLOCK and fill the count up; so ask before writing. A full count is a bell that still
 * rings. */
void rb_gate_bump(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    uint64_t one = 1;
    if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT)) return;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

int rb_gate_ring_slow(struct rb_gate_waker *w, uint32_t park) {
    /* G2: pairs with G3 in rb_gate_announce() and with the kernel's comparison in FUTEX_WAIT: a
     * waiter that read the doorbell before this store and sleeps after it is sent back at once. The
     * word is read relaxed: only we write it. */
    rb_store_release(w->doorbell, rb_load_relaxed(w->doorbell) + 1);
    w->woken = park;
    w->wakes++;
    switch (park & WAY_MASK) {
    case RB_PARK_FUTEX:
        syscall(SYS_futex, w->doorbell, FUTEX_WAKE, 1, NULL, NULL,
                0); /* shared between processes: not PRIVATE */
        break;
    case RB_PARK_EVENTFD:
        if (w->bell >= 0)
            rb_gate_strike(w->bell);
        else if (w->eventfd >= 0)
            rb_gate_bump(w->eventfd);
        break;
    case RB_PARK_SIGNAL:
        if (w->pidfd >= 0) syscall(SYS_pidfd_send_signal, w->pidfd, RB_WAKE_SIGNAL, NULL, 0);
        break;
    default: break;
    }
    return 1;
}

/* --- the waiter ------------------------------------------------------------------------------ */

void rb_gate_waiter_init(struct rb_gate_waiter *w, uint32_t *park, const uint32_t *doorbell,
                         int eventfd, uint32_t spin_max) {
    *w = (struct rb_gate_waiter){.park = park,
                                 .doorbell = doorbell,
                                 .eventfd = eventfd,
                                 .spin = spin_max / 2,
                                 .spin_max = spin_max};
}

uint32_t rb_gate_announce(struct rb_gate_waiter *w, uint32_t how) {
    /* G3: before G4, which is a release as well as seq_cst and so keeps this load above it. A bell
     * rung for this parking comes after G4 and is therefore not in `bell`: pairs with G2. */
    uint32_t bell = rb_load_acquire(w->doorbell);
    /* A new sequence for each parking: the waker rings once a parking, so a second sleep needs a
     * second announcement. Thirty bits: a stale `woken` could only match after 2^30 parkings of
     * which none was woken. */
    w->sequence++;
    /* G4: pairs with G1 in rb_gate_ring(). seq_cst with the look G5 that follows: either the waker
     * sees the parking or our look sees its position. */
    rb_store_seq_cst(w->park, w->sequence << SEQUENCE_SHIFT | how);
    return bell;
}

void rb_gate_retract(struct rb_gate_waiter *w) {
    /* G6: relaxed: a waker that still sees the parking rings for nothing, which every wait
     * absorbs. */
    rb_store_relaxed(w->park, w->sequence << SEQUENCE_SHIFT | RB_PARK_AWAKE);
}

/* The three sleeps. Each returns 0 when there may be news (or not: spurious), -ETIMEDOUT at
 * `deadline`, or -ENOSYS when this way is not to be had. deadline: CLOCK_MONOTONIC in ns, negative
 * for none. */

static int sleep_futex(struct rb_gate_waiter *w, uint32_t bell, int64_t deadline) {
    struct timespec until = to_timespec(deadline);
    /* FUTEX_WAIT needs only read access: the doorbell lies in the other side's memory, and the key
     * is the file's inode. */
    if (syscall(SYS_futex, w->doorbell, FUTEX_WAIT_BITSET, bell, deadline < 0 ? NULL : &until, NULL,
                FUTEX_BITSET_MATCH_ANY) == 0)
        return 0;
    if (errno == EAGAIN || errno == EINTR) return 0;
    return errno == ETIMEDOUT ? -ETIMEDOUT : -ENOSYS;
}

static void eventfd_drain(int fd) {
    uint64_t count;
    char rings[64];
    ssize_t n;
    struct iovec into = {.iov_base = &count, .iov_len = sizeof count};
    do /* what is left over wakes the next sleep for nothing, which every wait absorbs */
        n = recv(fd, rings, sizeof rings, MSG_DONTWAIT);
    while (n == sizeof rings || (n < 0 && errno == EINTR));
    if (n >= 0 || errno != ENOTSOCK) return;
    /* RWF_NOWAIT and not O_NONBLOCK: the description's flags are shared with the other side
     * (eventfds know it since Linux 5.8). By number: musl has the function only since 1.2.5. */
    while (syscall(SYS_preadv2, fd, &into, 1, -1L, -1L, RWF_NOWAIT) < 0 && errno == EINTR) {
    }
}

static int sleep_eventfd(struct rb_gate_waiter *w, int64_t deadline) {
    struct pollfd p = {.fd = w->eventfd, .events = POLLIN};
    struct timespec left = to_timespec(deadline < 0 ? 0 : deadline - now_ns());
    int found;

    if (w->eventfd < 0) return -ENOSYS;
    found = ppoll(&p, 1, deadline < 0 ? NULL : &left, NULL);
    if (found == 0) return -ETIMEDOUT;
    if (found < 0) return errno == EINTR ? 0 : -ENOSYS;
    if (p.revents & (POLLNVAL | POLLERR)) return -ENOSYS;
    if (p.revents & POLLHUP)
        return -ENOSYS; /* a socket whose other end is gone: it would not sleep */
    eventfd_drain(w->eventfd);
    return 0;
}

static int sleep_signal(int64_t deadline) {
    sigset_t only;
    struct timespec left;
    int64_t wait_ns = SIGNAL_SLICE_NS;
    int last = 0;

    sigemptyset(&only);
    sigaddset(&only, RB_WAKE_SIGNAL);
    if (deadline >= 0 && deadline - now_ns() < wait_ns) {
        wait_ns = deadline - now_ns();
        last = 1;
    }
    left = to_timespec(wait_ns);
    if (sigtimedwait(&only, NULL, &left) >= 0 || errno == EINTR) return 0;
    if (errno != EAGAIN) return -ENOSYS;
    return last ? -ETIMEDOUT : 0;
}

static int sleep_by(struct rb_gate_waiter *w, uint32_t how, uint32_t bell, int64_t deadline) {
    switch (how) {
    case RB_PARK_FUTEX: return sleep_futex(w, bell, deadline);
    case RB_PARK_EVENTFD: return sleep_eventfd(w, deadline);
    default: return sleep_signal(deadline);
    }
}

/* Parks by `how` until ready() or the deadline. Returns ready()'s value, 0 at the deadline;
 * *refused is set, and 0 returned, when this way is not to be had. */
static int park(struct rb_gate_waiter *w, uint32_t how, int (*ready)(void *arg), void *arg,
                int64_t deadline, int *refused) {
    for (;;) {
        uint32_t bell = rb_gate_announce(w, how);
        /* G5: the second look. ready() must load the position seq_cst (rb_ring_available() does): a
         * plain acquire load may be performed before G4 is visible, and then both sides could miss
         * each other. */
        int found = ready(arg), slept = 0;
        if (!found) {
            slept = sleep_by(w, how, bell, deadline);
            if (slept != -ENOSYS) w->last = how;
            found = ready(
                arg); /* at the deadline too: what came at the last moment is not left lying */
        }
        rb_gate_retract(w);
        *refused = slept == -ENOSYS;
        if (found || slept < 0) return found;
    }
}

/* A signal that is not blocked would be taken away (it is ignored by default) before sigtimedwait()
 * could see it. */
static void block_wake_signal(void) {
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, RB_WAKE_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &only, NULL);
}

int rb_gate_wait_by(struct rb_gate_waiter *w, uint32_t how, int (*ready)(void *arg), void *arg,
                    int64_t timeout_ns) {
    int found = ready(arg), refused = 0;
    if (found || timeout_ns == 0) return found;
    if (how != RB_PARK_FUTEX && how != RB_PARK_EVENTFD && how != RB_PARK_SIGNAL) return -EINVAL;
    if (how == RB_PARK_SIGNAL) block_wake_signal();
    found = park(w, how, ready, arg, timeout_ns < 0 ? -1 : now_ns() + timeout_ns, &refused);
    return refused && !found ? -ENOSYS : found;
}

/* `before` is moved on. 1: the core was given away for long. */
static int yield_lost(struct rb_gate_waiter *w, int64_t *before) {
    int64_t from = *before, now;
    sched_yield();
    *before = now = now_ns();
    if (now - from <= LOST_NS) return 0;
    w->rest_until_ns = now + REST * (now - from);
    return 1;
}

/* Returns ready()'s value, or 0 when the budget is used up. A hit draws the budget towards twice of
 * what it took. */
static int spin(struct rb_gate_waiter *w, int (*ready)(void *arg), void *arg) {
    int64_t before = w->spin ? now_ns() : 0;
    if (before < w->rest_until_ns) return 0;
    for (uint32_t i = 0; i < w->spin; i++) {
        int found, lost = 0;
        rb_pause();
        /* Who would end the wait may need this very core: with two processes and one core, a spin
         * that yields costs a context switch, one that does not a time slice. */
        if (i % YIELD_EVERY == YIELD_EVERY - 1) lost = yield_lost(w, &before);
        found = ready(arg);
        if (found) {
            uint32_t wanted = i < w->spin_max / 2 ? 2 * i + w->spin_max / 64 : w->spin_max;
            w->spin = w->spin - w->spin / 8 + wanted / 8;
            if (w->spin > w->spin_max) w->spin = w->spin_max;
            w->last = RB_PARK_AWAKE;
            return found;
        }
        if (lost) return 0;
    }
    return 0;
}

/* A long park means that the spin before it was wasted; a short one, that a little more of it would
 * have been enough. */
static void adapt_to_park(struct rb_gate_waiter *w, int64_t parked_ns) {
    if (parked_ns > SHORT_WAIT_NS) {
        w->spin /= 2;
        return;
    }
    w->spin += w->spin_max / 8;
    if (w->spin > w->spin_max) w->spin = w->spin_max;
}

int rb_gate_wait(struct rb_gate_waiter *w, int (*ready)(void *arg), void *arg, int64_t timeout_ns) {
    int64_t begin, deadline;
    int found = ready(arg), refused;

    if (found || timeout_ns == 0) {
        if (found) w->last = RB_PARK_AWAKE;
        return found;
    }
    found = spin(w, ready, arg);
    if (found) return found;
    begin =
        now_ns(); /* the spin is not counted: it is shorter than the clock's meaning of a timeout */
    deadline = timeout_ns < 0 ? -1 : begin + timeout_ns;
    refused = rb_load_relaxed(&futex_refused);
    if (!refused) {
        found = park(w, RB_PARK_FUTEX, ready, arg, deadline, &refused);
        if (refused) rb_store_relaxed(&futex_refused, 1);
    }
    if (refused && !found) found = park(w, RB_PARK_EVENTFD, ready, arg, deadline, &refused);
    if (refused && !found) {
        block_wake_signal();
        found = park(w, RB_PARK_SIGNAL, ready, arg, deadline, &refused);
    }
    adapt_to_park(w, now_ns() - begin);
    return found;
}

/* One sleep on both descriptors. Returns 1 when `fd` has something, else 0: news at the gate, the
 * time is over, or nothing. A bell that is out of order is left out from then on (*no_bell). */
static int sleep_both(struct rb_gate_waiter *w, struct pollfd *fd, int *no_bell, int64_t left_ns) {
    struct pollfd both[2] = {*fd, {.fd = *no_bell ? -1 : w->eventfd, .events = POLLIN}};
    if (both[1].fd < 0 && (left_ns < 0 || left_ns > NO_BELL_SLICE_NS)) left_ns = NO_BELL_SLICE_NS;
    struct timespec left = to_timespec(left_ns);
    if (ppoll(both, 2, left_ns < 0 ? NULL : &left, NULL) <= 0) return 0;
    if (both[1].revents & (POLLNVAL | POLLERR | POLLHUP))
        *no_bell = 1;
    else if (both[1].revents)
        eventfd_drain(w->eventfd);
    return both[0].revents != 0;
}

/* What ends a spin of both: the gate's news at each look, the descriptor's at every few, as that is a
 * system call. */
struct either {
    int (*ready)(void *arg);
    void *arg;
    struct pollfd *fd;
    uint32_t looks;
};

static int either_ready(void *arg) {
    struct either *e = arg;
    int found = e->ready(e->arg);
    if (found || ++e->looks % YIELD_EVERY != 0) return found;
    return poll(e->fd, 1, 0) > 0;
}

int rb_gate_wait_or_fd(struct rb_gate_waiter *w, int fd, short events, int (*ready)(void *arg),
                       void *arg, int64_t timeout_ns) {
    struct pollfd other = {.fd = fd, .events = events};
    int no_bell = w->eventfd < 0, found = ready(arg), timed_out = 0;
    if (!found) found = poll(&other, 1, 0) > 0;
    if (found || timeout_ns == 0) return found != 0;
    struct either either = {ready, arg, &other, 0};
    found = spin(w, either_ready, &either);
    int64_t begin = now_ns();
    while (!found && !timed_out) {
        int64_t left = timeout_ns < 0 ? -1 : begin + timeout_ns - now_ns();
        timed_out = timeout_ns >= 0 && left <= 0;
        rb_gate_announce(w, RB_PARK_EVENTFD);
        found = ready(arg); /* G5 */
        if (!found) {
            found = sleep_both(w, &other, &no_bell, timed_out ? 0 : left);
            w->last = RB_PARK_EVENTFD;
            if (!found) found = ready(arg);
        }
        rb_gate_retract(w);
    }
    adapt_to_park(w, now_ns() - begin);
    return found != 0;
}
