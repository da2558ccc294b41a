/* hostile.c NAME=PID...: a worker that wants to know what is none of its business. Tries every way
 * into each of the processes, into the memory that it was given to read, and out to the network,
 * and says of each attempt what became of it, one "NAME ATTEMPT ERRNO" a line: "reached", or why
 * not. It harms nobody: signals are 0, tracing is let go at once, what is open is closed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define FDS_TRIED 32
#define PAGE_BYTES 4096

static const char *name_of(int error) {
    static char number[16];
    switch (error) {
    case EPERM: return "EPERM";
    case EACCES: return "EACCES";
    case ESRCH: return "ESRCH";
    case ENOENT: return "ENOENT";
    case EINVAL: return "EINVAL";
    case ENOSYS: return "ENOSYS";
    default: snprintf(number, sizeof number, "errno%d", error); return number;
    }
}

/* `result` < 0 with errno as system calls have it. */
static void say(const char *name, const char *attempt, long result) {
    printf("%s %s %s\n", name, attempt, result >= 0 ? "reached" : name_of(errno));
    fflush(stdout);
}

static long open_of(const char *pid, const char *file) {
    char path[128];
    int fd;
    snprintf(path, sizeof path, "/proc/%s/%s", pid, file);
    fd = open(path, O_RDONLY);
    if (fd >= 0) close(fd);
    return fd;
}

/* Any of its descriptors, by name. errno is that of the first. */
static long open_any_descriptor(const char *pid) {
    char file[32];
    int number, first = ENOENT;
    for (number = 0; number < FDS_TRIED; number++) {
        snprintf(file, sizeof file, "fd/%d", number);
        if (open_of(pid, file) >= 0) return 0;
        if (first == ENOENT) first = errno;
    }
    errno = first;
    return -1;
}

static long trace(pid_t pid) {
    long result = ptrace(PTRACE_SEIZE, pid, NULL, NULL);
    if (result == 0) {
        ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
        waitpid(pid, NULL, __WALL);
        ptrace(PTRACE_DETACH, pid, NULL, NULL);
    }
    return result;
}

/* An address that nobody has: EFAULT comes after the permission. */
static long read_memory(pid_t pid) {
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)16, 1};
    long result = process_vm_readv(pid, &here, 1, &there, 1, 0);
    return result < 0 && errno == EFAULT ? 0 : result;
}

static long take_descriptor(pid_t pid) {
    long pidfd = syscall(SYS_pidfd_open, pid, 0), result;
    if (pidfd < 0) return -1;
    result = syscall(SYS_pidfd_getfd, pidfd, 3, 0);
    if (result >= 0) close((int)result);
    if (result < 0 && errno == EBADF) result = 0; /* it was looked up: that is enough */
    close((int)pidfd);
    return result;
}

static void attack(const char *name, const char *pid_text) {
    pid_t pid = (pid_t)atoi(pid_text);
    say(name, "environ", open_of(pid_text, "environ"));
    say(name, "mem", open_of(pid_text, "mem"));
    say(name, "maps", open_of(pid_text, "maps"));
    say(name, "fds", open_any_descriptor(pid_text));
    say(name, "ptrace", trace(pid));
    say(name, "readv", read_memory(pid));
    say(name, "getfd", take_descriptor(pid));
    say(name, "signal", kill(pid, 0));
    say(name, "group", kill(-pid, 0));
}

static long map_writable(int fd) {
    void *at = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return -1;
    munmap(at, PAGE_BYTES);
    return 0;
}

/* The relay's side and the pool: given to be read. The own side (4) shows that it could be done. */
static void attack_memory(int fd) {
    char name[16], path[32];
    int again;

    snprintf(name, sizeof name, "fd%d", fd);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    say(name, "map", map_writable(fd));
    again = open(path, O_RDWR);
    say(name, "reopen", again < 0 ? -1 : map_writable(again));
    say(name, "write", pwrite(again < 0 ? fd : again, "x", 1, 0));
    say(name, "punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE_BYTES));
    say(name, "shrink", ftruncate(fd, 0));
    if (again >= 0) close(again);
}

static void attack_kernel(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    pid_t child;

    say("net", "tcp", fd);
    if (fd >= 0) close(fd);
    say("kernel", "unshare", unshare(CLONE_NEWUSER));
    say("kernel", "uring", syscall(SYS_io_uring_setup, 1, NULL) < 0 && errno == EFAULT ? 0 : -1);
    child = fork();
    if (child == 0) _exit(0);
    say("kernel", "fork", child);
    if (child > 0) waitpid(child, NULL, 0);
}

int main(int argc, char **argv) {
    int i;
    for (i = 1; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (equals == NULL) return 64;
        *equals = 0;
        attack(argv[i], equals + 1);
    }
    attack_memory(3);
    attack_memory(4);
    attack_memory(5);
    attack_kernel();
    return 0;
}
