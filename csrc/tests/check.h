/* check.h: the tests' own few macros. A test is a function whose name is the rule that it holds; a
 * failed CHECK says where and goes on, so that one run shows all of a rule's breaches. Each test
 * has a deadline: past it the program ends with a line. */
#ifndef RINGBRIDGE_TESTS_CHECK_H
#define RINGBRIDGE_TESTS_CHECK_H

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Wall time, for what hangs: a program that computes may share its core with twenty others. */
#define CHECK_DEADLINE_S 300

static int check_passed, check_failed, check_breaches;
static const char *check_name = "the program";

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition) && check_breaches++ < 10)                                        \
            printf("%s:%d: in %s: not %s\n", __FILE__, __LINE__, check_name, #condition); \
    } while (0)

#define CHECK_EQUAL(got, wanted)                                                                 \
    do {                                                                                         \
        long long check_got = (long long)(got), check_wanted = (long long)(wanted);              \
        if (check_got != check_wanted && check_breaches++ < 10)                                  \
            printf("%s:%d: in %s: %s is %lld, not %lld\n", __FILE__, __LINE__, check_name, #got, \
                   check_got, check_wanted);                                                     \
    } while (0)

static void check_too_slow(int signal) {
    static const char text[] = "a test ran past its deadline\n";
    (void)signal;
    if (write(STDOUT_FILENO, text, sizeof text - 1) < 0) _exit(3);
    _exit(2);
}

static inline void check_run(const char *name, void (*test)(void)) {
    check_name = name;
    check_breaches = 0;
    signal(SIGALRM, check_too_slow);
    alarm(CHECK_DEADLINE_S);
    test();
    alarm(0);
    if (check_breaches)
        check_failed++;
    else
        check_passed++;
}
#define RUN(test) check_run(#test, test)

static inline int check_end(void) {
    printf("%d passed, %d failed\n", check_passed, check_failed);
    return check_failed ? 1 : 0;
}

/* Memory that this process and its children share. */
static inline void *check_shared(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) abort();
    return p;
}

/* fork() without a buffer printed twice; the child has its own deadline and does not survive a test
 * that fails. */
static inline pid_t check_fork(void) {
    pid_t pid;
    fflush(stdout);
    pid = fork();
    if (pid < 0) abort();
    if (pid == 0) {
        check_breaches = 0;
        alarm(CHECK_DEADLINE_S);
    }
    return pid;
}

/* How the child ended: its exit status, or minus its signal. */
static inline int check_reap(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return 255;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* A small generator (xorshift64*): tests are the same in every run. */
static inline uint64_t check_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

#endif
