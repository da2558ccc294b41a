/* shows_itself.c: prints what a worker has been given, one "name value" a line: descriptors with
 * what they are, argv, environment, ids, session, blocked and ignored signals, no_new_privs, cwd.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static void show_descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    struct dirent *entry;

    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        char target[256] = "";
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(directory)) continue;
        if (readlinkat(dirfd(directory), entry->d_name, target, sizeof target - 1) < 0) continue;
        printf("fd %s %s\n", entry->d_name, target);
    }
    if (directory != NULL) closedir(directory);
}

static void show_signals(void) {
    sigset_t blocked;
    struct sigaction action;
    int signum;

    sigprocmask(SIG_SETMASK, NULL, &blocked);
    for (signum = 1; signum < NSIG; signum++) {
        if (sigismember(&blocked, signum) == 1) printf("blocked %d\n", signum);
        if (sigaction(signum, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            printf("ignored %d\n", signum);
    }
}

int main(int argc, char **argv) {
    extern char **environ;
    char cwd[4096];
    char **entry;
    int i, parent_death = 0;

    show_descriptors();
    show_signals();
    for (i = 0; i < argc; i++) printf("argv %s\n", argv[i]);
    for (entry = environ; *entry != NULL; entry++) printf("env %s\n", *entry);
    prctl(PR_GET_PDEATHSIG, &parent_death);
    printf("pid %d\nppid %d\nsid %d\npgrp %d\nuid %d\n", getpid(), getppid(), getsid(0), getpgrp(),
           getuid());
    printf("no_new_privs %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    printf("parent_death_signal %d\n", parent_death);
    printf("cwd %s\n", getcwd(cwd, sizeof cwd) != NULL ? cwd : "?");
    return 0;
}
