/* main.c: ringbridge-shepherd, one per worker: put the process in order, then run the automaton of
 * shepherd.c.
 *
 * Started by the bridge (bridge/workers/_spawner.py) with a Unix SOCK_SEQPACKET socket as
 * descriptor 3; the words on it are in ringbridge/shepherd_protocol.h.
 *
 * `ringbridge-shepherd port` is the other way round: started by a BEAM, to guard the bridge (port.c).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "port_pvt.h"
#include "shepherd_pvt.h"

#define EXIT_USAGE 64 /* sysexits.h */

static int is_our_socket(int fd) {
    int domain = 0, type = 0;
    socklen_t size = sizeof domain;

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX &&
           (size = sizeof type, getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size)) == 0 &&
           type == SOCK_SEQPACKET;
}

/* 0, 1 and 2 are taken from here on, so that no descriptor that matters ever gets one of these
 * numbers. */
static int hold_stdio(void) {
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
        if (fd < 0) return -errno;
    } while (fd <= 2);
    close(fd);
    return 0;
}

int main(int argc, char **argv) {
    static const char usage[] =
        "ringbridge-shepherd is started by the bridge, with a seqpacket socket as descriptor 3,\n"
        "or by a BEAM as the program of a port: ringbridge-shepherd port\n";

    if (argc == 2 && strcmp(argv[1], "port") == 0) return rb_port_run();
    if (!is_our_socket(RB_SHEPHERD_SOCKET_FD)) {
        ssize_t ignored = write(2, usage, sizeof usage - 1);
        (void)ignored;
        return EXIT_USAGE;
    }
    fcntl(RB_SHEPHERD_SOCKET_FD, F_SETFD, FD_CLOEXEC);
    if (hold_stdio() != 0 || syscall(SYS_close_range, RB_SHEPHERD_SOCKET_FD + 1, ~0U, 0) != 0)
        return EXIT_USAGE;
    rb_leave_terminal(); /* ^C there is the bridge's to hear */
    /* A stopped shepherd would not see the bridge die: the death itself wakes it. The signal
     * comes when the *thread* that forked us ends (prctl(2)), hence the bridge's spawner thread.
     * A bridge that died before this line is seen on the socket. */
    prctl(PR_SET_PDEATHSIG, SIGCONT, 0, 0, 0);
    return rb_shepherd_run(RB_SHEPHERD_SOCKET_FD);
}
