/* sweep.c: end a whole tree without a namespace.
 *
 * A child subreaper inherits every orphan below it, daemonised ones included (prctl(2)). So killing
 * and reaping our children until there are none ends the tree: what a child leaves behind is our
 * child the moment it is dead.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shepherd_pvt.h"

#define CHILDREN_MAX 256 /* per round; there is always another round */

/* Our children, from /proc/thread-self/children (CONFIG_PROC_CHILDREN). Returns how many, or
 * -errno. The list may miss some while others end (proc(5)); the caller asks until there is
 * none. */
static int list_children(pid_t *children) {
    char buffer[1024];
    int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC), count = 0;
    pid_t pid = 0;
    ssize_t size, i;

    if (fd < 0) return -errno;
    while (count < CHILDREN_MAX && (size = read(fd, buffer, sizeof buffer)) > 0)
        for (i = 0; i < size && count < CHILDREN_MAX; i++) {
            if (buffer[i] >= '0' && buffer[i] <= '9') {
                pid = pid * 10 + (buffer[i] - '0');
            } else if (pid != 0) {
                children[count++] = pid;
                pid = 0;
            }
        }
    close(fd);
    return count;
}

void rb_sweep_children(pid_t group) {
    pid_t children[CHILDREN_MAX] = {0};
    int count, i;

    for (;;) {
        count = list_children(children);
        if (count < 0) {
            if (group > 0) kill(-group, SIGKILL);
            while (waitpid(-1, NULL, WNOHANG) > 0);
            return;
        }
        /* All first, then wait: a parent must not have the time to make another while we wait
         * for its sibling. */
        for (i = 0; i < count; i++) kill(children[i], SIGKILL);
        for (i = 0; i < count; i++)
            while (waitpid(children[i], NULL, 0) < 0 && errno == EINTR);
        if (count == 0 && waitpid(-1, NULL, WNOHANG) < 0) return;
    }
}
