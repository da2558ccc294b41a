/* oom.c: was it the OOM killer?
 *
 * The kernel does not say so to the parent: the worker just dies of SIGKILL. But it counts its OOM
 * kills. A memory group of the worker's own has a count of its own ("oom_kill" in memory.events or,
 * of version 1, memory.oom_control): then it is sure. Without one there is the machine's (vmstat,
 * since 4.13): a SIGKILL during whose worker's life it rose is reported as "most likely OOM", and
 * someone else's OOM kill in the same life can make that wrong.
 */
#include <fcntl.h>
#include <unistd.h>

#include "shepherd_pvt.h"

uint64_t rb_oom_kills(int group_events) {
    static const char key[] = "\noom_kill ";
    char buffer[1024];
    size_t matched = 0;
    uint64_t value = 0;
    ssize_t size, i;
    off_t offset = 0;
    int fd = group_events >= 0 ? group_events : open("/proc/vmstat", O_RDONLY | O_CLOEXEC);

    if (fd < 0) return 0;
    for (; (size = pread(fd, buffer, sizeof buffer, offset)) > 0; offset += size)
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
    if (group_events < 0) close(fd);
    return value;
}
