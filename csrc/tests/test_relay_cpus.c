/* Where the relay and its worker run on two CPUs: when what is wanted, and that a process is moved. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "relay/cpus.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static struct rb_cpus_sight usual(void) {
    return (struct rb_cpus_sight){
        .working = 1, .ended = 1000, .service_ns = 500, .bytes = 1000 * 600};
}

static void small_jobs_of_few_callers_want_a_cpu_for_their_worker(void) {
    struct rb_cpus_sight seen = usual();
    CHECK_EQUAL(rb_cpus_wanted(RB_CPUS_FREE, &seen), RB_CPUS_APART);
    CHECK_EQUAL(rb_cpus_wanted(RB_CPUS_TOGETHER, &seen), RB_CPUS_APART);
}

static void large_ones_want_their_worker_where_their_payload_was_written(void) {
    struct rb_cpus_sight seen = usual();
    seen.bytes = seen.ended * RB_CPUS_LARGE;
    CHECK_EQUAL(rb_cpus_wanted(RB_CPUS_FREE, &seen), RB_CPUS_TOGETHER);
}

static void many_callers_several_workers_or_long_jobs_are_left_to_the_kernel(void) {
    struct rb_cpus_sight seen = usual();
    seen.pauses = 1;
    CHECK_EQUAL(rb_cpus_wanted(RB_CPUS_APART, &seen), RB_CPUS_FREE);
    seen = usual();
    seen.working = 2;
    CHECK_EQUAL(rb_cpus_wanted(RB_CPUS_APART, &seen), RB_CPUS_FREE);
    seen = usual();
    seen.service_ns = RB_CPUS_SHORT_NS;
    CHECK_EQUAL(rb_cpus_wanted(RB_CPUS_APART, &seen), RB_CPUS_FREE);
    seen = usual();
    seen.ended = 0; /* it runs one, since before the last look */
    CHECK_EQUAL(rb_cpus_wanted(RB_CPUS_TOGETHER, &seen), RB_CPUS_FREE);
}

static void a_pause_changes_nothing(void) {
    struct rb_cpus_sight seen = {0};
    CHECK_EQUAL(rb_cpus_wanted(RB_CPUS_APART, &seen), RB_CPUS_APART);
    CHECK_EQUAL(rb_cpus_wanted(RB_CPUS_FREE, &seen), RB_CPUS_FREE);
}

static int is_on(pid_t pid, int a, int b) {
    cpu_set_t has;
    CHECK_EQUAL(sched_getaffinity(pid, sizeof has, &has), 0);
    return CPU_COUNT(&has) == (a == b ? 1 : 2) && CPU_ISSET(a, &has) && CPU_ISSET(b, &has);
}
static void pin(pid_t pid, int a, int b) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(a, &set);
    CPU_SET(b, &set);
    CHECK_EQUAL(sched_setaffinity(pid, sizeof set, &set), 0);
}

/* A process that sleeps, on two CPUs; it is told by its pidfd, as the relay has it. 0: there are no two. */
static pid_t sleeper(int cpu[2], int *pidfd) {
    cpu_set_t may;
    int count = 0;
    CHECK_EQUAL(sched_getaffinity(0, sizeof may, &may), 0);
    for (int i = 0; i < CPU_SETSIZE && count < 2; i++) {
        if (CPU_ISSET(i, &may)) cpu[count++] = i;
    }
    if (count < 2) return 0; /* one CPU: nothing to move between */
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    pin(child, cpu[0], cpu[1]);
    *pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    CHECK(*pidfd >= 0);
    return child;
}

static void a_process_is_moved_to_one_cpu_and_back(void) {
    int cpu[2], pidfd;
    pid_t child = sleeper(cpu, &pidfd);
    if (child == 0) return;
    CHECK_EQUAL(rb_cpus_move(pidfd, cpu, -1, cpu[0]), 0);
    CHECK(is_on(child, cpu[0], cpu[0]));
    CHECK_EQUAL(rb_cpus_move(pidfd, cpu, cpu[0], cpu[1]), 0);
    CHECK(is_on(child, cpu[1], cpu[1]));
    CHECK_EQUAL(rb_cpus_move(pidfd, cpu, cpu[1], -1), 0);
    CHECK(is_on(child, cpu[0], cpu[1]));
    kill(child, SIGKILL);
    CHECK_EQUAL(waitpid(child, NULL, 0), child);
    CHECK(rb_cpus_move(pidfd, cpu, -1, -1) < 0); /* nobody else's process */
    close(pidfd);
}

static void one_that_somebody_else_has_pinned_stays_there(void) {
    int cpu[2], pidfd;
    pid_t child = sleeper(cpu, &pidfd);
    if (child == 0) return;
    pin(child, cpu[0], cpu[0]);
    CHECK_EQUAL(rb_cpus_move(pidfd, cpu, -1, cpu[1]), -EBUSY);
    CHECK_EQUAL(rb_cpus_move(pidfd, cpu, cpu[1], -1), -EBUSY);
    CHECK(is_on(child, cpu[0], cpu[0]));
    pin(child, cpu[0], cpu[1]); /* let go again */
    CHECK_EQUAL(rb_cpus_move(pidfd, cpu, cpu[0], cpu[1]), 0);
    CHECK(is_on(child, cpu[1], cpu[1]));
    kill(child, SIGKILL);
    CHECK_EQUAL(waitpid(child, NULL, 0), child);
    close(pidfd);
}

int main(void) {
    RUN(small_jobs_of_few_callers_want_a_cpu_for_their_worker);
    RUN(large_ones_want_their_worker_where_their_payload_was_written);
    RUN(many_callers_several_workers_or_long_jobs_are_left_to_the_kernel);
    RUN(a_pause_changes_nothing);
    RUN(a_process_is_moved_to_one_cpu_and_back);
    RUN(one_that_somebody_else_has_pinned_stays_there);
    return check_end();
}
