/* report.c: how a worker does, as proc(5) and its control group tell it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shepherd_pvt.h"

/* All of a small file that the kernel makes up. Returns its size, 0 when it cannot be read. */
static size_t read_whole(int directory, const char *path, char *text, size_t size) {
    int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, size - 1);

    if (fd >= 0) close(fd);
    text[got > 0 ? got : 0] = 0;
    return got > 0 ? (size_t)got : 0;
}

enum { STATE = 3, USER_TICKS = 14, SYSTEM_TICKS = 15, THREADS = 20, RSS_PAGES = 24 }; /* proc(5) */

static void put_process(struct rb_message_report *report, pid_t pid) {
    char path[64], text[512];
    const char *at;
    uint64_t tick_us = 1000000u / (uint64_t)sysconf(_SC_CLK_TCK);
    int field;

    *stpcpy(rb_put_decimal(stpcpy(path, "/proc/"), (uint64_t)pid), "/stat") = 0;
    if (read_whole(AT_FDCWD, path, text, sizeof text) == 0) return;
    at = strrchr(text, ')'); /* the name before it may hold anything, but this is its end */
    for (field = STATE; at != NULL && field <= RSS_PAGES; field++) {
        uint64_t value;
        at = strchr(at, ' ');
        if (at == NULL) return;
        at++;
        value = strtoull(at, NULL, 10);
        if (field == STATE) report->process = (uint32_t)(unsigned char)*at;
        if (field == USER_TICKS) report->user_us = value * tick_us;
        if (field == SYSTEM_TICKS) report->system_us = value * tick_us;
        if (field == THREADS) report->threads = (uint32_t)value;
        if (field == RSS_PAGES) report->rss_bytes = value * (uint64_t)sysconf(_SC_PAGESIZE);
    }
}

void rb_put_report(struct rb_message_report *report, pid_t pid, const struct rb_groups *groups) {
    const char *name = groups->memory.joined_by_birth ? "memory.current" : "memory.usage_in_bytes";
    char text[32];

    put_process(report, pid);
    if (groups->memory.directory >= 0 &&
        read_whole(groups->memory.directory, name, text, sizeof text) > 0)
        report->memory_bytes = strtoull(text, NULL, 10);
}
