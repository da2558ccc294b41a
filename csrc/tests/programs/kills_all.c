/* kills_all.c: a hostile worker. Sends every signal to its init and to everything it can reach, and
 * reports what became of it: "init lives" or "init gone".
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
    int signum;

    for (signum = 1; signum < NSIG; signum++) {
        if (signum == SIGCHLD) continue; /* what every child sends its parent anyway */
        kill(getppid(), signum);
    }
    signal(SIGTERM, SIG_IGN);
    kill(-1, SIGTERM);
    errno = 0; /* EPERM: it is there, and not ours to signal */
    printf("init %s\n", getppid() == 1 && (kill(1, 0) == 0 || errno == EPERM) ? "lives" : "gone");
    return 0;
}
