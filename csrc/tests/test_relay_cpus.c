/* Where the relay and its worker run on two CPUs: when what is wanted, and that a process is moved. */
#define _GNU_SOURCE
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

/* The process is told by its pidfd, as the relay has it. */
static void a_process_is_moved_to_one_cpu_and_back(void) {
    cpu_set_t may, has;
    int cpu[2], count = 0;
    CHECK_EQUAL(sched_getaffinity(0, sizeof may, &may), 0);
    for (int i = 0; i < CPU_SETSIZE && count < 2; i++) {
        if (CPU_ISSET(i, &may)) cpu[count++] = i;
    }
    if (count < 2) return; /* one CPU: nothing to move between */
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    CHECK(pidfd >= 0);
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(rb_cpus_move(pidfd, cpu, cpu[i]), 0);
        CHECK_EQUAL(sched_getaffinity(child, sizeof has, &has), 0);
        CHECK(CPU_COUNT(&has) == 1 && CPU_ISSET(cpu[i], &has));
    }
    CHECK_EQUAL(rb_cpus_move(pidfd, cpu, -1), 0);
    CHECK_EQUAL(sched_getaffinity(child, sizeof has, &has), 0);
    CHECK(CPU_COUNT(&has) == 2 && CPU_ISSET(cpu[0], &has) && CPU_ISSET(cpu[1], &has));
    kill(child, SIGKILL);
    CHECK_EQUAL(waitpid(child, NULL, 0), child);
    CHECK(rb_cpus_move(pidfd, cpu, -1) < 0); /* nobody else's process */
    close(pidfd);
}

int main(void) {
    RUN(small_jobs_of_few_callers_want_a_cpu_for_their_worker);
    RUN(large_ones_want_their_worker_where_their_payload_was_written);
    RUN(many_callers_several_workers_or_long_jobs_are_left_to_the_kernel);
    RUN(a_pause_changes_nothing);
    RUN(a_process_is_moved_to_one_cpu_and_back);
    return check_end();
}
