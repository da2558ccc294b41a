/* terminal.c: away from the bridge's terminal; and a pseudo-terminal for a worker that wants one.
 *
 * Programs that nobody wrote for us write line by line to a terminal and in blocks to a pipe. The
 * terminal passes bytes as they are, out and in: no echo, no carriage returns. Its window size
 * changes by command (SIGWINCH). When the last master is closed the worker's session is hung up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "shepherd_pvt.h"

/* Not setsid(): where the kernel schedules each session as one (autogroup, sched(7)), a worker in
 * another session than the relay is in another group, and who yields gives his core to his own group
 * alone. Relay and worker yield to one another when they share a core (decision 0052). */
int rb_leave_terminal(void) {
    int terminal = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC), left;
    if (terminal < 0) {
        left = errno == ENXIO; /* there is none */
    } else {
        left = ioctl(terminal, TIOCNOTTY) == 0;
        close(terminal);
    }
    if (left && setpgid(0, 0) == 0) return 0;
    return setsid() < 0 ? -errno : 0; /* one that we cannot name, or that has been hung up */
}

enum { ROWS = 24, COLUMNS = 80 }; /* until WINDOW_SIZE says otherwise */

static int make_plain(int terminal) {
    struct termios settings;
    if (tcgetattr(terminal, &settings) != 0) return -errno;
    settings.c_oflag &= ~(tcflag_t)OPOST;
    settings.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
    return tcsetattr(terminal, TCSANOW, &settings) == 0 ? 0 : -errno;
}

int rb_open_terminal(int *master, int *slave) {
    int ours = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), theirs = -1, unlock = 0, result;

    if (ours < 0) return -errno;
    if (ioctl(ours, TIOCSPTLCK, &unlock) == 0)
        theirs = ioctl(ours, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    result = theirs < 0 ? -errno : make_plain(theirs);
    if (result == 0) result = rb_resize_terminal(ours, ROWS, COLUMNS);
    if (result != 0) {
        rb_close(&theirs);
        rb_close(&ours);
        return result;
    }
    *master = ours;
    *slave = theirs;
    return 0;
}

int rb_resize_terminal(int master, uint32_t rows, uint32_t columns) {
    const struct winsize size = {.ws_row = (uint16_t)rows, .ws_col = (uint16_t)columns};
    if (rows < 1 || rows > UINT16_MAX || columns < 1 || columns > UINT16_MAX) return -EINVAL;
    return ioctl(master, TIOCSWINSZ, &size) == 0 ? 0 : -errno;
}

void rb_type_end_of_file(int master) {
    struct termios settings;
    if (tcgetattr(master, &settings) == 0 && (settings.c_lflag & ICANON)) {
        ssize_t ignored = write(master, &settings.c_cc[VEOF], 1);
        (void)ignored;
    }
}
