/* The gate: who waits is woken, by each way; who is awake costs nothing; who was told a time gives
 * up at it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include "check.h"
#include "ringbridge/gate.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1, ROUNDS = 10000, ROUNDS_OTHER = 5000 };
#else
enum { SANITIZED = 0, ROUNDS = 100000, ROUNDS_OTHER = 10000 };
#endif

static const uint32_t ways[] = {RB_PARK_FUTEX, RB_PARK_EVENTFD, RB_PARK_SIGNAL};
enum { BESIDE = 100 }; /* no way of its own: rb_gate_wait_or_fd(), which parks by eventfd */
static const uint32_t beside = BESIDE;
static const int64_t ms = 1000000;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* One direction: the waker's page, which the waiter only reads, and the waiter's page. */
struct gate {
    struct {
        uint64_t tail;
        uint32_t doorbell;
    } *waker_page;
    struct {
        uint64_t seen;
        uint32_t park;
        int failed;
    } *waiter_page;
    int eventfd;
    int quiet; /* a descriptor on which nothing ever comes */
    struct rb_gate_waker waker;
    struct rb_gate_waiter waiter;
};

static struct gate gate_new(uint32_t spin_max) {
    struct gate g;
    int memory = memfd_create("gate", MFD_CLOEXEC),
        pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (memory < 0 || pidfd < 0 || ftruncate(memory, 4096) < 0) abort();
    g.waker_page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    g.waiter_page = check_shared(4096);
    g.eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    g.quiet = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    rb_gate_waker_init(&g.waker, &g.waiter_page->park, &g.waker_page->doorbell, g.eventfd, pidfd);
    rb_gate_waiter_init(&g.waiter, &g.waiter_page->park,
                        mmap(NULL, 4096, PROT_READ, MAP_SHARED, memory, 0), g.eventfd, spin_max);
    g.waiter.doorbell = (const uint32_t *)((const uint8_t *)g.waiter.doorbell + 8);
    close(memory);
    return g;
}

static void gate_free(struct gate *g) {
    munmap(g->waker_page, 4096);
    munmap(g->waiter_page, 4096);
    munmap((uint8_t *)g->waiter.doorbell - 8, 4096);
    close(g->eventfd);
    close(g->quiet);
    close(g->waker.pidfd);
}

static void publish(struct gate *g, uint64_t tail) { rb_store_seq_cst(&g->waker_page->tail, tail); }

/* ready(): something past what was seen. Reads through the waiter's own read-only mapping. */
static int news(void *arg) {
    struct gate *g = arg;
    const uint64_t *tail = (const uint64_t *)((const uint8_t *)g->waiter.doorbell - 8);
    return rb_load_seq_cst(tail) > rb_load_relaxed(&g->waiter_page->seen);
}

static int refused(void *arg) {
    (void)arg;
    return -EPROTO;
}

/* ready(): nothing at the first look, something at the second. */
static int at_the_second_look(void *arg) {
    int *looks = arg;
    return ++*looks == 2;
}

static void news_that_is_there_is_found_without_parking(void) {
    struct gate g = gate_new(100);
    publish(&g, 1);
    CHECK_EQUAL(rb_gate_wait(&g.waiter, news, &g, -1), 1);
    CHECK_EQUAL(g.waiter.sequence, 0);
    CHECK_EQUAL(g.waiter.last, RB_PARK_AWAKE);
    for (int i = 0; i < 3; i++) CHECK_EQUAL(rb_gate_wait_by(&g.waiter, ways[i], news, &g, -1), 1);
    CHECK_EQUAL(g.waiter.sequence, 0);
    gate_free(&g);
}

static void ready_may_answer_an_error(void) {
    struct gate g = gate_new(0);
    CHECK_EQUAL(rb_gate_wait(&g.waiter, refused, &g, -1), -EPROTO);
    gate_free(&g);
}

static void a_timeout_of_0_only_looks(void) {
    struct gate g = gate_new(100);
    CHECK_EQUAL(rb_gate_wait(&g.waiter, news, &g, 0), 0);
    CHECK_EQUAL(g.waiter.sequence, 0);
    gate_free(&g);
}

static void each_way_gives_up_at_its_timeout_and_says_it_is_awake(void) {
    for (int i = 0; i < 3; i++) {
        struct gate g = gate_new(0);
        int64_t begin = now_ns();
        CHECK_EQUAL(rb_gate_wait_by(&g.waiter, ways[i], news, &g, 20 * ms), 0);
        CHECK(now_ns() - begin >= 20 * ms);
        CHECK_EQUAL(g.waiter.last, ways[i]);
        CHECK_EQUAL(g.waiter_page->park & 3, RB_PARK_AWAKE);
        CHECK(g.waiter_page->park >> 2 >= 1);
        gate_free(&g);
    }
}

/* The signal's own slice is 100 ms; a longer timeout must hold all the same. */
static void a_timeout_longer_than_a_slice_is_kept(void) {
    struct gate g = gate_new(0);
    int64_t begin = now_ns();
    CHECK_EQUAL(rb_gate_wait_by(&g.waiter, RB_PARK_SIGNAL, news, &g, 150 * ms), 0);
    CHECK(now_ns() - begin >= 150 * ms);
    gate_free(&g);
}

static void who_is_awake_is_not_rung(void) {
    struct gate g = gate_new(0);
    for (int i = 0; i < 1000; i++) CHECK_EQUAL(rb_gate_ring(&g.waker), 0);
    CHECK_EQUAL(g.waker.wakes, 0);
    rb_gate_announce(&g.waiter, RB_PARK_FUTEX);
    rb_gate_retract(&g.waiter);
    CHECK_EQUAL(rb_gate_ring(&g.waker), 0);
    gate_free(&g);
}

static void a_parking_is_rung_once_and_the_next_one_again(void) {
    struct gate g = gate_new(0);
    for (int round = 0; round < 5; round++) {
        uint32_t bell = rb_gate_announce(&g.waiter, RB_PARK_EVENTFD);
        CHECK_EQUAL(rb_gate_ring(&g.waker), 1);
        CHECK_EQUAL(g.waker_page->doorbell, bell + 1);
        for (int i = 0; i < 10; i++) CHECK_EQUAL(rb_gate_ring(&g.waker), 0);
        rb_gate_retract(&g.waiter);
    }
    CHECK_EQUAL(g.waker.wakes, 5);
    gate_free(&g);
}

static void any_park_word_is_survived(void) {
    struct gate g = gate_new(0);
    uint64_t state = 3;
    g.waker.pidfd = -1; /* not at ourselves */
    for (int i = 0; i < 10000; i++) {
        g.waiter_page->park = (uint32_t)check_random(&state);
        rb_gate_ring(&g.waker);
    }
    close(g.eventfd);
    g.waker.eventfd = -1;
    for (uint32_t how = 0; how < 4; how++) {
        g.waiter_page->park = 1000u << 2 | how;
        CHECK_EQUAL(rb_gate_ring(&g.waker), how != RB_PARK_AWAKE);
    }
    gate_free(&g);
}

/* The other side shares the eventfd's flags: it may make it blocking, fill it, or leave it
 * empty. */
static void a_spoilt_eventfd_blocks_neither_side(void) {
    struct gate g = gate_new(0);
    uint64_t most = UINT64_MAX - 1, one = 1;
    CHECK(fcntl(g.eventfd, F_SETFL, 0) == 0);
    CHECK(write(g.eventfd, &most, sizeof most) == sizeof most);
    rb_gate_announce(&g.waiter, RB_PARK_EVENTFD);
    CHECK_EQUAL(rb_gate_ring(&g.waker), 1); /* a write() would block for ever */
    rb_gate_retract(&g.waiter);
    CHECK(read(g.eventfd, &most, sizeof most) == sizeof most);
    for (int i = 0; i < 100; i++) { /* each sleep finds one count and must not ask for another */
        CHECK(write(g.eventfd, &one, sizeof one) == sizeof one);
        CHECK_EQUAL(rb_gate_wait_by(&g.waiter, RB_PARK_EVENTFD, news, &g, ms / 10), 0);
    }
    gate_free(&g);
}

/* Of a pair of sockets each side has its own flags: nothing that the waiter does to its end makes
 * the waker wait, be it that it never reads, or is gone. */
static void a_bell_that_nobody_reads_blocks_nobody(void) {
    struct gate g = gate_new(0);
    int ends[2], least = 1;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    CHECK(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &least, sizeof least) == 0);
    g.waker.bell = ends[0];
    close(g.waiter.eventfd);
    g.waiter.eventfd = ends[1];
    CHECK(fcntl(ends[1], F_SETFL, 0) == 0);
    for (int i = 0; i < 10000; i++) {
        rb_gate_announce(&g.waiter, RB_PARK_EVENTFD);
        CHECK_EQUAL(rb_gate_ring(&g.waker), 1);
        rb_gate_retract(&g.waiter);
    }
    /* What had gathered wakes one sleep; the next one sleeps. */
    CHECK_EQUAL(rb_gate_wait_by(&g.waiter, RB_PARK_EVENTFD, news, &g, ms / 10), 0);
    char more;
    CHECK(recv(ends[1], &more, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    publish(&g, 1);
    CHECK_EQUAL(rb_gate_wait_by(&g.waiter, RB_PARK_EVENTFD, news, &g, ms), 1);
    g.waiter_page->seen = 1;
    close(ends[0]);
    CHECK_EQUAL(rb_gate_wait_by(&g.waiter, RB_PARK_EVENTFD, news, &g, ms), -ENOSYS);
    close(ends[1]);
    g.eventfd = g.waker.bell = -1;
    gate_free(&g);
}

static void the_spin_shrinks_by_long_parks_and_grows_by_hits_within_its_bounds(void) {
    struct gate g = gate_new(1000);
    for (int i = 0; i < 20; i++) rb_gate_wait(&g.waiter, news, &g, ms);
    CHECK_EQUAL(g.waiter.spin, 0);
    CHECK_EQUAL(g.waiter.last, RB_PARK_FUTEX);
    for (int i = 0; i < 20; i++) { /* a park that is over at once, then hits in the spin */
        int looks = 0;
        g.waiter.rest_until_ns =
            0; /* on a busy machine a yield of the one before may have cost a time slice */
        CHECK_EQUAL(rb_gate_wait(&g.waiter, at_the_second_look, &looks, ms), 1);
        CHECK(g.waiter.spin > 0);
        CHECK(g.waiter.spin <= 1000);
    }
    CHECK_EQUAL(g.waiter.last, RB_PARK_AWAKE);
    gate_free(&g);
}

static int count_looks(void *looks) {
    ++*(int *)looks;
    return 0;
}

static void no_spin_while_it_rests_from_a_yield_that_cost_a_time_slice(void) {
    struct gate g = gate_new(1000);
    int looks = 0;
    g.waiter.rest_until_ns = now_ns() + 3600000 * ms;
    CHECK_EQUAL(rb_gate_wait(&g.waiter, count_looks, &looks, ms), 0);
    CHECK(looks < 10); /* at first, at the announcement, after each sleep */
    CHECK_EQUAL(g.waiter.last, RB_PARK_FUTEX);
    gate_free(&g);
}

static void a_descriptor_beside_the_gate_ends_the_wait_and_so_does_the_gate(void) {
    struct gate g = gate_new(10);
    int fds[2];
    CHECK_EQUAL(pipe2(fds, O_CLOEXEC), 0);
    int64_t begin = now_ns();
    CHECK_EQUAL(rb_gate_wait_or_fd(&g.waiter, fds[0], POLLIN, news, &g, 20 * ms), 0);
    CHECK(now_ns() - begin >= 20 * ms);
    CHECK_EQUAL(g.waiter.last, RB_PARK_EVENTFD);
    CHECK_EQUAL(g.waiter_page->park & 3, RB_PARK_AWAKE);
    CHECK_EQUAL(write(fds[1], "x", 1), 1);
    CHECK_EQUAL(rb_gate_wait_or_fd(&g.waiter, fds[0], POLLIN, news, &g, -1), 1);
    CHECK_EQUAL(rb_gate_wait_or_fd(&g.waiter, fds[0], POLLIN, news, &g, 0), 1);
    publish(&g, 1);
    CHECK_EQUAL(rb_gate_wait_or_fd(&g.waiter, fds[1], POLLIN, news, &g, -1), 1);
    close(fds[1]); /* its end is something to be heard too */
    rb_store_relaxed(&g.waiter_page->seen, 1);
    CHECK_EQUAL(read(fds[0], &begin, 1), 1);
    CHECK_EQUAL(rb_gate_wait_or_fd(&g.waiter, fds[0], POLLIN, news, &g, -1), 1);
    close(fds[0]);
    gate_free(&g);
}

static void beside_a_descriptor_it_waits_without_a_bell_too(void) {
    struct gate g = gate_new(0);
    int fds[2];
    CHECK_EQUAL(pipe2(fds, O_CLOEXEC), 0);
    g.waiter.eventfd = -1;
    int64_t begin = now_ns();
    CHECK_EQUAL(rb_gate_wait_or_fd(&g.waiter, fds[0], POLLIN, news, &g, 30 * ms), 0);
    CHECK(now_ns() - begin >= 30 * ms);
    CHECK(g.waiter.sequence > 1);
    int looks = 0;
    CHECK_EQUAL(rb_gate_wait_or_fd(&g.waiter, fds[0], POLLIN, at_the_second_look, &looks, -1), 1);
    close(fds[0]);
    close(fds[1]);
    gate_free(&g);
}

/* --- no wake is lost ------------------------------------------------------------------------- */

/* The waiter's half: takes `rounds` publications one by one. A lost wake-up ends in a timeout. */
static uint32_t take_all(struct gate *g, int rounds, const uint32_t *how) {
    uint64_t state = 77;
    uint32_t parked = RB_PARK_AWAKE;
    for (int i = 0; i < rounds; i++) {
        int64_t begin = now_ns();
        int found;
        if (how) {
            for (int wait = (int)(check_random(&state) % 60); wait; wait--) rb_pause();
            g->waiter.spin = 0; /* or it would hardly ever park */
            found = *how == BESIDE
                        ? rb_gate_wait_or_fd(&g->waiter, g->quiet, POLLIN, news, g, 5000 * ms)
                        : rb_gate_wait_by(&g->waiter, *how, news, g, 5000 * ms);
        } else {
            g->waiter.spin = (uint32_t)(check_random(&state) % 64);
            found = rb_gate_wait(&g->waiter, news, g, 5000 * ms);
        }
        /* At its timeout a wait looks once more, so a lost wake-up shows as a wait of all that time. */
        if (found != 1 || now_ns() - begin > 4500 * ms) {
            rb_store_relaxed(&g->waiter_page->failed, i + 1);
            return parked;
        }
        if (g->waiter.last != RB_PARK_AWAKE) parked = g->waiter.last;
        rb_store_release(&g->waiter_page->seen, (uint64_t)i + 1);
    }
    return parked;
}

/* The waker's half: publishes one, waits (not by a gate) until it was taken: a second publication
 * would hide a lost wake-up. */
static void give_all(struct gate *g, int rounds) {
    uint64_t state = 99;
    for (int i = 0; i < rounds; i++) {
        /* Sweeps over the waiter's announcement, its second look and its way into the kernel. */
        for (int wait = (int)(check_random(&state) % 200); wait; wait--) rb_pause();
        publish(g, (uint64_t)i + 1);
        rb_gate_ring(&g->waker);
        for (int turns = 0; rb_load_acquire(&g->waiter_page->seen) != (uint64_t)i + 1; turns++) {
            if (rb_load_relaxed(&g->waiter_page->failed)) return;
            rb_pause();
            if (turns % 1024 == 1023) sched_yield();
        }
    }
}

struct waiter_thread {
    struct gate *gate;
    int rounds;
    const uint32_t *how;
};

static void *run_waiter(void *arg) {
    struct waiter_thread *t = arg;
    take_all(t->gate, t->rounds, t->how);
    return NULL;
}

static void between_threads(int rounds, const uint32_t *how) {
    struct gate g = gate_new(64);
    struct waiter_thread t = {&g, rounds, how};
    pthread_t thread;
    pthread_create(&thread, NULL, run_waiter, &t);
    give_all(&g, rounds);
    pthread_join(thread, NULL);
    CHECK_EQUAL(g.waiter_page->failed, 0);
    CHECK(g.waker.wakes >
          (uint64_t)rounds / 50); /* else the waiter hardly ever parked, and this tested nothing */
    gate_free(&g);
}

static void between_processes(int rounds, const uint32_t *how) {
    struct gate g = gate_new(64);
    pid_t waiter = check_fork();
    if (waiter == 0) {
        take_all(&g, rounds, how);
        _exit(g.waiter_page->failed ? 1 : 0);
    }
    close(g.waker.pidfd);
    g.waker.pidfd = (int)syscall(SYS_pidfd_open, waiter, 0);
    give_all(&g, rounds);
    CHECK_EQUAL(check_reap(waiter), 0);
    CHECK_EQUAL(g.waiter_page->failed, 0);
    CHECK(g.waker.wakes > (uint64_t)rounds / 50);
    gate_free(&g);
}

static void no_wake_is_lost_beside_a_descriptor(void) { between_processes(ROUNDS_OTHER, &beside); }
static void no_wake_is_lost_between_two_threads(void) { between_threads(ROUNDS, NULL); }
static void no_wake_is_lost_between_two_processes(void) { between_processes(ROUNDS, NULL); }
static void no_wake_is_lost_by_each_way_between_threads(void) {
    for (int i = 0; i < 3; i++) between_threads(ROUNDS_OTHER, &ways[i]);
}
static void no_wake_is_lost_by_each_way_between_processes(void) {
    for (int i = 0; i < 3; i++) between_processes(ROUNDS_OTHER, &ways[i]);
}

/* --- a futex that is refused ----------------------------------------------------------------- */

/* From here on futex(2) answers EPERM in this process, as under a seccomp filter of a container. */
static void refuse_futex(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        _exit(9);
}

static int wait_without_futex(int with_eventfd) {
    struct gate g = gate_new(0);
    pid_t waiter;
    int status;
    if (!with_eventfd) g.waiter.eventfd = -1;
    waiter = check_fork();
    if (waiter == 0) {
        refuse_futex();
        int parked = (int)take_all(&g, 100, NULL);
        if (g.waiter_page->failed) _exit(1);
        _exit(10 + parked);
    }
    close(g.waker.pidfd);
    g.waker.pidfd = (int)syscall(SYS_pidfd_open, waiter, 0);
    for (int i = 0; i < 100; i++) {
        struct timespec while_it_parks = {.tv_nsec = 100000};
        nanosleep(&while_it_parks, NULL);
        publish(&g, (uint64_t)i + 1);
        rb_gate_ring(&g.waker);
        while (rb_load_acquire(&g.waiter_page->seen) != (uint64_t)i + 1 && !g.waiter_page->failed)
            sched_yield();
    }
    status = check_reap(waiter);
    gate_free(&g);
    return status;
}

static void where_a_futex_is_refused_the_eventfd_serves_and_then_the_signal(void) {
    if (SANITIZED) return; /* the sanitizers' own locks need futexes */
    CHECK_EQUAL(wait_without_futex(1), 10 + RB_PARK_EVENTFD);
    CHECK_EQUAL(wait_without_futex(0), 10 + RB_PARK_SIGNAL);
}

int main(void) {
    sigset_t wake; /* in every thread, before the first one starts (gate.h) */
    sigemptyset(&wake);
    sigaddset(&wake, RB_WAKE_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &wake, NULL);

    RUN(news_that_is_there_is_found_without_parking);
    RUN(ready_may_answer_an_error);
    RUN(a_timeout_of_0_only_looks);
    RUN(each_way_gives_up_at_its_timeout_and_says_it_is_awake);
    RUN(a_timeout_longer_than_a_slice_is_kept);
    RUN(who_is_awake_is_not_rung);
    RUN(a_parking_is_rung_once_and_the_next_one_again);
    RUN(any_park_word_is_survived);
    RUN(a_spoilt_eventfd_blocks_neither_side);
    RUN(a_bell_that_nobody_reads_blocks_nobody);
    RUN(the_spin_shrinks_by_long_parks_and_grows_by_hits_within_its_bounds);
    RUN(no_spin_while_it_rests_from_a_yield_that_cost_a_time_slice);
    RUN(a_descriptor_beside_the_gate_ends_the_wait_and_so_does_the_gate);
    RUN(beside_a_descriptor_it_waits_without_a_bell_too);
    RUN(no_wake_is_lost_beside_a_descriptor);
    RUN(no_wake_is_lost_between_two_threads);
    RUN(no_wake_is_lost_between_two_processes);
    RUN(no_wake_is_lost_by_each_way_between_threads);
    RUN(no_wake_is_lost_by_each_way_between_processes);
    RUN(where_a_futex_is_refused_the_eventfd_serves_and_then_the_signal);
    return check_end();
}
