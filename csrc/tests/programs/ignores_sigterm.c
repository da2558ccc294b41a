/* ignores_sigterm.c: says "ready", then takes no notice of SIGTERM, SIGINT and SIGHUP. */
#include <signal.h>
#include <unistd.h>

int main(void) {
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    if (write(1, "ready\n", 6) != 6) return 1;
    for (;;) pause();
}
