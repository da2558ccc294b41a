/* oom.c: was it the OOM killer?
 *
 * The kernel does not say so to the parent: the worker just dies of SIGKILL. But it counts its OOM
 * kills, those of a memory cgroup included (vmstat "oom_kill", since 4.13). A SIGKILL during whose
 * worker's life the count rose is reported as "most likely OOM"; someone else's OOM kill in the
 * same life can make that wrong.
 */
#include <fcntl.h>
#include <unistd.h>

#include "shepherd_pvt.h"

uint64_t rb_oom_kills(void) {
    static const char key[] = "\noom_kill ";
    char buffer[1024];
    size_t matched = 0;
    uint64_t value = 0;
    ssize_t size, i;
    int fd = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);

    if (fd < 0) return 0;
    while ((size = read(fd, buffer, sizeof buffer)) > 0)
        for (i = 0; i < size; i++) {
            char c = buffer[i];
            if (matched == sizeof key - 1) {
                if (c < '0' || c > '9') goto done;
                value = value * 10 + (uint64_t)(c - '0');
            } else {
                matched = c == key[matched] ? matched + 1 : c == '\n';
            }
        }
done:
    close(fd);
    return value;
}
