/* forks_tree.c [STATUS]: a child, a grandchild, and a daemon that left them all: double fork,
 * setsid, stdio closed, every signal that can be ignored ignored. Says "ready" when all are there.
 * With STATUS it then waits for the end of its stdin and exits with it, its tree still running;
 * without, it runs until it is ended.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void stay(int told) {
    char byte = 1;
    if (write(told, &byte, 1) != 1) _exit(1);
    close(told);
    for (;;) pause();
}

static void daemonise(int told) {
    int signum;
    if (setsid() < 0) _exit(1);
    if (fork() != 0) _exit(0); /* nobody waits for it: init's to reap */
    for (signum = 1; signum < NSIG; signum++) signal(signum, SIG_IGN);
    close(0);
    close(1);
    close(2);
    stay(told);
}

int main(int argc, char **argv) {
    int told[2], ready;
    char byte;

    if (pipe(told) != 0) return 1;
    if (fork() == 0) {
        if (fork() == 0) stay(told[1]);
        stay(told[1]);
    }
    if (fork() == 0) daemonise(told[1]);
    for (ready = 0; ready < 3; ready++)
        if (read(told[0], &byte, 1) != 1) return 1;
    if (write(1, "ready\n", 6) != 6) return 1;
    if (argc > 1) {
        while (read(0, &byte, 1) > 0);
        return atoi(argv[1]);
    }
    for (;;) pause();
}
